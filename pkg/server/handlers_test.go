package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
	"berth/pkg/status/statustest"
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
		var got status.Readiness
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

func TestHandlers_statusBadQuery(t *testing.T) {
	var a agent
	s := unserved(t, &a)
	for _, timeout := range []string{"soon", "-1s", "5"} {
		rec := get(t, s.StatusHandler(), "/v1/status?timeout="+timeout)
		var e status.ErrorV1
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
		cfg: a.config(), limits: defaultLimits(), done: make(chan struct{}),
		socket: access{newFollower(a.follow), make(chan struct{}, 2)}, tcp: access{nil, make(chan struct{}, 2)},
	}
}

// ask sends a request in a goroutine; its answer comes on the channel.
func ask(ctx context.Context, h http.Handler, path string) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody))
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
		if !answered(ask(t.Context(), s.controlHandler(), "/v1/status?after=another")) {
			t.Error("another revision is not answered at once")
		}

		c := ask(t.Context(), s.controlHandler(), "/v1/status?after="+now+"&follow=web,nonsense")
		time.Sleep(10 * time.Second)
		if answered(c) {
			t.Fatal("answered before anything changed")
		}
		if diff := cmp.Diff(map[string]int{"web": 1}, a.followed()); diff != "" {
			t.Errorf("followed while it waits (-want +got):\n%s", diff)
		}
		r, _ := a.reg.Get()
		next := *r
		next.At = statustest.T2.Add(time.Second)
		a.reg.Set(&next)
		if !answered(c) {
			t.Fatal("a change of the registrar is not answered")
		}
		var got status.V1
		if err := json.Unmarshal((<-c).Body.Bytes(), &got); err != nil || got.Revision == now {
			t.Errorf("got revision %s, %v; want another", got.Revision, err)
		}

		c = ask(t.Context(), s.controlHandler(), "/v1/status?after="+got.Revision)
		if answered(c) {
			t.Fatal("answered before anything changed")
		}
		d := statustest.Discovery()
		d.Seq = 2
		a.disc.Set(d)
		if !answered(c) {
			t.Error("a change of discovery is not answered")
		}

		start := time.Now()
		c = ask(t.Context(), s.controlHandler(), "/v1/status?after="+s.Status().Revision+"&timeout=7s")
		<-c
		if waited := time.Since(start); waited != 7*time.Second {
			t.Errorf("nothing changed: answered after %v; want the timeout of 7s", waited)
		}
		start = time.Now()
		<-ask(t.Context(), s.controlHandler(), "/v1/status?after="+s.Status().Revision+"&timeout=100h")
		if waited := time.Since(start); waited != status.MaxWait {
			t.Errorf("a long timeout: answered after %v; want %v", waited, status.MaxWait)
		}
		s.socket.follower.close()
	})
}

func TestHandlers_longPollEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a agent
		a.well()
		s := bubbled(&a)
		path := "/v1/status?follow=*&after=" + s.Status().Revision

		ctx, leave := context.WithCancel(t.Context())
		c := ask(ctx, s.controlHandler(), path)
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

		c, d := ask(t.Context(), s.controlHandler(), path), ask(t.Context(), s.controlHandler(), path)
		synctest.Wait()
		if rec := <-ask(t.Context(), s.controlHandler(), path); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
			t.Errorf("beyond the limit: got %d %s; want 503 with Retry-After", rec.Code, rec.Body)
		}
		if rec := <-ask(t.Context(), s.controlHandler(), "/v1/status"); rec.Code != http.StatusOK {
			t.Errorf("without waiting: got %d; want 200 whatever others wait for", rec.Code)
		}
		close(s.done)
		if !answered(c) || !answered(d) {
			t.Error("waits on although the server ends")
		}
		s.socket.follower.close()
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
	evil.Drains = []discovery.Drain{{ID: "1", Cause: "spot", Since: statustest.T0}}
	a.disc.Set(&evil)
	r, _ := a.reg.Get()
	keeping := *r
	keeping.Groups = append(slices.Clone(r.Groups), registrar.GroupStatus{
		Name: "old", ARN: "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/old/0123456789abcdef", State: registrar.StateOK,
		Held: []registrar.Held{{Key: "web", Why: "the new one is not found"}},
	})
	a.reg.Set(&keeping)
	rec := get(t, s.StatusHandler(), "/")
	body := rec.Body.String()
	for _, want := range []string{"Ready.", statustest.Instance + ":32768", "web-1", "web-prod", "&lt;script&gt;", "The host drains", "old/0123456789abcdef", "keeps what is of web", "the new one is not found"} {
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

func BenchmarkStatus_500containers(b *testing.B) {
	var a agent
	d := &discovery.Snapshot{Wants: map[string][]target.Want{"web": nil}}
	g := statustest.Group()
	for i := range 500 {
		w := statustest.Want("web", "web", 8080, uint16(32768+i))
		w.Run.ID, w.Run.Name = fmt.Sprintf("%064x", i), fmt.Sprintf("web-%d", i)
		d.Wants["web"] = append(d.Wants["web"], w)
		d.Decisions = append(d.Decisions, statustest.Decided(w, discovery.Wanted, "its label names web"))
		g.Targets = append(g.Targets, registrar.TargetStatus{
			Target: statustest.Target(w.HostPort4), Phase: ledger.Registered, Health: "healthy", Wants: []target.Want{w}, Run: w.Run,
		})
	}
	a.disc.Set(d)
	a.reg.Set(statustest.Registrar(g))
	s := bubbled(&a)
	for b.Loop() {
		rec := httptest.NewRecorder()
		s.StatusHandler().ServeHTTP(rec, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/v1/status", http.NoBody))
		if rec.Code != http.StatusOK {
			b.Fatal(rec.Code)
		}
	}
}
