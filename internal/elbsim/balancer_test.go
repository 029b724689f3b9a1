package elbsim

import (
	"bytes"
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
	"syscall"
	"testing"
	"testing/synctest"
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
		if st.Errors != 1 || st.Requests != 1 || st.InFlight != 0 {
			t.Errorf("stats of %s: got %+v; want one error", st.Group, st)
		}
	}
}

// Requests in flight on a draining target end well; new ones go elsewhere; at the end of the delay the rest is cut off.
func TestBalancer_draining(t *testing.T) {
	started, release := make(chan struct{}, 2), make(chan struct{})
	slow := func(w http.ResponseWriter, _ *http.Request) {
		started <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "slow")
	}
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut off %v", cut), func(t *testing.T) {
			delay := time.Hour
			if cut {
				delay = 200 * time.Millisecond
			}
			var old, fresh target.Target
			s, srv := balancedSim(t, Config{}, func(s *Sim) {
				addGroup(t, s, Group{Name: "web", DeregistrationDelay: delay})
				old, fresh = backend(t, slow), backend(t, named("fresh"))
				mustRegister(t, s, "web", old)
				if err := s.Forward("lb", "web", "127.0.0.1:0"); err != nil {
					t.Fatal(err)
				}
			})
			c := newTransport(t)
			var status int
			var body string
			var inFlight sync.WaitGroup
			inFlight.Go(func() { status, body = get(t, c, srv.ListenerAddr("web"), "/") })
			<-started
			mustRegister(t, s, "web", fresh)
			if err := s.Deregister("web", old); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				if _, body := get(t, c, srv.ListenerAddr("web"), "/"); body != "fresh" {
					t.Errorf("a new request went to the draining target: %s", body)
				}
			}
			if st := s.Stats(); len(st) != 2 {
				t.Errorf("stats: got %+v", st)
			}
			if cut {
				inFlight.Wait()
				if status != 502 {
					t.Errorf("in flight at the end of the delay: got %d %s; want 502", status, body)
				}
				release <- struct{}{}
				return
			}
			release <- struct{}{}
			inFlight.Wait()
			if status != 200 || body != "slow" {
				t.Errorf("in flight while draining: got %d %s", status, body)
			}
		})
	}
}

// A target that is registered again keeps what was in flight on it; otherwise it ends with the delay, where the load
// balancer does that.
func TestFlows_end(t *testing.T) {
	for name, test := range map[string]struct {
		protocol string
		revive   bool
		ends     bool
	}{
		"application": {"HTTP", false, true}, "revived": {"HTTP", true, false}, "network": {"TCP", false, false}, "datagrams": {"UDP", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{})
				arn := addGroup(t, s, Group{Name: "web", Protocol: test.protocol, DeregistrationDelay: time.Minute})
				mustRegister(t, s, arn, on(1)...)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				f := s.begin(&rule{groups: []weightedGroup{{s.groups[arn], 1}}}, cancel)
				if err := s.Deregister(arn, on(1)...); err != nil {
					t.Fatal(err)
				}
				if test.revive {
					mustRegister(t, s, arn, on(1)...)
				}
				time.Sleep(time.Minute - time.Nanosecond)
				if ctx.Err() != nil {
					t.Error("ended before the delay was over")
				}
				time.Sleep(time.Hour)
				if got := errors.Is(context.Cause(ctx), errDrained); got != test.ends {
					t.Errorf("after the delay: ended %v; want %v", got, test.ends)
				}
				s.done(f, 200)
				if got := s.Stats()[0]; got.InFlight != 0 || got.Requests != 1 {
					t.Errorf("stats: got %+v", got)
				}
			})
		})
	}
}

func TestBalancer_tcp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			echoing.Go(func() { defer conn.Close(); _, _ = io.Copy(conn, conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); echoing.Wait() })
	one := targetAt(t, l.Addr())
	s, srv := balancedSim(t, Config{}, func(s *Sim) {
		addGroup(t, s, Group{Name: "echo", Protocol: "TCP", DeregistrationDelay: time.Hour})
		addGroup(t, s, Group{Name: "nobody", Protocol: "TCP"})
		mustRegister(t, s, "echo", one)
		for _, g := range []string{"echo", "nobody"} {
			if err := s.Forward("nlb-"+g, g, "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
		}
	})
	dial := func(group string) *net.TCPConn {
		conn, err := net.Dial("tcp", srv.ListenerAddr(group))
		if err != nil {
			t.Fatal(err)
		}
		return conn.(*net.TCPConn)
	}
	conn := dial("echo")
	defer conn.Close()
	sent := bytes.Repeat([]byte("berth "), 100_000)
	var writing sync.WaitGroup
	writing.Go(func() { _, _ = conn.Write(sent); _ = conn.CloseWrite() })
	got, err := io.ReadAll(conn)
	writing.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("echo: got %d bytes, %v; want the %d sent", len(got), err, len(sent))
	}

	// A connection lives on while its target drains; new ones find nobody and are reset.
	open := dial("echo")
	defer open.Close()
	echoed := func() error {
		if _, err := open.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(open, make([]byte, 1))
		return err
	}
	if err := echoed(); err != nil {
		t.Fatal(err)
	}
	if err := s.Deregister("echo", one); err != nil {
		t.Fatal(err)
	}
	if err := echoed(); err != nil {
		t.Errorf("on a draining target: %v", err)
	}
	mustReset := func(what, group string) {
		t.Helper()
		conn, err := net.Dial("tcp", srv.ListenerAddr(group))
		if err == nil { // the reset may be faster than the dialer
			defer conn.Close()
			_, err = conn.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %v; want a reset", what, err)
		}
	}
	mustReset("the only target drains", "echo")
	mustReset("no target", "nobody")
	mustRegister(t, s, "echo", unusedPort(t))
	mustReset("a target that refuses", "echo")
}

func TestBalancer_udp(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	})
	t.Cleanup(func() { _ = socket.Close(); echoing.Wait() })
	s, srv := balancedSim(t, Config{}, func(s *Sim) {
		addGroup(t, s, Group{Name: "dns", Protocol: "UDP"})
		mustRegister(t, s, "dns", targetAt(t, socket.LocalAddr()))
		if err := s.Forward("nlb", "dns", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	})
	conn, err := net.Dial("udp", srv.ListenerAddr("dns"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 1500)
	for _, word := range []string{"one", "two"} {
		if _, err := io.WriteString(conn, word); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != strings.ToUpper(word) {
			t.Errorf("got %q, %v; want %s in capitals", buf[:n], err, word)
		}
	}
	if st := s.Stats(); len(st) != 1 || st[0].Requests != 1 || st[0].InFlight != 1 {
		t.Errorf("got %+v; want one flow for both datagrams", st)
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
