package discovery

import (
	"context"
	"errors"
	"time"

	"berth/internal/backoff"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// heartbeat is how long the loop sleeps at most.
const heartbeat = 5 * time.Second

// state is all that the loop owns. Nobody else touches it; requests are functions that the loop runs.
type state struct {
	w          *Watcher
	lives      map[string]*life
	gone       map[string]time.Time // containers destroyed lately: a list begun before may still show them
	seen       *recent
	queue      queue
	list       listing
	suspect    suspicion
	lastReopen time.Time
	shadowed   map[string]bool // asked about already
	drains     map[string]Drain
	orphans    map[string]bool // drains of names, by id, whose container is gone
	saving     saving
	unread     unread
	rules      []Rule
	generation uint64
	instance   string
	stream     Stream
	connected  bool      // the stream has been open before
	flapping   bool      // one short stream after another: it has been said, and that none has lasted since
	outage     string    // while flapping: why no stream could be opened, as it was last said
	pastUntil  time.Time // the stream still tells what happened before it was opened

	complete bool // enough was known once to say what is wanted
	changed  bool
	next     time.Time // when the last resolution changes by itself
	seq      uint64
	last     *Snapshot
	// afterwards is what is done when this turn has published.
	afterwards []func()
	stepEnd    []func(seq uint64) // answered after this turn
	onceSeen   []func(seq uint64) // answered after the first publication
}

func newState(w *Watcher) *state {
	s := &state{
		w:     w,
		lives: make(map[string]*life), gone: make(map[string]time.Time), seen: newRecent(),
		shadowed: make(map[string]bool), drains: make(map[string]Drain), orphans: make(map[string]bool),
		rules: w.opts.Rules, generation: w.opts.Generation, instance: w.opts.Instance, seq: w.opts.Seq,
		stream: w.Stream(), changed: true,
	}
	s.stream.Since = s.now()
	if w.loadErr != nil {
		s.unread = unread{err: w.loadErr, until: s.now().Add(unreadPatience)}
		s.sayDrainsErr()
		return s
	}
	s.loadDrains(w.loaded)
	return s
}

func (s *state) now() time.Time { return time.Now() }

// loop runs until ctx ends.
func (s *state) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.step()
		timer.Reset(time.Until(s.wakeAt()))
		jobs, j := s.offerJob()
		lists, lj := s.offerList()
		select {
		case <-ctx.Done():
			return
		case e := <-s.w.events:
			s.streamed(e)
			s.drainEvents()
		case a := <-s.w.answers:
			s.answered(a)
		case a := <-s.w.listings:
			s.listed(a)
		case request := <-s.w.requests:
			request(s)
		case r := <-s.w.saved:
			s.savedDrains(r)
		case r := <-s.w.loads:
			s.loadedAgain(r)
		case jobs <- j:
			s.sent(j)
		case lists <- lj:
			s.list.owed, s.list.all, s.list.inFlight = false, false, true
		case <-timer.C:
		}
	}
}

// drainEvents takes in what else the stream has brought, so that a burst is resolved once.
func (s *state) drainEvents() {
	for range cap(s.w.events) {
		select {
		case e := <-s.w.events:
			s.streamed(e)
		default:
			return
		}
	}
}

// offerJob returns the next inspection and the channel to offer it on, which is nil where there is nothing to offer.
// While the stream is down nobody is asked: a connection would wake an engine that the operator stopped, and the list
// that follows the next stream asks for everything. Nor while a new stream tells the past: what it says counts first.
func (s *state) offerJob() (chan<- job, job) {
	if !s.stream.Up || s.now().Before(s.pastUntil) {
		return nil, job{}
	}
	j, ok := s.nextJob()
	if !ok {
		return nil, job{}
	}
	return s.w.jobs, j
}

func (s *state) offerList() (chan<- listJob, listJob) {
	now := s.now()
	if !s.stream.Up || !s.list.owed || s.list.inFlight || now.Before(s.list.notNow) || now.Before(s.pastUntil) {
		return nil, listJob{}
	}
	return s.w.listJobs, listJob{began: now, all: s.list.all}
}

// step does what the time asks for, publishes, and answers those who waited for that.
func (s *state) step() {
	if step := s.w.clock.look(); step != 0 {
		s.clockSet(step)
	}
	now := s.now()
	s.w.turned.Store(&now)
	s.tick(now)
	if s.changed && s.ready(now) {
		s.resolve(now)
	}
	s.handOver()
	for _, f := range s.afterwards {
		f()
	}
	s.afterwards = nil
	replyTo(&s.stepEnd, max(s.w.opts.Seq+1, s.seq)) // before the first publication: its Seq
	if s.last != nil {
		replyTo(&s.onceSeen, s.seq)
	}
}

// later has f called when this turn has published: what a stop signal takes out goes out before anybody is told, or
// anything counted.
func (s *state) later(f func()) { s.afterwards = append(s.afterwards, f) }

func replyTo(waiting *[]func(uint64), seq uint64) {
	for _, reply := range *waiting {
		reply(seq)
	}
	*waiting = nil
}

// tick does what is due.
func (s *state) tick(now time.Time) {
	if !s.next.IsZero() && !now.Before(s.next) {
		s.next, s.changed = time.Time{}, true
	}
	for _, l := range s.lives {
		in := &l.inspection
		if in.owed && !in.inFlight && in.queued == idle && !now.Before(in.notNow) {
			u := slow
			if in.tries == 0 {
				u = fresh
			}
			s.ask(l, u)
		}
	}
	s.askSurvivors(now)
	if s.stream.Up && !s.list.resyncAt.IsZero() && !now.Before(s.list.resyncAt) && !s.list.owed && !s.list.inFlight {
		s.list.resyncAt = now.Add(backoff.Jitter(s.w.opts.Resync * 4 / 3))
		s.list.lightly++
		s.w.metrics.resyncs.Inc()
		s.oweList(s.list.lightly%10 == 0)
	}
	s.judgeStream(now)
	s.sayLasting(now)
	s.endPatience(now)
	s.retrySave(now)
}

// wakeAt is when the loop has to turn though nothing happens.
func (s *state) wakeAt() time.Time {
	now := s.now()
	at := now.Add(heartbeat)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.After(now) && t.Before(at) {
			at = t
		}
	}
	sooner(s.next)
	sooner(s.pastUntil)
	sooner(s.lastsAt())
	if !s.complete && !s.list.doneAt.IsZero() {
		sooner(s.list.doneAt.Add(s.w.opts.Settle))
	}
	sooner(s.list.notNow)
	sooner(s.list.resyncAt)
	if !s.suspect.at.IsZero() {
		sooner(s.suspect.at.Add(s.w.opts.SilenceGrace))
	}
	sooner(s.saving.retryAt)
	if s.unreadable() {
		sooner(s.unread.until)
	}
	for _, l := range s.lives {
		if l.inspection.owed {
			sooner(l.inspection.notNow)
		}
	}
	for _, d := range s.drains {
		if at, ok := s.survivedAt(d); ok {
			sooner(at)
		}
	}
	return at
}

// streamed takes in what the stream goroutine brings.
func (s *state) streamed(e streamEvent) {
	switch e.kind {
	case streamUp:
		if s.connected {
			s.stream.Reconnects++
			s.w.metrics.reconnects.Inc()
		}
		s.connected = true
		s.stream = Stream{
			Up: true, Since: s.now(), Reconnects: s.stream.Reconnects,
			Engine: e.info.Name + " " + e.info.Version, APIVersion: e.info.APIVersion,
		}
		level := zap.InfoLevel
		if s.flapping { // until it lasts
			level = zap.DebugLevel
		}
		s.sayUp(level)
		s.suspect = suspicion{}
		s.pastUntil = time.Time{}
		if !e.past {
			s.pastUntil = s.stream.Since.Add(s.w.opts.Replay)
		}
		s.list.tries, s.list.notNow = 0, time.Time{}
		s.oweList(true)
		s.streamChanged()
	case streamDown:
		s.w.metrics.connectFails.Inc()
		text := e.err.Error()
		if s.stream.Up || s.stream.Err != text {
			s.sayDown(e)
			if s.stream.Up {
				s.stream.Since = s.now()
			}
			s.stream.Up, s.stream.Err, s.stream.Change = false, text, ""
			if known := (*EngineError)(nil); errors.As(e.err, &known) {
				s.stream.Change = known.Change
			}
			s.streamChanged()
		}
	case streamMessage:
		s.hear(e.event, e.at)
	}
}

func (s *state) sayUp(level zapcore.Level) {
	s.w.log.Log(level, "watching docker", zap.String("engine", s.stream.Engine), zap.String("api_version", s.stream.APIVersion))
}

// sayDown says that a stream has ended, or could not be opened. Where one short stream follows another that is said once.
// An outage is said also then: the log never ends with a stream that is up while none can be opened.
func (s *state) sayDown(e streamEvent) {
	message, level := "docker's event stream is down, what is known stays", zap.WarnLevel
	text, opened := e.err.Error(), s.stream.Up
	switch {
	case opened && !e.again:
		s.flapping, s.outage = false, ""
	case opened && s.flapping, s.flapping && s.outage == text:
		level = zap.DebugLevel
	case opened:
		message, s.flapping = "docker's event streams end again and again, which is not said any more until one lasts", true
	case s.flapping:
		s.outage = text
	}
	s.w.log.Log(level, message, zap.Error(e.err))
}

// sayLasting says that a stream lasts, after several that did not.
func (s *state) sayLasting(now time.Time) {
	if at := s.lastsAt(); !at.IsZero() && !now.Before(at) {
		s.flapping, s.outage = false, ""
		s.sayUp(zap.InfoLevel)
	}
}

// lastsAt is when the stream has lasted, if that is to be said.
func (s *state) lastsAt() time.Time {
	if !s.flapping || !s.stream.Up {
		return time.Time{}
	}
	return s.stream.Since.Add(stable)
}

// clockSet notes that the host's clock was set. Drains are dated anew: whoever reads them next knows the new clock alone.
func (s *state) clockSet(step time.Duration) {
	if step.Abs() >= time.Second {
		s.w.log.Info("the host's clock was set", zap.Duration("by", step))
	}
	now := s.now()
	for id, d := range s.drains {
		d.Since = now.Add(d.Since.Sub(now))
		s.drains[id] = d
	}
	if len(s.drains) > 0 {
		s.persist()
	}
}

func (s *state) streamChanged() {
	stream := s.stream
	s.w.stream.Set(&stream)
	up := 0.0
	if stream.Up {
		up = 1
	}
	s.w.metrics.streamUp.Set(up)
	s.changed = true
}

// hear takes in one event that happened at a time on our clock.
func (s *state) hear(e Event, at time.Time) {
	if e.Container == "" || s.seen.add(e) {
		return
	}
	if ce := s.w.log.Check(zap.DebugLevel, "event"); ce != nil {
		ce.Write(container12(e.Container), zap.String("action", e.Action), zap.String("signal", e.Signal), zap.Time("event_time", e.Time))
	}
	dated := e.Time
	e.Time = at
	if now := s.now(); now.Before(s.pastUntil) && e.Time.Before(s.stream.Since) {
		s.pastUntil = now.Add(s.w.opts.Replay)
		if most := s.stream.Since.Add(20 * s.w.opts.Replay); s.pastUntil.After(most) {
			s.pastUntil = most
		}
	}
	s.later(func() {
		s.w.metrics.heard(e.Action)
		s.w.metrics.lastEvent.SetToCurrentTime()
	})
	l := s.lives[e.Container]
	if l == nil {
		switch e.Action {
		case ActionStart, ActionKill, ActionDie, ActionPause:
			if _, gone := s.gone[e.Container]; gone {
				return // it comes after its own destroy: containers do not return
			}
			l = s.life(e.Container)
		case ActionDestroy:
			s.gone[e.Container] = s.now()
			return
		default:
			return // it does not run, or a start or a list is about to say that it does
		}
	}
	c := s.circumstances(l)
	c.dated = dated
	h := l.hear(e, c)
	if e.Action == ActionStart && h.newer {
		l.inspection.tries, l.inspection.notNow = 0, time.Time{}
	}
	if h.forget {
		s.gone[e.Container] = s.now()
	}
	s.apply(l, h)
}

// apply does what an event, or a list that stands in for one, has led to.
func (s *state) apply(l *life, h heard) {
	in := &l.inspection
	if h.newer {
		in.version++
	}
	if h.settled && len(in.lookers) == 0 {
		in.owed = false
	}
	if !h.overAt.IsZero() {
		s.runsOver(l, h.overAt)
	}
	if !h.stopAt.IsZero() {
		s.stopSignal(l, h.stopAt)
	}
	if h.changed {
		s.changed = true
	}
	if h.forget {
		s.forget(l)
		return
	}
	if h.ask {
		if h.delay > 0 && in.tries == 0 {
			in.notNow = s.now().Add(h.delay)
		}
		s.ask(l, fresh)
	}
}

// life returns what is remembered of a container, beginning with nothing.
func (s *state) life(id string) *life {
	l := s.lives[id]
	if l == nil {
		l = newLife(id)
		s.lives[id] = l
	}
	return l
}

// forget drops a container that is gone for good, and its drains.
func (s *state) forget(l *life) {
	for _, k := range l.inspection.lookers {
		k.reply(ErrNotFound)
	}
	l.inspection.lookers = nil
	delete(s.lives, l.id)
	delete(s.shadowed, l.id)
	s.containerGone(l.id)
	s.changed = true
}

func (s *state) circumstances(l *life) circumstances {
	return circumstances{now: s.now(), timing: s.w.opts.Timing, stopping: s.stopping(l)}
}

func about(l *life) []zap.Field {
	fields := []zap.Field{container12(l.id)}
	if l.facts != nil {
		fields = append(fields, zap.String("container", l.facts.Name))
	}
	return fields
}

func container12(id string) zap.Field { return zap.String("container_id", short(id)) }
