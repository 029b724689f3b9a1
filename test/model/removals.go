package model

import (
	"maps"
	"slices"
	"time"

	"berth/internal/elbsim"
)

// removals are those that were not tried yet: while AWS throttles, the next call that goes out is one of them, whatever
// else has waited. So it is made within one interval of the pacer's. world.mu guards them.
type removals struct {
	accepted map[place]bool // registrations that AWS has said to have made, with no other write since
	waiting  map[place]overdue
	troubled map[string]time.Time // by service: the last call that failed otherwise than by a rate limit, after which all wait for a while
	tries    []time.Time          // of removals, lately: the host's own rate
}

const (
	// recovered is how long after a failed call a group is at it again: 5 min at most, after a call that takes 5 s at most.
	recovered = 6 * time.Minute
	// underWay is how long a call of the removal's own group may have been under way that it waits for.
	underWay = latency + moment
	// burst is how many removals go out at once, within so long, by the host's own rate.
	burst, within = 5, 2 * time.Second
)

// overdue is a removal that is waiting, since when, and the last call that went before its first attempt.
type overdue struct {
	since  time.Time
	before string
	at     time.Time
}

// due takes in that a port is not wanted any more. What the agent does not know to be registered it need not remove.
func (r *removals) due(p place, now time.Time) {
	if r.accepted[p] && now.Sub(r.troubled[p.service]) > recovered {
		r.waiting[p] = overdue{since: now}
	}
}

// called takes in a call on the group of a service, "" for others. It calls late with each removal that this call is the first
// attempt of, and before which another call was made.
func (r *removals) called(c *elbsim.Call, service string, late func(place, overdue)) {
	if c.Outcome != "ok" && c.Outcome != "Throttling" {
		r.troubled[service] = c.Time
		maps.DeleteFunc(r.waiting, func(p place, _ overdue) bool { return p.service == service || service == "" })
	}
	for _, x := range c.Targets {
		if p := (place{service, x.Port}); c.Action != "DescribeTargetHealth" && c.Outcome != "Throttling" {
			r.accepted[p] = c.Action == "RegisterTargets" && c.Outcome == "ok"
		}
	}
	r.tries = slices.DeleteFunc(r.tries, func(at time.Time) bool { return c.Time.Sub(at) > within })
	if c.Action == "DeregisterTargets" {
		r.tries = append(r.tries, c.Time)
		for _, x := range c.Targets {
			p := place{service, x.Port}
			if o := r.waiting[p]; !o.at.IsZero() && o.at.Before(c.Time) { // not side by side
				late(p, o)
			}
			delete(r.waiting, p)
		}
		return
	}
	if c.Outcome != "Throttling" || len(r.tries) >= burst {
		return
	}
	for p, o := range r.waiting {
		if o.at.IsZero() && c.Time.Sub(o.since) > underWay {
			o.before, o.at = c.Action, c.Time
			r.waiting[p] = o
		}
	}
}
