package model

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
)

// mostUnread is how often drains cannot be read at most: the agent reads them after 0.5, 1, 2, 4 and 8 s more, and goes on
// without them after 30. reading is how long that may take.
const (
	mostUnread = 5
	reading    = 20 * time.Second
)

// store are drains that cannot be read for a while.
type store struct {
	discovery.DrainStore
	failures atomic.Int64
	failing  atomic.Bool // since it is to fail it has not been read
}

func (s *store) fail(times int) {
	s.failures.Store(int64(times))
	s.failing.Store(true)
}

// unread reports whether the agent does not know yet what was drained.
func (s *store) unread() bool { return s.failing.Load() }

// Load fails as often as it is to.
func (s *store) Load() ([]discovery.Drain, error) {
	if s.failures.Add(-1) >= 0 {
		return nil, errors.New("the drains cannot be read")
	}
	s.failures.Store(0)
	s.failing.Store(false)
	return s.DrainStore.Load()
}

// misbehave has the engine, or what is between it and the registrar, misbehave, or end it.
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
		w.engineIs(false)
		// An engine that shuts down tells everybody to stop, on the stream that is still open.
		for _, id := range w.engine.IDs()[:len(w.engine.IDs())/2] {
			w.touch(id)
			w.engine.Die(id, 0)
		}
	case "down":
		w.engine.Down()
		w.engineIs(false)
		w.mu.Lock()
		w.hearing = laterOf(w.hearing, time.Now().Add(time.Minute)) // and until the next list
		w.mu.Unlock()
	case "up":
		w.engine.Up()
		w.engineIs(true)
	case "reboot", "reboot unannounced":
		w.mu.Lock()
		for _, id := range w.engine.IDs() {
			delete(w.wanted, id)
			delete(w.leaving, id)
		}
		w.mu.Unlock()
		w.engine.Reboot(w.rand, what == "reboot")
	case "restart agent", "restart agent, drains unread":
		if what != "restart agent" && id != "" { // there are some to be read
			w.drain(id)
			synctest.Wait()
		}
		w.stop()
		w.mu.Lock()
		if w.store.unread() {
			for _, end := range w.ends {
				end()
			}
		}
		w.ends = nil
		if what != "restart agent" {
			w.store.fail(1 + w.rand.IntN(mostUnread))
			w.lost = time.Now()
		}
		w.settle()
		w.calm, w.hearing = laterOf(w.calm, time.Now()), laterOf(w.hearing, time.Now())
		w.failed = laterOf(w.failed, time.Now()) // what the one has in doubt, the next has too
		w.mu.Unlock()
		w.start()
	case "misname":
		w.misname(services[w.rand.IntN(len(services))])
	case "misname and restart":
		w.misname(services[w.rand.IntN(len(services))])
		w.misbehave("restart agent", id)
	case "name well":
		w.nameWell()
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

// misname has the configuration name a group for a service that does not exist, and the agent reload it. Nothing changes for
// the service: the group that it has had goes on serving it.
func (w *world) misname(service string) {
	w.mu.Lock()
	if w.snapshot == nil { // the agent has not seen Docker's containers yet, and takes no configuration
		w.mu.Unlock()
		return
	}
	if w.misnamed[service] == 0 && !w.kept(service) && !w.found(service) {
		w.unserved[service] = true // nobody knows which group it had
	}
	w.misnamed[service] = 1 + w.rand.IntN(1000)
	w.mu.Unlock()
	w.reload()
}

// nameWell has the configuration name all groups as they are called.
func (w *world) nameWell() {
	w.mu.Lock()
	if w.snapshot == nil {
		w.mu.Unlock()
		return
	}
	clear(w.misnamed)
	if len(w.unserved) > 0 {
		clear(w.unserved)
		w.failed = laterOf(w.failed, time.Now()) // they are looked up and registered now
	}
	w.mu.Unlock()
	w.reload()
}

func (w *world) reload() {
	if err := w.agent.Reload(context.Background()); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.problem("reload: %v", err)
	}
}

// settle notes, when an agent has ended, for which misnamed services the next has no way to know the group that they had.
func (w *world) settle() {
	for s := range w.misnamed {
		w.unserved[s] = !w.kept(s)
	}
	maps.DeleteFunc(w.unserved, func(_ string, is bool) bool { return !is })
}

// kept reports whether the ledger has a target of a service that is not on its way out.
func (w *world) kept(service string) bool {
	return slices.ContainsFunc(w.options.Ledger.Entries(), func(e ledger.Entry) bool {
		return e.Group.Key == service && e.Facts.Name == service && e.Phase != ledger.Removing
	})
}

// found reports whether the agent that runs has found the group of a service.
func (w *world) found(service string) bool {
	s, _ := w.agent.Groups()
	return slices.ContainsFunc(s.Groups, func(g registrar.GroupStatus) bool {
		return g.ARN != "" && g.Name == service && slices.Contains(g.Keys, service)
	})
}

// stderr is where the agent's log goes. While it hangs nobody reads it, which keeps the agent from nothing.
type stderr struct {
	mu   sync.Mutex    // guards hung
	hung chan struct{} // closed when it goes on; nil: it does not hang
}

func (s *stderr) Write(p []byte) (int, error) {
	s.mu.Lock()
	hung := s.hung
	s.mu.Unlock()
	if hung != nil {
		<-hung
	}
	return len(p), nil
}

func (s *stderr) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hung == nil {
		s.hung = make(chan struct{})
	}
}

func (s *stderr) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hung != nil {
		close(s.hung)
		s.hung = nil
	}
}

// engineIs notes whether the engine answers.
func (w *world) engineIs(up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !up:
		w.engineUp = time.Time{}
	case w.engineUp.IsZero():
		w.engineUp = time.Now()
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
	case "aws refuses":
		code := refusals[1+w.rand.IntN(len(refusals)-1)]
		fault = elbsim.Fault{Kind: elbsim.FaultError, Code: code, Action: "*egisterTargets", Share: 0.5}
	case "aws throttles":
		fault = elbsim.Fault{Kind: elbsim.FaultError, Code: "Throttling", Share: 0.9}
	case "aws well":
		w.sim.ClearFaults()
	case "by hand":
		w.mu.Lock()
		w.byHand = time.Now()
		w.mu.Unlock()
		for _, s := range services {
			for _, x := range w.sim.Registered(s) {
				if ours(x) && w.rand.IntN(2) == 0 {
					_ = w.sim.Deregister(s, x) // it is there: it was listed
				}
			}
		}
	}
	w.mu.Lock()
	w.calm = laterOf(w.calm, time.Now())
	w.mu.Unlock()
	if fault.Kind != "" {
		w.fault(fault)
	}
}

// fault adds a fault to AWS, until it is well again or the fault is used up.
func (w *world) fault(f elbsim.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = time.Now().Add(30 * time.Minute) // until it is well, and some time after
	if _, err := w.sim.AddFault(f); err != nil {
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
		over := time.Now().Add(patience)
		w.tampered, w.askew, w.calm = false, over, laterOf(w.calm, over) // what else is wrong may take longer
	}
}
