package discovery_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

func TestWatcher_startAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.wants()
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.engine.Signal(id, 15)
		h.wants()
		h.verdict("web-1", discovery.Leaving)
		h.engine.Die(id, 0)
		h.wants()
		h.settle(time.Second)
		if n, m := len(h.w.Snapshot().Drains), len(h.store.saved()); n != 0 || m != 0 {
			t.Errorf("%d drains, %d on disk, of a run that is over; want none", n, m)
		}
		h.engine.Start(id)
		h.wants("web-1:32768")
	})
}

func TestWatcher_signals(t *testing.T) {
	for _, tc := range []struct {
		stopSignal string
		signal     int
		out        bool
	}{
		{"", 15, true},
		{"", 9, true},
		{"", 1, false},
		{"", 10, false},
		{"", 3, false}, // a thread dump
		{"", 2, false},
		{"SIGQUIT", 3, true},
		{"QUIT", 3, true},
		{"3", 3, true},
		{"SIGRTMIN+3", 37, true},
		{"SIGRTMIN+3", 36, false},
		{"28", 28, true},
		{"SIGWINCH", 28, true},
		{"SIGUSR1", 15, true},
	} {
		t.Run(fmt.Sprintf("%d to %q", tc.signal, tc.stopSignal), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				spec := web("web-1")
				spec.StopSignal = tc.stopSignal
				id := h.engine.Run(spec)
				h.wants("web-1:32768")
				before := h.engine.Counts().Total()
				h.settle(time.Second)
				h.engine.Signal(id, tc.signal)
				if tc.out {
					h.wants()
				} else {
					h.wants("web-1:32768")
				}
				if n := h.engine.Counts().Total() - before; n != 0 {
					t.Errorf("the signal cost %d inspections; want none", n)
				}
			})
		})
	}
}

// A container that lives on long after its stop signal is wanted again, once an inspection has confirmed it.
func TestWatcher_survivor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		slow := web("slow")
		slow.StopTimeout = 20 * time.Minute
		slowID := h.engine.Run(slow)
		h.settle(time.Minute)
		h.engine.Signal(id, 15)
		h.engine.Signal(slowID, 15)
		h.settle(10*time.Minute - time.Second)
		h.wants()
		h.engine.FailInspect(id, errors.New("no answer"))
		h.settle(2 * time.Second)
		h.wants() // nobody has confirmed it
		h.engine.Heal()
		h.settle(2 * time.Minute)
		h.wants("web-1:32768")
		h.settle(10 * time.Minute)
		h.wants("slow:32769", "web-1:32768") // StopTimeout and 5 s
		if len(h.store.saved()) != 0 {
			t.Errorf("drains left on disk: %v", h.store.saved())
		}
	})
}

// A second signal renews the wait: docker stop may be on its way again.
func TestWatcher_survivorSignalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.settle(time.Minute)
		h.engine.Signal(id, 15)
		h.settle(9 * time.Minute)
		h.engine.Signal(id, 15)
		h.settle(9 * time.Minute)
		h.wants()
		h.settle(2 * time.Minute)
		h.wants("web-1:32768")
	})
}

// When an engine shuts down, its API goes first; the last events still arrive, and no inspection would answer.
func TestWatcher_engineShutsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		a, b := h.engine.Run(web("a")), h.engine.Run(web("b"))
		h.wants("a:32768", "b:32769")
		h.settle(10 * time.Second) // the guard's time to ping comes in the middle of it
		before := h.engine.Counts()
		h.engine.APIDown()
		h.engine.Stop(a)
		h.wants("b:32769")
		h.settle(time.Second)
		h.engine.Signal(b, 15)
		h.wants()
		h.settle(8 * time.Second)
		h.engine.Die(b, 0)
		h.settle(time.Second)
		after := h.engine.Counts()
		// With systemd holding the socket, a connection now would have it start the engine again.
		if n := after.Total() - before.Total() + after.Lists - before.Lists + after.Pings - before.Pings; n != 0 {
			t.Errorf("the engine was asked %d times while it shut down; want never", n)
		}
	})
}

// A stop signal counts across restarts of the agent, whether the engine still remembers the event or not.
func TestWatcher_leavingAcrossRestarts(t *testing.T) {
	for name, prepare := range map[string]func(*fixture){
		"from the disk":   func(h *fixture) { h.engine.Forget() },
		"from the events": func(h *fixture) { h.store.drains = nil },
		"from both":       func(*fixture) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(web("web-1"))
				h.engine.Run(web("web-2"))
				h.settle(time.Second)
				h.engine.Signal(id, 15)
				h.wants("web-2:32769")
				h.stop()
				prepare(h)
				again := watch(t, h.engine, h.store, options())
				again.wants("web-2:32769")
				again.verdict("web-1", discovery.Leaving)
				for _, s := range again.snapshots() {
					if len(s.Unknown) != 0 {
						t.Errorf("snapshot %d: unknown %v", s.Seq, s.Unknown)
					}
				}
				again.settle(time.Second)
				h.engine.Die(id, 0)
				h.engine.Start(id)
				again.wants("web-1:32768", "web-2:32769")
			})
		})
	}
}

// Nobody watched while the signal came. At no moment is it wanted, though list and inspection are quicker than the
// stream that tells of it.
func TestWatcher_toldToStopWhileTheAgentWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		spec := web("web-1")
		spec.StopSignal = "SIGQUIT" // which the agent has to learn first
		id := h.engine.Run(spec)
		h.settle(time.Second)
		h.stop()
		h.engine.Signal(id, 3)
		time.Sleep(time.Minute)
		h.engine.SlowStreams(50 * time.Millisecond)
		again := watch(t, h.engine, h.store, options())
		again.wants()
		again.verdict("web-1", discovery.Leaving)
		for _, s := range again.snapshots() {
			if len(s.Wants["web"]) > 0 {
				t.Fatalf("it is wanted: %s", describe(s))
			}
		}
	})
}

// A drain of a run that is over by now holds nobody.
func TestWatcher_drainOfAnEarlierRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.settle(time.Second)
		h.engine.Signal(id, 15)
		h.wants()
		h.stop()
		h.engine.Die(id, 0)
		time.Sleep(time.Second)
		h.engine.Start(id)
		h.engine.Forget()
		again := watch(t, h.engine, h.store, options())
		again.wants("web-1:32768")
		if got := again.store.saved(); len(got) != 0 {
			t.Errorf("drains on disk: got %v; want none", got)
		}
	})
}

// The death of an earlier run, told again to a fresh agent, ends no drain of the present one.
func TestWatcher_drainOfThisRunAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.settle(time.Second)
		h.engine.Restart(id)
		h.wants("web-1:32768")
		h.settle(time.Second)
		d := discovery.Drain{Container: id, Cause: discovery.CauseOperator, Hold: discovery.HoldRun}
		if _, err := h.w.Drain(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		h.stop()
		again := watch(t, h.engine, h.store, options())
		again.wants()
		again.verdict("web-1", discovery.Drained)
	})
}

// A signal that comes between the start and the first inspection counts.
func TestWatcher_signalBeforeTheFirstInspection(t *testing.T) {
	for _, signal := range []int{15, 3} {
		t.Run(fmt.Sprint(signal), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				spec := web("web-1")
				spec.StopSignal = "SIGQUIT"
				id := h.engine.Create(spec)
				release := h.engine.HangInspect(id)
				h.engine.Start(id)
				h.settle(100 * time.Millisecond)
				h.engine.Signal(id, signal)
				synctest.Wait()
				release()
				h.wants()
				h.verdict("web-1", discovery.Leaving)
			})
		})
	}
}

// Start and stop of one container in quick succession, a hundred times, ends right, whatever the last one was.
func TestWatcher_quickSuccession(t *testing.T) {
	for _, last := range []string{"stopped", "running"} {
		t.Run(last, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Create(web("web-1"))
				for range 100 {
					h.engine.Start(id)
					h.engine.Stop(id)
				}
				if last == "running" {
					h.engine.Start(id)
					h.wants("web-1:32768")
				} else {
					h.wants()
				}
				for _, d := range h.w.Snapshot().Drains {
					t.Errorf("a drain is left: %+v", d)
				}
			})
		})
	}
}

func TestWatcher_restartAndPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		a := h.engine.Run(web("a"))
		h.wants("a:32768")
		b := h.engine.Run(web("b"))
		h.wants("a:32768", "b:32769")
		h.settle(time.Second)
		h.engine.Stop(a)
		h.engine.Restart(b)
		h.wants("b:32768") // the port that was a's
		h.engine.Start(a)
		h.wants("a:32769", "b:32768")
	})
}

func TestWatcher_remove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.engine.Run(web("web-2"))
		h.settle(time.Second)
		h.engine.Remove(id)
		h.wants("web-2:32769")
		for _, d := range h.w.Snapshot().Decisions {
			if d.Run.ID == id {
				t.Errorf("a decision about what is gone: %+v", d)
			}
		}
		if n := len(h.store.saved()); n != 0 {
			t.Errorf("%d drains are left of a container that is gone", n)
		}
	})
}

// A start that fails emits connect, disconnect and destroy, and is never wanted.
func TestWatcher_failedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.settle(time.Second)
		before := h.engine.Counts().Total()
		id := h.engine.Create(web("web-1"))
		for _, action := range []string{discovery.ActionConnect, discovery.ActionDisconnect} {
			h.engine.Emit(discovery.Event{Action: action, Container: id, Network: "n"})
		}
		h.engine.Remove(id)
		h.wants()
		if n := h.engine.Counts().Total() - before; n != 0 {
			t.Errorf("%d inspections; want none", n)
		}
	})
}

// Events that say nothing about what is wanted cost nothing.
func TestWatcher_eventsThatChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Second)
		before, published := h.engine.Counts(), len(h.snapshots())
		for i := range 10000 {
			h.engine.Emit(discovery.Event{Action: "exec_start: /healthz", Container: id})
			h.engine.Emit(discovery.Event{Action: "oom", Container: id})
			h.engine.Signal(id, 1)
			h.engine.Emit(discovery.Event{Action: "top", Container: fmt.Sprint(i)})
		}
		h.wants("web-1:32768")
		if n := h.engine.Counts().Total() - before.Total(); n != 0 {
			t.Errorf("%d inspections; want none", n)
		}
		if n := len(h.snapshots()) - published; n != 0 {
			t.Errorf("%d publications; want none", n)
		}
	})
}

// What stands in a snapshot that was published stays as it is.
func TestWatcher_snapshotsAreImmutable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		s := h.w.Snapshot()
		before := describe(s)
		h.engine.SetHealth(id, discovery.HealthUnhealthy)
		h.engine.Rename(id, "renamed")
		h.wants("renamed:32768")
		h.engine.Stop(id)
		h.wants()
		if after := describe(s); after != before {
			t.Errorf("a published snapshot has changed from\n%sto\n%s", before, after)
		}
		var last uint64
		for _, s := range h.snapshots() {
			if s.Seq != last+1 {
				t.Errorf("Seq: got %d after %d", s.Seq, last)
			}
			last = s.Seq
		}
	})
}

// The engine of the fixture is used as others use it: one that is told nothing is down and up again.
var _ discovery.Engine = (*enginetest.Engine)(nil)
