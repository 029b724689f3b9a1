package server

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status/statustest"
	"berth/pkg/target"
)

// troubled is a host on which something of everything is there.
func troubled() (*discovery.Snapshot, *registrar.Snapshot) {
	healthy, slow, refused, pending := statustest.Want("web", "a", 8080, 32768), statustest.Want("web", "b", 8080, 32769),
		statustest.Want("web", "c", 8080, 32770), statustest.Want("api", "d", 9090, 32771)
	d := &discovery.Snapshot{
		Seq: 9, Generation: 3,
		Wants:  map[string][]target.Want{"web": {healthy, slow, refused}, "api": {pending}},
		Drains: []discovery.Drain{{ID: "1", Container: statustest.Run("e").ID}},
		Stream: discovery.Stream{Up: true},
		Decisions: []discovery.Decision{
			{Run: statustest.Run("f"), Group: "named-by-a-label", Verdict: discovery.Refused, Why: "no such group"},
			{Run: statustest.Run("g"), Verdict: discovery.Ignored, Why: "nothing asks for it"},
		},
	}
	registered := func(w target.Want, health string) registrar.TargetStatus {
		return registrar.TargetStatus{
			Target: statustest.Target(w.HostPort4), Phase: ledger.Registered, Health: health, Wants: []target.Want{w}, Run: w.Run,
		}
	}
	web := statustest.Group(registered(healthy, "healthy"), registered(slow, "initial"),
		registrar.TargetStatus{Target: statustest.Target(32772), Phase: ledger.Registered, Health: "healthy", Run: statustest.Run("e")},
		registrar.TargetStatus{Target: statustest.Target(32773), Phase: ledger.Removing, Health: "draining", Run: statustest.Run("e")})
	web.Refusals = []registrar.Refusal{{Want: refused, Why: "the group speaks UDP"}}
	web.Unclaimed = []target.Target{statustest.Target(80)}
	web.VerifiedAt = statustest.T2
	api := registrar.GroupStatus{Keys: []string{"api"}, State: registrar.StateDenied, Err: "AccessDenied", Tried: true}
	left := registrar.GroupStatus{
		Name: "old-prod", ARN: "arn:old", State: registrar.StateOK,
		Targets: []registrar.TargetStatus{{Target: statustest.Target(32774), Phase: ledger.Registered, Run: statustest.Run("h")}},
	}
	r := statustest.Registrar(api, web, left)
	r.Self.InstanceID = statustest.Instance
	return d, r
}

const troubledMetrics = `
# HELP berth_build_info Always 1; the labels say what runs.
# TYPE berth_build_info gauge
berth_build_info{goversion="go1.26",revision="0123abc",version="1.2.3"} 1
# HELP berth_config_generation The number of the configuration in force, one more with each reload that took effect.
# TYPE berth_config_generation gauge
berth_config_generation 3
# HELP berth_config_last_reload_successful 0 if the last reload was refused, and the configuration before it is in force.
# TYPE berth_config_last_reload_successful gauge
berth_config_last_reload_successful 1
# HELP berth_listener_up 1 if clients are answered there, 0 while the address cannot be had or does not accept and is tried again.
# TYPE berth_listener_up gauge
berth_listener_up{listener="listen"} 0
berth_listener_up{listener="status_listen"} 1
# HELP berth_log_dropped_total Lines of the log that were dropped because standard error did not take them.
# TYPE berth_log_dropped_total counter
berth_log_dropped_total 7
# HELP berth_ready 1 if /readyz answers 200.
# TYPE berth_ready gauge
berth_ready 1
# HELP berth_target_group_ok 1 if calls for the target group succeed, 0 if it is not tried yet, denied, gone, full, misconfigured or throttled.
# TYPE berth_target_group_ok gauge
berth_target_group_ok{target_group="api"} 0
berth_target_group_ok{target_group="old-prod"} 1
berth_target_group_ok{target_group="web"} 1
# HELP berth_target_group_verified_timestamp_seconds When the load balancer's own list of the target group was last compared with what should be there.
# TYPE berth_target_group_verified_timestamp_seconds gauge
berth_target_group_verified_timestamp_seconds{target_group="web"} 1.79534172e+09
# HELP berth_targets_desired Targets of this host that should be registered in the target group.
# TYPE berth_targets_desired gauge
berth_targets_desired{target_group="api"} 1
berth_targets_desired{target_group="old-prod"} 0
berth_targets_desired{target_group="web"} 2
# HELP berth_targets_healthy Wanted targets of this host that passed their health checks when the load balancer was last asked.
# TYPE berth_targets_healthy gauge
berth_targets_healthy{target_group="api"} 0
berth_targets_healthy{target_group="old-prod"} 0
berth_targets_healthy{target_group="web"} 1
# HELP berth_targets_refused Ports that ask to be in the target group and cannot be until somebody changes something.
# TYPE berth_targets_refused gauge
berth_targets_refused{target_group="api"} 0
berth_targets_refused{target_group="old-prod"} 0
berth_targets_refused{target_group="web"} 1
# HELP berth_targets_registered Targets of this host that are registered in the target group, wanted or not; draining and unclaimed ones are not counted.
# TYPE berth_targets_registered gauge
berth_targets_registered{target_group="api"} 0
berth_targets_registered{target_group="old-prod"} 1
berth_targets_registered{target_group="web"} 3
# HELP berth_unclaimed_targets Targets registered for this host that the agent did not register and does not touch.
# TYPE berth_unclaimed_targets gauge
berth_unclaimed_targets{target_group="api"} 0
berth_unclaimed_targets{target_group="old-prod"} 0
berth_unclaimed_targets{target_group="web"} 1
`

var ownMetrics = func() []string {
	var names []string
	for line := range strings.Lines(troubledMetrics) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "TYPE" {
			names = append(names, f[2])
		}
	}
	return names
}()

func TestMetrics_exposition(t *testing.T) {
	var a agent
	d, r := troubled()
	a.disc.Set(d)
	a.reg.Set(r)
	cfg := a.config()
	cfg.Listen, cfg.StatusListen = "taken", "free"
	cfg.LogDropped = func() uint64 { return 7 }
	cfg.Listener = func(ctx context.Context, name, network, address string) (net.Listener, error) {
		if address == "taken" {
			return nil, syscall.EADDRINUSE
		}
		return newPipes().listen(ctx, name, network, address)
	}
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); s.socket.follower.close() })
	if err := testutil.GatherAndCompare(s.cfg.Registry, strings.NewReader(troubledMetrics), ownMetrics...); err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(s.cfg.Registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetrics_reloadRefused(t *testing.T) {
	var a agent
	refused := errors.New("unknown key")
	cfg := a.config()
	cfg.ReloadErr = func() error { return refused }
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); s.socket.follower.close() })
	for want, why := range map[string]error{"0": refused, "1": nil} {
		refused = why
		if body := get(t, s.MonitoringHandler(), "/metrics").Body.String(); !strings.Contains(body, "\nberth_config_last_reload_successful "+want+"\n") {
			t.Errorf("with %v: want %s in\n%s", why, want, body)
		}
	}
}

func TestMetrics_vanish(t *testing.T) {
	var a agent
	d, r := troubled()
	a.disc.Set(d)
	a.reg.Set(r)
	s := unserved(t, &a)
	series := func() string {
		return get(t, s.MonitoringHandler(), "/metrics").Body.String()
	}
	if got := series(); !strings.Contains(got, `berth_targets_desired{target_group="web"} 2`) {
		t.Fatalf("group web has no series:\n%s", got)
	}
	a.disc.Set(&discovery.Snapshot{Wants: map[string][]target.Want{"api": nil}})
	a.reg.Set(statustest.Registrar(registrar.GroupStatus{Keys: []string{"api"}, State: registrar.StateOK, Tried: true}))
	if got := series(); strings.Contains(got, `"web"`) || strings.Contains(got, `"old-prod"`) {
		t.Errorf("the series of a group outlive it:\n%s", got)
	}
}

// What a container's label names must not become a series: anybody who may start containers could make any number.
func TestMetrics_labelsAreConfigured(t *testing.T) {
	var a agent
	d, r := troubled()
	a.disc.Set(d)
	a.reg.Set(r)
	body := get(t, unserved(t, &a).MonitoringHandler(), "/metrics").Body.String()
	if strings.Contains(body, "named-by-a-label") {
		t.Errorf("a label made a series:\n%s", body)
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(body, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestMetrics_beforeAnything(t *testing.T) {
	var a agent
	body := get(t, unserved(t, &a).MonitoringHandler(), "/metrics").Body.String()
	for _, line := range []string{"berth_ready 0", "berth_build_info{"} {
		if !strings.Contains(body, line) {
			t.Errorf("%q is missing in:\n%s", line, body)
		}
	}
}

func TestMetrics_badKey(t *testing.T) {
	var a agent
	a.disc.Set(&discovery.Snapshot{Wants: map[string][]target.Want{"we\xffb": nil}})
	body := get(t, unserved(t, &a).MonitoringHandler(), "/metrics").Body.String()
	if !strings.Contains(body, `berth_targets_desired{target_group="we?b"} 0`) {
		t.Errorf("no series in:\n%s", body)
	}
}

func TestListen_twoInOneRegistry(t *testing.T) {
	var a agent
	cfg := a.config()
	cfg.Registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "berth_ready", Help: "Taken."}))
	if s, err := Listen(t.Context(), cfg); err == nil {
		s.Close()
		t.Error("got no error; want one about a metric that is there twice")
	}
}
