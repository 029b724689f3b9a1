package contract

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/status"
)

// This file alone knows Go types of the program: those of the requests and answers under /v1.

// full sets every field that v points to, nested ones too, to something that is not its zero value; lists get one
// element. What is set depends on the type alone.
func full(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(fixed))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			full(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		full(t, v.Index(0))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8: // an enumeration
		v.SetUint(1)
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(7)
	case reflect.Int:
		v.SetInt(7)
	default:
		t.Fatalf("a field of type %s: say in this test what it is set to", v.Type())
	}
}

// Every field of every request and answer, by its name in JSON, and which of them are left out when they are empty. The
// golden file is read back into what was written.
func TestWire(t *testing.T) {
	t.Parallel()
	for _, empty := range []any{
		status.V1{},
		status.Readiness{},
		status.ErrorV1{},
		status.DrainRequestV1{},
		status.DrainedV1{},
		status.UndrainedV1{},
		status.PruneV1{},
		status.PrunedV1{},
		status.ReloadedV1{},
		status.ExplainedV1{},
	} {
		name := reflect.TypeOf(empty).Name()
		t.Run(name, func(t *testing.T) {
			filled := reflect.New(reflect.TypeOf(empty))
			full(t, filled.Elem())
			file := "wire/" + name + ".json"
			golden(t, file, indented(t, filled.Elem().Interface()))
			golden(t, "wire/"+name+"_empty.json", indented(t, empty))

			read := reflect.New(reflect.TypeOf(empty))
			dec := json.NewDecoder(bytes.NewReader(goldenFile(t, file)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(read.Interface()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(filled.Elem().Interface(), read.Elem().Interface()); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
		})
	}
}

func indented(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// The closed sets of words in the answers: names and values.
func TestWire_words(t *testing.T) {
	t.Parallel()
	golden(t, "wire/words.json", indented(t, map[string]any{
		"api": status.APIVersion, "row.state": status.States(),
		"step.outcome": []string{status.StepOK, status.StepWait, status.StepStop},
	}))
}
