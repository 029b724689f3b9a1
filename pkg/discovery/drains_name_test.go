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

// drainName drains the container by its name.
func (h *fixture) drainName(name, id string) string {
	h.Helper()
	d := discovery.Drain{Container: id, Name: name, Cause: discovery.CauseOperator, By: "ann"}
	if _, err := h.w.Drain(h.Context(), d); err != nil {
		h.Fatal(err)
	}
	return discovery.NameDrainID(d.Cause, name)
}

// drainOf is the drain of that id as it is on disk.
func (h *fixture) drainOf(id string) discovery.Drain {
	h.Helper()
	for _, d := range h.store.saved() {
		if d.ID == id {
			return d
		}
	}
	h.Fatalf("saved: %+v; want %s among them", h.store.saved(), id)
	return discovery.Drain{}
}

// A name that was drained is held whichever container bears it, or none, across restarts of the agent, until it is undrained.
func TestWatcher_Drain_name(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		a := h.engine.Run(web("web-1"))
		h.engine.Run(web("web-2"))
		h.wants("web-1:32768", "web-2:32769")
		id := h.drainName("web-1", a)
		h.wants("web-2:32769")
		if d := h.verdict("web-1", discovery.Drained); !strings.Contains(d.Why, "its name was drained by ann") || d.Change != "berth undrain web-1" {
			t.Errorf("drained: got %q, %q; want who drained the name, and how it ends", d.Why, d.Change)
		}

		h.engine.Remove(a)
		h.wants("web-2:32769")
		if d := h.verdict("web-1", discovery.Drained); d.Run != (target.Run{Name: "web-1"}) || d.Since.IsZero() || d.Change != "berth undrain web-1" {
			t.Errorf("a name that nobody bears: got %+v; want it listed, without a container", d)
		}
		h.settle(3 * time.Minute) // full lists pass: the container is not in them
		h.verdict("web-1", discovery.Drained)

		h.stop()
		h = watch(t, h.engine, h.store, options())
		h.settle(3 * time.Minute)
		h.verdict("web-1", discovery.Drained)
		b := h.engine.Run(web("web-1"))
		h.settle(time.Second)
		h.wants("web-2:32769")
		if d := h.verdict("web-1", discovery.Drained); d.Run.ID != b {
			t.Errorf("the new container: got %+v; want it held", d)
		}
		// An older agent knows no names: it finds the container that bears it.
		if d := h.drainOf(id); d.Container != b || d.Name != "web-1" {
			t.Errorf("saved: %+v; want the new container", d)
		}
		h.stop()
		h = watch(t, h.engine, h.store, options())
		h.settle(time.Second)
		h.wants("web-2:32769")
		if _, err := h.w.Undrain(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		h.wants("web-1:32768", "web-2:32769") // the port of the one that is gone
	})
}

// A name that is drained by two operators is drained once, and what it was drained as stays out under another name, too.
func TestWatcher_Drain_nameThatMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		a := h.engine.Run(web("web-1"))
		id := h.drainName("web-1", a)
		h.engine.Rename(a, "web-old")
		b := h.engine.Run(web("web-1"))
		h.settle(time.Second)
		h.wants()
		if d := h.verdict("web-old", discovery.Drained); !strings.Contains(d.Why, "drained under the name web-1 by ann") || d.Change != "berth undrain web-1" {
			t.Errorf("the one that was drained: got %q, %q; want under which name", d.Why, d.Change)
		}
		if again := h.drainName("web-1", b); again != id || len(h.w.Snapshot().Drains) != 1 {
			t.Errorf("drained again: %+v; want one drain", h.w.Snapshot().Drains)
		}
		h.wants()
		h.engine.Stop(a)
		h.engine.Start(a)
		h.settle(time.Second)
		h.wants()
		h.engine.Remove(a)
		h.settle(time.Second)
		if d := h.drainOf(id); d.Container != b {
			t.Errorf("saved when the first is gone: %+v; want the one that bears the name", d)
		}
		// Another one that takes the name is held, and one that gives it up is free.
		h.engine.Rename(b, "web-older")
		c := h.engine.Run(web("web-3"))
		h.settle(time.Second)
		h.wants("web-3:32768")
		h.engine.Rename(c, "web-1")
		h.settle(time.Second)
		h.wants()
		h.engine.Rename(c, "web-3")
		h.settle(time.Second)
		h.wants("web-3:32768")
		if _, err := h.w.Undrain(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		h.wants("web-3:32768", "web-older:32769")
	})
}

// The drain of a container ends with it, and holds no other of its name.
func TestWatcher_Drain_containerIsNoName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		a := h.engine.Run(web("web-1"))
		if _, err := h.w.Drain(t.Context(), discovery.Drain{Container: a, Cause: discovery.CauseOperator}); err != nil {
			t.Fatal(err)
		}
		h.wants()
		h.engine.Remove(a)
		h.engine.Run(web("web-1"))
		h.settle(time.Second)
		h.wants("web-1:32768") // the port is given again
		if d := h.w.Snapshot().Drains; len(d) != 0 {
			t.Errorf("drains: %+v; want none", d)
		}
	})
}

// A container that is stopped while the agent starts is there nevertheless: its drain does not move to who bears its name now.
func TestWatcher_Drain_nameOfAStoppedContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		a := h.engine.Run(web("web-1"))
		id := h.drainName("web-1", a)
		h.engine.Rename(a, "web-old")
		h.engine.Stop(a)
		h.engine.Run(web("web-1"))
		h.settle(time.Second)
		h.stop()
		h = watch(t, h.engine, h.store, options())
		h.settle(3 * time.Minute)
		h.wants()
		h.engine.Start(a)
		h.settle(time.Second)
		h.wants()
		if d := h.drainOf(id); d.Container != a {
			t.Errorf("saved: %+v; want the container that was drained", d)
		}
	})
}

// While Docker answers no inspection nothing of a drained name has to stay registered.
func TestWatcher_Drain_nameUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		a := engine.Run(web("web-1"))
		defer engine.HangInspect(a)()
		store := &memoryStore{drains: []discovery.Drain{{ID: "x", Container: a, Name: "web-1", Cause: discovery.CauseOperator, Since: time.Now()}}}
		h := watch(t, engine, store, options())
		h.settle(time.Minute)
		if s := h.w.Snapshot(); s == nil || len(s.Unknown) != 0 {
			t.Errorf("%s; want nothing that has to stay", describe(s))
		}
	})
}

// A drain of a name is never taken for one of the whole host.
func TestWatcher_Drain_nameAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		store := &memoryStore{drains: []discovery.Drain{{ID: "x", Name: "web-1", Cause: discovery.CauseOperator, Since: time.Now()}}}
		engine.Run(web("web-1"))
		engine.Run(web("web-2"))
		h := watch(t, engine, store, options())
		h.wants("web-2:32769")
		for _, d := range []discovery.Drain{
			{Name: "web-2", Cause: discovery.CauseOperator},
			{Name: "web-2", Container: "c", Hold: discovery.HoldRun, Cause: discovery.CauseOperator},
			{Name: "web-2", Container: "c", Hold: discovery.HoldConnection, Cause: discovery.CauseOperator},
		} {
			if _, err := h.w.Drain(t.Context(), d); err == nil {
				t.Errorf("Drain(%+v): got no error", d)
			}
		}
		h.wants("web-2:32769")
	})
}
