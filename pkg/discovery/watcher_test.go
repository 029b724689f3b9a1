package discovery_test

import (
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
		h.engine.Start(id)
		h.wants("web-1:32768")
	})
}

func TestWatcher_inspectionOfAnotherHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		y := h.engine.Run(web("y"))
		h.wants("y:32768")
		x := h.engine.Create(web("x"))
		release := h.engine.HangInspect(x)
		defer release()
		h.engine.Start(x)
		synctest.Wait()
		h.engine.Signal(y, 15)
		h.wants()
	})
}

func TestWatcher_startsWithRunningContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		engine.Run(web("a"))
		engine.Run(web("b"))
		h := watch(t, engine, &memoryStore{}, options())
		h.wants("a:32768", "b:32769")
		if n := len(h.snapshots()); n != 1 {
			t.Errorf("published %d snapshots at the start; want 1", n)
		}
	})
}
