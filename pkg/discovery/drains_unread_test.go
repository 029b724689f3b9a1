package discovery_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

// errIO is what a disk answers that has a bad moment.
var errIO = errors.New("read drains: input/output error")

// unread is a store that cannot be read so many times; fewer than none: ever.
type unread struct {
	*memoryStore
	failures int
	stuck    bool // nor can what it holds be set aside
}

func (s *unread) Load() ([]discovery.Drain, error) {
	if s.failures != 0 {
		s.failures--
		return nil, errIO
	}
	return s.memoryStore.Load()
}

func (s *unread) SetAside() (string, error) {
	if s.stuck {
		return "", errIO
	}
	return s.memoryStore.SetAside()
}

// unreadFixture has web-1, which the operator has drained, and web-2, and a store that cannot be read at first.
type unreadFixture struct {
	*fixture
	drained, other string // containers
	id             string // of the drain
	logs           *observer.ObservedLogs
}

func newUnread(t *testing.T, failures int, stuck bool) *unreadFixture {
	t.Helper()
	engine := enginetest.New()
	u := &unreadFixture{drained: engine.Run(web("web-1")), other: engine.Run(web("web-2"))}
	u.id = discovery.DrainID(discovery.CauseOperator, u.drained)
	store := &memoryStore{drains: []discovery.Drain{{ID: u.id, Container: u.drained, Cause: discovery.CauseOperator, By: "alice", Since: time.Now()}}}
	opts := options()
	var core zapcore.Core
	core, u.logs = observer.New(zap.InfoLevel)
	opts.Log = zap.New(core)
	u.fixture = watchStore(t, engine, engine, store, &unread{store, failures, stuck}, opts)
	return u
}

func (u *unreadFixture) kept(drains []discovery.Drain) bool {
	return slices.ContainsFunc(drains, func(d discovery.Drain) bool { return d.ID == u.id })
}

// Drains that cannot be read at the start are read again, and not overwritten before: an operator's drain stays in force.
func TestWatcher_drainsThatCannotBeReadAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnread(t, 1, false)
		u.settle(time.Minute)
		u.wants("web-2:32769")
		u.engine.Signal(u.other, 15)
		u.settle(time.Second)
		if saved := u.store.saved(); !u.kept(saved) || len(saved) != 2 {
			t.Errorf("saved: %+v; want the operator's drain, and the stop signal's", saved)
		}
		if err := u.w.DrainsErr(); err != nil {
			t.Errorf("got %v; want that the drains are on disk", err)
		}
	})
}

// While they cannot be read nobody comes in, for he may be drained, and nobody who may not be is put out. What is told to stop
// goes, and what is drained now is, but is not written in their place.
func TestWatcher_drainsUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnread(t, 5, false) // after 0.5, 1, 2, 4 and 8 s
		stays := func(ids ...string) {
			t.Helper()
			u.wants()
			if got := u.w.Snapshot().Unknown; !slices.Equal(got, ids) {
				t.Errorf("what is registered stays for %v; want %v", got, ids)
			}
		}
		u.settle(2 * time.Second)
		stays(u.drained, u.other)
		if d := u.verdict("web-1", discovery.NotYet); !strings.Contains(d.Why, "cannot be read yet") {
			t.Errorf("web-1: got %q; want why it waits", d.Why)
		}
		if err := u.w.DrainsErr(); !errors.Is(err, errIO) {
			t.Errorf("got %v; want that the drains cannot be read", err)
		}
		third := u.engine.Run(web("web-3"))
		u.settle(time.Second)
		stays(u.drained, u.other, third)
		seq, err := u.w.Drain(t.Context(), discovery.Drain{Container: third, Cause: discovery.CauseOperator})
		if !errors.Is(err, discovery.ErrNotSaved) || !errors.Is(err, errIO) || seq == 0 {
			t.Errorf("Drain: got %d, %v; want its Seq, and that it is not saved, and why", seq, err)
		}
		u.verdict("web-3", discovery.Drained)
		stays(u.drained, u.other)
		u.engine.Signal(u.other, 15)
		stays(u.drained)
		u.settle(time.Second)
		if saved := u.store.saved(); len(saved) != 1 || !u.kept(saved) {
			t.Errorf("saved: %+v; want it as it was", saved)
		}
		u.settle(20 * time.Second)
		stays()
		u.verdict("web-1", discovery.Drained)
		if saved := u.store.saved(); len(saved) != 3 || !u.kept(saved) {
			t.Errorf("saved when they are read: %+v; want all three", saved)
		}
	})
}

// What was drained of a run that has ended since holds nobody when it is read at last.
func TestWatcher_drainsReadLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		id := engine.Run(web("web-1"))
		f, _ := engine.Facts(id)
		store := &memoryStore{drains: []discovery.Drain{
			{ID: discovery.DrainID(discovery.CauseStopSignal, id), Container: id, StartedAt: f.StartedAt, Cause: discovery.CauseStopSignal, Hold: discovery.HoldRun, Since: time.Now()},
			{ID: "gone", Container: "gone", Cause: discovery.CauseOperator, Since: time.Now()},
		}}
		h := watchStore(t, engine, engine, store, &unread{store, 3, false}, options())
		engine.Restart(id)
		h.settle(3 * time.Minute)
		h.wants("web-1:32768")
		if saved := store.saved(); len(saved) != 0 {
			t.Errorf("saved: %+v; want none", saved)
		}
	})
}

// Drains that stay unreadable hold the rest up for half a minute. They are set aside before the first save, and not sooner: as
// long as nothing has to be written they may yet be read.
func TestWatcher_drainsNeverRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnread(t, -1, false)
		u.settle(29 * time.Second)
		u.wants()
		u.settle(2 * time.Second)
		u.wants("web-1:32768", "web-2:32769")
		u.settle(10 * time.Minute)
		if len(u.store.aside) != 0 || !u.kept(u.store.saved()) {
			t.Errorf("set aside: %+v, saved: %+v; want them where they were", u.store.aside, u.store.saved())
		}
		if said := u.logs.FilterMessageSnippet("still cannot be read").Len(); said != 1 {
			t.Errorf("said %d times that it goes on without them; want once", said)
		}
		u.engine.Signal(u.other, 15)
		u.settle(time.Second)
		if saved := u.store.saved(); !u.kept(u.store.aside) || len(saved) != 1 || u.kept(saved) {
			t.Errorf("set aside: %+v, saved: %+v; want the operator's aside, and the stop signal's saved", u.store.aside, saved)
		}
		if said := u.logs.FilterMessageSnippet("set aside").FilterField(zap.String("file", "aside")).Len(); said != 1 {
			t.Errorf("said %d times that they are set aside, and where; want once", said)
		}
		if err := u.w.DrainsErr(); err != nil {
			t.Errorf("got %v; want that the drains are on disk", err)
		}
	})
}

// What can be neither read nor set aside is not overwritten.
func TestWatcher_drainsNeitherReadNorSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnread(t, -1, true)
		u.engine.Signal(u.other, 15)
		u.settle(10 * time.Minute)
		if saved := u.store.saved(); len(saved) != 1 || !u.kept(saved) {
			t.Errorf("saved: %+v; want what was there", saved)
		}
		if err := u.w.DrainsErr(); !errors.Is(err, errIO) {
			t.Errorf("got %v; want that the drains cannot be read", err)
		}
		if _, err := u.w.Drain(t.Context(), discovery.Drain{Container: u.other, Cause: discovery.CauseOperator}); !errors.Is(err, discovery.ErrNotSaved) {
			t.Errorf("Drain: got %v; want ErrNotSaved", err)
		}
	})
}

// Who may not read the drains does not run without them: a person gave them away, and has to give them back.
func TestNew_drainsForbidden(t *testing.T) {
	store := &memoryStore{err: fmt.Errorf("read drains: %w", fs.ErrPermission)}
	if _, err := discovery.New(enginetest.New(), store, func(*discovery.Snapshot) {}, options()); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("New: got %v; want that they may not be read", err)
	}
}

// A file that cannot be understood is out of the way at once: nothing is read again, and nobody waits.
func TestWatcher_drainsCorrupt(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "drains.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := discovery.NewDrainFile(dir)
	synctest.Test(t, func(t *testing.T) {
		engine := enginetest.New()
		engine.Run(web("web-1"))
		h := watchStore(t, engine, engine, nil, store, options())
		h.wants("web-1:32768")
		if err := h.w.DrainsErr(); err != nil {
			t.Errorf("got %v; want none", err)
		}
	})
	if aside, err := filepath.Glob(filepath.Join(dir, "drains.json.corrupt-*")); err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v, %v; want one file", aside, err)
	}
}

// A file that cannot be read keeps what it holds under another name.
func TestDrainFile_SetAside(t *testing.T) {
	dir := t.TempDir()
	f := discovery.NewDrainFile(dir)
	if _, err := f.SetAside(); err == nil {
		t.Error("without a file: got no error")
	}
	if err := f.Save([]discovery.Drain{{ID: "a", Cause: discovery.CauseOperator}}); err != nil {
		t.Fatal(err)
	}
	aside, err := f.SetAside()
	if err != nil || !strings.HasPrefix(filepath.Base(aside), "drains.json.unread-") {
		t.Fatalf("got %q, %v; want a dated name", aside, err)
	}
	if b, err := os.ReadFile(aside); err != nil || !strings.Contains(string(b), `"a"`) {
		t.Errorf("set aside: %s, %v; want what it held", b, err)
	}
	if got, err := f.Load(); err != nil || len(got) != 0 {
		t.Errorf("Load: %v, %v; want none", got, err)
	}
}

// What is let in before the drains are read stays in when they are; what a person's word does not end, or is drained after it,
// holds.
func TestWatcher_undrainedWhileUnread(t *testing.T) {
	operator := func(u *unreadFixture) discovery.Drain {
		return discovery.Drain{Container: u.drained, Cause: discovery.CauseOperator}
	}
	ask := func(u *unreadFixture, asked discovery.Undrained) {
		u.Helper()
		if unread, err := u.w.UndrainUnread(u.Context(), asked); !unread || err != nil {
			u.Errorf("UndrainUnread: %t, %v; want that some are unread", unread, err)
		}
	}
	drain := func(u *unreadFixture) {
		u.Helper()
		if _, err := u.w.Drain(u.Context(), operator(u)); !errors.Is(err, discovery.ErrNotSaved) {
			u.Errorf("Drain: %v; want that it is not saved", err)
		}
	}
	undrain := func(u *unreadFixture) {
		u.Helper()
		if _, err := u.w.Undrain(u.Context(), u.id); !errors.Is(err, discovery.ErrNotSaved) {
			u.Errorf("Undrain: %v; want that it is not saved", err)
		}
	}
	named := func(u *unreadFixture) {
		u.store.drains[0].ID, u.store.drains[0].Name = discovery.NameDrainID(discovery.CauseOperator, "web-1"), "web-1"
	}
	host := func(cause string) func(u *unreadFixture) {
		return func(u *unreadFixture) {
			u.store.drains[0] = discovery.Drain{ID: discovery.DrainID(cause, ""), Cause: cause, Since: time.Now()}
		}
	}
	both := []string{"web-1:32768", "web-2:32769"}
	for name, test := range map[string]struct {
		stored func(*unreadFixture) // changes what is on disk; nil: web-1 is drained by its id
		asked  func(*unreadFixture)
		want   []string
	}{
		"by its id":                     {nil, func(u *unreadFixture) { ask(u, discovery.Undrained{Container: u.drained, Name: "web-1"}) }, both},
		"another":                       {nil, func(u *unreadFixture) { ask(u, discovery.Undrained{Container: u.other, Name: "web-2"}) }, both[1:]},
		"the drain":                     {nil, func(u *unreadFixture) { ask(u, discovery.Undrained{ID: u.id}) }, both},
		"the host, and not a container": {nil, func(u *unreadFixture) { ask(u, discovery.Undrained{Host: true}) }, both[1:]},
		"a name":                        {named, func(u *unreadFixture) { ask(u, discovery.Undrained{Name: "web-1"}) }, both},
		"a container, and not its name": {named, func(u *unreadFixture) { ask(u, discovery.Undrained{Container: u.drained}) }, both[1:]},
		"the host":                      {host(discovery.CauseOperator), func(u *unreadFixture) { ask(u, discovery.Undrained{Host: true}) }, both},
		"the host, by spot":             {host(discovery.CauseSpot), func(u *unreadFixture) { ask(u, discovery.Undrained{Host: true}) }, nil},
		"drained and let in":            {nil, func(u *unreadFixture) { drain(u); undrain(u) }, both},
		"let in and drained":            {nil, func(u *unreadFixture) { ask(u, discovery.Undrained{Container: u.drained}); drain(u) }, both[1:]},
		"drained, let in and drained":   {nil, func(u *unreadFixture) { drain(u); undrain(u); drain(u) }, both[1:]},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUnread(t, 6, false) // for 15.5 s
				if test.stored != nil {
					test.stored(u)
				}
				u.settle(5 * time.Second)
				test.asked(u)
				u.settle(time.Minute)
				u.wants(test.want...)
				if unread, err := u.w.UndrainUnread(t.Context(), discovery.Undrained{Host: true}); unread || err != nil {
					t.Errorf("UndrainUnread afterwards: %t, %v; want that all are read", unread, err)
				}
			})
		})
	}
}

// Whoever has outlived a stop signal while the drains were unread has outlived an earlier one of them, too: he stays in.
func TestWatcher_survivedWhileUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnread(t, 60, true)
		f, _ := u.engine.Facts(u.other)
		u.store.drains[0] = discovery.Drain{
			ID: discovery.DrainID(discovery.CauseStopSignal, u.other), Container: u.other, StartedAt: f.StartedAt,
			Cause: discovery.CauseStopSignal, Hold: discovery.HoldRun, Since: time.Now(),
		}
		u.settle(5 * time.Second)
		u.engine.Signal(u.other, 15)
		u.settle(11 * time.Minute)
		u.wants("web-1:32768", "web-2:32769")
		if err := u.w.DrainsErr(); !errors.Is(err, errIO) {
			t.Fatalf("got %v; want that they are unread still", err)
		}
		before := len(u.snapshots())
		u.settle(time.Hour)
		if err := u.w.DrainsErr(); err != nil {
			t.Fatalf("got %v; want them read", err)
		}
		for _, s := range u.snapshots()[before:] {
			if !slices.Contains(names(s, "web"), "web-2:32769") {
				t.Errorf("it is out when they are read: %s", describe(s))
			}
		}
	})
}
