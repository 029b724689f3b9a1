package status

import (
	"strings"
	"testing"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/status/statustest"
	"berth/pkg/target"
)

func TestReadinessOf(t *testing.T) {
	up := func() *discovery.Snapshot {
		d := statustest.Discovery()
		d.Stream.Up = true
		return d
	}
	ready := func(g ...registrar.GroupStatus) *registrar.Snapshot {
		r := statustest.Registrar(g...)
		r.Self.InstanceID = statustest.Instance
		return r
	}
	with := func(change func(*registrar.GroupStatus)) registrar.GroupStatus {
		g := statustest.Group()
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
		"all well":             {Host{}, up(), ready(statustest.Group()), true, "[ok  ] target_group web: ok, 0 targets\nready\n"},
		"nothing yet":          {Host{}, nil, nil, false, "[wait] docker: not reached yet (check that Docker runs"},
		"docker barred":        {Host{}, shut, ready(statustest.Group()), false, "[wait] docker: the event stream is down: ping docker: reach docker at unix:///run/d.sock: this user may not open the socket (add it to group docker)\n"},
		"docker down":          {Host{}, down, ready(statustest.Group()), false, "[wait] docker: the event stream is down: dial unix /var/run/docker.sock: permission denied (check that Docker runs"},
		"no identity":          {Host{IdentityErr: "IMDS does not answer"}, up(), statustest.Registrar(statustest.Group()), false, "[wait] identity: IMDS does not answer (check that"},
		"no identity, known":   {Host{IdentityErr: "IMDS does not answer", IdentityChange: "enable it"}, up(), statustest.Registrar(statustest.Group()), false, "[wait] identity: IMDS does not answer (enable it)\n"},
		"identity of the host": {Host{InstanceID: statustest.Instance}, up(), statustest.Registrar(statustest.Group()), true, "[ok  ] identity: " + statustest.Instance},
		"no credentials":       {Host{CredentialsErr: "no EC2 role"}, up(), ready(statustest.Group()), false, "[wait] credentials: no EC2 role (attach an instance profile"},
		"not connected":        {Host{}, up(), &registrar.Snapshot{Self: elb.Self{InstanceID: statustest.Instance}}, false, "[wait] credentials: no call"},
		"clock ahead":          {Host{}, up(), clock(ready(statustest.Group()), 432*time.Second), true, "[warn] clock: this host's clock is 7m12s ahead of that of AWS (start chronyd"},
		"clock behind":         {Host{}, up(), clock(ready(statustest.Group()), -time.Hour), true, "[warn] clock: this host's clock is 1h0m0s behind that of AWS (start chronyd"},
		"group not tried":      {Host{}, up(), ready(with(func(g *registrar.GroupStatus) { g.Tried = false; g.State = registrar.StateWaiting })), false, "[wait] target_group web: not tried yet"},
		"group not tried, ok":  {Host{}, up(), ready(with(func(g *registrar.GroupStatus) { g.Tried = false })), false, "[wait] target_group web: not tried yet"},
		"group not taken up":   {Host{}, two, ready(statustest.Group()), false, "[wait] target_group api: not tried yet"},
		"group denied": {Host{}, up(), ready(with(func(g *registrar.GroupStatus) {
			g.State, g.Err, g.Change, g.RetryAt = registrar.StateDenied, "AccessDenied", "attach the policy", statustest.T2
		})), true, "[warn] target_group web: denied: AccessDenied, next attempt at 2026-11-22T10:02:00Z (attach the policy)\nready\n"},
		"left group being cleaned up": {Host{}, up(), ready(statustest.Group(), with(func(g *registrar.GroupStatus) {
			g.Keys, g.Name, g.Tried, g.State, g.Err = nil, "old", false, registrar.StateGone, "TargetGroupNotFound"
		})), true, "[warn] target_group old: gone: TargetGroupNotFound"},
		"left group without trouble": {Host{}, up(), ready(statustest.Group(), with(func(g *registrar.GroupStatus) { g.Keys, g.Name = nil, "old" })), true, "web: ok, 0 targets\nready"},
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
