package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"berth/test/harness"
	"berth/test/rig"
)

func TestEngine_stoppedAndStarted(t *testing.T) {
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

func TestEngine_killed(t *testing.T) {
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
