package server

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/status"
)

// docs/http.md is an interface's description: what it leaves out nobody finds, and what it invents nobody gets.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, state := range status.States() {
		if !strings.Contains(doc, "| `"+string(state)+"` |") {
			t.Errorf("state %s is not described", state)
		}
	}
	for _, name := range ownMetrics {
		if !strings.Contains(doc, "`"+name) {
			t.Errorf("metric %s is not described", name)
		}
	}
	exported := names{}
	registrar.NewMetrics(exported)
	discovery.NewMetrics(exported)
	for _, name := range ownMetrics {
		exported[name] = true
	}
	for _, name := range regexp.MustCompile("`(berth_[a-z_]+)").FindAllStringSubmatch(doc, -1) {
		if !exported[name[1]] {
			t.Errorf("metric %s is described and not exported", name[1])
		}
	}
	fields := names{}
	jsonNames(reflect.TypeFor[status.V1](), fields)
	for name := range fields {
		if !regexp.MustCompile(`["` + "`." + `]` + name + `["` + "`" + `]`).MatchString(doc) {
			t.Errorf("field %s is not described", name)
		}
	}

	// The example is an answer: it fits the type, and holds no field that the type does not have.
	_, example, _ := strings.Cut(doc, "```json\n")
	example, _, _ = strings.Cut(example, "```")
	dec := json.NewDecoder(strings.NewReader(example))
	dec.DisallowUnknownFields()
	var s status.V1
	if err := dec.Decode(&s); err != nil {
		t.Errorf("the example: %v", err)
	}
}

// names is a set. As a registerer it collects the names of the metrics that are registered with it.
type names map[string]bool

func (n names) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		_, name, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		n[name] = true
	}
	return nil
}

func (n names) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = n.Register(c)
	}
}

func (names) Unregister(prometheus.Collector) bool { return false }

// jsonNames collects the names of every field that can be in the JSON of a type.
func jsonNames(t reflect.Type, fields names) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		jsonNames(t.Elem(), fields)
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && name != "-" {
				fields[name] = true
			}
			jsonNames(f.Type, fields)
		}
	default:
	}
}
