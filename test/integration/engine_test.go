package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"berth/internal/elbsim"
	"berth/test/harness"
	"berth/test/rig"
)

func TestEngine_stoppedAndStarted(t *testing.T) {
	t.Parallel()
	engine := harness.StartEngine(t, harness.EngineOptions{})
	r := rig.New(t, rig.Options{Engine: &engine.Engine})
	r.StartReady(t)
	back := harness.Spec{Labels: r.In("web"), Restart: "always"}
	made := engine.RunAll(t, back, back, back, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, made...)...)

	engine.Stop(t)
	// Its last events were read: the API was closed by then, so nothing could be inspected.
	r.WaitExact(t, "web")

	engine.Start(t)
	for _, c := range made[:3] {
		c.Ask(t)
	}
	r.WaitHealthy(t, "web", rig.TargetsOf(t, made[:3]...)...)
	harness.Eventually(t, harness.Patience, "each target one container's", func() error {
		return everyoneAnswers(t, r, made[:3])
	})
}

func TestEngine_restartedWithLiveRestore(t *testing.T) {
	t.Parallel()
	engine := harness.StartEngine(t, harness.EngineOptions{LiveRestore: true})
	r := rig.New(t, rig.Options{Engine: &engine.Engine})
	r.StartReady(t)
	made := engine.RunAll(t, harness.Spec{Labels: r.In("web")}, harness.Spec{Labels: r.In("web")})
	want := rig.TargetsOf(t, made...)
	r.WaitHealthy(t, "web", want...)
	r.Sim.ResetCalls()

	engine.Restart(t)
	// Whatever the agent makes of the restart, it has made it once it registers what has come since.
	after := engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", append(want, rig.TargetsOf(t, after)...)...)
	wantTargets(t, r, deregister)
	wantTargets(t, r, register, rig.TargetsOf(t, after)...)
}

// Of what dies while the engine is down no event tells, then or later. Nothing proves it before the engine is back, and
// then the first list does.
func TestEngine_deathWhileItIsDown(t *testing.T) {
	t.Parallel()
	engine := harness.StartEngine(t, harness.EngineOptions{LiveRestore: true})
	r := rig.New(t, rig.Options{Engine: &engine.Engine, Groups: []elbsim.Group{{Name: "web"}, {Name: "api"}}})
	agent := r.StartReady(t)
	web := harness.Spec{Labels: r.In("web")}
	made := engine.RunAll(t, web, web, harness.Spec{Labels: r.In("api")})
	dead, lives, other := rig.TargetsOf(t, made[0]), rig.TargetsOf(t, made[1]), rig.TargetsOf(t, made[2])
	r.WaitHealthy(t, "web", append(dead, lives...)...)
	r.WaitHealthy(t, "api", other...)
	process := made[0].Inspect(t).State.Pid
	r.Sim.ResetCalls()

	engine.Stop(t)
	if err := syscall.Kill(process, syscall.SIGKILL); err != nil {
		t.Fatalf("kill the container's process: %v", err)
	}
	harness.Eventually(t, harness.Patience, "a dead process, and an agent without Docker", func() error {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process)); err == nil && !strings.Contains(string(stat), ") Z ") {
			return errors.New("the process is there")
		}
		if agent.Status(t).Docker.Up {
			return errors.New("the agent has not noticed")
		}
		return nil
	})
	if err := r.Exact("web", append(dead, lives...)...); err != nil {
		t.Errorf("while Docker is down: %v", err)
	}

	engine.Start(t)
	r.WaitExact(t, "web", lives...)
	after := engine.Run(t, web) // whatever else the agent makes of it, it has made when this one is registered
	r.WaitExact(t, "web", append(rig.TargetsOf(t, after), lives...)...)
	r.WaitExact(t, "api", other...)
	wantTargets(t, r, deregister, dead...)
	wantTargets(t, r, register, rig.TargetsOf(t, after)...)
	if calls := append(r.Calls("api", deregister), r.Calls("api", register)...); len(calls) > 0 {
		t.Errorf("needless calls for the other group: %v", calls)
	}
}

func TestEngine_killed(t *testing.T) {
	t.Parallel()
	engine := harness.StartEngine(t, harness.EngineOptions{})
	r := rig.New(t, rig.Options{Engine: &engine.Engine})
	r.StartReady(t)
	back := harness.Spec{Labels: r.In("web"), Restart: "always"}
	made := engine.RunAll(t, back, back, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, made...)...)

	// No event tells of it. Without live-restore the engine ends the containers when it is back.
	engine.Kill(t)
	engine.Start(t)
	for _, c := range made[:2] {
		c.Ask(t)
	}
	harness.Eventually(t, harness.Patience, "exact targets", func() error {
		return r.Exact("web", rig.TargetsOf(t, made[:2]...)...)
	})
}

func TestEngine_absentAtFirst(t *testing.T) {
	t.Parallel()
	engine := harness.StartEngine(t, harness.EngineOptions{})
	r := rig.New(t, rig.Options{Engine: &engine.Engine})
	c := engine.Run(t, harness.Spec{Labels: r.In("web"), Restart: "always"})
	engine.Stop(t)

	agent := r.Start(t)
	harness.Eventually(t, harness.Patience, "an agent that is not ready", func() error {
		status, err := agent.TryStatus(t)
		if err == nil && status.Readiness.Ready {
			t.Fatal("berth is ready without Docker")
		}
		if err == nil && !strings.Contains(status.Readiness.Waiting(), "docker") {
			err = fmt.Errorf("it does not say that it waits for Docker: %s", status.Readiness.Waiting())
		}
		return err
	})
	engine.Start(t)
	c.Ask(t)
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
	harness.Eventually(t, harness.Patience, "a ready agent", func() error {
		if !agent.Status(t).Readiness.Ready {
			return errors.New("not ready")
		}
		return nil
	})
}

// everyoneAnswers returns nil if the load balancer's answers come from these containers alone, and from all of them.
func everyoneAnswers(t *testing.T, r *rig.Rig, containers []*harness.Container) error {
	t.Helper()
	silent := map[string]bool{}
	for _, c := range containers {
		silent[c.Name] = true
	}
	for range 5 * len(containers) {
		got, err := harness.AskAt(t.Context(), r.URL("web"))
		if err != nil {
			return err
		}
		if _, known := silent[got.Name]; !known {
			t.Fatalf("container %q answered", got.Name)
		}
		silent[got.Name] = false
	}
	for name, is := range silent {
		if is {
			return errors.New(name + " gets no request")
		}
	}
	return nil
}
