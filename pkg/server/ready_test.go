package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

func TestReadinessOf(t *testing.T) {
	up := func() *discovery.Snapshot {
		d := wants()
		d.Stream.Up = true
		return d
	}
	ready := func(g ...registrar.GroupStatus) *registrar.Snapshot {
		r := groups(g...)
		r.Self.InstanceID = instance
		return r
	}
	with := func(change func(*registrar.GroupStatus)) registrar.GroupStatus {
		g := okGroup()
		change(&g)
		return g
	}
	clock := func(r *registrar.Snapshot, ahead time.Duration) *registrar.Snapshot {
		r.ClockAhead = ahead
		return r
	}
	down := up()
	down.Stream = discovery.Stream{Err: "dial unix /var/run/docker.sock: permission denied"}
	barred := discovery.Stream{Err: "ping docker: reach docker at unix:///run/d.sock: this user may not open the socket; add it to group docker", Change: "add it to group docker"}
	shut := up()
	shut.Stream = barred
	two := up()
	two.Wants["api"] = []target.Want{}

	tests := map[string]struct {
		h     Host
		d     *discovery.Snapshot
		r     *registrar.Snapshot
		ready bool
		text  string // part of the body
	}{
		"all well":             {Host{}, up(), ready(okGroup()), true, "[ok  ] target_group web: ok, 0 targets\nready\n"},
		"nothing yet":          {Host{}, nil, nil, false, "[wait] docker: not reached yet (check that Docker runs"},
		"docker barred":        {Host{}, shut, ready(okGroup()), false, "[wait] docker: the event stream is down: ping docker: reach docker at unix:///run/d.sock: this user may not open the socket (add it to group docker)\n"},
		"docker down":          {Host{}, down, ready(okGroup()), false, "[wait] docker: the event stream is down: dial unix /var/run/docker.sock: permission denied (check that Docker runs"},
		"no identity":          {Host{IdentityErr: "IMDS does not answer"}, up(), groups(okGroup()), false, "[wait] identity: IMDS does not answer (check that"},
		"no identity, known":   {Host{IdentityErr: "IMDS does not answer", IdentityChange: "enable it"}, up(), groups(okGroup()), false, "[wait] identity: IMDS does not answer (enable it)\n"},
		"identity of the host": {Host{InstanceID: instance}, up(), groups(okGroup()), true, "[ok  ] identity: " + instance},
		"no credentials":       {Host{CredentialsErr: "no EC2 role"}, up(), ready(okGroup()), false, "[wait] credentials: no EC2 role (attach an instance profile"},
		"not connected":        {Host{}, up(), &registrar.Snapshot{Self: registrar.Self{InstanceID: instance}}, false, "[wait] credentials: no call"},
		"clock ahead":          {Host{}, up(), clock(ready(okGroup()), 432*time.Second), true, "[warn] clock: this host's clock is 7m12s ahead of that of AWS (start chronyd"},
		"clock behind":         {Host{}, up(), clock(ready(okGroup()), -time.Hour), true, "[warn] clock: this host's clock is 1h0m0s behind that of AWS (start chronyd"},
		"group not tried":      {Host{}, up(), ready(with(func(g *registrar.GroupStatus) { g.Tried = false; g.State = registrar.StateWaiting })), false, "[wait] target_group web: not tried yet"},
		"group not tried, ok":  {Host{}, up(), ready(with(func(g *registrar.GroupStatus) { g.Tried = false })), false, "[wait] target_group web: not tried yet"},
		"group not taken up":   {Host{}, two, ready(okGroup()), false, "[wait] target_group api: not tried yet"},
		"group denied": {Host{}, up(), ready(with(func(g *registrar.GroupStatus) {
			g.State, g.Err, g.Change, g.RetryAt = registrar.StateDenied, "AccessDenied", "attach the policy", t2
		})), true, "[warn] target_group web: denied: AccessDenied, next attempt at 2026-11-22T10:02:00Z (attach the policy)\nready\n"},
		"left group being cleaned up": {Host{}, up(), ready(okGroup(), with(func(g *registrar.GroupStatus) {
			g.Keys, g.Name, g.Tried, g.State, g.Err = nil, "old", false, registrar.StateGone, "TargetGroupNotFound"
		})), true, "[warn] target_group old: gone: TargetGroupNotFound"},
		"left group without trouble": {Host{}, up(), ready(okGroup(), with(func(g *registrar.GroupStatus) { g.Keys, g.Name = nil, "old" })), true, "web: ok, 0 targets\nready"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var stream discovery.Stream
			if tt.d != nil {
				stream = tt.d.Stream
			}
			got := ReadinessOf(tt.h, stream, tt.d, tt.r)
			if got.Ready != tt.ready {
				t.Errorf("ready: got %v; want %v", got.Ready, tt.ready)
			}
			if !strings.Contains(got.Text(), tt.text) {
				t.Errorf("body:\n%s\nwant it to contain %q", got.Text(), tt.text)
			}
			if (got.Waiting() == "") != tt.ready {
				t.Errorf("waiting: got %q with ready %v", got.Waiting(), tt.ready)
			}
		})
	}
}

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
	t.Cleanup(func() { s.Close(); s.follower.close() })
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
		"turning":         {[]Loop{{"watcher", beat(t1), 0}}, t1.Add(DefaultLoopWithin), ""},
		"stuck":           {[]Loop{{"watcher", beat(t1), 0}, {"registrar", beat(t2), 0}}, t1.Add(31 * time.Second), "watcher has not turned for 31s"},
		"its own time":    {[]Loop{{"notices", beat(t1), time.Hour}}, t1.Add(time.Minute), ""},
		"never begun":     {[]Loop{{"watcher", beat(time.Time{}), 0}}, t0.Add(time.Minute), "watcher has not turned for 1m0s"},
		"not begun yet":   {[]Loop{{"watcher", beat(time.Time{}), 0}}, t0.Add(time.Second), ""},
		"several":         {[]Loop{{"a", beat(t0), 0}, {"b", beat(t0), 0}}, t1, "a has not turned for 1m0s; b has not turned for 1m0s"},
		"nothing watched": {nil, t2, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := Alive(tt.loops, t0, tt.now)
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
	a.checks = []Check{{Name: "ledger", Detail: "is not on disk", Change: "free some space"}}
	if ok, text := ready(); !ok || !strings.Contains(text, "[warn] ledger: is not on disk (free some space)\n") {
		t.Errorf("a warning: got %v\n%s", ok, text)
	}
	a.checks[0].Blocks = true
	if ok, text := ready(); ok || !strings.Contains(text, "[wait] ledger") {
		t.Errorf("a block: got %v\n%s", ok, text)
	}
}

func TestStatusV1_Summary(t *testing.T) {
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
