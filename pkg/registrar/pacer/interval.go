package pacer

// How long I is, and whom it holds up.

import (
	"math/rand/v2"
	"time"
)

// lull is how long nothing has to happen for what was learned about the crowd to be out of date.
func (p *Pacer) lull() time.Duration { return max(time.Minute, time.Duration(p.peers)*time.Second) }

// forget drops what was learned so long ago that the next call would be the first of a new row.
func (p *Pacer) forget(now time.Time) {
	if p.interval > 0 && now.Sub(p.next) > p.lull() {
		p.interval = 0
	}
	if p.outage.interval > 0 && now.Sub(p.outage.next) > p.lull() {
		p.outage.interval, p.outage.failures = 0, 0
	}
	p.report()
}

// space has the next call go out about an interval from now. The caller holds the lock.
func (p *Pacer) space(interval time.Duration, now time.Time) {
	if interval > p.interval {
		p.stretched++
	}
	if p.interval = interval; interval > 0 {
		p.next = now.Add(interval*7/10 + rand.N(interval*3/10+1))
	}
}

// limit is the cap on I.
func (p *Pacer) limit(now time.Time) time.Duration {
	floor := 20 * time.Second
	switch {
	case p.draining:
		floor = 10 * time.Second
	case p.peers == 0:
		floor = 60 * time.Second
	}
	share, age := time.Duration(10), time.Duration(5)
	if !p.serving {
		share, age = 15, 10
	}
	limit := max(floor, time.Duration(p.peers)*time.Second/share)
	if p.draining || !now.Before(p.scarce) {
		return limit
	}
	return max(limit, now.Sub(p.throttled)/age)
}

// passes reports whether a permit need not wait for I, because it is a removal, and looks alone are throttled.
func (p *Pacer) passes(t *Permit, now time.Time) bool {
	return p.interval > 0 && t.class == ClassDeregister && !now.Before(p.scarce)
}
