package model

import (
	"fmt"
	"testing/synctest"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
)

// together does things that are dangerous together and seldom meet.
func (w *world) together(what, id string) {
	switch what {
	case "stale inspection":
		// Docker answers "running" after the death, because it was asked before.
		w.touch(id)
		w.engine.HangInspect(id)
		w.engine.Rename(id, fmt.Sprintf("renamed-%d", len(w.log)))
		w.endSlowly(id)
	case "stale list":
		w.touch(id)
		w.engine.HangList()
		w.engine.Cut()
		time.Sleep(3 * time.Second)
		w.endSlowly(id)
	case "dies unseen":
		// It dies while Docker answers nobody who asks about it.
		w.touch(id)
		w.engine.HangInspect(id)
		w.happens(func() { w.engine.Die(id, 1) })
	case "late and stopped":
		// The registration times out, the container goes, and then the registration takes effect.
		late := elbsim.Duration(time.Duration(15+w.rand.IntN(11)) * time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultLate, Delay: late, Action: "RegisterTargets", Times: 1})
		w.comesAndGoes(3*time.Second + time.Duration(w.rand.IntN(10000))*time.Millisecond)
		w.pass(80 * time.Second)
	case "stopped in the queue":
		// More start in a second than may be registered in one, each by a call of its own, and some stop at once.
		for range 4 + w.rand.IntN(3) {
			w.comesAndGoes(time.Duration(50+w.rand.IntN(200)) * time.Millisecond)
		}
	case "stopped when throttled":
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "Throttling", Action: "RegisterTargets", Times: 1 + w.rand.IntN(4)})
		for range 1 + w.rand.IntN(3) {
			w.comesAndGoes(time.Duration(w.rand.IntN(5000)) * time.Millisecond)
		}
	case "refused and drained":
		// A registration times out and takes effect late. Meanwhile its container is drained, undrained, and drained again, and
		// the registration that comes between is refused.
		if w.drained[""] {
			return
		}
		late := elbsim.Duration(time.Duration(15+w.rand.IntN(11)) * time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultLate, Delay: late, Action: "RegisterTargets", Times: 1})
		w.happens(func() {
			id = w.run()
			w.touch(id)
			w.restart(id, func() {})
		})
		w.pass(time.Duration(3100+w.rand.IntN(900)) * time.Millisecond)
		w.drain(id)
		w.pass(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: refusals[w.rand.IntN(len(refusals))], Action: "RegisterTargets", Times: 1})
		w.undrain()
		w.pass(time.Duration(w.rand.IntN(500)) * time.Millisecond)
		w.drain(id)
		w.pass(80 * time.Second)
	case "removed when throttled":
		// Registrations wait in every group, for minutes, when a container that is served stops.
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "Throttling", Action: "RegisterTargets", Times: 10 + w.rand.IntN(20)})
		for _, s := range services {
			if len(w.engine.IDs()) < 20 {
				w.happens(func() { w.health(w.runFor(s), discovery.HealthHealthy) })
			}
		}
		w.pass(time.Duration(1+w.rand.IntN(8)) * time.Minute)
		id := w.container(w.rand.IntN(20))
		w.touch(id)
		w.happens(func() { w.engine.Stop(id) })
		w.pass(time.Minute)
	}
}

// refusals are codes of calls that certainly took no effect.
var refusals = []string{"Throttling", "AccessDenied", "InvalidTarget", "TooManyTargets"}

// often does to the engine, or to the clock of its host, what agents bear once and not again and again.
func (w *world) often(what string) {
	switch what {
	case "clock back", "clock forward":
		steps := []time.Duration{3 * time.Second, 90 * time.Second, 7 * time.Minute, time.Hour, 26 * time.Hour}
		by := steps[w.rand.IntN(len(steps))] + time.Duration(w.rand.IntN(1e9)) // no two moments ever show the same
		if what == "clock back" {
			by = -by
		}
		w.engine.SetClock(by)
		w.mu.Lock()
		w.clockSet = append(w.clockSet, time.Now())
		w.mu.Unlock()
	case "cut often":
		for range 3 + w.rand.IntN(4) {
			w.engine.Cut()
			w.pass(time.Duration(1+w.rand.IntN(25)) * time.Second)
		}
	case "down and up often":
		for range 2 + w.rand.IntN(3) {
			w.misbehave("down", "")
			w.pass(time.Duration(1+w.rand.IntN(10)) * time.Second)
			w.misbehave("up", "")
			w.pass(time.Duration(3+w.rand.IntN(25)) * time.Second)
		}
	}
}

// comesAndGoes starts a container, and stops it after so long, or another one that runs.
func (w *world) comesAndGoes(after time.Duration) {
	var id string
	w.happens(func() {
		id = w.run()
		w.touch(id)
		w.restart(id, func() {})
	})
	w.pass(after)
	if w.rand.IntN(4) == 0 {
		id = w.container(w.rand.IntN(20))
	}
	w.touch(id)
	w.happens(func() { w.engine.Stop(id) })
	w.check()
}

// endSlowly ends a container while Docker is slow, and lets it answer then.
func (w *world) endSlowly(id string) {
	w.happens(func() { w.engine.Die(id, 0) })
	time.Sleep(time.Millisecond)
	synctest.Wait()
	w.engine.Heal()
}
