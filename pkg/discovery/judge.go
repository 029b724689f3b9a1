package discovery

import (
	"fmt"
	"time"
)

// verdict is a Decision without its subject.
type verdict struct {
	verdict     Verdict
	why, change string
	since       time.Time
}

// judge says whether a container that can be served in the rule's group should be, now. What a person or the host
// decided comes first, then what happens to the container, then its health.
func (r *resolver) judge(c *Container, rule *Rule) verdict {
	if d := r.drainOf(c); d != nil {
		return explainDrain(d, c)
	}
	if v, ok := r.paused(c); ok {
		return v
	}
	if v, ok := r.crashing(c); ok && !c.Admitted[rule.Group] {
		return v
	}
	if v, ok := unhealthy(c, rule); ok {
		return v
	}
	if r.in.DrainsUnread {
		r.out.Undecided = append(r.out.Undecided, c.ID)
		return verdict{verdict: NotYet, why: "whether somebody has drained it cannot be read yet", change: "see the log of the agent"}
	}
	return verdict{verdict: Wanted, why: wantedWhy(c, rule)}
}

// drainOf returns the drain to name for this run, or nil: the host's first, then the container's own stop signal, then
// the one that began first, of the container or of its name.
func (r *resolver) drainOf(c *Container) *Drain {
	if r.hostDrain != nil {
		return r.hostDrain
	}
	found := r.held[c.Name] // nil where nobody holds it
	for _, d := range r.drains[c.ID] {
		switch {
		case !d.covers(c.run()):
		case d.Cause == CauseStopSignal:
			return d
		default:
			found = earlier(found, d)
		}
	}
	return found
}

// byWhom is who drained, and what for.
func byWhom(d *Drain) string {
	by := ""
	if d.By != "" {
		by = " by " + d.By
	}
	if d.Reason != "" {
		by += ": " + quote(d.Reason)
	}
	return by
}

func explainDrain(d *Drain, c *Container) verdict {
	by := byWhom(d)
	switch {
	case d.Cause == CauseStopSignal:
		return verdict{verdict: Leaving, why: "it was told to stop" + by, since: d.Since}
	case d.Host() && d.Cause == CauseOperator:
		return verdict{verdict: Drained, why: "the host was drained" + by, change: "berth undrain --all", since: d.Since}
	case d.Host():
		return verdict{verdict: Drained, why: "the host is draining (" + d.Cause + ")" + by, since: d.Since}
	case d.Hold == HoldConnection:
		return verdict{verdict: Drained, why: "it is being taken out" + by, since: d.Since}
	case d.Hold == HoldRun:
		return verdict{verdict: Drained, why: "this run of it was drained" + by, since: d.Since}
	case d.Name != "" && d.Name == c.Name:
		return verdict{verdict: Drained, why: "its name was drained" + by, change: "berth undrain " + d.Name, since: d.Since}
	case d.Name != "":
		return verdict{verdict: Drained, why: "it was drained under the name " + d.Name + by, change: "berth undrain " + d.Name, since: d.Since}
	}
	return verdict{verdict: Drained, why: "it was drained" + by, change: "berth undrain " + short(d.Container), since: d.Since}
}

func (r *resolver) paused(c *Container) (verdict, bool) {
	if c.PausedAt.IsZero() {
		return verdict{}, false
	}
	out := c.PausedAt.Add(r.in.Timing.PauseGrace)
	if r.in.Now.Before(out) {
		r.wake(out)
		return verdict{}, false
	}
	return verdict{verdict: Leaving, why: "it is paused", change: "docker unpause it", since: out}, true
}

func (r *resolver) crashing(c *Container) (verdict, bool) {
	wait := r.in.Timing.crashWait(c.Crashes)
	until := c.begun().Add(wait)
	if wait == 0 || !r.in.Now.Before(until) {
		return verdict{}, false
	}
	r.wake(until)
	times := "once"
	if c.Crashes > 1 {
		times = fmt.Sprintf("%d times in a row", c.Crashes)
	}
	return verdict{
		verdict: NotYet,
		why:     fmt.Sprintf("it died %s by itself: it has to run for %s first", times, wait),
		since:   c.StartedAt,
	}, true
}

// unhealthy applies the HEALTHCHECK: as a gate for coming in, which a run passes once, and as a reason to leave where
// the rule says so.
func unhealthy(c *Container, rule *Rule) (verdict, bool) {
	if rule.DeregisterUnhealthy && c.Health == HealthUnhealthy {
		return verdict{verdict: Leaving, why: "its HEALTHCHECK says unhealthy, and deregister_when_unhealthy is set"}, true
	}
	if !rule.Healthy || c.WasHealthy || c.Admitted[rule.Group] {
		return verdict{}, false
	}
	switch c.Health {
	case HealthHealthy:
		return verdict{}, false
	case HealthNone:
		return verdict{
			verdict: Refused,
			why:     "register_when is healthy, and it has no HEALTHCHECK",
			change:  "give it a HEALTHCHECK, or set register_when: running for group " + rule.Group,
		}, true
	}
	return verdict{verdict: NotYet, why: "register_when is healthy, and its HEALTHCHECK has not passed yet in this run", since: c.StartedAt}, true
}

func wantedWhy(c *Container, rule *Rule) string {
	switch {
	case !c.PausedAt.IsZero():
		return "it is paused, for a moment so far"
	case rule.Healthy && c.Health != HealthHealthy:
		return "it is running, and has been let in before; the load balancer judges its health"
	case rule.Healthy:
		return "it is running and healthy"
	}
	return "it is running"
}
