package enginetest

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"berth/pkg/discovery"
)

// The keys under which calls that are about no container hang.
const (
	listKey = "list"
	pingKey = "ping"
)

type faults struct {
	inspectErr map[string]error // by container; "" is all of them
	listErr    error
	pingErr    error
	hung       map[string]chan struct{}
	pass       map[string]int // how many inspections are let through though they should hang
	tamper     func(discovery.Event) []discovery.Event
	slowStream time.Duration
}

// Tamper has every event that is delivered to open streams go through f, which returns what arrives instead: nothing
// for one that is lost, two for one that is repeated, an earlier one for events out of order. The engine's memory, which
// new streams read, is not touched. Nil: events arrive as they are.
func (e *Engine) Tamper(f func(discovery.Event) []discovery.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.tamper = f
}

// FailInspect has inspections of a container fail; "" is all of them, nil ends it.
func (e *Engine) FailInspect(id string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.inspectErr[id] = err
}

// FailList has lists fail; nil ends it.
func (e *Engine) FailList(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.listErr = err
}

// FailPing has pings fail; nil ends it.
func (e *Engine) FailPing(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.pingErr = err
}

// HangInspect has inspections of a container hang until release is called; they answer what was true before.
func (e *Engine) HangInspect(id string) (release func()) { return e.hang(id) }

// HangInspectAfter is HangInspect for all but the next n inspections.
func (e *Engine) HangInspectAfter(id string, n int) (release func()) {
	release = e.hang(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.pass[id] = n
	return release
}

// Unhang lets the inspections of a container that come from now on answer at once, while those that hang go on hanging
// until they are released.
func (e *Engine) Unhang(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.pass[id] = 1 << 30
}

// HangList has lists hang until release is called.
func (e *Engine) HangList() (release func()) { return e.hang(listKey) }

// HangPing has pings hang until release is called.
func (e *Engine) HangPing() (release func()) { return e.hang(pingKey) }

func (e *Engine) hang(key string) func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	ch := make(chan struct{})
	e.faults.hung[key] = ch
	delete(e.faults.pass, key)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.faults.hung[key] == ch {
			delete(e.faults.hung, key)
			close(ch)
		}
	}
}

// SlowStreams has streams that are opened from now on take their time before they bring the first event.
func (e *Engine) SlowStreams(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.slowStream = d
}

// Remembered returns the events since a time, and up to now, that the engine remembers, whatever becomes of them on streams.
func (e *Engine) Remembered(since time.Time) []discovery.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock()
	return slices.DeleteFunc(e.remembered(since), func(ev discovery.Event) bool { return ev.Time.After(now) })
}

// remembered returns what a new stream begins with: as Docker does, it goes back to the first event that is older.
func (e *Engine) remembered(since time.Time) []discovery.Event {
	begin := len(e.ring)
	for begin > 0 && !e.ring[begin-1].Time.Before(since) {
		begin--
	}
	return slices.Clone(e.ring[begin:])
}

// Silence keeps the streams that are open from delivering anything, while they stay open: a stream opened later is well.
func (e *Engine) Silence() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.streams {
		s.silent = true
	}
}

// Cut ends every open stream with io.EOF, as a restart of the engine with live-restore does.
func (e *Engine) Cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cut()
}

func (e *Engine) cut() {
	for s := range e.streams {
		s.end()
	}
}

// Forget empties the memory of past events, as a restart of the engine does.
func (e *Engine) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring = nil
}

// Emit delivers an event that no container has caused.
func (e *Engine) Emit(ev discovery.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit(ev)
}

// Down takes the engine's API away; streams end, containers go on.
func (e *Engine) Down() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up = false
	e.cut()
}

// APIDown takes the API away and leaves open streams open: so an engine's shutdown begins.
func (e *Engine) APIDown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up = false
}

// Up gives the API back.
func (e *Engine) Up() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up = true
}

// Reboot ends all containers, emits their deaths only if told, cuts the streams, and starts those that ran again, in
// another order: the same ports go to other containers. The memory of events begins anew.
func (e *Engine) Reboot(r *rand.Rand, announced bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ran []string
	for id, c := range e.containers {
		if alive(c) {
			ran = append(ran, id)
		}
	}
	slices.Sort(ran)
	if !announced {
		e.cut()
	}
	for _, id := range ran {
		e.signal(e.containers[id], stopSignal(e.containers[id]))
		e.die(e.containers[id], 0)
	}
	e.cut()
	e.ring = nil
	r.Shuffle(len(ran), func(i, j int) { ran[i], ran[j] = ran[j], ran[i] })
	for _, id := range ran {
		e.start(id)
	}
}

// stream is one open event stream. Its queue is without bound: what a slow reader loses is Tamper's to say.
type stream struct {
	queue  []discovery.Event // guarded by the engine's mutex
	silent bool
	ended  bool
	wake   chan struct{} // one slot
	delay  time.Duration
}

func (s *stream) push(ev discovery.Event) {
	s.queue = append(s.queue, ev)
	s.nudge()
}

func (s *stream) end() {
	s.ended = true
	s.nudge()
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// emit dates and delivers an event. The mutex is held.
func (e *Engine) emit(ev discovery.Event) {
	if ev.Time.IsZero() {
		ev.Time = e.now()
	}
	e.ring = append(e.ring, ev)
	if len(e.ring) > ringSize {
		e.ring = e.ring[len(e.ring)-ringSize:]
	}
	arriving := []discovery.Event{ev}
	if e.faults.tamper != nil {
		arriving = e.faults.tamper(ev)
	}
	for s := range e.streams {
		if s.silent || s.ended {
			continue
		}
		for _, a := range arriving {
			s.push(a)
		}
	}
}

// Events implements discovery.Engine.
func (e *Engine) Events(ctx context.Context, since time.Time) (<-chan discovery.Event, <-chan error) {
	out, failed := make(chan discovery.Event), make(chan error, 1)
	e.mu.Lock()
	e.counts.Streams++
	if !e.up {
		e.mu.Unlock()
		failed <- ErrDown
		close(failed)
		return out, failed
	}
	s := &stream{wake: make(chan struct{}, 1), delay: e.faults.slowStream}
	for _, ev := range e.remembered(since) {
		s.push(ev)
	}
	e.streams[s] = struct{}{}
	e.mu.Unlock()
	go func() {
		defer close(failed)
		failed <- e.deliver(ctx, s, out)
	}()
	return out, failed
}

func (e *Engine) deliver(ctx context.Context, s *stream, out chan<- discovery.Event) error {
	defer func() {
		e.mu.Lock()
		delete(e.streams, s)
		e.mu.Unlock()
	}()
	select {
	case <-time.After(s.delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		e.mu.Lock()
		queue, ended := s.queue, s.ended
		s.queue = nil
		e.mu.Unlock()
		for _, ev := range queue {
			select {
			case out <- ev:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if ended {
			return io.EOF
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Heal ends what Fail and Hang have begun.
func (e *Engine) Heal() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.listErr, e.faults.pingErr = nil, nil
	clear(e.faults.inspectErr)
	for key, ch := range e.faults.hung {
		close(ch)
		delete(e.faults.hung, key)
	}
}
