package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/target"
)

// The model: random lives of containers on an engine that loses, repeats and delays events, whose lists and inspections
// fail and hang, that goes away and comes back with its ports dealt anew, whose clock is set, under an agent that is
// restarted. Three things are asserted:
//
//   - after the faults have ended and time has passed, exactly what runs and can be reached is wanted, on its port;
//   - what nothing has happened to since it was wanted stays wanted in every snapshot, whatever fails around it;
//   - what has announced its end is wanted in no snapshot, until it starts again.
type action struct {
	what  string
	which int           // container
	wait  time.Duration // afterwards
}

// The weight of an action is how often it stands here.
var actionNames = []string{
	"run", "run", "run", "start", "start", "stop", "stop", "stop", "restart", "restart", "die", "die", "remove", "term", "hup",
	"pause", "unpause", "unpause", "disconnect", "connect", "connect", "rename",
	"cut", "silence", "tamper", "tamper", "straight", "fail inspect", "fail inspects", "fail list", "hang inspect", "hang list", "heal", "heal",
	"down", "api down", "up", "up", "reboot", "reboot unannounced", "restart agent", "restart agent", "wait", "wait", "stale inspection", "stale list",
	"clock back", "clock forward",
}

func drawActions(t *rapid.T) []action {
	one := rapid.Custom(func(t *rapid.T) action {
		return action{
			what:  rapid.SampledFrom(actionNames).Draw(t, "what"),
			which: rapid.IntRange(0, 5).Draw(t, "which"),
			wait: rapid.SampledFrom([]time.Duration{
				0, 0, 0, time.Millisecond, 100 * time.Millisecond, time.Second, 7 * time.Second, 90 * time.Second,
			}).Draw(t, "wait"),
		}
	})
	return rapid.SliceOfN(one, 1, 60).Draw(t, "actions")
}

type model struct {
	engine *enginetest.Engine
	store  *memoryStore
	rand   *rand.Rand
	opts   discovery.Options
	w      *discovery.Watcher
	stop   func()

	mu  sync.Mutex            // guards got: the watcher's loop publishes
	got []*discovery.Snapshot // published, all of it

	checked  int // of got
	tampered bool
	down     bool
	heldBack []discovery.Event // by tampering

	// What is asserted in passing.
	stable  map[string]string // container → its target, wanted since nothing happened to it
	leaving map[string]bool   // announced its end, to a watcher that heard it
	doubt   map[string]bool   // something happened to it that the watcher has still to hear of
	log     []string
}

func (m *model) publish(s *discovery.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = append(m.got, s)
}

// published returns all that was published by the present watcher.
func (m *model) published() []*discovery.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got
}

func (m *model) start() {
	w, err := discovery.New(m.engine, m.store, m.publish, m.opts)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	m.w, m.stop = w, func() { cancel(); <-done }
}

// restartAgent has another watcher take over, with what the ledger of the first would tell it.
func (m *model) restartAgent() {
	m.stop()
	if s := m.w.Snapshot(); s != nil {
		m.opts.Admitted = make(map[string][]target.Run)
		for group, wants := range s.Wants {
			for _, w := range wants {
				m.opts.Admitted[group] = append(m.opts.Admitted[group], w.Run)
			}
		}
	}
	m.got, m.checked = nil, 0
	m.start()
}

func (m *model) container(n int) string {
	ids := m.engine.IDs()
	if len(ids) == 0 {
		return ""
	}
	return ids[n%len(ids)]
}

// heard reports whether an event that is caused now reaches the watcher.
func (m *model) heard() bool {
	return !m.tampered && !m.down && m.w.Stream().Up
}

func (m *model) tamper(e discovery.Event) []discovery.Event {
	switch m.rand.IntN(6) {
	case 0:
		return nil
	case 1:
		return []discovery.Event{e, e}
	case 2:
		m.heldBack = append(m.heldBack, e)
		return nil
	case 3:
		out := append([]discovery.Event{e}, m.heldBack...)
		m.heldBack = nil
		return out
	}
	return []discovery.Event{e}
}

// touch notes that something happens to a container.
func (m *model) touch(id string) {
	delete(m.stable, id)
	if m.doubt[id] = m.doubt[id] || !m.heard(); !m.doubt[id] {
		delete(m.doubt, id)
	}
}

// end notes that a container announces its end.
func (m *model) end(id string) {
	f, ok := m.engine.Facts(id)
	if ok && (f.State == "running" || f.State == "paused") && m.heard() {
		m.leaving[id] = true
	}
	m.touch(id)
}

// begin notes that a container that was not running starts.
func (m *model) begin(id string) {
	delete(m.leaving, id)
	delete(m.doubt, id)
	m.touch(id)
}

func (m *model) do(a action) {
	id := m.container(a.which)
	f, _ := m.engine.Facts(id)
	alive := f.State == "running" || f.State == "paused"
	switch a.what {
	case "run":
		if len(m.engine.IDs()) < 8 {
			m.engine.Run(enginetest.Spec{Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}, StopSignal: "SIGQUIT"})
		}
	case "start":
		if !alive {
			m.begin(id)
			m.engine.Start(id)
		}
	case "stop":
		m.end(id)
		m.engine.Stop(id)
	case "restart":
		m.end(id)
		m.engine.Stop(id)
		m.begin(id)
		m.engine.Start(id)
	case "die":
		m.end(id)
		m.engine.Die(id, 1)
	case "remove":
		m.end(id)
		m.engine.Remove(id)
	case "term":
		m.end(id)
		m.engine.Signal(id, 15)
	case "hup":
		m.engine.Signal(id, 1)
	case "rename":
		m.engine.Rename(id, fmt.Sprintf("renamed-%d", len(m.log)))
	case "pause":
		m.touch(id)
		m.engine.Pause(id)
	case "unpause":
		m.touch(id)
		m.engine.Unpause(id)
	case "disconnect":
		m.touch(id)
		m.engine.Disconnect(id)
	case "connect":
		m.touch(id)
		m.engine.Connect(id)
	case "restart agent":
		if !m.tampered {
			m.restartAgent()
		}
	case "stale inspection":
		// Docker answers "running" after the death, because it was asked before.
		m.engine.HangInspect(id)
		m.engine.Rename(id, fmt.Sprintf("renamed-%d", len(m.log)))
		m.ending(a, id)
	case "stale list":
		m.engine.HangList()
		m.engine.Cut()
		time.Sleep(time.Second)
		m.ending(a, id)
	default:
		m.misbehave(a, id)
	}
}

// ending ends a container while Docker is slow, and lets it answer then.
func (m *model) ending(a action, id string) {
	synctest.Wait()
	m.end(id)
	if a.wait > time.Millisecond {
		m.engine.Signal(id, 15)
	} else {
		m.engine.Die(id, 0)
	}
	time.Sleep(time.Millisecond)
	synctest.Wait()
	m.engine.Heal()
}

func (m *model) misbehave(a action, id string) {
	switch a.what {
	case "cut":
		m.engine.Cut()
	case "silence":
		m.tampered = true
		m.engine.Silence()
	case "tamper":
		m.tampered = true
		m.engine.Tamper(m.tamper)
	case "straight":
		m.straighten()
	case "fail inspect":
		m.engine.FailInspect(id, errors.New("inspection failed"))
	case "fail inspects":
		m.engine.FailInspect("", errors.New("every inspection failed"))
	case "fail list":
		m.engine.FailList(errors.New("list failed"))
	case "hang inspect":
		m.engine.HangInspect(id)
	case "hang list":
		m.engine.HangList()
	case "heal":
		m.engine.Heal()
	case "down":
		m.down = true
		m.engine.Down()
	case "api down":
		m.engine.APIDown()
	case "up":
		m.down = false
		m.engine.Up()
	case "clock back":
		m.engine.SetClock(-time.Duration(m.rand.Int64N(int64(2 * time.Hour))))
	case "clock forward":
		m.engine.SetClock(time.Duration(m.rand.Int64N(int64(2 * time.Hour))))
	case "reboot", "reboot unannounced":
		clear(m.stable)
		clear(m.leaving)
		m.engine.Reboot(m.rand, a.what == "reboot")
	}
}

// straighten ends tampering. What was held back arrives late.
func (m *model) straighten() {
	m.engine.Tamper(nil)
	for _, e := range m.heldBack {
		m.engine.Emit(e)
	}
	m.heldBack = nil
	m.engine.Cut() // what was swallowed for good is found by the next stream
	m.tampered = false
}

// expected is what should be wanted when all is quiet.
func (m *model) expected() []string {
	out := []string{}
	for _, id := range m.engine.IDs() {
		if f, _ := m.engine.Facts(id); f.State == "running" && len(f.Published) > 0 {
			out = append(out, targetOf(id, f.Published[0].HostPort, f.StartedAt))
		}
	}
	return out
}

// targetOf is a container's port in one run, as text.
func targetOf(id string, port uint16, started time.Time) string {
	return fmt.Sprintf("%s:%d@%s", id[56:], port, started.Format("15:04:05.999999999"))
}

func wantedTargets(s *discovery.Snapshot) []string {
	out := []string{}
	if s != nil {
		for _, w := range s.Wants["web"] {
			out = append(out, targetOf(w.Run.ID, w.HostPort4, w.Run.StartedAt))
		}
	}
	slices.Sort(out)
	return out
}

// check looks at all that was published since it last looked.
func (m *model) check() error {
	for got := m.published(); m.checked < len(got); m.checked++ {
		s := got[m.checked]
		got := wantedTargets(s)
		for id, t := range m.stable {
			if !slices.Contains(got, t) && !slices.Contains(s.Unknown, id) {
				return fmt.Errorf("snapshot %d: %s is no longer wanted, and nothing happened to it\n%s", s.Seq, t, describe(s))
			}
		}
	}
	latest := m.w.Snapshot()
	got := wantedTargets(latest)
	for id := range m.leaving {
		if slices.ContainsFunc(got, func(t string) bool { return t[:8] == id[56:] }) {
			return fmt.Errorf("%s has announced its end and is wanted\n%s", id[56:], describe(latest))
		}
		if latest != nil && slices.Contains(latest.Unknown, id) {
			return fmt.Errorf("%s has announced its end and is unknown\n%s", id[56:], describe(latest))
		}
	}
	if !m.tampered {
		for _, t := range m.expected() {
			if id := m.idOf(t); slices.Contains(got, t) && !m.leaving[id] && !m.doubt[id] {
				m.stable[id] = t
			}
		}
	}
	return nil
}

func (m *model) idOf(t string) string {
	for _, id := range m.engine.IDs() {
		if id[56:] == t[:8] {
			return id
		}
	}
	return ""
}

// quiesce ends all faults and lets time pass, beyond what crashes, pauses and survivors have to wait.
func (m *model) quiesce() error {
	m.engine.Heal()
	m.engine.Up()
	m.down = false
	m.straighten()
	for id := range m.leaving {
		if f, ok := m.engine.Facts(id); ok && f.State == "running" {
			delete(m.leaving, id) // it will be a survivor
		}
	}
	time.Sleep(20 * time.Minute)
	synctest.Wait()
	if err := m.check(); err != nil {
		return err
	}
	want := m.expected()
	slices.Sort(want)
	if got := wantedTargets(m.w.Snapshot()); !slices.Equal(got, want) {
		return fmt.Errorf("when all is quiet: wanted %v; want %v\n%s", got, want, describe(m.w.Snapshot()))
	}
	before := m.engine.Counts()
	time.Sleep(time.Hour)
	synctest.Wait()
	after := m.engine.Counts()
	if n := after.Streams - before.Streams; n != 0 {
		return fmt.Errorf("%d streams were opened in a quiet hour", n)
	}
	if n, most := after.Total()-before.Total(), 10*len(m.engine.IDs()); n > most {
		return fmt.Errorf("%d inspections in a quiet hour; want at most %d", n, most)
	}
	return nil
}

func playModel(actions []action, seed uint64) (log []string, err error) {
	m := &model{
		engine: enginetest.New(), store: &memoryStore{}, rand: rand.New(rand.NewPCG(seed, 1)), opts: options(),
		stable: make(map[string]string), leaving: make(map[string]bool), doubt: make(map[string]bool),
	}
	m.start()
	defer func() { m.stop(); log = m.log }()
	synctest.Wait()
	for _, a := range actions {
		m.log = append(m.log, fmt.Sprintf("%s %d, then %s", a.what, a.which, a.wait))
		m.do(a)
		if a.wait > 0 {
			time.Sleep(a.wait)
		}
		synctest.Wait()
		if err := m.check(); err != nil {
			return m.log, err
		}
	}
	return m.log, m.quiesce()
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		actions, seed := drawActions(rt), rapid.Uint64().Draw(rt, "seed")
		var log []string
		var err error
		synctest.Test(t, func(*testing.T) { log, err = playModel(actions, seed) })
		if err != nil {
			rt.Fatalf("%v\nafter:\n%s", err, fmt.Sprint(log))
		}
	})
}
