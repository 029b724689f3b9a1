package discovery_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/test/knownfault"
)

// unread is a store that cannot be read the first time: a disk has its moments.
type unread struct {
	*memoryStore
	tried bool
}

func (s *unread) Load() ([]discovery.Drain, error) {
	if !s.tried {
		s.tried = true
		return nil, errors.New("read drains: input/output error")
	}
	return s.memoryStore.Load()
}

// Drains that cannot be read at the start are read again, and not overwritten before: an operator's drain stays in force.
func TestWatcher_drainsThatCannotBeReadAtFirst(t *testing.T) {
	knownfault.Skip(t, "8", "drains that cannot be read at the start are overwritten by the next save")
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		a, b := engine.Run(web("web-1")), engine.Run(web("web-2"))
		id := discovery.DrainID("operator", a)
		store := &memoryStore{drains: []discovery.Drain{{ID: id, Container: a, Cause: "operator", By: "alice", Since: time.Now()}}}
		w, err := discovery.New(engine, &unread{memoryStore: store}, func(*discovery.Snapshot) {}, options())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		h := &fixture{T: t, engine: engine, w: w, store: store}
		h.settle(time.Minute)
		if got := names(w.Snapshot(), "web"); !slices.Equal(got, []string{"web-2:32769"}) {
			t.Errorf("wanted a minute after the start: %v; want web-2 alone", got)
		}
		engine.Signal(b, 15)
		h.settle(time.Second)
		kept := false
		for _, d := range store.saved() {
			kept = kept || d.ID == id
		}
		if !kept {
			t.Errorf("saved: %+v; want the operator's drain among them", store.saved())
		}
	})
}
