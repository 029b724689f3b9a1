package discovery_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

// historian is an engine in memory that can tell the past.
type historian struct {
	*enginetest.Engine
	err   error
	hangs bool
}

func (h historian) Past(ctx context.Context, since time.Time) ([]discovery.Event, error) {
	if h.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Remembered(since), h.err
}

// Nobody watched while the signal came, and the stream tells of it long after list and inspection could have answered.
func TestWatcher_pastIsKnownFirst(t *testing.T) {
	for name, tc := range map[string]struct {
		stream time.Duration // before it brings its first event
		past   historian
	}{
		"told at once":                       {stream: time.Minute},
		"refused, and the stream tells it":   {stream: 50 * time.Millisecond, past: historian{err: errTest}},
		"no answer, and the stream tells it": {stream: 50 * time.Millisecond, past: historian{hangs: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				spec := web("web-1")
				spec.StopSignal = "SIGQUIT" // which the agent has to learn first
				id := h.engine.Run(spec)
				other := h.engine.Run(web("web-2"))
				h.settle(time.Second)
				h.stop()
				h.engine.Signal(id, 3)
				h.engine.Restart(other)
				time.Sleep(time.Minute)
				h.engine.SlowStreams(tc.stream)
				tc.past.Engine = h.engine
				again := watchThrough(t, h.engine, tc.past, h.store, options())
				again.settle(2 * time.Minute)
				again.wants("web-2:32769")
				again.verdict("web-1", discovery.Leaving)
				for _, s := range again.snapshots() {
					if slices.Contains(names(s, "web"), "web-1:32768") {
						t.Fatalf("it is wanted: %s", describe(s))
					}
				}
				if n := again.engine.Counts().Inspections[id]; n > 3 { // one before, one or two since
					t.Errorf("%d inspections of a container that nothing has happened to since", n)
				}
			})
		})
	}
}
