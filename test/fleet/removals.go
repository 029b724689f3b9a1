package fleet

import (
	"sync"
	"time"

	"berth/internal/elbsim"
)

// removals are a host's: how long each waited for its first attempt, from when it could be planned until it was sent, and
// how long its host's interval was then. Of several that wait together each is the next call, one an interval: the time of
// those before it is not its own.
type removals struct {
	mu      sync.Mutex           // guards all below: calls come from the host's goroutines
	waiting map[uint16]time.Time // by port: those that could be planned since and were not tried yet
	last    time.Time            // the last first attempt
	tried   []removal
}

type removal struct{ waited, interval time.Duration }

// due says that a port is not to be served any more.
func (r *removals) due(port uint16, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = map[uint16]time.Time{}
	}
	r.waiting[port] = now
}

// called takes in a write of the host.
func (r *removals) called(c *elbsim.Call, interval time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := false
	for _, t := range c.Targets {
		since, waits := r.waiting[t.Port]
		switch {
		case !waits:
		case c.Action == "RegisterTargets": // it was under way, and there is something to remove since then
			r.waiting[t.Port] = c.Time.Add(latency)
		default:
			if r.last.After(since) {
				since = r.last
			}
			delete(r.waiting, t.Port)
			r.tried = append(r.tried, removal{c.Time.Sub(since), interval})
			first = true
		}
	}
	if first {
		r.last = c.Time
	}
}

// sum adds the host's removals to a result.
func (r *removals) sum(to *Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.tried {
		to.Removals++
		if x.waited > to.Longest {
			to.Longest, to.Interval = x.waited, x.interval
		}
		if x.waited > x.interval+2*latency { // a call was under way
			to.Late++
		}
	}
}
