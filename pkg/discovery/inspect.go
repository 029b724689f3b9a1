package discovery

import (
	"context"
	"errors"
	"time"

	"berth/internal/backoff"

	"go.uber.org/zap"
)

// urgency orders inspections: what an event asks for goes before what a full list asks for.
type urgency uint8

const (
	idle urgency = iota
	slow
	fresh
)

// inspection is where one container stands with the workers.
type inspection struct {
	version  uint64    // raised by whatever an answer must not be older than
	owed     bool      // an answer is wanted
	inFlight bool      // at most one at a time
	queued   urgency   // in which queue it stands
	tries    int       // failures in a row
	notNow   time.Time // when to try again; zero: at once
	failed   bool      // it failed at least once since the watcher began
	lookers  []looker  // who waits for the answer
}

// looker waits for an inspection that was begun at or after since.
type looker struct {
	since time.Time
	reply func(err error)
}

// job is one inspection on its way through a worker.
type job struct {
	id      string
	version uint64
	urgency urgency
	retry   bool
	began   time.Time
}

type answer struct {
	job
	facts Facts
	err   error
	took  time.Duration
}

// queue holds the containers whose inspection is owed, in the order in which it was asked for. It belongs to the loop.
type queue struct {
	fresh, slow []string
	inFlight    int
	slowFlight  int
	retryFlight int
}

// ask owes l an inspection.
func (s *state) ask(l *life, u urgency) {
	in := &l.inspection
	in.owed = true
	if in.tries > 1 && u == fresh {
		u = slow // it has failed before: not in the way of those that work
	}
	if in.inFlight || in.queued >= u || s.now().Before(in.notNow) {
		return
	}
	in.queued = u
	if u == fresh {
		s.queue.fresh = append(s.queue.fresh, l.id)
	} else {
		s.queue.slow = append(s.queue.slow, l.id)
	}
}

// nextJob returns the inspection to hand to a worker, if there is one and a worker may take it. Those that a list asks
// for leave workers free for events, and those that failed before hold two at most: a container whose inspection hangs
// is in nobody's way.
func (s *state) nextJob() (job, bool) {
	q := &s.queue
	if l := s.head(&q.fresh, fresh); l != nil {
		return s.job(l, fresh), true
	}
	if q.slowFlight >= max(1, s.w.opts.Workers-2) {
		return job{}, false
	}
	for i := 0; i < len(q.slow); i++ {
		l := s.lives[q.slow[i]]
		switch {
		case l == nil || l.inspection.queued != slow || !l.inspection.owed:
			q.slow = append(q.slow[:i], q.slow[i+1:]...)
			i--
			if l != nil && l.inspection.queued == slow {
				l.inspection.queued = idle
			}
		case l.inspection.tries == 0 || q.retryFlight < 2:
			return s.job(l, slow), true
		}
	}
	return job{}, false
}

// head drops what is no longer owed from the head of a queue, and returns the first that is.
func (s *state) head(ids *[]string, u urgency) *life {
	for len(*ids) > 0 {
		l := s.lives[(*ids)[0]]
		if l != nil && l.inspection.queued == u {
			if l.inspection.owed {
				return l
			}
			l.inspection.queued = idle
		}
		*ids = (*ids)[1:]
	}
	return nil
}

func (s *state) job(l *life, u urgency) job {
	return job{id: l.id, version: l.inspection.version, urgency: u, retry: l.inspection.tries > 0, began: s.now()}
}

// sent notes that a worker has taken j.
func (s *state) sent(j job) {
	in := &s.lives[j.id].inspection
	in.inFlight, in.queued = true, idle
	s.queue.inFlight++
	if j.urgency == slow {
		s.queue.slowFlight++
	}
	if j.retry {
		s.queue.retryFlight++
	}
}

// answered takes in what a worker brings back.
func (s *state) answered(a answer) {
	s.queue.inFlight--
	if a.urgency == slow {
		s.queue.slowFlight--
	}
	if a.retry {
		s.queue.retryFlight--
	}
	l := s.lives[a.id]
	if l == nil {
		s.w.metrics.inspected(inspectStale, a.took)
		return
	}
	in := &l.inspection
	in.inFlight = false
	switch {
	case in.version != a.version: //mutant:believes-older-answer/inspection
		s.w.metrics.inspected(inspectStale, a.took)
		if in.owed {
			s.ask(l, a.urgency)
		}
	case a.err == nil:
		s.w.metrics.inspected(inspectOK, a.took)
		s.accept(l, a)
	case errors.Is(a.err, ErrNotFound):
		s.w.metrics.inspected(inspectNotFound, a.took)
		s.tell(l, a.began, a.err)
		s.forget(l)
	default:
		s.w.metrics.inspected(inspectFailed, a.took)
		s.inspectFailed(l, a)
	}
}

// accept takes in facts.
func (s *state) accept(l *life, a answer) {
	if l.inspection.tries > 0 {
		s.w.log.Info("inspection answered again", about(l)...)
	}
	version, lookers := l.inspection.version, l.inspection.lookers
	l.inspection = inspection{version: version, lookers: lookers}
	l.alsoStops = alsoStops(&a.facts, s.rules)
	since, heard := l.begun(a.facts.StartedAt)
	if !heard {
		since, _ = s.w.clock.ours(a.facts.StartedAt)
	}
	stopAt := l.accept(a.facts, since, a.began, s.circumstances(l), s.admittedBefore(a.facts))
	s.runIs(l)
	s.rebear(l)
	if !stopAt.IsZero() {
		s.stopSignal(l, stopAt)
	}
	s.endSurvived(l, a.began)
	s.changed = true
	s.tell(l, a.began, nil)
}

// inspectFailed changes nothing that is known: an error is no answer. It is asked again, later and later. But what a list
// has shown is one.
func (s *state) inspectFailed(l *life, a answer) {
	in := &l.inspection
	if in.tries == 0 {
		s.w.log.Warn("inspection failed, what is known stays", append(about(l), zap.Error(a.err))...)
	}
	in.tries++
	if l.withdraw() {
		s.changed = true
	}
	if !in.failed {
		in.failed, s.changed = true, true
	}
	in.notNow = s.now().Add(backoff.Delay(time.Second, in.tries-1, time.Minute))
	s.tell(l, a.began, a.err)
}

// tell answers the lookers whose question is no older than the answer.
func (s *state) tell(l *life, began time.Time, err error) {
	var waiting []looker
	for _, k := range l.inspection.lookers {
		if k.since.After(began) {
			waiting = append(waiting, k)
			continue
		}
		k.reply(err)
	}
	l.inspection.lookers = waiting
	if len(waiting) > 0 {
		s.ask(l, fresh)
	}
}

// inspector is a worker: it takes jobs until there are no more.
func (w *Watcher) inspector(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-w.jobs:
			a := w.inspect(ctx, j)
			select {
			case w.answers <- a:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (w *Watcher) inspect(ctx context.Context, j job) answer {
	ctx, cancel := context.WithTimeout(ctx, w.opts.InspectTimeout)
	defer cancel()
	began := time.Now()
	facts, err := w.engine.Inspect(ctx, j.id)
	return answer{job: j, facts: facts, err: err, took: time.Since(began)}
}
