package discovery_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

func TestNew_refuses(t *testing.T) {
	publish := func(*discovery.Snapshot) {}
	for name, tc := range map[string]struct {
		engine  discovery.Engine
		publish func(*discovery.Snapshot)
		rules   []discovery.Rule
	}{
		"no engine":           {nil, publish, nil},
		"no publish":          {enginetest.New(), nil, nil},
		"a group twice":       {enginetest.New(), publish, rules("web", "web")},
		"a group unnamed":     {enginetest.New(), publish, rules("")},
		"an unusable name":    {enginetest.New(), publish, rules("a,b")},
		"a rule for anything": {enginetest.New(), publish, []discovery.Rule{{Group: "web", Match: &discovery.Match{}}}},
	} {
		if w, err := discovery.New(tc.engine, nil, tc.publish, discovery.Options{Rules: tc.rules}); err == nil || w != nil {
			t.Errorf("%s: got %v, %v; want an error", name, w, err)
		}
	}
}

func TestWatcher_Run_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		if err := h.w.Run(t.Context()); err == nil {
			t.Error("a second Run: got no error")
		}
	})
}

func TestWatcher_Reconfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		next := []discovery.Rule{{Group: "api"}, {Group: "any", Match: &discovery.Match{Name: "*"}, NoLabels: true}}
		if err := h.w.Reconfigure(t.Context(), 7, next); err != nil {
			t.Fatal(err)
		}
		s := h.w.Snapshot() // it has been published when Reconfigure returns
		if s.Generation != 7 || len(s.Wants) != 2 || len(s.Wants["any"]) != 1 {
			t.Errorf("got generation %d, wants %v; want generation 7 with groups api and any", s.Generation, s.Wants)
		}
		if _, ok := s.Wants["web"]; ok {
			t.Error("a group of the former configuration has a key")
		}
		if err := h.w.Reconfigure(t.Context(), 8, rules("a", "a")); err == nil {
			t.Error("contradicting rules: got no error")
		}
		if h.w.Snapshot() != s {
			t.Error("refused rules have changed something")
		}
		// The same rules again, as a reload without a change: a publication, so that whoever waits for it is answered.
		if err := h.w.Reconfigure(t.Context(), 9, next); err != nil || h.w.Snapshot().Generation != 9 {
			t.Errorf("got %v, generation %d; want generation 9", err, h.w.Snapshot().Generation)
		}
	})
}

// A reload is not held up by a Docker that is not there, and counts when it comes.
func TestWatcher_Reconfigure_withoutDocker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		engine.Run(web("web-1"))
		engine.Down()
		h := watch(t, engine, &memoryStore{}, discovery.Options{})
		if err := h.w.Reconfigure(t.Context(), 2, rules("web")); err != nil {
			t.Fatal(err)
		}
		if h.w.Snapshot() != nil {
			t.Fatal("something is published without Docker")
		}
		engine.Up()
		h.settle(time.Minute)
		h.wants("web-1:32768")
		if s := h.snapshots()[0]; s.Generation != 2 {
			t.Errorf("the first snapshot is of generation %d; want 2", s.Generation)
		}
	})
}

func TestWatcher_Look(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Minute)
		f, _ := h.engine.Facts(id)
		for _, ref := range []string{"web-1", id} {
			got, seq, err := h.w.Look(t.Context(), ref)
			if err != nil || got.ID != id || !got.StartedAt.Equal(f.StartedAt) || seq != h.w.Snapshot().Seq {
				t.Errorf("Look(%.12s): got %+v, %d, %v; want the run, and Seq %d", ref, got, seq, err, h.w.Snapshot().Seq)
			}
		}
		// What has changed without an event is in the snapshot that it names.
		h.engine.Tamper(func(discovery.Event) []discovery.Event { return nil })
		h.engine.Rename(id, "renamed")
		got, seq, err := h.w.Look(t.Context(), id)
		if err != nil || got.Name != "renamed" {
			t.Fatalf("Look: got %+v, %v", got, err)
		}
		if s := h.w.Snapshot(); s.Seq != seq || s.Wants["web"][0].Run.Name != "renamed" {
			t.Errorf("snapshot %d, that Look named, holds %v", seq, s.Wants)
		}
		if _, _, err := h.w.Look(t.Context(), "nobody"); !errors.Is(err, discovery.ErrNotFound) {
			t.Errorf("Look(nobody): got %v; want ErrNotFound", err)
		}
		stopped := h.engine.Create(web("stopped"))
		if got, _, err := h.w.Look(t.Context(), "stopped"); err != nil || got.ID != stopped {
			t.Errorf("Look(stopped): got %+v, %v", got, err)
		}
		h.verdict("stopped", discovery.Ignored)
	})
}

// An inspection that is under way already may be older than the question: it is not the answer.
func TestWatcher_Look_notAnsweredByAnEarlierInspection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.settle(time.Second)
		h.engine.Tamper(func(discovery.Event) []discovery.Event { return nil })
		release := h.engine.HangInspect(id)
		h.engine.Emit(discovery.Event{Action: discovery.ActionRename, Container: id}) // swallowed
		h.engine.Tamper(nil)
		h.engine.Emit(discovery.Event{Action: discovery.ActionRename, Container: id})
		h.settle(time.Millisecond) // an inspection hangs, with the old name
		h.engine.Tamper(func(discovery.Event) []discovery.Event { return nil })
		h.engine.Rename(id, "renamed")
		type result struct {
			name string
			err  error
		}
		looked := make(chan result, 1)
		h.engine.Unhang(id) // new inspections do not hang
		go func() {
			run, _, err := h.w.Look(t.Context(), id)
			looked <- result{run.Name, err}
		}()
		h.settle(time.Millisecond)
		release()
		if r := <-looked; r.err != nil || r.name != "renamed" {
			t.Errorf("Look: got %+v; want the name of now", r)
		}
	})
}

func TestWatcher_Look_withoutDocker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		check := func(when string, refs ...string) {
			t.Helper()
			for _, ref := range append(refs, "web-1", "/web-1", id) {
				got, seq, err := h.w.Look(t.Context(), ref)
				if !errors.Is(err, discovery.ErrNotAnswered) || got.ID != id || seq == 0 {
					t.Errorf("%s: Look(%s): got %+v, %d, %v; want it from memory, and ErrNotAnswered", when, ref, got, seq, err)
				}
			}
			if _, _, err := h.w.Look(t.Context(), "nobody"); !errors.Is(err, discovery.ErrNotAnswered) || !errors.Is(err, discovery.ErrNotFound) {
				t.Errorf("%s: Look(nobody): got %v; want ErrNotAnswered and ErrNotFound", when, err)
			}
		}
		h.engine.FailInspect("", errTest)
		check("inspections fail", id[:62])
		h.engine.Run(web("web-2"))
		h.settle(time.Second)
		if _, _, err := h.w.Look(t.Context(), id[:55]); err == nil || !strings.Contains(err.Error(), "2 containers") {
			t.Errorf("the beginning of two: got %v; want an error that says so", err)
		}
		h.engine.Down()
		h.settle(time.Second)
		check("the stream is down")
	})
}

// A container that is removed while somebody looks at it.
func TestWatcher_Look_overtakenByRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		release := h.engine.HangInspectAfter(id, 1)
		defer release()
		looked := make(chan error, 1)
		go func() {
			_, _, err := h.w.Look(t.Context(), id)
			looked <- err
		}()
		h.settle(time.Second)
		h.engine.Remove(id)
		if err := <-looked; !errors.Is(err, discovery.ErrNotFound) {
			t.Errorf("Look: got %v; want ErrNotFound", err)
		}
	})
}

// It dies meanwhile: the answer is that it is dead, not silence.
func TestWatcher_Look_overtakenByDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		release := h.engine.HangInspectAfter(id, 1)
		looked := make(chan error, 1)
		go func() {
			_, _, err := h.w.Look(t.Context(), id)
			looked <- err
		}()
		h.settle(time.Second)
		h.engine.Die(id, 1)
		h.settle(time.Second)
		release()
		if err := <-looked; err != nil {
			t.Errorf("Look: got %v", err)
		}
		h.wants()
	})
}

func TestWatcher_Drain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.engine.Run(web("web-2"))
		h.wants("web-1:32768", "web-2:32769")
		before := h.w.Snapshot().Seq
		seq, err := h.w.Drain(t.Context(), discovery.Drain{Container: id, Cause: discovery.CauseOperator, By: "ann", Reason: "a test"})
		if err != nil || seq != before+1 {
			t.Fatalf("Drain: got %d, %v; want Seq %d", seq, err, before+1)
		}
		if s := h.w.Snapshot(); s.Seq != seq || len(s.Wants["web"]) != 1 {
			t.Errorf("the snapshot of that Seq: %s", describe(s))
		}
		if d := h.verdict("web-1", discovery.Drained); !strings.Contains(d.Why, "ann") || !strings.Contains(d.Why, "a test") {
			t.Errorf("got %q; want it to say who and why", d.Why)
		}
		saved := h.store.saved()
		if len(saved) != 1 || saved[0].ID != discovery.DrainID(discovery.CauseOperator, id) || saved[0].Since.IsZero() {
			t.Errorf("on disk when Drain returned: got %+v", saved)
		}
		// Again: it holds already.
		again, err := h.w.Drain(t.Context(), saved[0])
		if err != nil || again != seq {
			t.Errorf("Drain again: got %d, %v; want the same Seq %d", again, err, seq)
		}
		h.engine.Restart(id)
		h.wants("web-2:32769") // until undrained

		h.stop()
		h2 := watch(t, h.engine, h.store, options())
		h2.wants("web-2:32769")
		if _, err := h2.w.Undrain(t.Context(), saved[0].ID); err != nil {
			t.Fatal(err)
		}
		h2.wants("web-1:32768", "web-2:32769")
		if got := h.store.saved(); len(got) != 0 {
			t.Errorf("on disk when Undrain returned: got %+v", got)
		}
		if _, err := h2.w.Undrain(t.Context(), saved[0].ID); !errors.Is(err, discovery.ErrNotFound) {
			t.Errorf("Undrain again: got %v; want ErrNotFound", err)
		}
		if _, err := h2.w.Drain(t.Context(), discovery.Drain{Container: id}); err == nil {
			t.Error("a drain without a cause: got no error")
		}
	})
}

// berth stop: as long as the client stays, then for the rest of the run.
func TestWatcher_Drain_holds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		d := discovery.Drain{ID: "stop-1", Container: id, Cause: discovery.CauseOperator, Hold: discovery.HoldConnection}
		for _, hold := range []discovery.Hold{discovery.HoldConnection, discovery.HoldRun} {
			d.Hold = hold
			if _, err := h.w.Drain(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			h.wants()
			if saved := h.store.saved(); (len(saved) == 1) != (hold == discovery.HoldRun) {
				t.Errorf("%s: on disk: got %+v", hold, saved)
			}
		}
		if got := h.w.Snapshot().Drains; len(got) != 1 || got[0].StartedAt.IsZero() {
			t.Errorf("drains: got %+v; want the one, with its run", got)
		}
		h.settle(time.Second)
		h.engine.Restart(id)
		h.wants("web-1:32768")
		h.settle(time.Second)
		if got := h.store.saved(); len(got) != 0 {
			t.Errorf("on disk after the run: got %+v", got)
		}
	})
}

// A drain that is asked for before anything is published is told the Seq of the first publication, wherever it counts from.
func TestWatcher_seqFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		id := engine.Run(web("web-1"))
		engine.Down()
		o := options()
		o.Seq = 900
		h := watch(t, engine, &memoryStore{}, o)
		seq, err := h.w.Drain(t.Context(), discovery.Drain{Container: id, Cause: discovery.CauseOperator})
		if err != nil || seq != 901 || h.w.Snapshot() != nil {
			t.Errorf("Drain: got %d, %v; want 901, which is not published yet", seq, err)
		}
		engine.Up()
		h.settle(time.Minute)
		if s := h.w.Snapshot(); s == nil || s.Seq < 901 {
			t.Errorf("then: got %s; want it to count on from 900", describe(s))
		}
	})
}

// The host's drains need neither Docker nor a first list: nothing is wanted, whatever there is.
func TestWatcher_Drain_hostWithoutDocker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		id := engine.Run(web("web-1"))
		engine.Down()
		h := watch(t, engine, &memoryStore{}, options())
		if h.w.Snapshot() != nil {
			t.Fatal("something is published without Docker")
		}
		seq, err := h.w.Drain(t.Context(), discovery.Drain{Cause: discovery.CauseSpot})
		if err != nil {
			t.Fatal(err)
		}
		s := h.w.Snapshot()
		if s == nil || s.Seq != seq {
			t.Fatalf("got %+v; want snapshot %d", s, seq)
		}
		if wants, ok := s.Wants["web"]; !ok || len(wants) != 0 {
			t.Errorf("wants: got %v; want a key for group web, and nothing", s.Wants)
		}
		engine.FailInspect(id, errTest)
		engine.Up()
		h.settle(time.Minute)
		if s := h.w.Snapshot(); len(s.Unknown) != 0 {
			t.Errorf("unknown on a host that drains: %v; its targets would stay", s.Unknown)
		}
	})
}

// A drain that cannot be written holds, and says that it would not outlive the process. It is written later.
func TestWatcher_Drain_notSaved(t *testing.T) {
	for name, tc := range map[string]struct{ fail, heal func(*memoryStore) }{
		"an error": {
			func(m *memoryStore) { m.err = errTest },
			func(m *memoryStore) { m.err = nil },
		},
		"a disk that hangs": {
			func(m *memoryStore) { m.hang = make(chan struct{}) },
			func(m *memoryStore) { close(m.hang); m.hang = nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				id, other := h.engine.Run(web("web-1")), h.engine.Run(web("web-2"))
				h.wants("web-1:32768", "web-2:32769")
				h.store.mu.Lock()
				tc.fail(h.store)
				h.store.mu.Unlock()
				seq, err := h.w.Drain(t.Context(), discovery.Drain{Container: id, Cause: discovery.CauseOperator})
				if !errors.Is(err, discovery.ErrNotSaved) || seq != h.w.Snapshot().Seq {
					t.Errorf("Drain: got %d, %v; want its Seq and ErrNotSaved", seq, err)
				}
				h.wants("web-2:32769")
				h.engine.Signal(other, 15)
				h.wants() // nothing waits for the disk
				h.store.mu.Lock()
				tc.heal(h.store)
				h.store.mu.Unlock()
				h.settle(31 * time.Second)
				if got := h.store.saved(); len(got) != 2 {
					t.Errorf("on disk later: got %+v; want both drains", got)
				}
			})
		})
	}
}

// What was left by another instance, or of a run of an earlier boot, holds nobody.
func TestWatcher_drainsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		var ids []string
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			ids = append(ids, engine.Run(web(name)))
		}
		f, _ := engine.Facts(ids[3])
		drain := func(id, container string, hold discovery.Hold, instance, boot string) discovery.Drain {
			return discovery.Drain{ID: id, Container: container, Cause: discovery.CauseOperator, Hold: hold, Instance: instance, Boot: boot, Since: time.Now()}
		}
		shutdown := drain("5", "", discovery.HoldKeep, "i-1", "boot-1")
		shutdown.Cause = discovery.CauseShutdown
		ofRun := drain("4", ids[3], discovery.HoldRun, "i-1", "boot-1")
		ofRun.StartedAt = f.StartedAt
		store := &memoryStore{drains: []discovery.Drain{
			drain("1", ids[0], discovery.HoldKeep, "i-1", "boot-1"), // the operator's outlives a boot
			drain("2", ids[1], discovery.HoldKeep, "i-2", "boot-2"), // another instance
			drain("3", ids[2], discovery.HoldKeep, "", "boot-2"),    // made before the instance was known
			ofRun,    // of a run of an earlier boot
			shutdown, // of an earlier boot
			drain("6", ids[4], discovery.HoldConnection, "i-1", "boot-2"), // whose client is gone
		}}
		opts := options()
		opts.BootID = "boot-2"
		h := watch(t, engine, store, opts) // the instance is not known yet
		h.wants("d:32771", "e:32772")
		if err := h.w.Identify(t.Context(), "i-1"); err != nil {
			t.Fatal(err)
		}
		h.wants("b:32769", "d:32771", "e:32772")
		h.settle(time.Second)
		var kept []string
		for _, d := range store.saved() {
			kept = append(kept, d.ID+" "+d.Instance)
		}
		if !slices.Equal(kept, []string{"1 i-1", "3 i-1"}) {
			t.Errorf("kept on disk: got %v", kept)
		}
	})
}

// TestWatcher_bootNotKnown: a shutdown's drain that no boot can end would hold the host for good. A run tells by itself
// whether it is over.
func TestWatcher_bootNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		id := engine.Run(web("a"))
		engine.Run(web("b"))
		f, _ := engine.Facts(id)
		for _, boot := range []string{"", "boot-1"} {
			store := &memoryStore{drains: []discovery.Drain{
				{ID: "1", Cause: discovery.CauseShutdown, Boot: boot, Since: time.Now()},
				{ID: "2", Cause: discovery.CauseStopSignal, Container: id, StartedAt: f.StartedAt, Hold: discovery.HoldRun, Boot: boot, Since: time.Now()},
			}}
			h := watch(t, engine, store, options())
			h.wants("b:32769")
			h.stop()
		}
	})
}

// Whoever asks a watcher that has ended is told so, and whoever gives up is let go.
func TestWatcher_ended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		release := h.engine.HangInspectAfter(id, 1)
		defer release()
		waiting := make(chan error, 1)
		go func() {
			_, _, err := h.w.Look(t.Context(), id)
			waiting <- err
		}()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := h.w.Look(impatient, id); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Look with a deadline: got %v; want DeadlineExceeded", err)
		}
		h.stop()
		if err := <-waiting; !errors.Is(err, discovery.ErrStopped) {
			t.Errorf("Look at the end: got %v; want ErrStopped", err)
		}
		_, drainErr := h.w.Drain(t.Context(), discovery.Drain{Cause: discovery.CauseOperator})
		_, undrainErr := h.w.Undrain(t.Context(), "x")
		for what, err := range map[string]error{
			"Drain": drainErr, "Undrain": undrainErr, "Reconfigure": h.w.Reconfigure(t.Context(), 1, nil),
			"Identify": h.w.Identify(t.Context(), "i-1"),
		} {
			if !errors.Is(err, discovery.ErrStopped) {
				t.Errorf("%s after the end: got %v; want ErrStopped", what, err)
			}
		}
	})
}

// The end is quick whatever hangs, but for the disk, which gets a moment.
func TestWatcher_endsQuickly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		id := h.engine.Run(web("web-1"))
		h.wants("web-1:32768")
		h.engine.HangInspect(id)
		h.engine.HangList()
		h.engine.HangPing()
		h.engine.Rename(id, "renamed")
		h.settle(20 * time.Second)
		hang := make(chan struct{})
		h.store.mu.Lock()
		h.store.hang = hang
		h.store.mu.Unlock()
		h.engine.Signal(id, 15)
		h.settle(time.Millisecond)
		began := time.Now()
		h.stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("Run ended after %s; want 1 s at most", took)
		}
		close(hang)
		synctest.Wait()
		if len(h.store.saved()) != 1 {
			t.Error("the last drains were not written")
		}
	})
}

// A clock that is set moves no beat: where it is read without the monotonic clock, a step back makes every beat look older
// than the agent, and the watchdog ends a loop that turns.
func TestWatcher_Turned_clockStep(t *testing.T) {
	engine := enginetest.New()
	engine.Down()
	w, err := discovery.New(engine, nil, func(*discovery.Snapshot) {}, options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for w.Turned().IsZero() && t.Context().Err() == nil {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if at := w.Turned().String(); !strings.Contains(at, " m=") { // as time.Time prints its monotonic reading
		t.Errorf("the loop last turned at %s; want a time with its monotonic reading", at)
	}
}

// The heart beats whatever Docker does, and not before or after the loop runs.
func TestWatcher_Turned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		engine.Down()
		w, err := discovery.New(engine, nil, func(*discovery.Snapshot) {}, options())
		if err != nil {
			t.Fatal(err)
		}
		if !w.Turned().IsZero() {
			t.Errorf("before Run: got %s; want the zero time", w.Turned())
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		for range 100 {
			time.Sleep(7 * time.Second)
			synctest.Wait()
			if age := time.Since(w.Turned()); age > 5*time.Second {
				t.Fatalf("the loop last turned %s ago", age)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		time.Sleep(time.Minute)
		if age := time.Since(w.Turned()); age < time.Minute {
			t.Errorf("it turned %s ago, though it has ended", age)
		}
	})
}
