package discovery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

// fast is an engine whose clock is ahead, until it is set right.
type fast struct {
	*enginetest.Engine
	by    time.Duration
	right atomic.Bool
	set   time.Time // when it was; what began earlier keeps its time
}

func newFast(engine *enginetest.Engine, by time.Duration) *fast {
	f := &fast{Engine: engine, by: by}
	engine.Tamper(func(e discovery.Event) []discovery.Event {
		if !f.right.Load() {
			e.Time = e.Time.Add(f.by)
		}
		return []discovery.Event{e}
	})
	return f
}

func (f *fast) setRight() {
	f.set = time.Now()
	f.right.Store(true)
}

// Inspect implements discovery.Engine.
func (f *fast) Inspect(ctx context.Context, ref string) (discovery.Facts, error) {
	facts, err := f.Engine.Inspect(ctx, ref)
	if !f.right.Load() || facts.StartedAt.Before(f.set) {
		facts.StartedAt = facts.StartedAt.Add(f.by)
	}
	return facts, err
}

// The clock of a host was an hour ahead, and is set right. Times are of use to order what one engine says; what is new is
// what has just arrived.
func TestWatcher_clockSetBack_stopSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		f := newFast(engine, time.Hour)
		h := watchThrough(t, engine, f, &memoryStore{}, options())
		id := engine.Run(web("web-1"))
		h.settle(time.Minute)
		h.wants("web-1:32768")
		f.setRight()
		h.settle(time.Minute)
		engine.Signal(id, 15)
		h.settle(time.Second)
		h.wants()
	})
}

// A death that the stream has lost is found in the next full list.
func TestWatcher_clockSetBack_list(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		f := newFast(engine, time.Hour)
		h := watchThrough(t, engine, f, &memoryStore{}, options())
		id := engine.Run(web("web-1"))
		h.settle(time.Minute)
		h.wants("web-1:32768")
		f.setRight()
		engine.Tamper(func(discovery.Event) []discovery.Event { return nil })
		engine.Die(id, 1)
		h.settle(30 * time.Minute)
		h.wants()
	})
}

// clockSteps are how a host's clock is set.
var clockSteps = []time.Duration{365 * 24 * time.Hour, time.Hour, 3 * time.Second, -3 * time.Second, -7 * time.Minute, -time.Hour, -365 * 24 * time.Hour}

// afterSetting calls f after each setting of the clock of a host on which web-1 has run for five minutes.
func afterSetting(t *testing.T, f func(h *fixture, id string)) {
	t.Helper()
	for _, step := range clockSteps {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(web("web-1"))
				h.settle(5 * time.Minute)
				h.wants("web-1:32768")
				h.engine.SetClock(step + time.Nanosecond)
				f(h, id)
			})
		})
	}
}

// Whatever the clock shows, what takes out takes out at once, though no inspection is answered.
func TestWatcher_clockSet_out(t *testing.T) {
	for name, end := range map[string]func(e *enginetest.Engine, id string){
		"stop signal": func(e *enginetest.Engine, id string) { e.Signal(id, 15) },
		"death":       func(e *enginetest.Engine, id string) { e.Die(id, 1) },
		"network":     func(e *enginetest.Engine, id string) { e.Disconnect(id) },
		"removal":     func(e *enginetest.Engine, id string) { e.Remove(id) },
	} {
		for _, later := range []time.Duration{0, time.Second, 10 * time.Minute} {
			t.Run(fmt.Sprintf("%s %s later", name, later), func(t *testing.T) {
				afterSetting(t, func(h *fixture, id string) {
					h.settle(later)
					h.engine.HangInspect(id)
					end(h.engine, id)
					h.wants()
				})
			})
		}
	}
}

// The next run is in at once, and what is told to it counts.
func TestWatcher_clockSet_nextRun(t *testing.T) {
	afterSetting(t, func(h *fixture, id string) {
		h.settle(time.Second)
		for range 3 {
			h.engine.Restart(id)
			h.wants("web-1:32768")
			h.settle(time.Second)
			h.engine.Signal(id, 15)
			h.wants()
			h.engine.Die(id, 0)
			h.engine.Start(id)
			h.wants("web-1:32768")
			h.settle(10 * time.Second)
		}
	})
}

// A stop signal's drain lasts as long as it does: no step forward ends it, and none back makes it longer.
func TestWatcher_clockSet_survivor(t *testing.T) {
	for name, again := range map[string]bool{"one agent": false, "another agent": true} {
		t.Run(name, func(t *testing.T) {
			for _, step := range clockSteps {
				t.Run(step.String(), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h := start(t)
						id := h.engine.Run(web("web-1"))
						h.settle(5 * time.Minute)
						h.engine.Signal(id, 15)
						h.settle(time.Minute)
						h.engine.SetClock(step)
						h.settle(time.Minute)
						if again {
							h.stop()
							h = watch(t, h.engine, h.store, options())
						}
						h.settle(8*time.Minute - time.Second)
						h.wants()
						h.settle(time.Minute)
						h.wants("web-1:32768")
					})
				})
			}
		})
	}
}

// A drain that says it began later than now began on a clock that was set back since: it lasts no longer than others.
func TestWatcher_clockSet_drainOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		id := engine.Run(web("web-1"))
		f, _ := engine.Facts(id)
		store := &memoryStore{drains: []discovery.Drain{{
			ID: discovery.DrainID(discovery.CauseStopSignal, id), Container: id, StartedAt: f.StartedAt,
			Cause: discovery.CauseStopSignal, Hold: discovery.HoldRun, Since: time.Now().Add(time.Hour),
		}}}
		h := watch(t, engine, store, options())
		h.settle(10*time.Minute - time.Second)
		h.wants()
		h.settle(time.Minute)
		h.wants("web-1:32768")
	})
}

// A drain of a run that is not known yet is of the run that began before it.
func TestWatcher_clockSet_drainOfUnknownRun(t *testing.T) {
	for _, step := range clockSteps {
		synctest.Test(t, func(t *testing.T) {
			h := start(t)
			h.engine.SetClock(step)
			id := h.engine.Create(web("web-1"))
			release := h.engine.HangInspect(id)
			h.engine.Start(id)
			h.settle(time.Second)
			if _, err := h.w.Drain(t.Context(), discovery.Drain{Container: id, Cause: discovery.CauseOperator, Hold: discovery.HoldRun}); err != nil {
				t.Fatal(err)
			}
			release()
			h.wants()
			h.verdict("web-1", discovery.Drained)
			h.engine.Restart(id)
			h.wants("web-1:32768")
		})
	}
}

// A container that was run and told to stop before the clock was set back, while no stream was open, is never let in.
func TestWatcher_clockSet_signalOfTheFuture(t *testing.T) {
	for _, step := range clockSteps {
		synctest.Test(t, func(t *testing.T) {
			engine := enginetest.New()
			h := watchThrough(t, engine, historian{Engine: engine}, &memoryStore{}, options())
			h.settle(time.Minute)
			engine.Down()
			h.settle(time.Second)
			spec := web("web-1")
			spec.StopSignal = "SIGQUIT" // which the agent has to learn first
			engine.Signal(engine.Run(spec), 3)
			h.settle(time.Second)
			engine.SetClock(step)
			engine.SlowStreams(50 * time.Millisecond)
			h.settle(5 * time.Second)
			engine.Up()
			h.settle(30 * time.Second)
			h.verdict("web-1", discovery.Leaving)
			for _, s := range h.snapshots() {
				if len(s.Wants["web"]) > 0 {
					t.Fatalf("after a step of %s it is wanted: %s", step, describe(s))
				}
			}
		})
	}
}

// Who has crashed waits as long as he does, and so does a pause.
func TestWatcher_clockSet_waits(t *testing.T) {
	for _, step := range clockSteps {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(web("web-1"))
				h.settle(time.Second)
				h.engine.SetClock(step)
				h.settle(time.Second)
				h.engine.Die(id, 1)
				h.engine.StartAgain(id)
				h.settle(5 * time.Second)
				h.engine.SetClock(-step)
				h.settle(4 * time.Second)
				h.verdict("web-1", discovery.NotYet)
				h.settle(2 * time.Second)
				h.wants("web-1:32768")

				h.settle(time.Minute)
				h.engine.Pause(id)
				h.settle(2 * time.Second)
				h.engine.SetClock(step)
				h.settle(2 * time.Second)
				h.wants("web-1:32768")
				h.settle(2 * time.Second)
				h.wants()
			})
		})
	}
}

// The clock may show the moment at which a run began again: a stop signal that comes before that is this run's all the same.
func TestWatcher_clockSet_shownTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Create(web("web-1"))
		release := h.engine.HangInspect(id)
		h.settle(5 * time.Minute)
		h.engine.Start(id)
		h.settle(10 * time.Second)
		h.engine.SetClock(-3 * time.Minute)
		h.settle(10 * time.Second)
		h.engine.Signal(id, 15)
		h.settle(5 * time.Minute)
		release()
		h.settle(time.Minute)
		h.wants()
		h.verdict("web-1", discovery.Leaving)
	})
}

// What happened while no stream was open is told by the next one, whenever in between the clock was set.
func TestWatcher_clockSet_betweenStreams(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first %t", first), func(t *testing.T) {
			for _, step := range clockSteps {
				t.Run(step.String(), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						engine := enginetest.New()
						h := watchThrough(t, engine, historian{Engine: engine}, &memoryStore{}, options())
						id, other := engine.Run(web("web-1")), engine.Run(web("web-2"))
						h.settle(5 * time.Minute)
						h.engine.Down()
						h.settle(3 * time.Second)
						if first {
							h.engine.SetClock(step)
							h.settle(3 * time.Second)
						}
						h.engine.Signal(id, 15)
						h.engine.Restart(other)
						if !first {
							h.settle(3 * time.Second)
							h.engine.SetClock(step)
						}
						h.settle(30 * time.Second)
						published := len(h.snapshots())
						h.engine.Up()
						h.settle(30 * time.Second)
						h.wants("web-2:32769")
						h.verdict("web-1", discovery.Leaving)
						out := false
						for _, s := range h.snapshots()[published:] {
							wanted := slices.Contains(names(s, "web"), "web-1:32768")
							if wanted && out {
								t.Fatalf("it is wanted again: %s", describe(s))
							}
							out = !wanted
						}
					})
				})
			}
		})
	}
}

// An agent that begins after the clock was set knows nothing of that: it finds what runs, and hears what ends.
func TestWatcher_clockSet_beforeStart(t *testing.T) {
	for _, step := range clockSteps {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine := enginetest.New()
				crashed, told, stays := engine.Run(web("crashed")), engine.Run(web("told")), engine.Run(web("stays"))
				engine.Restart(stays)
				time.Sleep(time.Minute)
				engine.Die(crashed, 1)
				engine.StartAgain(crashed)
				time.Sleep(time.Minute)
				engine.SetClock(step)
				time.Sleep(time.Second)
				engine.Signal(told, 15)
				time.Sleep(time.Second)
				h := watchThrough(t, engine, historian{Engine: engine}, &memoryStore{}, options())
				h.settle(time.Second)
				h.wants("crashed:32768", "stays:32770")
				h.verdict("told", discovery.Leaving)
				h.settle(time.Second)
				engine.HangInspect(stays)
				engine.Signal(stays, 15)
				h.wants("crashed:32768")
				h.settle(5 * time.Minute)
				engine.Die(crashed, 1)
				h.wants()
			})
		})
	}
}

// A host port belongs to who has got it last, whatever the clocks say: the death of who had it before went unheard.
func TestWatcher_clockSet_port(t *testing.T) {
	afterSetting(t, func(h *fixture, id string) {
		h.settle(10 * time.Second)
		h.engine.HangInspect(id)
		h.engine.Tamper(func(e discovery.Event) []discovery.Event {
			if e.Container == id {
				return nil
			}
			return []discovery.Event{e}
		})
		h.engine.Die(id, 1)
		h.engine.Run(web("web-2"))
		h.wants("web-2:32768")
	})
}

// That the clock was set is said once.
func TestWatcher_clockSet_log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zap.InfoLevel)
		opts := options()
		opts.Log = zap.New(core)
		h := watch(t, enginetest.New(), &memoryStore{}, opts)
		h.settle(time.Minute)
		h.engine.SetClock(-time.Hour)
		h.settle(time.Minute)
		h.engine.SetClock(100 * time.Millisecond)
		h.settle(time.Minute)
		var said []string
		for _, e := range logged.FilterMessageSnippet("clock").All() {
			said = append(said, fmt.Sprintf("%s %v", e.Message, e.ContextMap()["by"]))
		}
		if got := strings.Join(said, "; "); got != "the host's clock was set -1h0m0s" {
			t.Errorf("got %q", got)
		}
	})
}
