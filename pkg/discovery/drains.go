package discovery

import (
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// NameDrainID is DrainID for a drain that holds a name.
func NameDrainID(cause, name string) string { return cause + "/name:" + name }

// DrainID returns the id that a drain gets if none is given: one for each cause and container, so that draining twice
// is draining once. container is the full id; empty: the whole host.
func DrainID(cause, container string) string {
	if container == "" {
		return cause + "/host"
	}
	return cause + "/" + container
}

// loadDrains takes in what an earlier agent has left, without what an earlier boot has: its runs are over, and its
// shutdown too.
func (s *state) loadDrains(drains []Drain) {
	for _, d := range drains {
		known := d.Boot != "" && s.w.opts.BootID != ""
		otherBoot := d.Boot != s.w.opts.BootID
		switch {
		case known && otherBoot && d.Hold == HoldRun:
		case (otherBoot || !known) && d.Cause == CauseShutdown: // nothing but the end of its boot ends it
		case d.Hold == HoldConnection:
		case s.foreign(d):
			s.w.log.Info("drain of another instance is dropped", zap.String("drain", d.ID), zap.String("instance_id", d.Instance))
		default:
			// How long ago it was is all that can be known of it: from now on our clock counts.
			now := s.now()
			d.Since = now.Add(-max(0, now.Round(0).Sub(d.Since)))
			s.drains[d.ID] = d
			if d.Name != "" && d.Container == "" {
				s.orphans[d.ID] = true
			}
		}
	}
	if len(s.drains) != len(drains) {
		s.persist()
	}
}

// foreign reports whether d was made on another instance: its disk became an AMI.
func (s *state) foreign(d Drain) bool {
	return d.Instance != "" && s.instance != "" && d.Instance != s.instance
}

// putDrain adds or replaces a drain, and reports whether it has to be saved.
func (s *state) putDrain(d Drain) {
	if d.Instance == "" {
		d.Instance = s.instance
	}
	if d.Boot == "" {
		d.Boot = s.w.opts.BootID
	}
	old, ok := s.drains[d.ID]
	if ok && sameDrain(old, d) {
		return
	}
	s.drains[d.ID] = d
	s.changed = true
	if d.Hold != HoldConnection || ok && old.Hold != HoldConnection {
		s.persist()
	}
}

// dropDrainsOf ends the drains for which over says so.
func (s *state) dropDrainsOf(over func(Drain) bool) {
	saved := false
	for id, d := range s.drains {
		if over(d) {
			delete(s.drains, id)
			delete(s.orphans, id)
			s.changed = true
			saved = saved || d.Hold != HoldConnection
		}
	}
	if saved {
		s.persist()
	}
}

// rebear has the drains of l's name hold l in place of containers that are gone: an agent that knows no names goes on
// with what is on disk.
func (s *state) rebear(l *life) {
	if l.facts == nil || l.facts.Name == "" {
		return
	}
	for id := range s.orphans {
		if d := s.drains[id]; d.Name == l.facts.Name && l.running() {
			d.Container = l.id
			delete(s.orphans, id)
			s.putDrain(d)
		}
	}
}

// containerGone ends the drains of a container that is gone for good. Those of its name go on: for whichever container
// bears it, and at first for one that bears it already.
func (s *state) containerGone(id string) {
	s.dropDrainsOf(func(d Drain) bool { return d.Container == id && d.Name == "" }) //mutant:forgets-held-name
	for _, d := range s.drains {
		if d.Container != id || d.Name == "" {
			continue
		}
		s.orphans[d.ID] = true
		for _, l := range s.lives {
			s.rebear(l)
		}
	}
}

// stopSignal drains the present run of l: it was told to stop. A second signal renews the first: what counts is the
// last thing that it was told.
func (s *state) stopSignal(l *life, at time.Time) {
	d := Drain{
		ID: DrainID(CauseStopSignal, l.id), Container: l.id, StartedAt: l.facts.StartedAt,
		Cause: CauseStopSignal, Hold: HoldRun, Since: at,
	}
	old, ok := s.drains[d.ID]
	switch {
	case !ok || !old.StartedAt.Equal(d.StartedAt):
		level := zap.DebugLevel // other people's containers are none of our news
		if len(l.admitted) > 0 {
			level = zap.InfoLevel
		}
		s.later(func() {
			s.w.metrics.stopSignals.Inc()
			s.w.log.Log(level, "container was told to stop", about(l)...)
		})
	case !at.After(old.Since):
		return
	}
	s.putDrain(d)
}

// stopping reports whether the run in memory has been told to stop.
func (s *state) stopping(l *life) bool {
	d, ok := s.drains[DrainID(CauseStopSignal, l.id)]
	return ok && l.facts != nil && d.covers(l.run())
}

// runsOver ends the drains of runs of l that began at or before the given time.
func (s *state) runsOver(l *life, at time.Time) {
	s.dropDrainsOf(func(d Drain) bool {
		began := d.StartedAt
		switch {
		case began.IsZero():
			began = d.Since
		case l.facts != nil && began.Equal(l.facts.StartedAt):
			began = l.since
		}
		return d.Container == l.id && d.Hold == HoldRun && !began.After(at)
	})
}

// runIs compares the drains of l with the run that an inspection has found: those of other runs are over, and those
// whose run was not known yet learn it.
func (s *state) runIs(l *life) {
	run := l.run()
	s.dropDrainsOf(func(d Drain) bool {
		over := !d.covers(run)
		if d.StartedAt.IsZero() {
			over = l.since.After(d.Since)
		}
		return d.Container == l.id && d.Hold == HoldRun && (over || l.ended)
	})
	for _, d := range s.drains {
		if d.Container == l.id && d.Hold == HoldRun && d.StartedAt.IsZero() {
			d.StartedAt = run.StartedAt
			s.putDrain(d)
		}
	}
}

// survivedAt is when the container of a stop signal's drain counts as a survivor, if it still runs then.
func (s *state) survivedAt(d Drain) (time.Time, bool) {
	if d.Cause != CauseStopSignal || d.Hold != HoldRun {
		return time.Time{}, false
	}
	l := s.lives[d.Container]
	if l == nil || !l.running() || !d.covers(l.run()) {
		return time.Time{}, false
	}
	return d.Since.Add(s.w.opts.Timing.survivor(l.facts)), true
}

// askSurvivors asks whether those that were told to stop long ago are still there.
func (s *state) askSurvivors(now time.Time) {
	for _, d := range s.drains {
		if at, ok := s.survivedAt(d); ok && !now.Before(at) {
			if l := s.lives[d.Container]; !l.inspection.owed {
				s.ask(l, slow)
			}
		}
	}
}

// endSurvived ends the stop signal's drain of a run that an inspection, begun then, found alive.
func (s *state) endSurvived(l *life, began time.Time) {
	d, ok := s.drains[DrainID(CauseStopSignal, l.id)]
	if !ok {
		return
	}
	if at, ok := s.survivedAt(d); !ok || began.Before(at) { //mutant:revives-stopping-container
		return
	}
	s.w.metrics.survivors.Inc()
	s.w.log.Warn("container has outlived its stop signal and is wanted again", append(about(l), zap.Time("signalled_at", d.Since))...)
	s.dropDrainsOf(func(o Drain) bool { return o.ID == d.ID })
	s.unread.over(d.ID)
}

// hostDrains reports whether the whole host is drained.
func (s *state) hostDrains() bool {
	for _, d := range s.drains {
		if d.Host() {
			return true
		}
	}
	return false
}

// drained reports whether anything drains the container, of which no more than its id is known: then nothing that is
// registered for it has to stay.
func (s *state) drained(id string) bool {
	for _, d := range s.drains {
		if d.Host() || d.Container == id {
			return true
		}
	}
	return false
}

func (s *state) sortedDrains() []Drain {
	out := make([]Drain, 0, len(s.drains))
	for _, d := range s.drains {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Drain) int { return strings.Compare(a.ID, b.ID) })
	return out
}
