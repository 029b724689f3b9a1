package elbsim

import (
	"time"

	"berth/pkg/target"
)

// choose picks one of the rule's groups by weight.
func (s *Sim) choose(groups []weightedGroup) *group {
	total := 0
	for _, w := range groups {
		total += w.weight
	}
	if len(groups) == 1 || total == 0 {
		return groups[0].group
	}
	n := s.rng.IntN(total)
	for _, w := range groups {
		if n -= w.weight; n < 0 {
			return w.group
		}
	}
	return groups[0].group
}

// routes are the targets of a group that get new requests, kept until something changes.
type routes struct {
	valid bool
	until time.Time // when they must be looked at anew; zero: not by time alone
	list  []*entry
	turn  int
}

// pick returns the target of a group whose turn it is, or nil if none can take a request.
func (s *Sim) pick(g *group, now time.Time) *entry {
	r := &g.routes
	if !r.valid || !r.until.IsZero() && !now.Before(r.until) {
		s.reroute(g, now)
	}
	if len(r.list) == 0 {
		return nil
	}
	r.turn++
	return r.list[r.turn%len(r.list)]
}

// reroute finds the targets that get requests: the healthy ones, or, where none is healthy, all that are registered
// (fail-open). Deregistered ones go on as they were until the lag is over.
func (s *Sim) reroute(g *group, now time.Time) {
	s.forget(g, now)
	var healthy, others []*entry
	var until time.Time
	sooner := func(t time.Time) {
		if until.IsZero() || t.Before(until) {
			until = t
		}
	}
	for _, key := range target.Sorted(g.entries) {
		e := g.entries[key]
		state := s.healthAt(e, now, now).State
		if !e.removed.IsZero() {
			end := e.removed.Add(s.lags.Deregister)
			if !now.Before(end) {
				continue
			}
			sooner(end)
			state = e.left
		} else if s.cfg.Probe == nil && !e.next.IsZero() && !e.settled() {
			sooner(e.next)
		}
		switch state {
		case StateHealthy:
			healthy = append(healthy, e)
		case StateUnused, StateAbsent:
		default:
			others = append(others, e)
		}
	}
	g.routes.list, g.routes.until, g.routes.valid = healthy, until, true
	if len(healthy) == 0 {
		g.routes.list = others
	}
}
