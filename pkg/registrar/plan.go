package registrar

import (
	"time"

	"berth/internal/backoff"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

const (
	// maxTargets is the most targets of one call. AWS documents no limit; 200 is what the AWS Load Balancer Controller
	// uses on the ELB team's word.
	maxTargets = 200
	// doubt is how long a write whose outcome is unknown may still take effect.
	doubt = 30 * time.Second //mutant:forgets-timed-out-write
	// settle is how long after our own write an observation proves nothing: DescribeTargetHealth may lag behind.
	settle = 10 * time.Second
	// An answer about named targets may leave one out, and says nothing of it then. It is asked about by name again after
	// unnamedFirst, twice as long each time, up to unnamedMost; from the unnamedBy-th time on the whole group is looked at
	// instead, and who is not in it is absent.
	unnamedFirst = 15 * time.Second
	unnamedMost  = 10 * time.Minute
	unnamedBy    = 2
)

// State is what is known of one target that is ours, or may be.
type State struct {
	Phase                       ledger.Phase
	Health, Reason, Description string    // the load balancer's words, of the last look
	Since                       time.Time // of phase and health
	// DoubtUntil is set while a write of unknown outcome may still take effect. Only an observation begun after it says
	// what became of it.
	DoubtUntil time.Time
	// DoubtOf is the class of the writes in doubt; ClassNone: both, or nobody knows.
	DoubtOf pacer.Class
	// WrittenAt is when our last write for the target ended.
	WrittenAt time.Time
	// Run is who the ledger says the target is registered for.
	Run target.Run
	// Unnamed counts the answers in a row that should have named the target, and did not; AskAt is when it is asked about
	// again for a doubt's sake.
	Unnamed int
	AskAt   time.Time
	// Settled reports whether an observation has shown that a removal took effect: the target drains or is gone.
	Settled bool
	// Found reports that the target was found draining and nobody here has registered it: it is not ours, and may not be
	// registered before it is gone.
	Found bool
}

// doubted returns s with a write of class c in doubt until then.
func (s State) doubted(c pacer.Class, until time.Time) State {
	if s.DoubtUntil.IsZero() {
		s.DoubtOf = c
	} else if s.DoubtOf != c {
		s.DoubtOf = pacer.ClassNone
	}
	s.DoubtUntil = until
	return s
}

// harmless reports whether what is in doubt can only do what has been done since: a registration of a target that is
// registered, a removal of one that is leaving. The next verification is soon enough to see what became of it.
func (s State) harmless() bool {
	return s.Phase == ledger.Registered && s.DoubtOf == pacer.ClassRegister || s.Phase == ledger.Removing && s.DoubtOf == pacer.ClassDeregister
}

// certainFrom is from when on an observation ends a doubt: when nothing can come any more, and what is seen is no older
// than our last write.
func (s State) certainFrom() time.Time {
	if settled := s.WrittenAt.Add(settle); !s.WrittenAt.IsZero() && settled.After(s.DoubtUntil) {
		return settled
	}
	return s.DoubtUntil
}

// unnamed returns s after one more look that should have shown the target and did not settle anything about it.
func (s State) unnamed(now time.Time) State {
	s.AskAt = now.Add(backoff.Delay(unnamedFirst, s.Unnamed, unnamedMost))
	s.Unnamed++
	return s
}

// Step is one call that should be made now, or the time to plan again where none should.
type Step struct {
	Class   pacer.Class
	Targets []target.Target // in order, at most 200; of a ClassDescribe none: the whole group
	At      time.Time       // where Class is ClassNone: zero means that nothing is to come
}

// Conditions are what a plan depends on besides what is wanted and what is there.
type Conditions struct {
	// Hold says from when on a call of each class may be made again, after a failure.
	Hold [pacer.Classes]time.Time
	// Refused are the targets that AWS has refused, by the class of the call. They wait behind those that it has not.
	Refused [pacer.Classes]map[target.Target]Setback
	// Again says from when on a target that was refused may be tried again, whichever.
	Again [pacer.Classes]time.Time
	// Keep are targets whose container is there but not yet known: they are not removed.
	Keep map[target.Target]bool
	// AwaitGone holds a registration back until the target's draining is over, as AWS asks of ip targets.
	AwaitGone bool
}

// Plan says which call brings what is there (have) closer to what is wanted, or when to plan again. It is pure: what
// is sent is decided by calling it with the permit in hand.
//
// | wanted | phase        | then                                                          |
// |--------|--------------|---------------------------------------------------------------|
// | no     | registered   | deregister                                                    |
// | no     | intended     | deregister: the registration may have taken effect, or may yet |
// | no     | leaving      | nothing; a registration in doubt is looked at when that ends  |
// | yes    | registered   | nothing; likewise with a removal in doubt                     |
// | yes    | intended     | register again: it is idempotent                              |
// | yes    | leaving      | register: it comes back (ip targets: once they are gone)      |
// | yes    | absent, none | register                                                      |
//
// Deregistration comes first. A class on hold does not hold the others up: where nothing may be removed now, what is
// to be added goes out. Nor does a target that AWS refused hold up one that it has not: that goes first, and what was refused
// by itself is tried again by itself.
func Plan(want target.Set, have map[target.Target]State, c Conditions, now time.Time) Step {
	remove, add := Outstanding(want, have, c)
	var at time.Time
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, candidate := range []Step{{Class: pacer.ClassDeregister, Targets: remove}, {Class: pacer.ClassRegister, Targets: add}} {
		if len(candidate.Targets) == 0 {
			continue
		}
		ready, later := c.ready(candidate.Class, candidate.Targets, now)
		if len(ready) == 0 {
			sooner(later)
			continue
		}
		candidate.Targets = ready[:min(len(ready), maxTargets)]
		return candidate
	}
	var doubtful []target.Target
	whole := false
	for _, t := range target.Sorted(have) {
		switch s := have[t]; {
		case s.DoubtUntil.IsZero() || s.harmless() && (s.Phase == ledger.Registered || len(want[t]) == 0):
		case s.certainFrom().After(now):
			sooner(s.certainFrom())
		case s.AskAt.After(now):
			sooner(s.AskAt)
		case s.Unnamed >= unnamedBy:
			whole = true
		default:
			doubtful = append(doubtful, t)
		}
	}
	hold := c.Hold[pacer.ClassDescribe]
	switch {
	case len(doubtful) == 0 && !whole:
	case hold.After(now):
		sooner(hold)
	case whole:
		return Step{Class: pacer.ClassDescribe}
	default:
		return Step{Class: pacer.ClassDescribe, Targets: doubtful[:min(len(doubtful), maxTargets)]}
	}
	return Step{At: at}
}

// ready returns which of the targets, of which there are some, one call of the class may name now; where none may, from when
// on one may.
func (c Conditions) ready(class pacer.Class, targets []target.Target, now time.Time) ([]target.Target, time.Time) {
	if hold := c.Hold[class]; hold.After(now) {
		return nil, hold
	}
	var untried, suspects []target.Target
	var first target.Target
	var until time.Time
	for _, t := range targets {
		switch s, refused := c.Refused[class][t]; {
		case !refused:
			untried = append(untried, t)
		case s.Until.IsZero():
			suspects = append(suspects, t)
		case until.IsZero() || s.Until.Before(until):
			first, until = t, s.Until
		}
	}
	again := c.Again[class]
	switch {
	case len(untried) > 0:
		return untried, time.Time{}
	case again.After(now) && (len(suspects) > 0 || again.After(until)):
		return nil, again
	case len(suspects) > 0:
		return suspects, time.Time{}
	case until.After(now):
		return nil, until
	}
	return []target.Target{first}, time.Time{}
}

// Outstanding returns what is registered, or may be, and should not be, and what should be and is not, each in order,
// whatever is on hold.
func Outstanding(want target.Set, have map[target.Target]State, c Conditions) (remove, add []target.Target) {
	for _, t := range target.Sorted(have) {
		if _, wanted := want[t]; wanted || c.Keep[t] {
			continue
		}
		if s := have[t]; s.Phase == ledger.Registered || s.Phase == ledger.Intended {
			remove = append(remove, t)
		}
	}
	for _, t := range want.Sorted() {
		s := have[t]
		if s.Phase == ledger.Registered {
			continue
		}
		if c.AwaitGone && s.Phase == ledger.Removing {
			continue
		}
		add = append(add, t)
	}
	return remove, add
}
