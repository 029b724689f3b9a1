package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/status"
	"berth/test/harness"
	"berth/test/rig"
)

// notice makes the metadata service answer a path; an empty value makes it answer 404.
func notice(t *testing.T, r *rig.Rig, path, value string) {
	t.Helper()
	err := r.Sim.SetMetadata("", path, value)
	if value == "" {
		err = r.Sim.DeleteMetadata("", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hostDrains are the drains of the whole host: other tests' containers on this engine have stop signals of their own.
func hostDrains(t *testing.T, agent *rig.Agent) []status.DrainV1 {
	t.Helper()
	return slices.DeleteFunc(agent.Status(t).Drains, func(d status.DrainV1) bool { return d.Container != "" })
}

func TestHost_spotNotice(t *testing.T) {
	r := rig.New(t, rig.Options{})
	agent := r.StartReady(t)
	cs := r.Engine.RunAll(t, harness.Spec{Labels: r.In("web")}, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, cs...)...)
	began := time.Now()
	notice(t, r, elbsim.PathSpotAction, `{"action": "terminate", "time": "`+began.Add(2*time.Minute).UTC().Format(time.RFC3339)+`"}`)
	r.WaitExact(t, "web")
	// Two seconds of polling and one of calls: what it took is told by elbsim's record, not by this test's own polling.
	calls := r.Calls("web", deregister)
	if took := calls[len(calls)-1].Time.Sub(began); took > 3*time.Second {
		t.Errorf("the last target went out %v after the notice; want at most 3 s", took)
	}
	s := agent.Status(t)
	if drains := hostDrains(t, agent); len(drains) != 1 || drains[0].Cause != "spot" || drains[0].Reason == "" {
		t.Errorf("drains %+v; want one because of spot", drains)
	}
	if len(s.Host.Notices) != 1 {
		t.Errorf("notices %+v; want one", s.Host.Notices)
	}
	// A restart does not forget it, and registers nothing in between.
	r.Sim.ResetCalls()
	agent.Kill(t)
	r.StartReady(t)
	if calls := r.Calls("web", register); len(calls) > 0 {
		t.Errorf("after a restart: %v", calls)
	}
}

func TestHost_standbyAndBack(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	notice(t, r, elbsim.PathLifecycleState, "InService")
	r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	want := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", want...)
	notice(t, r, elbsim.PathLifecycleState, "Standby")
	r.WaitExact(t, "web")
	// That the service is silent is not the end of it.
	fault, err := r.Sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "IMDS", Code: "InternalError"})
	if err != nil {
		t.Fatal(err)
	}
	notice(t, r, elbsim.PathLifecycleState, "InService")
	asked := func() int {
		n := 0
		for _, c := range r.Sim.Counts() {
			if c.Action == "IMDS" {
				n += int(c.Calls)
			}
		}
		return n
	}
	before := asked()
	harness.Eventually(t, harness.Patience, "some more questions", func() error {
		if n := asked() - before; n < 10 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if err := r.Exact("web"); err != nil {
		t.Errorf("while the metadata service fails: %v", err)
	}
	r.Sim.RemoveFault(fault)
	r.WaitExact(t, "web", want...)
}

// An instance that is on its way out when the agent starts is never registered.
func TestHost_standbyAtTheStart(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	notice(t, r, elbsim.PathLifecycleState, "Detached")
	r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	agent := r.StartReady(t)
	harness.Eventually(t, harness.Patience, "the host drained", func() error {
		if d := hostDrains(t, agent); len(d) != 1 || d[0].Cause != "lifecycle" || len(agent.Status(t).Rows) == 0 {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	if calls := r.Calls("web", register); len(calls) > 0 {
		t.Errorf("registered: %v", calls)
	}
}

func TestHost_terminateHook(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{
		Config: "drain: {max_wait: 8s}\nlifecycle: {group: web-asg, terminate_hook: going, heartbeat: 1s}\n",
	})
	r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
	notice(t, r, elbsim.PathLifecycleState, "Terminated")
	harness.Eventually(t, harness.Patience, "the hook completed", func() error {
		if len(r.Sim.CallsOf("CompleteLifecycleAction")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := r.Exact("web"); err != nil {
		t.Errorf("when the hook was completed: %v", err)
	}
	completed := r.Sim.CallsOf("CompleteLifecycleAction")[0]
	for key, want := range map[string]string{
		"AutoScalingGroupName": "web-asg", "LifecycleHookName": "going", "LifecycleActionResult": "CONTINUE", "InstanceId": rig.Instance,
	} {
		if got := completed.Detail[key]; got != want {
			t.Errorf("%s is %q; want %q", key, got, want)
		}
	}
	beats := r.Sim.CallsOf("RecordLifecycleActionHeartbeat")
	gone := r.Calls("web", deregister)
	if len(beats) < 2 || !beats[0].Time.Before(completed.Time) || !gone[len(gone)-1].Time.Before(completed.Time) {
		t.Errorf("%d heartbeats, %d deregistrations, before the completion at %v; want both, before it", len(beats), len(gone), completed.Time)
	}
}

func TestHost_launchHook(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{
		Groups: []elbsim.Group{{Name: "web"}, {Name: "api"}},
		Rules:  map[string]string{"web": "required: true"},
		Config: "lifecycle: {launch_hook: coming}\n",
		Sim:    elbsim.Config{Instance: elbsim.Instance{Tags: map[string]string{"aws:autoscaling:groupName": "web-asg"}}},
	})
	r.StartReady(t)
	// A target in a group that is not required says nothing, and one that is not healthy neither.
	other := r.Engine.Run(t, harness.Spec{Labels: r.In("api")})
	r.WaitHealthy(t, "api", rig.TargetsOf(t, other)...)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web"), Args: []string{"--unhealthy"}})
	r.WaitExact(t, "web", rig.TargetsOf(t, c)...)
	harness.Eventually(t, harness.Patience, "an unhealthy target", func() error {
		for _, target := range r.Sim.Targets(r.Group("web")) {
			if target.State == elbsim.StateUnhealthy {
				return nil
			}
		}
		return errors.New("it is not unhealthy")
	})
	if calls := r.Sim.CallsOf("CompleteLifecycleAction"); len(calls) > 0 {
		t.Errorf("before anything is healthy: %v", calls)
	}
	c.PutHealth(t, "healthz", 200)
	harness.Eventually(t, harness.Patience, "the hook completed", func() error {
		if len(r.Sim.CallsOf("CompleteLifecycleAction")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	got := r.Sim.CallsOf("CompleteLifecycleAction")[0].Detail
	if got["AutoScalingGroupName"] != "web-asg" || got["LifecycleHookName"] != "coming" || got["LifecycleActionResult"] != "CONTINUE" {
		t.Errorf("got %v", got)
	}
}

// On its way into a warm pool an instance is held by the same hook as on its way into service, and serves nothing there.
func TestHost_launchHookOfWarmPool(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{
		Rules:  map[string]string{"web": "required: true"},
		Config: "lifecycle: {launch_hook: coming}\n",
		Sim:    elbsim.Config{Instance: elbsim.Instance{Tags: map[string]string{"aws:autoscaling:groupName": "web-asg"}}},
	})
	completed := func(n int) {
		t.Helper()
		harness.Eventually(t, harness.Patience, "the hook completed", func() error {
			if got := len(r.Sim.CallsOf("CompleteLifecycleAction")); got != n {
				return fmt.Errorf("%d times; want %d", got, n)
			}
			return nil
		})
	}
	notice(t, r, elbsim.PathLifecycleState, "Warmed:Running")
	r.Start(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	completed(1)
	if n := len(r.Calls("web", register)); n > 0 {
		t.Errorf("%d registrations in the warm pool", n)
	}
	notice(t, r, elbsim.PathLifecycleState, "InService")
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
	completed(2)
	if calls := r.Sim.CallsOf("CompleteLifecycleAction"); len(calls) > 1 && calls[1].Time.Before(r.Calls("web", register)[0].Time) {
		t.Error("it came into service before anything was registered")
	}
}

// Everything fails at the metadata service but the identity, from the start to the end: nothing is drained.
func TestHost_noticesFailThroughout(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	for _, path := range []string{"/latest/meta-data/spot/*", "/latest/meta-data/autoscaling/*", "/latest/meta-data/events/*"} {
		if _, err := r.Sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "IMDS", Path: path, Code: "InternalError"}); err != nil {
			t.Fatal(err)
		}
	}
	agent := r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	// Not before half a minute, in which the lifecycle state might still be read.
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
	if drains := hostDrains(t, agent); len(drains) > 0 {
		t.Errorf("drains %+v; want none", drains)
	}
	if calls := r.Calls("web", deregister); len(calls) > 0 {
		t.Errorf("deregistered: %v", calls)
	}
}

// A drain that came with an image, or was left by an earlier boot's end, holds nobody.
func TestHost_leftoverDrains(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	if err := os.MkdirAll(r.StateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	drains := `{"version": 1, "drains": [
		{"id": "operator/host", "cause": "operator", "hold": "keep", "since": "2026-01-02T03:04:05Z", "instance_id": "i-0fedcba9876543210"},
		{"id": "shutdown/host", "cause": "shutdown", "hold": "keep", "since": "2026-01-02T03:04:05Z", "instance_id": "` + rig.Instance + `", "boot_id": "another"},
		{"id": "spot/host", "cause": "spot", "hold": "keep", "since": "2026-01-02T03:04:05Z", "instance_id": "` + rig.Instance + `", "boot_id": "another"},
		{"id": "lifecycle/host", "cause": "lifecycle", "hold": "keep", "since": "2026-01-02T03:04:05Z", "instance_id": "` + rig.Instance + `"}
	]}`
	if err := os.WriteFile(filepath.Join(r.StateDir(), "drains.json"), []byte(drains), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
	if drains := hostDrains(t, agent); len(drains) > 0 {
		t.Errorf("drains %+v; want none", drains)
	}
}
