package model

import (
	"errors"
	"fmt"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

// action is one step of a run.
type action struct {
	what  string
	which int
	wait  time.Duration // afterwards
}

// The weight of an action is how often it stands here.
var names = []string{
	"run", "run", "run", "run", "start", "start", "stop", "stop", "die", "remove", "restart", "restart", "term", "term", "hup", "hup",
	"pause", "unpause", "disconnect", "connect", "swap", "swap",
	"cut", "tamper", "straight", "straight", "fail inspects", "fail list", "hang inspect", "stale inspection", "stale list", "heal", "heal",
	"api down", "api down", "down", "up", "up", "reboot", "reboot unannounced", "restart agent",
	"aws lost", "aws late", "aws late", "aws fails", "aws throttles", "aws well", "aws well", "by hand", "withhold", "publish all",
}

func drawActions(t *rapid.T) []action {
	one := rapid.Custom(func(t *rapid.T) action {
		return action{
			what:  rapid.SampledFrom(names).Draw(t, "what"),
			which: rapid.IntRange(0, 19).Draw(t, "which"),
			wait: rapid.SampledFrom([]time.Duration{
				0, 0, 0, 10 * time.Millisecond, time.Second, 5 * time.Second, 40 * time.Second, 40 * time.Second, 3 * time.Minute,
			}).Draw(t, "wait"),
		}
	})
	return rapid.SliceOfN(one, 1, 60).Draw(t, "actions")
}

// play plays the actions and returns what went wrong, and what was done.
func play(actions []action, seed uint64) (problems, log []string) {
	w := newWorld(seed)
	synctest.Wait()
	for range 1 + w.rand.IntN(4) {
		w.run()
	}
	time.Sleep(time.Minute)
	for _, a := range actions {
		w.mu.Lock()
		w.log = append(w.log, fmt.Sprintf("%s %s %d, then %s", time.Now().Format("15:04:05.000"), a.what, a.which, a.wait))
		w.note()
		w.mu.Unlock()
		w.do(a)
		w.check()
		time.Sleep(a.wait)
		synctest.Wait()
		w.check()
		if w.wrong() {
			break
		}
	}
	if !w.wrong() {
		w.quiesce()
	}
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problems, w.log
}

func (w *world) wrong() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.problems) > 0
}

func (w *world) container(n int) string {
	ids := w.engine.IDs()
	if len(ids) == 0 {
		return ""
	}
	return ids[n%len(ids)]
}

func (w *world) run() {
	service := [...]string{"web", "web", "api", ""}[w.rand.IntN(4)]
	labels := map[string]string{discovery.TargetsLabel: service}
	if service == "" {
		labels = nil // somebody else's application, which takes ports all the same
	}
	w.engine.Run(enginetest.Spec{Labels: labels, Ports: []string{"8080"}, StopSignal: [...]string{"", "SIGQUIT"}[w.rand.IntN(2)]})
}

func (w *world) touch(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wanted, id)
}

func (w *world) do(a action) {
	id := w.container(a.which)
	switch a.what {
	case "hup":
		w.engine.Signal(id, 1)
	case "run":
		if len(w.engine.IDs()) < 20 {
			w.run()
		}
	case "start", "restart", "swap":
		w.touch(id)
		if a.what != "start" {
			w.engine.Stop(id)
		}
		if a.what == "swap" {
			w.run() // it gets the port that has just become free
		}
		w.mu.Lock()
		if f, _ := w.engine.Facts(id); f.State != "running" && f.State != "paused" {
			delete(w.leaving, id)
		}
		w.mu.Unlock()
		w.engine.Start(id)
	case "stop":
		w.touch(id)
		w.engine.Stop(id)
	case "die":
		w.touch(id)
		w.engine.Die(id, 1)
	case "remove":
		w.touch(id)
		w.engine.Remove(id)
	case "term":
		w.touch(id)
		if f, _ := w.engine.Facts(id); f.State == "running" {
			w.mu.Lock()
			w.leaving[id] = time.Now()
			w.mu.Unlock()
			w.engine.Signal(id, 15)
		}
	case "pause":
		w.touch(id)
		w.engine.Pause(id)
	case "unpause":
		w.touch(id)
		w.engine.Unpause(id)
	case "disconnect":
		w.touch(id)
		w.engine.Disconnect(id)
	case "connect":
		w.touch(id)
		w.engine.Connect(id)
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
	default:
		w.misbehave(a.what, id)
	}
}

// endSlowly ends a container while Docker is slow, and lets it answer then.
func (w *world) endSlowly(id string) {
	synctest.Wait()
	w.engine.Die(id, 0)
	time.Sleep(time.Millisecond)
	synctest.Wait()
	w.engine.Heal()
}

func (w *world) misbehave(what, id string) {
	switch what {
	case "cut":
		w.engine.Cut()
	case "tamper":
		w.mu.Lock()
		w.tampered, w.askew = true, time.Now().Add(1000*time.Hour)
		w.mu.Unlock()
		w.engine.Tamper(w.tamper)
	case "straight":
		w.straighten()
	case "fail inspects":
		w.engine.FailInspect("", errors.New("every inspection fails"))
	case "fail list":
		w.engine.FailList(errors.New("the list fails"))
		w.engine.Cut()
	case "hang inspect":
		w.engine.HangInspect(id)
	case "heal":
		w.engine.Heal()
	case "api down":
		w.engine.APIDown()
		// An engine that shuts down tells everybody to stop, on the stream that is still open.
		for _, id := range w.engine.IDs()[:len(w.engine.IDs())/2] {
			w.touch(id)
			w.engine.Die(id, 0)
		}
	case "down":
		w.engine.Down()
		w.mu.Lock()
		w.hearing = laterOf(w.hearing, time.Now().Add(time.Minute)) // and until the next list
		w.mu.Unlock()
	case "up":
		w.engine.Up()
	case "reboot", "reboot unannounced":
		w.mu.Lock()
		for _, id := range w.engine.IDs() {
			delete(w.wanted, id)
			delete(w.leaving, id)
		}
		w.mu.Unlock()
		w.engine.Reboot(w.rand, what == "reboot")
	case "restart agent":
		w.stop()
		w.mu.Lock()
		w.calm, w.hearing = laterOf(w.calm, time.Now()), laterOf(w.hearing, time.Now())
		w.mu.Unlock()
		w.start()
	case "withhold", "publish all":
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.withhold = services[w.rand.IntN(len(services))]; what != "withhold" {
			w.withhold = ""
		}
		// What is withheld is not acted upon: nobody may be blamed for what is late.
		w.askew, w.calm = laterOf(w.askew, time.Now().Add(patience)), time.Now().Add(30*time.Minute)
		w.hearing = time.Now().Add(time.Minute)
		if what == "withhold" {
			w.hearing = time.Now().Add(1000 * time.Hour) // until all is published
			w.askew = time.Time{}                        // but nothing may be removed because of it
		}
	default:
		w.aws(what)
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// aws has AWS misbehave, or end it.
func (w *world) aws(what string) {
	fault := elbsim.Fault{}
	switch what {
	case "aws lost":
		fault = elbsim.Fault{Kind: elbsim.FaultLost, Action: "*egisterTargets", Share: 0.5}
	case "aws late":
		fault = elbsim.Fault{Kind: elbsim.FaultLate, Delay: elbsim.Duration(time.Duration(2+w.rand.IntN(23)) * time.Second), Action: "*egisterTargets", Share: 0.5}
	case "aws fails":
		fault = elbsim.Fault{Kind: elbsim.FaultError, Code: "InternalFailure", Share: 0.7}
	case "aws throttles":
		w.throttled = true
		fault = elbsim.Fault{Kind: elbsim.FaultError, Code: "Throttling", Share: 0.9}
	case "aws well":
		w.sim.ClearFaults()
	case "by hand":
		for _, s := range services {
			for _, x := range w.sim.Registered(s) {
				if x.ID == instance && x.Port >= ephemeral && w.rand.IntN(2) == 0 {
					_ = w.sim.Deregister(s, x) // it is there: it was listed
				}
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = laterOf(w.calm, time.Now())
	if fault.Kind == "" {
		return
	}
	w.calm = time.Now().Add(30 * time.Minute) // until it is well, and some time after
	if _, err := w.sim.AddFault(fault); err != nil {
		w.problem("add a fault: %v", err)
	}
}

// tamper loses, repeats and delays events.
func (w *world) tamper(e discovery.Event) []discovery.Event {
	switch w.rand.IntN(6) {
	case 0:
		return nil
	case 1:
		return []discovery.Event{e, e}
	case 2:
		w.heldBack = append(w.heldBack, e)
		return nil
	case 3:
		out := append([]discovery.Event{e}, w.heldBack...)
		w.heldBack = nil
		return out
	}
	return []discovery.Event{e}
}

// straighten ends tampering: what was held back comes late, and what was lost is found by the next stream.
func (w *world) straighten() {
	w.engine.Tamper(nil)
	for _, e := range w.heldBack {
		w.engine.Emit(e)
	}
	w.heldBack = nil
	w.engine.Cut()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tampered {
		w.tampered, w.askew, w.calm = false, time.Now().Add(patience), time.Now().Add(patience)
	}
}
