package discovery_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/target"
)

func TestWatcher_pause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.settle(time.Minute)
		h.engine.Pause(id)
		h.settle(4 * time.Second)
		h.wants("web-1:32768")
		h.engine.Unpause(id) // docker commit pauses for a moment
		h.settle(time.Minute)
		h.wants("web-1:32768")

		h.engine.Pause(id)
		h.settle(5*time.Second - time.Nanosecond)
		h.wants("web-1:32768")
		h.settle(time.Nanosecond)
		h.wants()
		h.verdict("web-1", discovery.Leaving)
		h.engine.Unpause(id)
		h.wants("web-1:32768")
	})
}

// A moment's pause takes nothing out, though Docker does not answer after it; a long one needs an answer to end.
func TestWatcher_pauseWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.settle(time.Minute)
		release := h.engine.HangInspect(id)
		h.engine.Pause(id)
		h.settle(70 * time.Millisecond)
		h.engine.Unpause(id)
		h.settle(8 * time.Second)
		h.wants("web-1:32768")
		release()
		h.settle(time.Second)

		h.engine.Pause(id)
		h.settle(10 * time.Second)
		h.wants()
		release = h.engine.HangInspect(id)
		h.engine.Unpause(id)
		h.settle(5 * time.Second)
		h.wants()
		release()
		h.settle(time.Second)
		h.wants("web-1:32768")
	})
}

// A long pause went unheard from its beginning to its end: the container was never out, and does not go out for it.
func TestWatcher_pauseUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Minute)
		h.engine.Down()
		h.settle(time.Second)
		h.engine.Pause(id)
		h.settle(20 * time.Second)
		h.engine.Unpause(id)
		h.settle(time.Second)
		release := h.engine.HangInspect(id)
		published := len(h.snapshots())
		h.engine.Up()
		h.settle(30 * time.Second)
		release()
		h.settle(time.Minute)
		for _, s := range h.snapshots()[published-1:] {
			if len(s.Wants["web"]) != 1 {
				t.Errorf("it went out: %s", describe(s))
			}
		}
	})
}

// The agent starts while a container is paused: since when is not known. One that is registered has its moment, one
// that is not does not come in.
func TestWatcher_pausedAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		in, out := engine.Run(web("in")), engine.Run(web("out"))
		time.Sleep(time.Hour)
		engine.Pause(in)
		engine.Pause(out)
		time.Sleep(time.Hour) // beyond what streams go back
		f, _ := engine.Facts(in)
		opts := options()
		opts.Admitted = map[string][]target.Run{"web": {{ID: in, StartedAt: f.StartedAt}}}
		h := watch(t, engine, &memoryStore{}, opts)
		h.wants("in:32768")
		h.verdict("out", discovery.Leaving)
		h.settle(6 * time.Second)
		h.wants()
		engine.Unpause(in)
		engine.Unpause(out)
		h.wants("in:32768", "out:32769")
	})
}

func TestWatcher_network(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Second)
		release := h.engine.HangInspect(id)
		h.engine.Disconnect(id)
		h.wants()
		h.verdict("web-1", discovery.Leaving)
		release()
		h.settle(time.Second)
		h.verdict("web-1", discovery.Refused) // inspected: nothing is published now
		h.engine.Run(web("web-2"))            // takes the port
		h.wants("web-2:32768")
		h.engine.Connect(id)
		h.wants("web-1:32769", "web-2:32768")
	})
}

// With another network left, what happens to the ports is Docker's to say.
func TestWatcher_oneNetworkOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.engine.Join(id, "second")
		h.wants("web-1:32768")
		h.settle(time.Second)
		published := len(h.snapshots())
		h.engine.Leave(id, "second")
		h.wants("web-1:32768")
		if n := len(h.snapshots()) - published; n != 0 {
			t.Errorf("%d publications for a network that carries no port; want none", n)
		}
	})
}

// A container that exits by itself is disconnected before it dies: nobody asks about it meanwhile.
func TestWatcher_exitCostsNoInspection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Second)
		before := h.engine.Counts().Total()
		h.engine.Emit(discovery.Event{Action: discovery.ActionDisconnect, Container: id, Network: "bridge0"})
		h.wants()
		h.settle(50 * time.Millisecond)
		h.engine.Die(id, 1)
		h.settle(time.Second)
		if n := h.engine.Counts().Total() - before; n != 0 {
			t.Errorf("%d inspections; want none", n)
		}
	})
}

func TestWatcher_crashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		for i, seconds := range []int{10, 20, 40, 80, 160, 300, 300} {
			wait := time.Duration(seconds) * time.Second
			h.settle(time.Second)
			h.engine.Die(id, 1)
			h.wants() // deregistration is never delayed
			h.settle(100 * time.Millisecond)
			h.engine.StartAgain(id)
			h.settle(wait - time.Millisecond)
			h.wants()
			d := h.verdict("web-1", discovery.NotYet)
			if i > 0 && !strings.Contains(d.Why, "in a row") {
				t.Errorf("death %d: got %q", i+1, d.Why)
			}
			h.settle(2 * time.Millisecond)
			h.wants("web-1:32768")
		}
		h.settle(10 * time.Minute)
		h.engine.Die(id, 1)
		h.settle(time.Second)
		h.engine.StartAgain(id)
		h.settle(9 * time.Second)
		h.verdict("web-1", discovery.NotYet)
		h.settle(2 * time.Second)
		h.wants("web-1:32768") // a long run is a new beginning
	})
}

// Whoever is told to stop and started again has not crashed.
func TestWatcher_restartIsNoCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		spec := web("web-1")
		spec.StopSignal = "SIGINT"
		id := h.engine.Run(spec)
		h.settle(time.Second)
		h.engine.Die(id, 1)
		h.engine.StartAgain(id)
		h.settle(15 * time.Second)
		h.wants("web-1:32768")
		h.engine.Restart(id)
		h.wants("web-1:32768")
		h.settle(time.Second)
		h.engine.Die(id, 1)
		h.engine.StartAgain(id)
		h.settle(11 * time.Second)
		h.wants("web-1:32768") // the first crash was forgotten with the restart
	})
}

// Docker says stop and die in either order.
func TestWatcher_stopBeforeDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Second)
		before := h.engine.Counts().Total()
		var die []discovery.Event
		h.engine.Tamper(func(e discovery.Event) []discovery.Event {
			switch e.Action {
			case discovery.ActionDie, discovery.ActionDisconnect:
				die = append(die, e)
				return nil
			}
			return []discovery.Event{e}
		})
		h.engine.Stop(id)
		h.wants()
		h.settle(time.Second)
		h.engine.Tamper(nil)
		for _, e := range die {
			h.engine.Emit(e)
		}
		h.wants()
		if n := h.engine.Counts().Total() - before; n != 0 {
			t.Errorf("%d inspections; want none", n)
		}
		h.settle(time.Second)
		h.engine.Start(id)
		h.wants("web-1:32768") // it has not crashed
	})
}

// One that dies before anybody could look at it has died all the same.
func TestWatcher_crashesUninspected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Create(web("web-1"))
		release := h.engine.HangInspect(id)
		h.engine.Start(id)
		h.settle(10 * time.Millisecond)
		h.engine.Die(id, 1)
		for range 2 {
			h.engine.StartAgain(id)
			h.settle(10 * time.Millisecond)
			h.engine.Die(id, 1)
			h.settle(10 * time.Millisecond)
		}
		release()
		h.engine.StartAgain(id)
		h.settle(39 * time.Second)
		h.verdict("web-1", discovery.NotYet)
		h.settle(2 * time.Second)
		h.wants("web-1:32768")
	})
}

// Crashes are known to the agent that starts among them, as far as the engine remembers.
func TestWatcher_crashLoopAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		id := engine.Run(web("web-1"))
		for range 3 {
			time.Sleep(time.Second)
			engine.Die(id, 1)
			engine.StartAgain(id)
		}
		h := watch(t, engine, &memoryStore{}, options())
		h.wants()
		h.verdict("web-1", discovery.NotYet)
		h.settle(41 * time.Second)
		h.wants("web-1:32768")
	})
}

// crashes has a container die by itself until it has to wait for minutes, and leaves it waiting for its restart policy.
func (h *fixture) crashes(id string) {
	h.Helper()
	for range 6 {
		h.settle(time.Second)
		h.engine.Die(id, 1)
		h.settle(time.Second)
		h.engine.StartAgain(id)
	}
	h.settle(time.Second)
	h.verdict("web-1", discovery.NotYet)
	h.engine.Die(id, 1)
}

// Whoever stops or starts a container has looked at it: its crashes are forgotten. A stop while it waits for its restart
// policy has no signal and no death.
func TestWatcher_crashesForgotten(t *testing.T) {
	for name, by := range map[string]func(h *fixture, id string){
		"stop while it waits, and start": func(h *fixture, id string) {
			h.engine.StopWaiting(id)
			h.settle(time.Minute)
			h.engine.Start(id)
		},
		"start while it waits": func(h *fixture, id string) { h.engine.Start(id) },
		"stop while it waits, which the engine's policy survives": func(h *fixture, id string) {
			h.engine.StopWaiting(id)
			h.settle(time.Second)
			h.engine.StartAgain(id)
		},
		"restart": func(h *fixture, id string) {
			h.engine.StartAgain(id)
			h.settle(time.Second)
			h.engine.Restart(id)
		},
		"stop by another signal, and start": func(h *fixture, id string) {
			h.engine.StartAgain(id)
			h.settle(time.Second)
			h.engine.StopWith(id, 12, 140)
			h.settle(time.Second)
			h.engine.Start(id)
		},
		"start unheard": func(h *fixture, id string) {
			h.engine.Silence()
			h.engine.Start(id)
			h.engine.Forget()
			h.engine.Cut()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(web("web-1"))
				h.crashes(id)
				by(h, id)
				h.settle(time.Second)
				h.wants("web-1:32768")
				h.engine.Die(id, 1) // and the next one is the first again
				h.engine.StartAgain(id)
				h.settle(9 * time.Second)
				h.wants()
				h.settle(2 * time.Second)
				h.wants("web-1:32768")
			})
		})
	}
}

// Restarts by the policy go on counting, whatever is done to the container between.
func TestWatcher_crashesCountOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.crashes(id)
		h.engine.StartAgain(id)
		h.settle(time.Second)
		h.engine.Rename(id, "web-1")
		h.engine.Signal(id, 1)
		h.settle(4 * time.Minute)
		h.verdict("web-1", discovery.NotYet)
		h.settle(time.Minute)
		h.wants("web-1:32768")
	})
}

// Who ends with exit code 0 has not crashed, and has not been looked at either.
func TestWatcher_exitIsNoCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		for range 3 {
			h.settle(time.Second)
			h.engine.Die(id, 0)
			h.wants()
			h.engine.StartAgain(id)
			h.wants("web-1:32768")
		}
		h.engine.Die(id, 1)
		h.engine.StartAgain(id)
		h.settle(5 * time.Second)
		h.wants()
		h.engine.Die(id, 0)
		h.engine.StartAgain(id)
		h.settle(9 * time.Second)
		h.wants()
		h.settle(2 * time.Second)
		h.wants("web-1:32768")
	})
}

func TestWatcher_rename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := options()
		opts.Rules = []discovery.Rule{{Group: "web", Match: &discovery.Match{Name: "web-*"}}}
		h := watch(t, enginetest.New(), &memoryStore{}, opts)
		id := h.engine.Run(enginetest.Spec{Name: "other", Ports: []string{"80"}})
		h.wants()
		h.engine.Rename(id, "web-1")
		h.wants("web-1:32768")
		h.engine.Rename(id, "web-one")
		h.wants("web-one:32768")
		h.engine.Rename(id, "gone")
		h.wants()
	})
}

func healthRules() discovery.Options {
	opts := options()
	opts.Rules = []discovery.Rule{{Group: "web", Healthy: true}, {Group: "strict", DeregisterUnhealthy: true}}
	return opts
}

func checked(name, groups string) enginetest.Spec {
	spec := web(name)
	spec.Labels[discovery.TargetsLabel] = groups
	spec.Healthcheck = true
	return spec
}

// Health is a gate for coming in, which a run passes once.
func TestWatcher_healthGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := watch(t, enginetest.New(), &memoryStore{}, healthRules())
		id := h.engine.Run(checked("web-1", "web"))
		h.engine.Run(web("unchecked"))
		h.settle(time.Minute)
		h.wants()
		h.verdict("web-1", discovery.NotYet)
		h.verdict("unchecked", discovery.Refused)
		h.engine.SetHealth(id, discovery.HealthHealthy)
		h.wants("web-1:32768")
		h.engine.SetHealth(id, discovery.HealthUnhealthy)
		h.settle(time.Hour)
		h.wants("web-1:32768") // the load balancer judges
		h.engine.Restart(id)
		h.wants()
		h.verdict("web-1", discovery.NotYet) // another run, another gate
	})
}

// The gate is behind those that an earlier agent has let in, and before those that it has not.
func TestWatcher_healthGateAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		in, earlier := engine.Run(checked("in", "web")), engine.Run(checked("earlier", "web"))
		f, _ := engine.Facts(in)
		old, _ := engine.Facts(earlier)
		engine.SetHealth(in, discovery.HealthUnhealthy)
		time.Sleep(time.Second)
		engine.Restart(earlier)
		opts := healthRules()
		opts.Admitted = map[string][]target.Run{
			"web":    {{ID: in, StartedAt: f.StartedAt}, {ID: earlier, StartedAt: old.StartedAt}},
			"strict": {{ID: earlier, StartedAt: old.StartedAt}},
		}
		h := watch(t, engine, &memoryStore{}, opts)
		h.wants("in:32768")
		h.verdict("earlier", discovery.NotYet)
	})
}

// Renaming a group's key takes nobody out who is in, whatever the HEALTHCHECK says by then; another group has its own gate.
func TestWatcher_healthGateOfRenamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rule := func(group, name string) []discovery.Rule {
			return []discovery.Rule{{Group: group, Name: name, Match: &discovery.Match{Name: "web-*"}, Healthy: true}}
		}
		engine := enginetest.New()
		spec := checked("web-1", "web")
		spec.Labels = nil
		in := engine.Run(spec)
		f, _ := engine.Facts(in)
		engine.SetHealth(in, discovery.HealthUnhealthy)
		late := engine.HangInspect(in) // the answer comes after the first reload
		opts := discovery.Options{Rules: rule("web", "web-prod"), Admitted: map[string][]target.Run{"web": {{ID: in, StartedAt: f.StartedAt}}}}
		h := watch(t, engine, &memoryStore{}, opts)
		for i, step := range []struct {
			key, name string
			want      int
		}{{"www", "web-prod", 1}, {"site", "web-prod", 1}, {"site", "web-new", 1}, {"other", "api-prod", 0}} {
			if err := h.w.Reconfigure(t.Context(), uint64(i+2), rule(step.key, step.name)); err != nil {
				t.Fatal(err)
			}
			late()
			h.settle(time.Second)
			if got := len(h.w.Snapshot().Wants[step.key]); got != step.want {
				t.Errorf("%s of %s: %d wanted; want %d\n%s", step.key, step.name, got, step.want, describe(h.w.Snapshot()))
			}
		}
	})
}

func TestWatcher_deregisterWhenUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := watch(t, enginetest.New(), &memoryStore{}, healthRules())
		id := h.engine.Run(checked("web-1", "strict"))
		strict := func(want int) {
			t.Helper()
			synctest.Wait()
			if got := len(h.w.Snapshot().Wants["strict"]); got != want {
				t.Fatalf("wanted: got %d; want %d\n%s", got, want, describe(h.w.Snapshot()))
			}
		}
		strict(1)
		h.settle(time.Second)
		release := h.engine.HangInspect(id)
		h.engine.SetHealth(id, discovery.HealthUnhealthy)
		strict(0) // from the event alone
		h.engine.SetHealth(id, discovery.HealthHealthy)
		strict(0) // coming back in needs an answer
		release()
		h.settle(time.Minute)
		strict(1)
	})
}

func TestWatcher_portForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.engine.Run(enginetest.Spec{
			Name: "dns", Ports: []string{"53", "53/udp"},
			Labels: map[string]string{discovery.TargetsLabel: "web:53/tcp,web:53/udp"},
		})
		h.engine.Run(enginetest.Spec{
			Name: "fixed", Fixed: map[string]uint16{"80": 8080}, Labels: map[string]string{discovery.TargetsLabel: "api"},
		})
		h.engine.Run(enginetest.Spec{
			Name: "host", NetworkMode: "host", Labels: map[string]string{discovery.TargetsLabel: "api:9000"},
		})
		h.wants("dns:32768", "dns:32768")
		wants := h.w.Snapshot().Wants
		if got := names(h.w.Snapshot(), "api"); strings.Join(got, " ") != "fixed:8080 host:9000" {
			t.Errorf("wanted in api: got %v", got)
		}
		if wants["web"][0].Protocol != target.TCP || wants["web"][1].Protocol != target.UDP || !wants["web"][0].Dynamic {
			t.Errorf("wanted in web: got %+v", wants["web"])
		}
		if wants["api"][0].Dynamic || wants["api"][1].Dynamic {
			t.Errorf("ports that the user chose count as Docker's: %+v", wants["api"])
		}
	})
}

func TestWatcher_optOutAndUnknownGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := options()
		opts.Rules = []discovery.Rule{{Group: "web", Match: &discovery.Match{Name: "*"}}}
		h := watch(t, enginetest.New(), &memoryStore{}, opts)
		for name, value := range map[string]string{"opted-out": "", "typo": "wbe", "malformed": "web:eighty"} {
			h.engine.Run(enginetest.Spec{Name: name, Ports: []string{"80"}, Labels: map[string]string{discovery.TargetsLabel: value}})
		}
		h.engine.Run(enginetest.Spec{Name: "plain", Ports: []string{"80"}})
		synctest.Wait()
		if got := names(h.w.Snapshot(), "web"); len(got) != 1 || !strings.HasPrefix(got[0], "plain:") {
			t.Errorf("wanted: got %v; want the plain one alone", got)
		}
		h.verdict("opted-out", discovery.Ignored)
		h.verdict("typo", discovery.Refused)
		h.verdict("malformed", discovery.Refused)
	})
}
