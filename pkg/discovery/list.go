package discovery

import (
	"context"
	"slices"
	"time"

	"berth/internal/backoff"

	"go.uber.org/zap"
)

// listing is where the watcher stands with full lists.
type listing struct {
	owed     bool
	inFlight bool
	all      bool // also inspect what the list shows unchanged: a stream was lost
	tries    int
	notNow   time.Time
	resyncAt time.Time // the next one without a cause
	lightly  int       // resyncs since the last one that inspected everything
	doneAt   time.Time // the first that succeeded; zero: none
}

type listJob struct {
	began time.Time
	all   bool
}

type listAnswer struct {
	listJob
	lines []Listed
	err   error
}

// owe asks for a full list. A list in flight that was begun earlier does not count.
func (s *state) oweList(all bool) {
	s.list.owed = true
	s.list.all = s.list.all || all
}

// listed takes in a full list. It is an answer about what is not there, too; but only as of the moment when it was
// begun, so that whatever has been heard or inspected since wins. An error changes nothing.
func (s *state) listed(a listAnswer) {
	s.list.inFlight = false
	if a.err != nil { //mutant:list-error-is-empty-list
		s.listFailed(a)
		return
	}
	s.w.metrics.lists.WithLabelValues(resultOK).Inc()
	if s.list.tries > 0 {
		s.w.log.Info("full list answered again")
	}
	s.list.tries, s.list.notNow = 0, time.Time{}
	s.list.resyncAt = s.now().Add(backoff.Jitter(s.w.opts.Resync * 4 / 3))
	present := make(map[string]struct{}, len(a.lines))
	for _, line := range a.lines {
		present[line.ID] = struct{}{}
		s.line(line, a)
	}
	for id, l := range s.lives {
		if _, ok := present[id]; !ok && !s.newer(l, a.began) {
			s.missed(l, a, "the container is gone")
			s.forget(l)
		}
	}
	for _, d := range s.sortedDrains() {
		_, ok := present[d.Container]
		if !ok && d.Container != "" && d.Since.Before(a.began) && s.lives[d.Container] == nil && !s.orphans[d.ID] {
			s.containerGone(d.Container)
		}
	}
	for id, at := range s.gone {
		if at.Before(a.began) {
			delete(s.gone, id)
		}
	}
	if s.list.doneAt.IsZero() {
		s.list.doneAt = s.now()
	}
	s.changed = true
}

// newer reports whether something about l is younger than a list that was begun then.
func (s *state) newer(l *life, began time.Time) bool {
	return !l.heardAt.Before(began) || l.asOf.After(began)
}

// line takes in one line of a full list.
func (s *state) line(line Listed, a listAnswer) {
	l := s.lives[line.ID]
	if l == nil {
		if at, gone := s.gone[line.ID]; !alive(line.State) || gone && !at.Before(a.began) {
			return
		}
		l = s.life(line.ID)
	}
	if s.newer(l, a.began) { //mutant:believes-older-answer/list
		if l.facts == nil && alive(line.State) && l.startedAt.Before(a.began) && l.endedAt.Before(a.began) {
			l.seenRunning(a.began) // what was heard since was no end, and did not say what it is
			s.ask(l, slow)
		}
		return
	}
	if !alive(line.State) {
		if l.running() || l.unknown() {
			s.missed(l, a, "the container runs no longer")
			s.apply(l, l.end(a.began))
		}
		return
	}
	known := l.running() && !l.inspection.owed
	l.seenRunning(a.began)
	l.shown, l.shownAt = line.HostPorts, a.began
	if l.inspection.tries > 0 {
		l.withdraw()
	}
	if !known || a.all {
		s.ask(l, slow)
		return
	}
	if line.HostPorts != nil && !slices.Equal(line.HostPorts, hostPorts(l.facts)) && !l.disconnected ||
		(line.State == "paused") != !l.pausedAt.IsZero() {
		s.missed(l, a, "its ports or its state differ")
		s.ask(l, slow)
	}
}

// hostPorts are the host ports of f as a list shows them: sorted, each once.
func hostPorts(f *Facts) []uint16 {
	ports := make([]uint16, 0, len(f.Published))
	for _, p := range f.Published {
		if p.HostPort != 0 {
			ports = append(ports, p.HostPort)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// missed notes that a list shows what no event has announced. An event may still be on its way, so the stream is
// suspected only if it has brought nothing about that container a while later; then it is opened anew.
func (s *state) missed(l *life, a listAnswer, what string) {
	if a.all || !s.stream.Up {
		return // at the start and after a lost stream, lists are how we learn
	}
	if s.suspect.at.IsZero() {
		s.suspect = suspicion{at: s.now(), id: l.id, heardAt: l.heardAt, what: what}
	}
}

// suspicion is a change that a list showed and that the stream still owes us.
type suspicion struct {
	at      time.Time // zero: none
	id      string
	heardAt time.Time
	what    string
}

// judgeStream reopens a stream that has swallowed an event.
func (s *state) judgeStream(now time.Time) {
	if s.suspect.at.IsZero() || now.Sub(s.suspect.at) < s.w.opts.SilenceGrace {
		return
	}
	suspect := s.suspect
	s.suspect = suspicion{}
	if _, gone := s.gone[suspect.id]; gone {
		return
	}
	if l := s.lives[suspect.id]; l != nil && l.heardAt.After(suspect.heardAt) {
		return // the event was merely late
	}
	s.w.metrics.missed.Inc()
	if s.lastReopen.IsZero() || now.Sub(s.lastReopen) >= s.w.opts.ReopenEvery {
		s.lastReopen = now
		s.w.log.Warn("event stream has missed a change, opening it anew", container12(suspect.id), zap.String("change", suspect.what))
		s.w.reopenStream()
	}
}

func (s *state) listFailed(a listAnswer) {
	s.w.metrics.lists.WithLabelValues(resultError).Inc()
	if s.list.tries == 0 {
		s.w.log.Warn("full list failed, what is known stays", zap.Error(a.err))
	}
	s.list.tries++
	s.list.notNow = s.now().Add(backoff.Delay(time.Second, s.list.tries-1, 30*time.Second))
	s.oweList(a.all)
}

// lister is the worker that takes full lists.
func (w *Watcher) lister(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-w.listJobs:
			a := w.fullList(ctx, j)
			select {
			case w.listings <- a:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (w *Watcher) fullList(ctx context.Context, j listJob) listAnswer {
	ctx, cancel := context.WithTimeout(ctx, w.opts.ListTimeout)
	defer cancel()
	lines, err := w.engine.List(ctx)
	return listAnswer{listJob: j, lines: lines, err: err}
}
