package integration

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// The actions that change a target group.
const (
	register   = "RegisterTargets"
	deregister = "DeregisterTargets"
)

// targetsIn returns all targets that calls named, in order.
func targetsIn(calls []elbsim.Call) []target.Target {
	var out []target.Target
	for _, call := range calls {
		out = append(out, call.Targets...)
	}
	slices.SortFunc(out, target.Target.Compare)
	return out
}

// wantTargets fails the test unless the calls of that action named exactly these targets, each once.
func wantTargets(t *testing.T, r *rig.Rig, action string, want ...target.Target) {
	t.Helper()
	slices.SortFunc(want, target.Target.Compare)
	if got := targetsIn(r.Calls("web", action)); !slices.Equal(got, want) {
		t.Errorf("%s was called for %v; want %v", action, got, want)
	}
}

func TestRun_registeredHealthyAndServed(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	want := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", want...)
	got, err := harness.AskAt(t.Context(), r.URL("web"))
	if err != nil || got.Name != c.Name {
		t.Errorf("the load balancer answers %+v, %v; want container %s", got, err, c.Name)
	}
	wantTargets(t, r, register, want...)
	wantTargets(t, r, deregister)
}

func TestStop_deregisteredAtTheSignal(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	r.StartReady(t)
	// It goes on for an hour after SIGTERM: whatever happens before its removal, it does not happen on its death.
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web"), Args: []string{"--drain=1h"}})
	want := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", want...)

	c.BeginStop(t, time.Hour)
	r.WaitExact(t, "web")
	if state := c.Inspect(t).State; !state.Running {
		t.Errorf("the container is dead (%+v): it was not deregistered before", state)
	}
	c.Ask(t) // it still serves what is in flight
	wantTargets(t, r, register, want...)
	wantTargets(t, r, deregister, want...)
}

func TestStop_underLoadWithoutAFailedRequest(t *testing.T) {
	r := rig.New(t, rig.Options{})
	r.StartReady(t)
	made := r.Engine.RunAll(
		t,
		harness.Spec{Labels: r.In("web")},
		// Longer than the load balancer goes on sending to a deregistered target.
		harness.Spec{Labels: r.In("web"), Args: []string{"--drain=5s"}},
	)
	r.WaitHealthy(t, "web", rig.TargetsOf(t, made...)...)

	stopped := make(chan struct{})
	wait := made[1].BeginStop(t, time.Minute)
	go func() {
		wait()
		close(stopped)
	}()
	answers := map[string]int{}
	for ended := false; !ended; {
		select {
		case <-stopped:
			ended = true
		default:
		}
		got, err := harness.AskAt(t.Context(), r.URL("web"))
		if err != nil {
			t.Fatalf("a request failed while a container stopped: %v (after %v)", err, answers)
		}
		answers[got.Name]++
	}
	if answers[made[0].Name] == 0 {
		t.Errorf("answers %v; want some of %s", answers, made[0].Name)
	}
	r.WaitExact(t, "web", rig.TargetsOf(t, made[0])...)
}

func TestRestart_oldPortOutNewPortIn(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	before := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", before...)
	c.Restart(t)
	after := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", after...)
	if slices.Equal(before, after) {
		t.Fatalf("Docker gave the port %v again: this test shows nothing", before)
	}
	wantTargets(t, r, deregister, before...)
	wantTargets(t, r, register, slices.Concat(before, after)...)
}

func TestRun_thirtyAtOnce(t *testing.T) {
	r := rig.New(t, rig.Options{Sim: elbsim.Config{Latency: 30 * time.Millisecond}})
	r.StartReady(t)
	begin := time.Now()
	made := r.Engine.RunAll(t, thirty(r)...)
	took := time.Since(begin)
	want := rig.TargetsOf(t, made...)
	r.WaitHealthy(t, "web", want...)
	// What a busy machine starts more slowly than in eight seconds is not at once: three calls go out together, and
	// then one a second.
	most := max(12, 4+int(took.Seconds()))
	calls := r.Calls("web", register)
	t.Logf("%d containers, created and started in %.1f s, in %d calls", len(made), took.Seconds(), len(calls))
	if len(calls) > most {
		t.Errorf("%d calls of RegisterTargets for %d containers that started within %v; want at most %d", len(calls), len(made), took, most)
	}
	wantTargets(t, r, register, want...)
	wantTargets(t, r, deregister)
}

// Seen by the agent they start at one moment: it is stopped while they do, and finds all events at once.
func TestRun_thirtyAtOneMoment(t *testing.T) {
	r := rig.New(t, rig.Options{Sim: elbsim.Config{Latency: 30 * time.Millisecond}})
	agent := r.StartReady(t)
	agent.Signal(t, syscall.SIGSTOP)
	made := r.Engine.RunAll(t, thirty(r)...)
	agent.Signal(t, syscall.SIGCONT)
	want := rig.TargetsOf(t, made...)
	r.WaitHealthy(t, "web", want...)
	if got := len(r.Calls("web", register)); got > 12 {
		t.Errorf("%d calls of RegisterTargets for %d containers; want at most 12", got, len(made))
	}
	wantTargets(t, r, register, want...)
	wantTargets(t, r, deregister)
}

func thirty(r *rig.Rig) []harness.Spec {
	specs := make([]harness.Spec, 30)
	for i := range specs {
		specs[i] = harness.Spec{Name: fmt.Sprintf("web-%d", i), Labels: r.In("web")}
	}
	return specs
}

func TestStart_containersAlreadyRunning(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	specs := make([]harness.Spec, 8)
	for i := range specs {
		specs[i] = harness.Spec{Labels: r.In("web")}
	}
	want := rig.TargetsOf(t, r.Engine.RunAll(t, specs...)...)
	r.StartReady(t)
	r.WaitHealthy(t, "web", want...)
	wantTargets(t, r, register, want...)
	wantTargets(t, r, deregister)
}

func TestAgent_restartedOverChanges(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig.Agent, testing.TB){"stopped": (*rig.Agent).Stop, "killed": (*rig.Agent).Kill} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{})
			// Neither another host's target nor what somebody registered by hand is ours.
			foreign := []target.Target{{ID: "i-0fffffffffffffff0", Port: 80}, {ID: rig.Instance, Port: 9}}
			if err := errors.Join(
				r.Sim.AddInstance(elbsim.Instance{ID: foreign[0].ID}), r.Sim.Register(r.Group("web"), foreign...),
			); err != nil {
				t.Fatal(err)
			}
			agent := r.StartReady(t)
			made := r.Engine.RunAll(t, harness.Spec{Labels: r.In("web")}, harness.Spec{Labels: r.In("web")})
			r.WaitExact(t, "web", append(rig.TargetsOf(t, made...), foreign...)...)
			stays, goes := rig.TargetsOf(t, made[0]), rig.TargetsOf(t, made[1])

			end(agent, t)
			r.Sim.ResetCalls()
			made[1].Stop(t)
			comes := rig.TargetsOf(t, r.Engine.Run(t, harness.Spec{Labels: r.In("web")}))
			if err := r.Exact("web", slices.Concat(stays, goes, foreign)...); err != nil {
				t.Fatalf("without an agent: %v", err)
			}
			r.StartReady(t)
			r.WaitExact(t, "web", slices.Concat(stays, comes, foreign)...)
			wantTargets(t, r, deregister, goes...)
		})
	}
}

// Who was told to stop and takes its time stays out over a restart of the agent, also if it was told while there was no
// agent; and who stays is not touched.
func TestAgent_restartedWhileContainersStop(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig.Agent, testing.TB){"stopped": (*rig.Agent).Stop, "killed": (*rig.Agent).Kill} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{})
			agent := r.StartReady(t)
			deaf := harness.Spec{Labels: r.In("web"), Args: []string{"--stop=ignore"}}
			made := r.Engine.RunAll(t, deaf, deaf, deaf)
			for _, c := range made {
				c.Ask(t) // it has taken charge of its signals
			}
			before, between, stays := rig.TargetsOf(t, made[0]), rig.TargetsOf(t, made[1]), rig.TargetsOf(t, made[2])
			r.WaitHealthy(t, "web", slices.Concat(before, between, stays)...)
			made[0].Signal(t, "TERM")
			r.WaitExact(t, "web", slices.Concat(between, stays)...)

			end(agent, t)
			r.Sim.ResetCalls()
			made[1].Signal(t, "TERM")
			r.StartReady(t)
			r.WaitExact(t, "web", stays...)
			after := rig.TargetsOf(t, r.Engine.Run(t, harness.Spec{Labels: r.In("web")}))
			r.WaitExact(t, "web", slices.Concat(stays, after)...)
			removed, added := targetsIn(r.Calls("web", deregister)), targetsIn(r.Calls("web", register))
			if name == "killed" { // perhaps before its ledger had the answers: then the next one asks again, for the same
				removed, added = minus(removed, before), minus(added, stays)
			}
			if !slices.Equal(removed, between) || !slices.Equal(added, after) {
				t.Errorf("deregistered %v and registered %v; want %v and %v", removed, added, between, after)
			}
			for _, c := range made {
				if state := c.Inspect(t).State; !state.Running {
					t.Errorf("container %s is dead: this shows nothing", c.Name)
				}
			}
		})
	}
}
