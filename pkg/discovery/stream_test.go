package discovery_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"berth/pkg/discovery/enginetest"
)

// blind is for how long the stream is down after f, until it is up again; at most a minute.
func (h *fixture) blind(f func()) time.Duration {
	h.Helper()
	begun, reconnects := time.Now(), h.w.Stream().Reconnects
	f()
	synctest.Wait()
	for s := h.w.Stream(); !s.Up || s.Reconnects == reconnects; s = h.w.Stream() {
		if h.settle(10 * time.Millisecond); time.Since(begun) > time.Minute {
			h.Fatalf("it is blind: %+v", s)
		}
	}
	return time.Since(begun)
}

// An engine that comes back is seen soon, however often it was away before: what counts is that it was there between.
func TestWatcher_engineRestartsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.settle(time.Minute)
		h.engine.Down()
		h.settle(10 * time.Second)
		h.engine.Up()
		h.settle(30 * time.Second)
		for range 5 {
			h.engine.Down()
			h.settle(2 * time.Second)
			if d := h.blind(h.engine.Up); d > 2*time.Second {
				t.Errorf("it was blind for %s after the engine was back", d)
			}
			h.settle(10 * time.Second)
		}
	})
}

// Where something cuts every stream after a while, the next one follows at once; where it cuts them at once, a little later.
func TestWatcher_streamsAreCut(t *testing.T) {
	for lived, most := range map[time.Duration]time.Duration{
		20 * time.Second: 500 * time.Millisecond,
		5 * time.Second:  500 * time.Millisecond,
		time.Second:      2 * time.Second,
		0:                2 * time.Second,
	} {
		t.Run(lived.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(web("web-1"))
				h.settle(time.Minute)
				begun := time.Now()
				for range 20 {
					h.settle(lived)
					if d := h.blind(h.engine.Cut); d > most+10*time.Millisecond {
						t.Errorf("it was blind for %s", d)
					}
				}
				if d := time.Since(begun); lived == 0 && d < 15*time.Second {
					t.Errorf("20 streams in %s: Docker is asked for a list each time", d)
				}
				h.engine.Signal(id, 15)
				h.wants()
			})
		})
	}
}

// An engine that refuses streams is asked less and less often.
func TestWatcher_streamsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		h := watch(t, engine, &memoryStore{}, options())
		h.settle(time.Minute)
		engine.Down()
		h.settle(time.Minute)
		before := engine.Counts().Pings
		h.settle(10 * time.Minute)
		if n := engine.Counts().Pings - before; n < 20 || n > 45 {
			t.Errorf("asked %d times in ten minutes; want once in 15 to 30 s", n)
		}
	})
}

// One short stream after another is said, and then not again with each of them.
func TestWatcher_streamsAreCut_log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zap.InfoLevel)
		opts := options()
		opts.Log = zap.New(core)
		h := watch(t, enginetest.New(), &memoryStore{}, opts)
		for range 100 {
			h.engine.Cut()
			h.settle(2100 * time.Millisecond)
		}
		if n := logged.FilterMessageSnippet("docker").Len(); n < 4 || n > 10 {
			t.Errorf("%d lines about 100 streams; want a few", n)
		}
		h.settle(time.Minute)
		h.engine.Cut()
		h.settle(time.Second)
		if all := logged.TakeAll(); len(all) == 0 || all[len(all)-1].Message != "watching docker" {
			t.Errorf("got %v; want a line about a stream that ended after a minute, and about the next", all)
		}
	})
}

// Short streams hide no outage: after them it is said that Docker is down, once, and that a stream lasts. That short ones go
// on is said once.
func TestWatcher_outageAfterShortStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zap.InfoLevel)
		opts := options()
		opts.Log = zap.New(core)
		h := watch(t, enginetest.New(), &memoryStore{}, opts)
		last := func() observer.LoggedEntry { all := logged.All(); return all[len(all)-1] }
		cut := func(n int) {
			for range n {
				h.settle(2100 * time.Millisecond)
				h.engine.Cut()
			}
		}
		cut(8)
		if n := logged.FilterMessageSnippet("again and again").Len(); n != 1 || last().Level != zap.WarnLevel {
			t.Errorf("said %d times that streams end again and again, and %q in the end; want it once, and last", n, last().Message)
		}
		for range 3 { // down, up for a moment, and down again
			h.engine.Down()
			h.settle(time.Minute)
			if e := last(); e.Message != "docker's event stream is down, what is known stays" || !strings.Contains(fmt.Sprint(e.ContextMap()["error"]), enginetest.ErrDown.Error()) {
				t.Errorf("got %q %v; want that docker is down", e.Message, e.ContextMap())
			}
			h.blind(h.engine.Up)
			h.settle(time.Second)
		}
		outages := logged.Filter(func(e observer.LoggedEntry) bool {
			return strings.Contains(fmt.Sprint(e.ContextMap()["error"]), "ping docker: "+enginetest.ErrDown.Error())
		})
		if n := outages.Len(); n != 1 {
			t.Errorf("the outage is said %d times; want once", n)
		}
		h.settle(time.Minute)
		if e := last(); e.Message != "watching docker" {
			t.Errorf("got %q; want that a stream lasts", e.Message)
		}
		logged.TakeAll()
		h.engine.Cut()
		h.settle(time.Second)
		if all := logged.All(); len(all) != 2 || all[0].Level != zap.WarnLevel || all[1].Message != "watching docker" {
			t.Errorf("got %v; want that the lasting stream ended, and the next", all)
		}
	})
}
