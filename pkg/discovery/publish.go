package discovery

import (
	"slices"
	"time"

	"berth/pkg/target"
)

// ready reports whether enough is known to say what is wanted: a full list, and an answer or a failure for every
// running container in it, or Settle since. Saying less would read as "nothing is wanted". A host that drains wants
// nothing whatever Docker says, so that is known at once.
func (s *state) ready(now time.Time) bool {
	if s.complete || s.hostDrains() {
		return true // the drain may end before Docker has answered: then nothing more is said until it has
	}
	if s.list.doneAt.IsZero() {
		return false
	}
	if now.Sub(s.list.doneAt) < s.w.opts.Settle {
		for _, l := range s.lives {
			if l.facts == nil && !l.inspection.failed && l.inspection.owed {
				return false
			}
		}
	}
	s.complete = true
	return true
}

// resolve works out what is wanted, and publishes it if it differs from what was published last.
func (s *state) resolve(now time.Time) {
	s.changed = false
	in := Input{Rules: s.rules, Drains: s.sortedDrains(), Timing: s.w.opts.Timing, Now: now}
	in.DrainsUnread = s.unreadable() //mutant:unread-drains-are-none
	in.Containers = make([]Container, 0, len(s.lives))
	running := 0
	var unknown []string
	for _, l := range s.lives {
		if l.facts != nil {
			in.Containers = append(in.Containers, l.container())
		}
		if l.running() {
			running++
		}
		l.pausedOut = !l.pausedAt.IsZero() && now.Sub(l.pausedAt) >= s.w.opts.Timing.PauseGrace
		if l.unknown() && !s.drained(l.id) {
			unknown = append(unknown, l.id)
		}
	}
	slices.Sort(unknown)
	began := time.Now()
	res := Resolve(in)
	s.w.metrics.resolveTime.Observe(time.Since(began).Seconds())
	s.next = res.Next
	s.askShadowed(res.Shadowed)
	decisions := s.withUnknown(res.Decisions, unknown)
	unknown = slices.Compact(slices.Sorted(slices.Values(append(unknown, res.Undecided...))))
	snap := &Snapshot{
		Generation: s.generation, Wants: res.Wants, Decisions: decisions, Drains: in.Drains,
		Allotted: res.Allotted, Unknown: unknown, Stream: s.stream,
	}
	s.stamp(snap, now)
	if s.last != nil && sameContent(snap, s.last) {
		return
	}
	s.seq++
	snap.Seq = s.seq
	for group, wants := range snap.Wants {
		for i := range wants {
			if l := s.lives[wants[i].Run.ID]; l != nil {
				l.admit(group)
			}
		}
	}
	s.last = snap
	s.w.latest.Store(snap)
	s.w.publish(snap) // first of all: somebody's traffic depends on it
	s.w.metrics.published(snap, running)
}

// withUnknown says of the containers that nobody has answered for that this is so.
func (s *state) withUnknown(decisions []Decision, unknown []string) []Decision {
	for _, id := range unknown {
		decisions = append(decisions, Decision{
			Run: target.Run{ID: id}, Verdict: NotYet,
			Why: "Docker has not answered for it yet; what is registered for it stays",
		})
	}
	if len(unknown) > 0 {
		slices.SortFunc(decisions, compareDecisions)
	}
	return decisions
}

// askShadowed asks once about containers whose port another one has: what is known of them is out of date.
func (s *state) askShadowed(ids []string) {
	for id := range s.shadowed {
		if !slices.Contains(ids, id) {
			delete(s.shadowed, id)
		}
	}
	for _, id := range ids {
		if l := s.lives[id]; l != nil && !s.shadowed[id] {
			s.shadowed[id] = true
			s.ask(l, slow)
		}
	}
}

// stamp dates the decisions that Resolve could not date: since when each has been as it is.
func (s *state) stamp(snap *Snapshot, now time.Time) {
	before := make(map[Decision]time.Time)
	if s.last != nil {
		for _, d := range s.last.Decisions {
			since := d.Since
			before[undated(d)] = since
		}
	}
	for i := range snap.Decisions {
		d := &snap.Decisions[i]
		if !d.Since.IsZero() {
			continue
		}
		if since, ok := before[undated(*d)]; ok {
			d.Since = since
			continue
		}
		d.Since = now.Round(0)
	}
}

// undated is the decision without its times, so that it can be looked up.
func undated(d Decision) Decision {
	d.Since = time.Time{}
	d.Run.StartedAt = time.Unix(0, d.Run.StartedAt.UnixNano()).UTC()
	return d
}

// sameContent reports whether two snapshots say the same.
func sameContent(a, b *Snapshot) bool {
	return a.Generation == b.Generation && sameStream(a.Stream, b.Stream) &&
		slices.Equal(a.Unknown, b.Unknown) && sameWants(a.Wants, b.Wants) &&
		slices.EqualFunc(a.Drains, b.Drains, sameDrain) &&
		slices.EqualFunc(a.Allotted, b.Allotted, func(x, y target.Allotment) bool {
			same := sameRun(x.Run, y.Run)
			x.Run, y.Run = target.Run{}, target.Run{}
			return same && x == y
		}) &&
		slices.EqualFunc(a.Decisions, b.Decisions, func(x, y Decision) bool { return undated(x) == undated(y) && x.Since.Equal(y.Since) })
}

func sameWants(a, b map[string][]target.Want) bool {
	if len(a) != len(b) {
		return false
	}
	for group, wants := range a {
		others, ok := b[group]
		if !ok || !slices.EqualFunc(wants, others, sameWant) {
			return false
		}
	}
	return true
}

func sameWant(a, b target.Want) bool {
	if !sameRun(a.Run, b.Run) {
		return false
	}
	a.Run, b.Run = target.Run{}, target.Run{}
	return a == b
}

func sameRun(a, b target.Run) bool { return a.Same(b) && a.Name == b.Name }

func sameStream(a, b Stream) bool {
	since := a.Since.Equal(b.Since)
	a.Since, b.Since = time.Time{}, time.Time{}
	return since && a == b
}

func sameDrain(a, b Drain) bool {
	times := a.Since.Equal(b.Since) && a.StartedAt.Equal(b.StartedAt)
	a.Since, b.Since, a.StartedAt, b.StartedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return times && a == b
}
