package elbsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

// backend is an HTTP server that answers with its name; it returns the target that it is.
func backend(t *testing.T, h http.HandlerFunc) target.Target {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return targetAt(t, srv.Listener.Addr())
}

func targetAt(t *testing.T, addr net.Addr) target.Target {
	t.Helper()
	port, err := portOf(addr)
	if err != nil {
		t.Fatal(err)
	}
	return target.Target{ID: testInstance, Port: port}
}

func portOf(addr net.Addr) (uint16, error) {
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return 0, err
	}
	return target.ParsePort(port)
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }
}

// unusedPort is a target where nothing listens.
func unusedPort(t *testing.T) target.Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return targetAt(t, l.Addr())
}

// balanced serves a Sim whose targets are taken for healthy at once.
func balancedSim(t *testing.T, cfg Config, prepare func(s *Sim)) (*Sim, *Server) {
	t.Helper()
	if cfg.Lags == nil {
		cfg.Lags = &Lags{}
	}
	s := New(cfg)
	prepare(s)
	return s, serve(t, s)
}

func addBalancer(t *testing.T, s *Sim, lb LoadBalancer) string {
	t.Helper()
	arn, err := s.AddLoadBalancer(lb)
	if err != nil {
		t.Fatal(err)
	}
	return arn
}

func mustRegister(t *testing.T, s *Sim, group string, targets ...target.Target) {
	t.Helper()
	if err := s.Register(group, targets...); err != nil {
		t.Fatal(err)
	}
}

// get asks a listener; header is name, value, …
func get(t *testing.T, c *http.Client, addr, path string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestBalancer_rules(t *testing.T) {
	_, srv := balancedSim(t, Config{}, func(s *Sim) {
		for _, name := range []string{"home", "img", "host", "canary", "write", "near", "none"} {
			addGroup(t, s, Group{Name: name, Detached: true})
			if name != "none" {
				mustRegister(t, s, name, backend(t, named(name)))
			}
		}
		rule := func(priority int, c Conditions, group string) Rule {
			return Rule{Priority: priority, Conditions: c, Action: ForwardTo(group)}
		}
		addBalancer(t, s, LoadBalancer{Name: "lb", Listeners: []Listener{{Address: "127.0.0.1:0", Default: ForwardTo("home"), Rules: []Rule{
			rule(40, Conditions{PathPattern: []string{"/img/*"}}, "img"),
			rule(30, Conditions{PathPattern: []string{"/img/*"}, HostHeader: []string{"*.example.com"}}, "host"),
			rule(20, Conditions{Header: map[string][]string{"X-Canary": {"yes", "1*"}}}, "canary"),
			rule(50, Conditions{PathPattern: []string{"/a", "/b?"}, Method: []string{"GET", "PUT"}}, "write"),
			rule(60, Conditions{PathPattern: []string{"/near"}, SourceIP: []string{"10.0.0.0/8", "127.0.0.0/8"}}, "near"),
			rule(61, Conditions{PathPattern: []string{"/far"}, SourceIP: []string{"10.0.0.0/8"}}, "near"),
			rule(70, Conditions{PathPattern: []string{"/none"}}, "none"),
			{Priority: 80, Conditions: Conditions{PathPattern: []string{"/fixed"}}, Action: Action{Fixed: &FixedResponse{Status: 418, ContentType: "text/plain", Body: "short and stout"}}},
		}}}})
	})
	c := newTransport(t)
	for _, test := range []struct {
		path   string
		header []string
		want   string
	}{
		{"/", nil, "200 home"},
		{"/img/a/b.png?x=/img/", nil, "200 img"},
		{"/imgs", nil, "200 home"},
		{"/img/x", []string{"Host", "WWW.Example.com:8080"}, "200 host"},
		{"/img/x", []string{"Host", "example.com"}, "200 img"},
		{"/img/x", []string{"X-Canary", "YES", "Host", "www.example.com"}, "200 canary"},
		{"/", []string{"X-Canary", "12"}, "200 canary"},
		{"/", []string{"X-Canary", "no"}, "200 home"},
		{"/a", nil, "200 write"},
		{"/b2", nil, "200 write"},
		{"/b", nil, "200 home"},
		{"/near", nil, "200 near"},
		{"/far", nil, "200 home"},
		{"/fixed", nil, "418 short and stout"},
	} {
		status, body := get(t, c, srv.ListenerAddr("home"), test.path, test.header...)
		if got := fmt.Sprintf("%d %s", status, body); got != test.want {
			t.Errorf("%s %v: got %s; want %s", test.path, test.header, got, test.want)
		}
	}
	status, body := get(t, c, srv.ListenerAddr("home"), "/none")
	if status != 503 || !strings.Contains(body, "<h1>503 Service Temporarily Unavailable</h1>") {
		t.Errorf("a group without targets: got %d %s", status, body)
	}
}

func TestBalancer_weights(t *testing.T) {
	s, srv := balancedSim(t, Config{Seed: 3}, func(s *Sim) {
		for _, name := range []string{"blue", "green", "off"} {
			addGroup(t, s, Group{Name: name, Detached: true})
			mustRegister(t, s, name, backend(t, named(name)))
		}
		addBalancer(t, s, LoadBalancer{Name: "lb", Listeners: []Listener{{Address: "127.0.0.1:0", Default: Action{Forward: []Weighted{{"blue", 3}, {"green", 1}, {"off", 0}}}}}})
	})
	c := newTransport(t)
	got := map[string]int{}
	for range 200 {
		_, body := get(t, c, srv.ListenerAddr("blue"), "/")
		got[body]++
	}
	if got["off"] != 0 || got["green"] < 20 || got["green"] > 80 || got["blue"]+got["green"] != 200 {
		t.Errorf("of 200 requests at 3:1:0: got %v", got)
	}
	var requests uint64
	for _, st := range s.Stats() {
		requests += st.Status2x
	}
	if requests != 200 {
		t.Errorf("stats count %d requests; want 200", requests)
	}
}

func TestBalancer_headers(t *testing.T) {
	seen := make(chan *http.Request, 1)
	_, srv := balancedSim(t, Config{}, func(s *Sim) {
		addGroup(t, s, Group{Name: "web"})
		mustRegister(t, s, "web", backend(t, func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Clone(context.Background())
			w.WriteHeader(http.StatusNoContent)
		}))
		if err := s.Forward("lb", "web", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	})
	addr := srv.ListenerAddr("web")
	get(t, newTransport(t), addr, "/a%2Fb?q=1;2", "Host", "shop.example.com", "X-Forwarded-For", "192.0.2.1")
	r := <-seen
	_, port, _ := net.SplitHostPort(addr)
	got := []string{r.Host, r.RequestURI, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Port"), r.Header.Get("X-Forwarded-Host")}
	want := []string{"shop.example.com", "/a%2Fb?q=1;2", "192.0.2.1, 127.0.0.1", "http", port, ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the target saw (-want +got):\n%s", diff)
	}
	if trace := r.Header.Get("X-Amzn-Trace-Id"); !strings.HasPrefix(trace, "Root=1-") {
		t.Errorf("got trace id %q", trace)
	}
}

// Where no target answers properly, the load balancer does: 502, 503, 504.
func TestBalancer_errors(t *testing.T) {
	release := make(chan struct{})
	raw := func(reply string) target.Target {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, reply)
				_ = conn.Close()
			}
		})
		t.Cleanup(func() { _ = l.Close(); serving.Wait() })
		return targetAt(t, l.Addr())
	}
	targets := map[string]target.Target{
		"refused":   unusedPort(t),
		"malformed": raw("HELLO\r\n\r\n"),
		"closed":    raw(""),
		"slow":      backend(t, func(_ http.ResponseWriter, r *http.Request) { <-release; _ = r }),
	}
	t.Cleanup(func() { close(release) })
	s, srv := balancedSim(t, Config{}, func(s *Sim) {
		var rules []Rule
		for name, one := range targets {
			addGroup(t, s, Group{Name: name, Detached: true})
			mustRegister(t, s, name, one)
			rules = append(rules, Rule{Priority: len(rules) + 1, Conditions: Conditions{PathPattern: []string{"/" + name}}, Action: ForwardTo(name)})
		}
		addGroup(t, s, Group{Name: "empty", Detached: true})
		addBalancer(t, s, LoadBalancer{Name: "lb", IdleTimeout: 2 * time.Second, Listeners: []Listener{{Address: "127.0.0.1:0", Rules: rules, Default: ForwardTo("empty")}}})
	})
	c := newTransport(t)
	for path, want := range map[string]int{"/refused": 502, "/malformed": 502, "/closed": 502, "/slow": 504, "/": 503} {
		if got, body := get(t, c, srv.ListenerAddr("empty"), path); got != want || !strings.Contains(body, strconv.Itoa(want)) {
			t.Errorf("%s: got %d %q; want %d", path, got, body, want)
		}
	}
	for _, st := range s.Stats() {
		if st.Errors != 1 || st.Requests != 1 || st.InFlight != 0 || st.LastError == "" {
			t.Errorf("stats of %s: got %+v; want one error, and why", st.Group, st)
		}
		if why := "connection refused"; st.Group == "refused" && !strings.Contains(st.LastError, why) {
			t.Errorf("the last error of %s is %q; want %q in it", st.Group, st.LastError, why)
		}
	}
}

func TestBalancer_refused(t *testing.T) {
	s := New(Config{})
	for _, g := range []Group{{Name: "web", Detached: true}, {Name: "tcp", Protocol: "TCP", Detached: true}, {Name: "taken", Detached: true}} {
		addGroup(t, s, g)
	}
	addBalancer(t, s, LoadBalancer{Name: "first", Listeners: []Listener{{Address: "127.0.0.1:0", Default: ForwardTo("taken")}}})
	path := Conditions{PathPattern: []string{"/"}}
	for want, lb := range map[string]LoadBalancer{
		"type: ":                        {Name: "x", Type: "gateway"},
		"name: ":                        {Name: "-x"},
		`name: "first": is taken`:       {Name: "first"},
		"listeners[0].protocol: ":       {Name: "x", Listeners: []Listener{{Protocol: "TCP", Default: ForwardTo("web")}}},
		"listeners[0].default: exactly": {Name: "x", Listeners: []Listener{{}}},
		"listeners[0].default.forward: target group nowhere": {Name: "x", Listeners: []Listener{{Default: ForwardTo("nowhere")}}},
		"default.forward: target group tcp: protocol TCP":    {Name: "x", Listeners: []Listener{{Default: ForwardTo("tcp")}}},
		"belongs to load balancer":                           {Name: "x", Listeners: []Listener{{Default: ForwardTo("taken")}}},
		"rules[0].priority: 0":                               {Name: "x", Listeners: []Listener{{Default: ForwardTo("web"), Rules: []Rule{{Conditions: path, Action: ForwardTo("web")}}}}},
		"rules[1].priority: 1":                               {Name: "x", Listeners: []Listener{{Default: ForwardTo("web"), Rules: []Rule{{1, path, ForwardTo("web")}, {1, path, ForwardTo("web")}}}}},
		"rules[0]: a rule needs":                             {Name: "x", Listeners: []Listener{{Default: ForwardTo("web"), Rules: []Rule{{1, Conditions{}, ForwardTo("web")}}}}},
		"rules[0].source_ip: ":                               {Name: "x", Listeners: []Listener{{Default: ForwardTo("web"), Rules: []Rule{{1, Conditions{SourceIP: []string{"10.0.0.1"}}, ForwardTo("web")}}}}},
		"default.fixed_response.status: 99":                  {Name: "x", Listeners: []Listener{{Default: Action{Fixed: &FixedResponse{Status: 99}}}}},
		"weight 1000":                                        {Name: "x", Listeners: []Listener{{Default: Action{Forward: []Weighted{{"web", 1000}}}}}},
		"rules: only application":                            {Name: "x", Type: "network", Listeners: []Listener{{Default: ForwardTo("tcp"), Rules: []Rule{{1, path, ForwardTo("tcp")}}}}},
		"fixed_response: only application":                   {Name: "x", Type: "network", Listeners: []Listener{{Default: Action{Fixed: &FixedResponse{Status: 200}}}}},
	} {
		if _, err := s.AddLoadBalancer(lb); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
	if err := s.Forward("x", "nowhere", "127.0.0.1:0"); !errors.Is(err, ErrUnknown) {
		t.Errorf("forward to no group: got %v", err)
	}
	if _, err := Start(New(Config{}), Listen{API: "256.0.0.1:1"}); err == nil {
		t.Error("listened nowhere")
	}
}
