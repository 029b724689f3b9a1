package registrar

import (
	"math/rand/v2"
	"time"

	"berth/pkg/registrar/ledger"
)

const (
	verifyAfterChange = 60 * time.Second
	verifyLeast       = 5 * time.Minute
	verifyMost        = 6 * time.Hour
	fullEvery         = 24 * time.Hour
	spreadAfterStart  = 10 * time.Minute
)

// schedule says when to look at a group next. It belongs to its reconciler's goroutine.
type schedule struct {
	looked     bool // the first look has succeeded
	failed     bool // the first look was tried in vain: writes do not wait for it any longer
	verifyAt   time.Time
	fullAt     time.Time
	fullBy     time.Time // fullAt is not put off beyond
	factor     int64     // multiplies the time between verifications, 1 to 72
	eased      time.Time // when factor changed last
	begun      time.Time
	verifiedAt time.Time // the last look that succeeded
	last       time.Time // the last look or write
	written    time.Time // the last write
	spread     float64   // in [0, 1): where in its interval the next follow-up look lies
}

// start begins the schedule. Where the ledger says what is registered, the first look is no hurry: it is spread, so
// that a fleet that restarts its agents does not look all at once.
func (s *schedule) start(now time.Time, known bool, fleet time.Duration) {
	s.factor, s.begun, s.last, s.spread = 1, now, now, rand.Float64()
	s.fullBy = now.Add(max(spreadAfterStart, fleet+rand.N(fleet/2+1)))
	if known {
		s.looked = true
		s.fullBy = s.fullBy.Add(2 * fleet)
		s.fullAt = now.Add(rand.N(max(spreadAfterStart, fleet)))
		s.verifyAt = s.fullAt
		return
	}
	s.fullAt = now
}

// skip has writes go out before the first look, because many hosts want to call at once: it may be made once all of
// them had the time to write.
func (s *schedule) skip(now time.Time, r *reconciler) {
	s.failed = true
	s.fullAt = now.Add(s.verifyChange(r))
}

// wrote plans the verification of a change.
func (s *schedule) wrote(now time.Time, r *reconciler) {
	s.last, s.written, s.spread = now, now, rand.Float64()
	at := now.Add(s.verifyChange(r))
	// One that is due anyway would come too soon to prove anything about this write: where calls are scarce it is left out.
	scarce := r.env.pacer.Crowded() && min(now.Sub(s.verifiedAt), now.Sub(s.begun)) < 4*r.env.fleet()
	if s.verifyAt.IsZero() || s.verifyAt.After(at) || scarce {
		s.verifyAt = at
	}
	if scarce {
		s.putOff(at)
	}
}

// verifyChange is about a minute, or, while many hosts change something, about as long as it takes to look at all of
// their groups.
func (s *schedule) verifyChange(r *reconciler) time.Duration {
	if fleet := r.env.fleet(); r.env.pacer.Crowded() && fleet > verifyAfterChange {
		return fleet/2 + rand.N(fleet)
	}
	return verifyAfterChange + rand.N(verifyAfterChange/4)
}

func (s *schedule) lookedAt(now time.Time, full bool, r *reconciler) {
	s.looked, s.last, s.verifiedAt, s.spread = true, now, now, rand.Float64()
	if full {
		s.fullAt = now.Add(fullEvery*9/10 + rand.N(fullEvery/5))
		s.fullBy = s.fullAt.Add(2 * r.env.fleet())
	}
	if s.factor > 1 && now.Sub(s.eased) > 24*time.Hour {
		s.factor, s.eased = s.factor/2, now
	}
	switch {
	case now.Sub(s.written) >= settle+5*time.Second:
		s.verifyAt = now.Add(s.verifyEvery(r))
	case !s.verifyAt.After(now): // it was due anyway, and began too soon after a write to prove anything about that
		s.verifyAt = s.written.Add(s.verifyChange(r))
	}
}

// soon has the next look come as soon as it may.
func (s *schedule) soon(now time.Time) { s.verifyAt, s.fullAt = now, now }

// wholeBy has the whole group looked at no later than at.
func (s *schedule) wholeBy(at time.Time) {
	if s.fullAt.After(at) {
		s.fullAt = at
	}
}

// putOff has no look before at, unless somebody waits for it, or a look at the whole group has been put off for long.
func (s *schedule) putOff(at time.Time) {
	if s.verifyAt.Before(at) {
		s.verifyAt = at
	}
	if at.After(s.fullBy) {
		at = s.fullBy
	}
	if s.fullAt.Before(at) {
		s.fullAt = at
	}
}

// missed plans the next look after one that failed.
func (s *schedule) missed(now time.Time, throttled bool, r *reconciler) {
	if !s.looked {
		s.failed = true
	}
	s.last, s.spread = now, rand.Float64()
	if r.env.pacer.Crowded() {
		s.putOff(now.Add(s.verifyChange(r)))
	}
	if throttled {
		s.factor, s.eased = min(s.factor*2, 72), now
		if s.looked {
			s.verifyAt = now.Add(s.verifyEvery(r))
		}
	}
}

// verifyEvery spreads the verifications of all peers and groups to a little less than one a second, so that the daily
// looks have room among them.
func (s *schedule) verifyEvery(r *reconciler) time.Duration {
	every := min(verifyMost, time.Duration(s.factor)*min(verifyMost, max(verifyLeast, r.env.fleet())))
	return every*7/10 + rand.N(every*7/10)
}

// next returns when the next look is due, and whether it is one at the whole group. Zero: none is.
func (s *schedule) next(now time.Time, r *reconciler) (at time.Time, full bool) {
	at, full = s.fullAt, true
	if len(r.have) == 0 {
		return at, full
	}
	if !s.verifyAt.IsZero() && s.verifyAt.Before(at) {
		at, full = s.verifyAt, false
	}
	if gap := s.follow(now, r); gap > 0 {
		if follow := s.last.Add(gap); follow.Before(at) {
			at, full = follow, false
		}
	}
	return at, full
}

// follow returns the time between looks while something is on its way, 0 where nothing is. Where somebody waits it
// is 2 to 5 s. Else it is 15 to 30 s, and grows with the time that it has taken already: a target that stays
// unhealthy does not cost a look every half minute for ever.
func (s *schedule) follow(now time.Time, r *reconciler) time.Duration {
	followed := r.env.followers.any(r.in.served())
	var oldest time.Duration
	moving, awaiting := false, false
	for t, state := range r.have {
		_, wanted := r.want[t]
		switch {
		case wanted && (state.Phase == ledger.Registered || state.Phase == ledger.Intended) && !final(state):
		case wanted && r.cond.AwaitGone && state.Phase == ledger.Removing:
			awaiting = true // a registration waits for what the look says
		case followed && state.Phase == ledger.Removing:
		default:
			continue
		}
		moving = true
		oldest = max(oldest, now.Sub(s.written))
	}
	if awaiting {
		// What an earlier agent has written is waited for from the beginning. As of the last look: it keeps a container out, and
		// is not to be put off while it is waited for.
		oldest = min(s.last.Sub(s.written), s.last.Sub(s.begun))
	}
	least := max(15*time.Second, oldest/4)
	switch {
	case followed && moving:
		return 2*time.Second + time.Duration(s.spread*float64(3*time.Second))
	case followed:
		least = 15 * time.Second
	case awaiting && r.env.pacer.Crowded():
		least *= 2
	case !moving || !awaiting && (!r.env.pacer.Idle() || r.env.pacer.Crowded()):
		return 0
	}
	return least + time.Duration(s.spread*float64(least))
}

// final reports whether a target's health will not change for the better by waiting.
func final(s State) bool {
	switch s.Health {
	case "healthy", "unavailable":
		return true
	case "unused":
		return s.Reason != "Target.NotRegistered"
	}
	return false
}
