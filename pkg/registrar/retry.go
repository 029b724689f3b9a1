package registrar

// What each fault of a call means for the group it happened in: its state, and how long to wait.

import (
	"time"

	"berth/internal/backoff"
	"berth/pkg/registrar/elb"
)

// behaviour is what a fault means for the group it happened in.
type behaviour struct {
	state      string        // of GroupStatus
	first, max time.Duration // the hold doubles from first to max, each with full jitter above half; 0: the pacer alone waits
	person     bool          // a person must act: logged as an error
	// soonAtStart tries again every 5 to 10 s while the agent is young.
	soonAtStart bool
	// shared has max grow with the number of peers, all of whom fail alike and try again for as long as it takes.
	shared bool
}

// perPeer is what each peer adds to the longest hold of what fails for all peers alike: up to four calls are made in a
// hold (both writes, a look, the look-up of the name), so that all peers together come to one or two a second. sharedMost
// bounds it. Since holds double, none is more than about twice as long as the trouble has lasted: what a person mends
// soon is noticed soon.
const (
	perPeer    = 3 * time.Second
	sharedMost = verifyMost
)

// behaviourOf returns what follows from a failed call. Credentials that AWS refuses cost a call each time, those that are not
// there cost none.
func behaviourOf(e *elb.CallError) behaviour {
	b := behaviours[e.Fault]
	b.shared = b.shared || e.Fault == elb.FaultCredentials && e.Code != elb.CodeCredentials
	return b
}

// longest is the longest hold with this many peers.
func (b behaviour) longest(peers int) time.Duration {
	if !b.shared {
		return b.max
	}
	return max(b.max, min(time.Duration(peers)*perPeer, sharedMost))
}

// delay is how long a class of calls waits after that many failed attempts in a row. A target that is refused in the
// agent's first two minutes is most likely an instance that is not yet running: it is tried again soon.
func (b behaviour) delay(attempts int, uptime time.Duration, peers int) time.Duration {
	return b.delayUpTo(b.longest(peers), attempts, uptime)
}

func (b behaviour) delayUpTo(longest time.Duration, attempts int, uptime time.Duration) time.Duration {
	wait := backoff.Double(b.first, attempts-1, longest)
	if b.soonAtStart && uptime < young {
		wait = soonAtStart
	}
	return backoff.Jitter(wait)
}

// soon is the longest wait while the agent is young, where that is short.
func (b behaviour) soon(uptime time.Duration) time.Duration {
	if b.soonAtStart && uptime < young {
		return soonAtStart
	}
	return sharedMost
}

const (
	young       = 2 * time.Minute
	soonAtStart = 10 * time.Second
)

// behaviours is the one table of what follows from each fault. docs/operations.md shows the same table.
var behaviours = map[elb.Fault]behaviour{
	elb.FaultThrottled:     {state: StateThrottled},
	elb.FaultTransient:     {state: StateWaiting, first: time.Second, max: 20 * time.Second},
	elb.FaultCredentials:   {state: StateDenied, first: 5 * time.Second, max: time.Minute, person: true},
	elb.FaultDenied:        {state: StateDenied, first: 30 * time.Second, max: 5 * time.Minute, person: true, shared: true},
	elb.FaultGone:          {state: StateGone, first: 30 * time.Second, max: 5 * time.Minute, person: true, shared: true},
	elb.FaultFull:          {state: StateFull, first: 30 * time.Second, max: 5 * time.Minute, person: true, shared: true},
	elb.FaultInvalid:       {state: StateMisconfigured, first: 5 * time.Second, max: 5 * time.Minute, person: true, soonAtStart: true, shared: true},
	elb.FaultMisconfigured: {state: StateMisconfigured, first: time.Minute, max: 5 * time.Minute, person: true, shared: true},
}
