package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

var errTest = errors.New("it failed on purpose")

// The loop waits for nobody: while the inspection of X hangs, and the list too, Y's end is acted on, and Z comes in.
func TestWatcher_othersHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		y := h.engine.Run(web("y"))
		h.wants("y:32768")
		var hung []string
		for i := range 5 {
			x := h.engine.Create(web(fmt.Sprintf("x%d", i)))
			defer h.engine.HangInspect(x)()
			h.engine.Start(x)
			hung = append(hung, x)
		}
		defer h.engine.HangList()()
		h.settle(3 * time.Minute)
		h.wants("y:32768")
		h.engine.Signal(y, 15)
		h.wants()
		h.engine.Run(web("z"))
		h.wants("z:32774")
		for _, id := range hung {
			// 10 s for each attempt and up to a minute in between: it neither gives up nor storms.
			if n := h.engine.Counts().Inspections[id]; n < 3 || n > 15 {
				t.Errorf("inspections of one that hangs: got %d in 3 minutes; want 3 to 15", n)
			}
		}
	})
}

// Many hang, and each in its own way: while they are being tried again, and when a reconnection has all inspected.
func TestWatcher_manyHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		var ids []string
		for i := range 40 {
			ids = append(ids, h.engine.Run(web(fmt.Sprintf("web-%02d", i))))
		}
		h.settle(time.Minute)
		comesInAtOnce := func(when string) {
			t.Helper()
			id := h.engine.Run(enginetest.Spec{Name: "quick", Ports: []string{"80"}, Labels: map[string]string{discovery.TargetsLabel: "api"}})
			synctest.Wait()
			if got := names(h.w.Snapshot(), "api"); len(got) != 1 {
				t.Errorf("%s: wanted in api: got %v; want one", when, got)
			}
			h.engine.Remove(id)
			synctest.Wait()
		}
		for _, id := range ids {
			h.engine.HangInspect(id)
		}
		h.engine.Cut()
		h.settle(5 * time.Second)
		comesInAtOnce("all are inspected again")
		h.settle(5 * time.Minute)
		for range 60 {
			h.settle(time.Second)
			comesInAtOnce("all are tried again")
		}
		if got := len(h.w.Snapshot().Wants["web"]); got != 40 {
			t.Errorf("wanted in web: got %d; want all 40 as before", got)
		}
		// Nor are those that a list has inspected kept waiting by those that hang.
		id := h.engine.Run(enginetest.Spec{Name: "steady", Ports: []string{"80"}, Labels: map[string]string{discovery.TargetsLabel: "api"}})
		for range 20 {
			h.settle(30 * time.Second)
			h.engine.Tamper(func(discovery.Event) []discovery.Event { return nil })
			name := fmt.Sprint("steady-", time.Now().Unix())
			h.engine.Rename(id, name)
			h.engine.Tamper(nil)
			h.engine.Forget() // so that the new stream does not tell
			h.engine.Cut()
			h.settle(2 * time.Second)
			if got := h.w.Snapshot().Wants["api"]; len(got) != 1 || got[0].Run.Name != name {
				t.Errorf("wanted in api: got %v; want %s", got, name)
			}
		}
	})
}

// A list proves that a port is not published any more, also while no inspection is answered: the port may be somebody
// else's by now.
func TestWatcher_listShowsAPortNoMore(t *testing.T) {
	two := enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web:8080,api:9090"}, Ports: []string{"8080", "9090"}}
	unheard := func(happens func(*enginetest.Engine, string)) func(*enginetest.Engine, string) {
		return func(e *enginetest.Engine, id string) {
			e.Tamper(func(discovery.Event) []discovery.Event { return nil })
			happens(e, id)
			e.Tamper(nil)
		}
	}
	for name, tc := range map[string]struct {
		happens func(*enginetest.Engine, string)
		port    string // in the end
	}{
		"one network of two": {(*enginetest.Engine).Disconnect, "32768"},
		"unheard":            {unheard((*enginetest.Engine).Disconnect), "32768"},
		"another port": {unheard(func(e *enginetest.Engine, id string) {
			e.Disconnect(id)
			e.Run(web("thief"))
			e.Connect(id)
		}), "32769"},
		"nobody answers": {unheard(func(e *enginetest.Engine, id string) {
			e.HangInspect(id)
			e.Disconnect(id)
		}), "32768"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(two)
				h.engine.Join(id, "second")
				h.wants("web-1:32768")
				h.settle(time.Second)
				h.engine.FailInspect("", errTest)
				tc.happens(h.engine, id)
				h.settle(3 * time.Minute)
				h.wants()
				if got := names(h.w.Snapshot(), "api"); len(got) > 0 {
					t.Errorf("wanted in api: got %v; want none", got)
				}
				h.verdict("web-1", discovery.Leaving)
				h.engine.Heal()
				h.engine.Connect(id)
				h.settle(2 * time.Minute)
				if got := names(h.w.Snapshot(), "web"); !slices.Contains(got, "web-1:"+tc.port) {
					t.Errorf("wanted in web: got %v; want web-1:%s", got, tc.port)
				}
			})
		})
	}
}

// Docker was asked before the death and answers after it.
func TestWatcher_lateAnswers(t *testing.T) {
	for name, end := range map[string]func(*enginetest.Engine, string){
		"stop signal": func(e *enginetest.Engine, id string) { e.Signal(id, 15) },
		"death":       func(e *enginetest.Engine, id string) { e.Die(id, 0) },
		"stop":        func(e *enginetest.Engine, id string) { e.Stop(id) },
		"removal":     func(e *enginetest.Engine, id string) { e.Remove(id) },
		"disconnect":  func(e *enginetest.Engine, id string) { e.Disconnect(id) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(web("web-1"))
				h.wants("web-1:32768")
				h.settle(time.Second)
				release := h.engine.HangInspect(id)
				h.engine.Rename(id, "renamed") // has it inspected
				h.settle(time.Millisecond)
				end(h.engine, id)
				h.wants()
				published := len(h.snapshots())
				release()
				h.settle(10 * time.Second)
				for _, s := range h.snapshots()[published-1:] {
					if len(s.Wants["web"]) != 0 {
						t.Errorf("a late answer brought it back: %s", describe(s))
					}
				}
			})
		})
	}
}

// A list was begun before what it contradicts.
func TestWatcher_lateList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		dies, leaves := h.engine.Run(web("dies")), h.engine.Run(web("leaves"))
		starts := h.engine.Create(web("starts"))
		destroyed := h.engine.Run(web("destroyed"))
		h.wants("destroyed:32770", "dies:32768", "leaves:32769")
		h.settle(time.Second)
		release := h.engine.HangList()
		h.engine.Cut()
		h.settle(3 * time.Second)
		h.engine.Die(dies, 1)
		h.engine.Signal(leaves, 15)
		h.engine.Remove(destroyed)
		h.engine.Start(starts)
		h.engine.Run(web("new"))
		want := []string{"new:32770", "starts:32768"} // the lowest that were free
		h.wants(want...)
		published := len(h.snapshots())
		inspected := h.engine.Counts().Inspections
		release()
		h.settle(10 * time.Second)
		for _, s := range h.snapshots()[published-1:] {
			if got := names(s, "web"); !slices.Equal(got, want) || len(s.Unknown) > 0 {
				t.Errorf("the late list changed something: %s", describe(s))
			}
		}
		for id, n := range h.engine.Counts().Inspections {
			if n != inspected[id] {
				t.Errorf("the late list had %s inspected", id[60:])
			}
		}
	})
}

// An error is not an empty answer.
func TestWatcher_errorsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		a, b := h.engine.Run(web("a")), h.engine.Run(web("b"))
		want := []string{"a:32768", "b:32769"}
		h.wants(want...)
		h.settle(time.Second)
		for _, fault := range []func(){
			func() { h.engine.FailList(errTest) },
			func() { h.engine.FailInspect("", errTest) },
			func() { h.engine.FailPing(errTest) },
			func() { h.engine.Down() },
		} {
			fault()
			h.engine.Cut()
			h.settle(5 * time.Minute)
			h.wants(want...)
			h.engine.Up()
			h.engine.Heal()
			h.settle(2 * time.Minute)
			h.wants(want...)
		}
		for _, s := range h.snapshots() {
			if s.Seq > 3 && !slices.Equal(names(s, "web"), want) {
				t.Errorf("a fault changed what is wanted: %s", describe(s))
			}
			if len(s.Unknown) > 0 {
				t.Errorf("a container that has answered before is unknown: %s", describe(s))
			}
		}
		_, _ = a, b
	})
}

// Whatever happens while Docker cannot be reached is found out with the next stream.
func TestWatcher_lostTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		stays := h.engine.Run(web("stays"))
		dies, restarts, removed := h.engine.Run(web("dies")), h.engine.Run(web("restarts")), h.engine.Run(web("removed"))
		h.wants("dies:32769", "removed:32771", "restarts:32770", "stays:32768")
		h.settle(time.Minute)
		h.engine.Down()
		h.settle(time.Second)
		if s := h.w.Stream(); s.Up || !strings.Contains(s.Err, "ping docker") && !strings.Contains(s.Err, "EOF") {
			t.Errorf("stream: got %+v; want it down, and why", s)
		}
		h.engine.Die(dies, 137)
		h.engine.Stop(restarts)
		h.engine.Remove(removed)
		h.engine.Start(restarts)
		h.engine.Run(web("new"))
		h.engine.Forget() // as a restart of the engine does
		h.settle(time.Minute)
		h.engine.Up()
		h.settle(30 * time.Second)
		h.wants("new:32770", "restarts:32769", "stays:32768")
		if s := h.w.Stream(); !s.Up || s.Reconnects != 1 {
			t.Errorf("stream: got %+v; want it up, after one reconnection", s)
		}
		_ = stays
	})
}

// The engine is restarted, and the same ports go to other containers. At no moment is one port wanted for two.
func TestWatcher_engineRestarts(t *testing.T) {
	for _, announced := range []bool{true, false} {
		t.Run(fmt.Sprintf("announced %t", announced), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				var ids []string
				for i := range 15 {
					ids = append(ids, h.engine.Run(web(fmt.Sprintf("web-%02d", i))))
				}
				h.settle(time.Minute)
				slow := h.engine.HangInspect(ids[3]) // one of them keeps its answer to itself for a while
				h.engine.Reboot(rand.New(rand.NewPCG(7, 7)), announced)
				h.settle(5 * time.Second)
				slow()
				h.settle(2 * time.Minute)
				var want []string
				for _, id := range ids {
					f, _ := h.engine.Facts(id)
					want = append(want, fmt.Sprintf("%s:%d", f.Name, f.Published[0].HostPort))
				}
				h.wants(want...)
				for _, s := range h.snapshots() {
					taken := make(map[uint16]string)
					for _, w := range s.Wants["web"] {
						if other, ok := taken[w.HostPort4]; ok {
							t.Errorf("snapshot %d: port %d is wanted for %s and for %s", s.Seq, w.HostPort4, other, w.Run.Name)
						}
						taken[w.HostPort4] = w.Run.Name
					}
				}
			})
		})
	}
}

// With live-restore the stream ends and nothing else does.
func TestWatcher_liveRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for i := range 20 {
			h.engine.Run(web(fmt.Sprintf("web-%02d", i)))
		}
		h.settle(time.Minute)
		want := names(h.w.Snapshot(), "web")
		before, published := h.engine.Counts(), len(h.snapshots())
		h.engine.Forget()
		h.engine.Cut()
		h.settle(10 * time.Second)
		h.wants(want...)
		for _, s := range h.snapshots()[published:] {
			if !slices.Equal(names(s, "web"), want) {
				t.Errorf("the reconnection changed what is wanted: %s", describe(s))
			}
		}
		after := h.engine.Counts()
		if n := after.Total() - before.Total(); n != 20 {
			t.Errorf("inspections after the reconnection: got %d; want 20, one for each", n)
		}
		if n := after.Lists - before.Lists; n != 1 {
			t.Errorf("lists after the reconnection: got %d; want 1", n)
		}
	})
}

// A stream that ends at once is opened again a second or two later: soon enough, and no more often than a list costs.
func TestWatcher_noHotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		before := h.engine.Counts()
		for range 10 * 60 * 10 {
			h.engine.Cut()
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		h.wants("web-1:32768")
		after := h.engine.Counts()
		if n := after.Streams - before.Streams; n < 270 || n > 610 {
			t.Errorf("streams opened in 10 minutes: got %d; want one in 1 to 2 s", n)
		}
		if n := after.Total() - before.Total(); n > after.Streams-before.Streams {
			t.Errorf("inspections in 10 minutes: got %d; want at most one for each stream", n)
		}
	})
}

// While Docker is down it is asked about nothing but whether it is there.
func TestWatcher_askNothingWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.engine.FailInspect(id, errTest)
		h.engine.FailList(errTest)
		h.engine.Rename(id, "renamed") // an inspection and a list are owed
		h.engine.Cut()
		h.settle(2 * time.Second)
		h.engine.Down()
		h.settle(time.Second)
		before := h.engine.Counts()
		h.settle(time.Hour)
		after := h.engine.Counts()
		if n := after.Total() - before.Total() + after.Lists - before.Lists + after.Streams - before.Streams; n != 0 {
			t.Errorf("an engine that is down was asked %d times; want never", n)
		}
		if n := after.Pings - before.Pings; n < 100 || n > 300 {
			t.Errorf("pings in an hour: got %d; want one in 15 to 30 s", n)
		}
		if n := len(h.snapshots()); n > 10 {
			t.Errorf("%d snapshots; want none for attempts that fail alike", n)
		}
	})
}

// Where connecting fails at once, an engine that comes back is noticed soon.
func TestWatcher_engineComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		engine.Run(web("web-1"))
		engine.FailPing(&discovery.EngineError{Host: "unix:///x", Why: "there is no such socket", Change: "start Docker", Err: errTest})
		h := watch(t, engine, &memoryStore{}, options())
		h.settle(time.Hour)
		if s := h.w.Stream(); !strings.HasSuffix(s.Err, "no such socket; start Docker") || s.Change != "start Docker" {
			t.Errorf("stream: got %+v; want it to say why", s)
		}
		if n := engine.Counts().Pings; n > 3600 {
			t.Errorf("pings in an hour: got %d; want one in 1 to 2 s", n)
		}
		engine.Heal()
		h.settle(2200 * time.Millisecond)
		h.wants("web-1:32768")
	})
}

// Events are lost on the way, as Docker loses them for a slow reader. A full list finds out.
func TestWatcher_eventsLost(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(*enginetest.Engine, string)
		want []string
	}{
		"death":               {func(e *enginetest.Engine, id string) { e.Die(id, 1) }, []string{"other:32769"}},
		"removal":             {func(e *enginetest.Engine, id string) { e.Remove(id) }, []string{"other:32769"}},
		"disconnect":          {func(e *enginetest.Engine, id string) { e.Disconnect(id) }, []string{"other:32769"}},
		"start":               {func(e *enginetest.Engine, _ string) { e.Run(web("more")) }, []string{"more:32770", "other:32769", "web-1:32768"}},
		"restart on its port": {func(e *enginetest.Engine, id string) { e.Restart(id) }, []string{"other:32769", "web-1:32768"}},
		"restart on another port": {func(e *enginetest.Engine, id string) {
			e.Stop(id)
			e.Run(enginetest.Spec{Name: "thief", Ports: []string{"80"}})
			e.Start(id)
		}, []string{"other:32769", "web-1:32770"}},
		"pause": {func(e *enginetest.Engine, id string) { e.Pause(id) }, []string{"other:32769"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id := h.engine.Run(web("web-1"))
				h.engine.Run(web("other"))
				h.wants("other:32769", "web-1:32768")
				h.settle(time.Minute)
				h.engine.Tamper(func(discovery.Event) []discovery.Event { return nil })
				tc.do(h.engine, id)
				h.engine.Tamper(nil)
				h.settle(2 * time.Minute)
				h.wants(tc.want...)
				if name == "restart on its port" {
					h.settle(20 * time.Minute) // the port is the same, so the tenth resync finds the new run
				}
				f, _ := h.engine.Facts(id)
				for _, w := range h.w.Snapshot().Wants["web"] {
					if w.Run.ID == id && !w.Run.StartedAt.Equal(f.StartedAt) {
						t.Errorf("wanted for the run of %s; the present one began %s", w.Run.StartedAt, f.StartedAt)
					}
				}
			})
		})
	}
}

// A stream that is open and silent is found out by the list, and replaced.
func TestWatcher_silentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Minute)
		streams := h.engine.Counts().Streams
		h.engine.Silence()
		h.engine.Stop(id)
		h.settle(2 * time.Minute)
		h.wants()
		if n := h.engine.Counts().Streams - streams; n != 1 {
			t.Errorf("streams opened: got %d; want 1", n)
		}
		h.engine.Start(id)
		h.wants("web-1:32768") // at once: the new stream is well
	})
}

// A change that the list shows a moment before its event comes is no reason for another stream.
func TestWatcher_eventOvertakenByAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		var held []discovery.Event
		h.engine.Tamper(func(e discovery.Event) []discovery.Event { held = append(held, e); return nil })
		lists := h.engine.Counts().Lists
		for h.engine.Counts().Lists == lists {
			h.settle(time.Second) // until the resync is about to be due
		}
		h.settle(30 * time.Second)
		h.engine.Stop(id)
		lists = h.engine.Counts().Lists
		for h.engine.Counts().Lists == lists {
			h.settle(100 * time.Millisecond)
		}
		h.wants()
		streams := h.engine.Counts().Streams
		h.engine.Tamper(nil)
		for _, e := range held {
			h.engine.Emit(e)
		}
		h.settle(2 * time.Minute)
		if n := h.engine.Counts().Streams - streams; n != 0 {
			t.Errorf("streams opened: got %d; want none", n)
		}
	})
}

// An engine that hangs ends no stream by itself: pings do.
func TestWatcher_engineHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		release := h.engine.HangPing()
		h.settle(time.Minute)
		if s := h.w.Stream(); s.Up {
			t.Errorf("stream: got %+v; want it down", s)
		}
		h.wants("web-1:32768")
		release()
		h.settle(time.Minute)
		if s := h.w.Stream(); !s.Up {
			t.Errorf("stream: got %+v; want it up again", s)
		}
	})
}

// One ping that fails is no reason to leave.
func TestWatcher_onePingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.settle(16 * time.Second)
		h.engine.FailPing(errTest)
		h.settle(15 * time.Second)
		h.engine.FailPing(nil)
		h.settle(time.Minute)
		if s := h.w.Stream(); !s.Up || s.Reconnects != 0 {
			t.Errorf("stream: got %+v; want the first one", s)
		}
	})
}

// A stream that cannot be opened in time is given up, as with a socket that systemd holds while the engine is down.
func TestWatcher_streamDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &slowToOpen{Engine: enginetest.New()}
		engine.Run(web("web-1"))
		w, err := discovery.New(engine, nil, func(*discovery.Snapshot) {}, options())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if s := w.Stream(); s.Up || !strings.Contains(s.Err, "no answer within 10s") {
			t.Errorf("stream: got %+v; want it down, and why", s)
		}
		engine.open.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := names(w.Snapshot(), "web"); len(got) != 1 {
			t.Errorf("wanted: got %v; want one", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// Nothing is published before the first full list, and its containers have answered, or failed, or had their time.
func TestWatcher_firstPublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		slow, failing := engine.Run(web("slow")), engine.Run(web("failing"))
		engine.Run(web("quick"))
		engine.FailList(errTest)
		release := engine.HangInspect(slow)
		engine.FailInspect(failing, errTest)
		opts := options()
		opts.InspectTimeout = time.Hour
		h := watch(t, engine, &memoryStore{}, opts)
		h.settle(10 * time.Minute)
		if n := len(h.snapshots()); n != 0 {
			t.Fatalf("%d snapshots before the first full list; want none", n)
		}
		engine.FailList(nil)
		var listed time.Time
		lists := engine.Counts().Lists
		for h.w.Snapshot() == nil {
			h.settle(time.Second)
			if listed.IsZero() && engine.Counts().Lists > lists {
				listed = time.Now()
			}
			if !listed.IsZero() && time.Since(listed) > 6*time.Second {
				t.Fatal("nothing is published though the containers had their time")
			}
		}
		h.wants("quick:32770")
		s := h.snapshots()[0]
		if want := []string{slow, failing}; !slices.Equal(s.Unknown, want) {
			t.Errorf("unknown: got %v; want %v: what is registered for them stays", s.Unknown, want)
		}
		release()
		h.settle(2 * time.Minute)
		h.wants("quick:32770", "slow:32768")
		engine.FailInspect(failing, nil)
		h.settle(2 * time.Minute)
		h.wants("failing:32769", "quick:32770", "slow:32768")
		if s := h.w.Snapshot(); len(s.Unknown) != 0 {
			t.Errorf("unknown: got %v; want none", s.Unknown)
		}
	})
}

// What is heard of a container while the first list is under way does not hide that it is there.
func TestWatcher_heardDuringTheFirstList(t *testing.T) {
	for name, happens := range map[string]func(*enginetest.Engine, string){
		"signal that stops nobody": func(e *enginetest.Engine, id string) { e.Signal(id, 1) },
		"rename":                   func(e *enginetest.Engine, id string) { e.Rename(id, "web-1") },
		"pause":                    func(e *enginetest.Engine, id string) { e.Pause(id); e.Unpause(id) },
		"second network":           func(e *enginetest.Engine, id string) { e.Join(id, "other") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine := enginetest.New()
				id := engine.Run(web("web-1"))
				time.Sleep(time.Minute)
				list, inspect := engine.HangList(), engine.HangInspect(id)
				h := watch(t, engine, &memoryStore{}, options())
				h.settle(time.Second)
				happens(engine, id)
				h.settle(time.Second)
				list()
				h.settle(20 * time.Second)
				if h.w.Snapshot() == nil {
					t.Fatal("nothing is published")
				}
				inspect()
				h.settle(5 * time.Second)
				for _, s := range h.snapshots() {
					if len(s.Wants["web"]) == 0 && len(s.Unknown) == 0 {
						t.Errorf("it is neither wanted nor unknown: %s", describe(s))
					}
				}
				h.wants("web-1:32768")
			})
		})
	}
}

// With quick answers there is one publication at the start, and it is whole.
func TestWatcher_startsWithRunningContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		var want []string
		for i := range 100 {
			engine.Run(web(fmt.Sprintf("web-%03d", i)))
			want = append(want, fmt.Sprintf("web-%03d:%d", i, 32768+i))
		}
		engine.Stop(engine.IDs()[99])
		h := watch(t, engine, &memoryStore{}, options())
		h.wants(want[:99]...)
		if n := len(h.snapshots()); n != 1 {
			t.Errorf("published %d snapshots at the start; want 1", n)
		}
	})
}

// A container that nobody can inspect stays unknown, until it says itself that it ends.
func TestWatcher_unknownThatEnds(t *testing.T) {
	for name, end := range map[string]func(*enginetest.Engine, string){
		"signal":  func(e *enginetest.Engine, id string) { e.Signal(id, 15) },
		"death":   func(e *enginetest.Engine, id string) { e.Die(id, 1) },
		"removal": func(e *enginetest.Engine, id string) { e.Remove(id) },
		"restart": func(e *enginetest.Engine, id string) { e.Restart(id) }, // what was registered was of the run before
		"start alone": func(e *enginetest.Engine, id string) {
			e.Tamper(func(ev discovery.Event) []discovery.Event {
				if ev.Action == discovery.ActionStart {
					return []discovery.Event{ev}
				}
				return nil
			})
			e.Restart(id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine := enginetest.New()
				id := engine.Run(web("web-1"))
				time.Sleep(time.Second)
				engine.FailInspect(id, errTest)
				h := watch(t, engine, &memoryStore{}, options())
				h.settle(time.Minute)
				if s := h.w.Snapshot(); !slices.Equal(s.Unknown, []string{id}) {
					t.Fatalf("unknown: got %v; want it", s.Unknown)
				}
				end(engine, id)
				synctest.Wait()
				if s := h.w.Snapshot(); len(s.Unknown) != 0 {
					t.Errorf("unknown: got %v; want none", s.Unknown)
				}
			})
		})
	}
}

// Resyncs cost a list each, and every tenth the inspections too.
func TestWatcher_quietHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for i := range 10 {
			h.engine.Run(web(fmt.Sprintf("web-%d", i)))
		}
		h.settle(time.Minute)
		before, published := h.engine.Counts(), len(h.snapshots())
		h.settle(time.Hour)
		after := h.engine.Counts()
		if n := after.Lists - before.Lists; n < 45 || n > 90 {
			t.Errorf("lists: got %d; want about 60", n)
		}
		if n := after.Total() - before.Total(); n < 40 || n > 90 {
			t.Errorf("inspections: got %d; want about 60", n)
		}
		if n := after.Pings - before.Pings; n < 200 || n > 260 {
			t.Errorf("pings: got %d; want about 240", n)
		}
		if n := len(h.snapshots()) - published; n != 0 {
			t.Errorf("publications: got %d; want none", n)
		}
	})
}

// Thirty containers at once need no thirty publications to be right, and a burst is resolved as one.
func TestWatcher_burst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		var ids []string
		for i := range 30 {
			ids = append(ids, h.engine.Run(web(fmt.Sprintf("web-%02d", i))))
		}
		synctest.Wait()
		if got := len(h.w.Snapshot().Wants["web"]); got != 30 {
			t.Fatalf("wanted: got %d; want 30", got)
		}
		if n := h.engine.Counts().Total(); n > 60 {
			t.Errorf("inspections: got %d; want one for each event at most", n)
		}
		for _, id := range ids {
			h.engine.Stop(id)
		}
		h.wants()
	})
}

// A repeated event is no event: not a second death, not another inspection.
func TestWatcher_repeatedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.engine.Tamper(func(e discovery.Event) []discovery.Event { return []discovery.Event{e, e, e} })
		id := h.engine.Run(web("web-1"))
		h.settle(time.Second)
		h.engine.Die(id, 1)
		h.settle(time.Second)
		h.engine.StartAgain(id)
		h.settle(time.Second)
		if d := h.verdict("web-1", discovery.NotYet); !strings.Contains(d.Why, "died once") {
			t.Errorf("got %q; want one death", d.Why)
		}
		h.settle(10 * time.Second)
		h.wants("web-1:32768")
		if n := h.engine.Counts().Inspections[id]; n != 2 {
			t.Errorf("inspections: got %d; want 2, one for each start", n)
		}
	})
}

// Old news arrives late, when the next run is known.
func TestWatcher_oldNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.settle(time.Second)
		var held []discovery.Event
		h.engine.Tamper(func(e discovery.Event) []discovery.Event {
			if e.Action == discovery.ActionStart {
				return []discovery.Event{e}
			}
			held = append(held, e)
			return nil
		})
		h.engine.Pause(id)
		h.engine.Unpause(id)
		h.engine.Stop(id)
		h.engine.Start(id)
		h.settle(time.Second)
		h.engine.Tamper(nil)
		h.wants("web-1:32768")
		published := len(h.snapshots())
		for _, e := range held {
			h.engine.Emit(e) // with the time at which it happened
			h.settle(time.Second)
		}
		h.settle(time.Minute)
		for _, s := range h.snapshots()[published-1:] {
			if len(s.Wants["web"]) != 1 || len(s.Drains) != 0 {
				t.Errorf("old news changed something: %s", describe(s))
			}
		}
	})
}

// A second start proves that the first run is over, though its death was lost, and though Docker does not answer.
func TestWatcher_startAfterALostDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Second)
		h.engine.Tamper(func(e discovery.Event) []discovery.Event {
			if e.Action == discovery.ActionStart {
				return []discovery.Event{e}
			}
			return nil
		})
		h.engine.FailInspect(id, errTest)
		h.engine.Restart(id)
		h.wants()
		h.engine.Heal()
		h.settle(time.Minute)
		h.wants("web-1:32768")
	})
}

// A signal belongs to the run that got it, though an earlier one is still in memory.
func TestWatcher_signalToARunNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Second)
		h.engine.Tamper(func(discovery.Event) []discovery.Event { return nil })
		h.engine.Restart(id) // which goes unheard
		h.engine.Tamper(nil)
		h.settle(time.Second)
		h.engine.Signal(id, 15)
		h.wants()
		if _, _, err := h.w.Look(t.Context(), id); err != nil { // now the new run is known
			t.Fatal(err)
		}
		h.wants()
		h.verdict("web-1", discovery.Leaving)
	})
}

// The clock is set back by an hour: events look old, and still count.
func TestWatcher_clockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.settle(time.Minute)
		h.engine.Tamper(func(e discovery.Event) []discovery.Event {
			e.Time = e.Time.Add(-time.Hour)
			return []discovery.Event{e}
		})
		h.engine.Die(id, 1)
		h.wants()
		h.engine.Run(web("web-2"))
		h.wants("web-2:32768")
	})
}

// slowToOpen is an engine whose stream hangs while it is being opened.
type slowToOpen struct {
	*enginetest.Engine
	open atomic.Bool
}

func (e *slowToOpen) Events(ctx context.Context, since time.Time) (<-chan discovery.Event, <-chan error) {
	if !e.open.Load() {
		<-ctx.Done()
		errs := make(chan error, 1)
		errs <- ctx.Err()
		return make(chan discovery.Event), errs
	}
	return e.Engine.Events(ctx, since)
}
