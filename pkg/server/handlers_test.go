package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

func TestHandlers_readyz(t *testing.T) {
	var a agent
	s := unserved(t, &a)
	rec := get(t, s.MonitoringHandler(), "/readyz")
	if rec.Code != http.StatusServiceUnavailable || !strings.HasSuffix(rec.Body.String(), "not ready\n") {
		t.Errorf("before anything: got %d %q; want 503, not ready", rec.Code, rec.Body)
	}
	a.well()
	for _, ask := range []struct {
		path   string
		header []string
		json   bool
	}{
		{"/readyz", nil, false},
		{"/readyz?format=json", nil, true},
		{"/readyz", []string{"Accept", "application/json"}, true},
		{"/readyz?format=text", []string{"Accept", "application/json"}, false},
	} {
		rec := get(t, s.StatusHandler(), ask.path, ask.header...)
		if rec.Code != http.StatusOK {
			t.Errorf("%s %v: got %d %s; want 200", ask.path, ask.header, rec.Code, rec.Body)
		}
		var got Readiness
		if err := json.Unmarshal(rec.Body.Bytes(), &got); (err == nil && got.Ready) != ask.json {
			t.Errorf("%s %v: got %s; want JSON %v", ask.path, ask.header, rec.Body, ask.json)
		}
	}
}

func TestHandlers_healthz(t *testing.T) {
	a := agent{beat: time.Now()}
	s := unserved(t, &a)
	if rec := get(t, s.MonitoringHandler(), "/healthz"); rec.Code != http.StatusOK {
		t.Errorf("turning: got %d %s; want 200", rec.Code, rec.Body)
	}
	s.started = time.Now().Add(-time.Hour)
	a.beat = time.Now().Add(-time.Minute)
	rec := get(t, s.MonitoringHandler(), "/healthz")
	if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "watcher has not turned") {
		t.Errorf("stuck: got %d %s; want 503 that names the loop", rec.Code, rec.Body)
	}
}

const wellStatus = `{
  "api": "v1",
  "at": "2026-11-22T10:05:00Z",
  "revision": "1-18ea55c83f09f000",
  "seq": 1,
  "generation": 1,
  "connected": true,
  "agent": {"version": "1.2.3", "revision": "0123abc", "go_version": "go1.26", "pid": 7, "started_at": "2026-11-22T10:00:00Z"},
  "readiness": {
    "ready": true,
    "checks": [
      {"name": "docker", "ok": true, "detail": "the event stream is up (docker 28.5.2, API 1.51)"},
      {"name": "identity", "ok": true, "detail": "i-0123456789abcdef0"},
      {"name": "credentials", "ok": true, "detail": "calls to AWS can be made"},
      {"name": "target_group web", "ok": true, "detail": "ok, 1 target"}
    ]
  },
  "host": {"instance_id": "i-0123456789abcdef0", "region": "eu-central-1"},
  "docker": {"up": true, "since": "2026-11-22T10:00:00Z", "reconnects": 0, "engine": "docker 28.5.2", "api_version": "1.51"},
  "drains": [],
  "target_groups": [
    {
      "keys": ["web"], "name": "web-prod", "arn": "arn:web", "state": "ok", "seq": 1, "tried": true,
      "verified_at": "2026-11-22T10:02:00Z",
      "counts": {"desired": 1, "registered": 1, "healthy": 1, "refused": 0, "unclaimed": 0}
    }
  ],
  "rows": [
    {
      "container": {"id": "%s", "name": "web-1", "started_at": "2026-11-22T10:00:00Z"},
      "target_group": "web", "container_port": {"port": 8080, "protocol": "tcp"}, "host_port": 32768,
      "target": {"id": "i-0123456789abcdef0", "port": 32768}, "state": "healthy", "since": "2026-11-22T10:02:00Z",
      "why": "it passes its health checks", "health": "healthy"
    }
  ]
}`

// The JSON is an interface: this test changes only when a field is added.
func TestStatusOf_golden(t *testing.T) {
	d, r := wellSnapshots()
	build := Build{Version: "1.2.3", Revision: "0123abc", GoVersion: "go1.26"}
	s := statusOf(t0.Add(5*time.Minute), AgentV1{build, 7, t0}, Host{InstanceID: instance, Region: "eu-central-1"}, d, r)
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(fmt.Appendf(nil, wellStatus, runOf("web-1").ID), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	var back StatusV1
	if err := json.Unmarshal(body, &back); err != nil {
		t.Fatalf("the answer does not fit its own type: %v", err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// Lists are never null, whatever is missing: scripts iterate over them.
func TestStatusOf_nothing(t *testing.T) {
	var a agent
	rec := get(t, unserved(t, &a).StatusHandler(), "/v1/status")
	var got map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"rows", "target_groups", "drains"} {
		if _, ok := got[list].([]any); !ok {
			t.Errorf("%s: got %v; want an empty list", list, got[list])
		}
	}
}

func TestStatusOf_drains(t *testing.T) {
	d := wants()
	d.Drains = []discovery.Drain{
		{ID: "1", Cause: "spot", Since: t0},
		{ID: "2", Cause: "stop_signal", Container: "c", Hold: discovery.HoldRun},
		{ID: "3", Cause: "operator", By: "uid 1000", Container: "c", Hold: discovery.HoldConnection},
	}
	want := []DrainV1{
		{ID: "1", Cause: "spot", Since: t0, Hold: "keep"},
		{ID: "2", Cause: "stop_signal", Container: "c", Hold: "run"},
		{ID: "3", Cause: "operator", By: "uid 1000", Container: "c", Hold: "connection"},
	}
	if diff := cmp.Diff(want, statusOf(t0, AgentV1{}, Host{}, d, nil).Drains); diff != "" {
		t.Errorf("drains (-want +got):\n%s", diff)
	}
}

// What is configured is shown before anything of it is known, and that nothing is.
func TestStatusOf_untaken(t *testing.T) {
	d := &discovery.Snapshot{Seq: 3, Wants: map[string][]target.Want{"web": nil, "api": {wantOf("api", "api-1", 8080, 32768)}}}
	untaken := []GroupV1{
		{Keys: []string{"api"}, State: registrar.StateWaiting, Counts: Counts{Desired: 1}},
		{Keys: []string{"web"}, State: registrar.StateWaiting},
	}
	for name, r := range map[string]*registrar.Snapshot{
		"no registrar":            nil,
		"not connected":           {},
		"connected, nothing told": {Connected: true},
	} {
		s := statusOf(t0, AgentV1{}, Host{}, d, r)
		if diff := cmp.Diff(untaken, s.Groups); diff != "" || s.Connected {
			t.Errorf("%s: connected %v, groups (-want +got):\n%s", name, s.Connected, diff)
		}
	}
	left := registrar.GroupStatus{ARN: "arn:old", Name: "a", State: registrar.StateWaiting}
	s := statusOf(t0, AgentV1{}, Host{}, d, groups(okGroup(), left))
	var labels []string
	for _, g := range s.Groups {
		labels = append(labels, g.Label()+" "+g.State)
	}
	if diff := cmp.Diff([]string{"api waiting", "web ok", "a waiting"}, labels); diff != "" || !s.Connected {
		t.Errorf("one taken up: connected %v, groups (-want +got):\n%s", s.Connected, diff)
	}
}

// Two keys of one group that want one target: the group has one.
func TestStatusOf_twoKeys(t *testing.T) {
	a, b := wantOf("web", "web-1", 8080, 32768), wantOf("www", "web-1", 8080, 32768)
	g := okGroup(registrar.TargetStatus{Target: at(32768), Phase: registrar.Registered, Health: "healthy", Wants: []target.Want{a, b}})
	g.Keys = []string{"web", "www"}
	s := statusOf(t0, AgentV1{}, Host{}, &discovery.Snapshot{Wants: map[string][]target.Want{"web": {a}, "www": {b}}}, groups(g))
	if got, want := s.Groups[0].Counts, (Counts{Desired: 1, Registered: 1, Healthy: 1}); got != want {
		t.Errorf("counts: got %+v; want %+v", got, want)
	}
	if len(s.Rows) != 2 {
		t.Errorf("got %d rows; want one for each key", len(s.Rows))
	}
}

func TestHandlers_statusBadQuery(t *testing.T) {
	var a agent
	s := unserved(t, &a)
	for _, timeout := range []string{"soon", "-1s", "5"} {
		rec := get(t, s.StatusHandler(), "/v1/status?timeout="+timeout)
		var e ErrorV1
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || rec.Code != http.StatusBadRequest || !strings.Contains(e.Err, timeout) {
			t.Errorf("timeout=%s: got %d %s; want 400 that shows the value", timeout, rec.Code, rec.Body)
		}
	}
	for path, want := range map[string]int{"/v2/status": 404, "/v1/": 404, "/nonsense": 404} {
		if rec := get(t, s.StatusHandler(), path); rec.Code != want {
			t.Errorf("%s: got %d; want %d", path, rec.Code, want)
		}
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/status", strings.NewReader("{}"))
	rec := httptest.NewRecorder()
	s.StatusHandler().ServeHTTP(rec, req)
	if rec.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d; want 405", rec.Code)
	}
}

// bubbled is a server inside synctest: no sockets.
func bubbled(a *agent) *Server {
	return &Server{
		cfg: a.config(), limits: defaultLimits(), follower: newFollower(a.follow),
		polls: make(chan struct{}, 2), done: make(chan struct{}),
	}
}

// ask sends a request in a goroutine; its answer comes on the channel.
func ask(ctx context.Context, s *Server, path string) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		rec := httptest.NewRecorder()
		s.StatusHandler().ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody))
		answer <- rec
	}()
	return answer
}

func answered(c <-chan *httptest.ResponseRecorder) bool {
	synctest.Wait()
	return len(c) == 1
}

func TestHandlers_longPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a agent
		a.well()
		s := bubbled(&a)
		now := s.Status().Revision
		if !answered(ask(t.Context(), s, "/v1/status?after=another")) {
			t.Error("another revision is not answered at once")
		}

		c := ask(t.Context(), s, "/v1/status?after="+now+"&follow=web,nonsense")
		time.Sleep(10 * time.Second)
		if answered(c) {
			t.Fatal("answered before anything changed")
		}
		if diff := cmp.Diff(map[string]int{"web": 1}, a.followed()); diff != "" {
			t.Errorf("followed while it waits (-want +got):\n%s", diff)
		}
		r, _ := a.reg.Get()
		next := *r
		next.At = t2.Add(time.Second)
		a.reg.Set(&next)
		if !answered(c) {
			t.Fatal("a change of the registrar is not answered")
		}
		var got StatusV1
		if err := json.Unmarshal((<-c).Body.Bytes(), &got); err != nil || got.Revision == now {
			t.Errorf("got revision %s, %v; want another", got.Revision, err)
		}

		c = ask(t.Context(), s, "/v1/status?after="+got.Revision)
		if answered(c) {
			t.Fatal("answered before anything changed")
		}
		d := wants()
		d.Seq = 2
		a.disc.Set(d)
		if !answered(c) {
			t.Error("a change of discovery is not answered")
		}

		start := time.Now()
		c = ask(t.Context(), s, "/v1/status?after="+s.Status().Revision+"&timeout=7s")
		<-c
		if waited := time.Since(start); waited != 7*time.Second {
			t.Errorf("nothing changed: answered after %v; want the timeout of 7s", waited)
		}
		start = time.Now()
		<-ask(t.Context(), s, "/v1/status?after="+s.Status().Revision+"&timeout=100h")
		if waited := time.Since(start); waited != MaxWait {
			t.Errorf("a long timeout: answered after %v; want %v", waited, MaxWait)
		}
		s.follower.close()
	})
}

func TestHandlers_longPollEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a agent
		a.well()
		s := bubbled(&a)
		path := "/v1/status?follow=*&after=" + s.Status().Revision

		ctx, leave := context.WithCancel(t.Context())
		c := ask(ctx, s, path)
		if answered(c) {
			t.Fatal("answered before anything changed")
		}
		leave()
		if !answered(c) {
			t.Error("goes on after its client has left")
		}
		time.Sleep(followLinger)
		synctest.Wait()
		if diff := cmp.Diff(map[string]int{}, a.followed()); diff != "" {
			t.Errorf("followed after the client has left (-want +got):\n%s", diff)
		}

		c, d := ask(t.Context(), s, path), ask(t.Context(), s, path)
		synctest.Wait()
		if rec := <-ask(t.Context(), s, path); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
			t.Errorf("beyond the limit: got %d %s; want 503 with Retry-After", rec.Code, rec.Body)
		}
		if rec := <-ask(t.Context(), s, "/v1/status"); rec.Code != http.StatusOK {
			t.Errorf("without waiting: got %d; want 200 whatever others wait for", rec.Code)
		}
		close(s.done)
		if !answered(c) || !answered(d) {
			t.Error("waits on although the server ends")
		}
		s.follower.close()
	})
}

func TestHandlers_page(t *testing.T) {
	var a agent
	s := unserved(t, &a)
	if rec := get(t, s.StatusHandler(), "/"); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "Not ready") {
		t.Errorf("before anything: got %d %s; want a page that says so", rec.Code, rec.Body)
	}
	a.well()
	d, _ := a.disc.Get()
	evil := *d
	evil.Decisions = append(evil.Decisions, discovery.Decision{
		Run: target.Run{ID: "x", Name: "x"}, Group: `"><script>alert(1)</script>`, Verdict: discovery.Refused, Why: "no such group",
	})
	evil.Drains = []discovery.Drain{{ID: "1", Cause: "spot", Since: t0}}
	a.disc.Set(&evil)
	rec := get(t, s.StatusHandler(), "/")
	body := rec.Body.String()
	for _, want := range []string{"Ready.", instance + ":32768", "web-1", "web-prod", "&lt;script&gt;", "The host drains"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in the page", want)
		}
	}
	if strings.Contains(body, "<script>") {
		t.Error("a label's text became markup")
	}
	if got := rec.Header().Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
		t.Errorf("Content-Security-Policy: got %q", got)
	}
}

func TestHandlers_monitoringIndex(t *testing.T) {
	var a agent
	s := unserved(t, &a)
	if rec := get(t, s.MonitoringHandler(), "/"); !strings.Contains(rec.Body.String(), "/metrics") {
		t.Errorf("got %s; want a list of what is there", rec.Body)
	}
	// What names containers is not for other hosts.
	if rec := get(t, s.MonitoringHandler(), "/v1/status"); rec.Code != http.StatusNotFound {
		t.Errorf("/v1/status: got %d; want 404", rec.Code)
	}
}

func TestMeaningOf(t *testing.T) {
	for reason, m := range meanings {
		if got := meaningOf("unhealthy", reason); got != m || got.why == "" {
			t.Errorf("%s: got %+v; want %+v", reason, got, m)
		}
	}
	for _, tt := range [][3]string{
		{"healthy", "", "it passes its health checks"},
		{"", "", "it is registered; its health has not been looked at yet"},
		{"initial", "", "the load balancer says initial and gives no reason"},
		{"unhealthy", "Target.New", "the load balancer says unhealthy (Target.New)"},
	} {
		if got := meaningOf(tt[0], tt[1]).why; got != tt[2] {
			t.Errorf("%q, %q: got %q; want %q", tt[0], tt[1], got, tt[2])
		}
	}
}

func BenchmarkStatus_500containers(b *testing.B) {
	var a agent
	d := &discovery.Snapshot{Wants: map[string][]target.Want{"web": nil}}
	g := okGroup()
	for i := range 500 {
		w := wantOf("web", "web", 8080, uint16(32768+i))
		w.Run.ID, w.Run.Name = fmt.Sprintf("%064x", i), fmt.Sprintf("web-%d", i)
		d.Wants["web"] = append(d.Wants["web"], w)
		d.Decisions = append(d.Decisions, decided(w, discovery.Wanted, "its label names web"))
		g.Targets = append(g.Targets, registrar.TargetStatus{
			Target: at(w.HostPort4), Phase: registrar.Registered, Health: "healthy", Wants: []target.Want{w}, Run: w.Run,
		})
	}
	a.disc.Set(d)
	a.reg.Set(groups(g))
	s := bubbled(&a)
	for b.Loop() {
		rec := httptest.NewRecorder()
		s.StatusHandler().ServeHTTP(rec, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/v1/status", http.NoBody))
		if rec.Code != http.StatusOK {
			b.Fatal(rec.Code)
		}
	}
}
