package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/status"
	"berth/pkg/status/statustest"
)

// Before Docker has answered for the first time it is said why it does not, everywhere, and what to change.
func TestServer_Readiness_dockerNotReached(t *testing.T) {
	var a agent
	stream := discovery.Stream{Err: "not connected yet"}
	cfg := a.config()
	cfg.Stream = func() discovery.Stream { return stream }
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); s.socket.follower.close() })
	for _, tt := range []struct {
		stream discovery.Stream
		want   string
	}{
		{stream, "[wait] docker: not reached yet: not connected yet (check that Docker runs"},
		{
			discovery.Stream{Err: "ping docker: reach docker at unix:///run/d.sock: there is no such socket; start Docker", Change: "start Docker"},
			"[wait] docker: not reached yet: ping docker: reach docker at unix:///run/d.sock: there is no such socket (start Docker)\n",
		},
		{discovery.Stream{Up: true}, "[wait] docker: the event stream is up, and its containers are being listed\n"},
	} {
		stream = tt.stream
		if text := get(t, s.MonitoringHandler(), "/readyz").Body.String(); !strings.Contains(text, tt.want) {
			t.Errorf("got:\n%s\nwant it to contain %q", text, tt.want)
		}
		if status := s.Status(); status.Docker != tt.stream || status.Readiness.Ready {
			t.Errorf("the status says %+v", status.Docker)
		}
	}
}

func TestAlive(t *testing.T) {
	beat := func(at time.Time) func() time.Time { return func() time.Time { return at } }
	tests := map[string]struct {
		loops []Loop
		now   time.Time
		want  string
	}{
		"turning":         {[]Loop{{"watcher", beat(statustest.T1), 0}}, statustest.T1.Add(DefaultLoopWithin), ""},
		"stuck":           {[]Loop{{"watcher", beat(statustest.T1), 0}, {"registrar", beat(statustest.T2), 0}}, statustest.T1.Add(31 * time.Second), "watcher has not turned for 31s"},
		"its own time":    {[]Loop{{"notices", beat(statustest.T1), time.Hour}}, statustest.T1.Add(time.Minute), ""},
		"never begun":     {[]Loop{{"watcher", beat(time.Time{}), 0}}, statustest.T0.Add(time.Minute), "watcher has not turned for 1m0s"},
		"not begun yet":   {[]Loop{{"watcher", beat(time.Time{}), 0}}, statustest.T0.Add(time.Second), ""},
		"several":         {[]Loop{{"a", beat(statustest.T0), 0}, {"b", beat(statustest.T0), 0}}, statustest.T1, "a has not turned for 1m0s; b has not turned for 1m0s"},
		"nothing watched": {nil, statustest.T2, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := Alive(tt.loops, statustest.T0, tt.now)
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v; want nil", err)
				}
				return
			}
			var stuck *StuckError
			if !errors.As(err, &stuck) || err.Error() != tt.want {
				t.Errorf("got %v; want %q", err, tt.want)
			}
		})
	}
}

// What the rest of the agent adds is named, and blocks only if it says so; the metric agrees with the answer.
func TestServer_Readiness_checks(t *testing.T) {
	var a agent
	a.well()
	s := unserved(t, &a)
	ready := func() (bool, string) {
		r := s.Readiness()
		metric := get(t, s.MonitoringHandler(), "/metrics").Body.String()
		if want := fmt.Sprintf("\nberth_ready %v\n", boolValue(r.Ready)); !strings.Contains(metric, want) {
			t.Errorf("the metric disagrees with ready %v", r.Ready)
		}
		if s.Status().Readiness.Ready != r.Ready {
			t.Errorf("the status disagrees with ready %v", r.Ready)
		}
		return r.Ready, r.Text()
	}
	a.checks = []status.Check{{Name: "ledger", Detail: "is not on disk", Change: "free some space"}}
	if ok, text := ready(); !ok || !strings.Contains(text, "[warn] ledger: is not on disk (free some space)\n") {
		t.Errorf("a warning: got %v\n%s", ok, text)
	}
	a.checks[0].Blocks = true
	if ok, text := ready(); ok || !strings.Contains(text, "[wait] ledger") {
		t.Errorf("a block: got %v\n%s", ok, text)
	}
}

func TestV1_Summary(t *testing.T) {
	var a agent
	s := unserved(t, &a)
	summary := func() string { status := s.Status(); return status.Summary() }
	if got, want := summary(), "0 targets in 0 groups, waiting for docker: not reached yet; identity: "; !strings.HasPrefix(got, want) {
		t.Errorf("before anything: got %q; want it to begin with %q", got, want)
	}
	a.well()
	if got, want := summary(), "1 target in 1 group"; got != want {
		t.Errorf("all well: got %q; want %q", got, want)
	}
	d, r := troubled()
	a.disc.Set(d)
	a.reg.Set(r)
	if got, want := summary(), "3 targets in 2 groups, 2 not ready: b in web: the load balancer says initial and gives no reason"; got != want {
		t.Errorf("troubled: got %q; want %q", got, want)
	}
}
