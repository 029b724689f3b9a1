package pacer

import (
	"math/rand/v2"
	"time"
)

// outage is a row of calls of which none succeeded, and the time after it.
type outage struct {
	failures  int // in a row
	since     time.Time
	interval  time.Duration // J; 0: attempts after a failure are not held up
	next      time.Time     // the earliest time of the next attempt after a failure while J > 0
	inFlight  int           // attempts after a failure
	recovered int           // calls accepted since
	place     Place         // this host's part of each round of J
}

const (
	// retryRate is how often a second all hosts together try again, of the 4 writes that the account has: what they have
	// in hand when the service comes back goes out at this rate, and next to nothing of it is throttled.
	retryRate = 3.2
	// outageAfter is how long a row of failures has to last to be an outage: the first retries are quick.
	outageAfter = 2 * time.Second
	// outageShort is how long an outage has to last for the end of it to bring a crowd: the first success ends a shorter
	// one.
	outageShort = 30 * time.Second
	// outageCalls is how many calls go out at the pace of the outage after it: as many as a host has in hand.
	outageCalls = 4
	// outageGrowth bounds J while calls are not answered at all, as a multiple of the time since the first: that may be
	// this host's own trouble, and over in a moment.
	outageGrowth = 20
	// outageMost bounds J: of 10,000 hosts, 21 a second try.
	outageMost = 8 * time.Minute
)

// endure keeps account of outages. again says whether the call was an attempt after a failure: those alone take turns.
func (p *Pacer) endure(o Outcome, again bool, now time.Time) {
	out := &p.outage
	switch o {
	case Failed, Unanswered:
		if out.failures++; out.failures == 1 && out.interval == 0 {
			out.since = now
		}
		if out.interval == 0 && (out.failures < 2 || now.Sub(out.since) < outageAfter) {
			return
		}
		out.recovered = 0
		pace := p.retryPace()
		if o == Unanswered {
			pace = min(pace, outageGrowth*now.Sub(out.since))
		}
		if pace >= time.Second {
			p.crowded = now
			if out.interval < pace { // a place in the row of all hosts, any of them
				out.interval = pace
				out.next = out.place.in(pace, now)
				return
			}
		}
	case Accepted:
		out.failures = 0
		if out.recovered++; out.recovered > outageCalls {
			out.interval /= 2
			if out.next.Sub(now) > out.interval { // nobody waits for a round that is none any more
				out.next = out.place.in(max(out.interval, time.Second), now)
			}
		}
		if out.interval < time.Second || now.Sub(out.since) < outageShort {
			out.interval = 0
		}
	case Throttled: // the service answers; I says when to go on
		out.failures = 0
		return
	default:
		return
	}
	if out.interval > 0 && again && !now.Before(out.next) { // it had its turn: the same place, one round later
		p.crowded = now
		out.next = out.turnAfter(now)
	}
}

// turnAfter returns the next turn of a host that has just had one: the next round's, and never one gone by.
func (o *outage) turnAfter(now time.Time) time.Time {
	if o.place.width == 0 {
		return now.Add(o.interval*19/20 + rand.N(o.interval/10+1))
	}
	wait := o.next.Sub(now) + o.interval/2 // from now, whose wall clock is the present one
	return o.place.in(o.interval, now.Add(max(0, wait)))
}

// retryPace is the longest J: the time in which every peer may try once. Less than a second is no pace.
func (p *Pacer) retryPace() time.Duration {
	return min(time.Duration(float64(p.peers)/retryRate*float64(time.Second)), outageMost)
}
