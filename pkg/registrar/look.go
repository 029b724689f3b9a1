package registrar

import (
	"context"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// operations maps what is paced to what is called.
var operations = [pacer.Classes]string{
	pacer.ClassDeregister: elb.OpDeregister,
	pacer.ClassRegister:   elb.OpRegister,
	pacer.ClassDescribe:   elb.OpDescribeHealth,
}

// look asks for the health of the named targets, or of the whole group, and takes in the answer. A removal that
// begins to wait meanwhile cancels it.
func (r *reconciler) look(ctx context.Context, permit *pacer.Permit, targets []target.Target) {
	begun := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen map[target.Target]elb.Sighting
	var ce *elb.CallError
	interrupted := false
	r.during(pacer.ClassDescribe, async(func() { seen, ce = r.env.calls.Look(ctx, r.arn, targets) }), nil, func() {
		interrupted = true
		cancel()
	})
	now := time.Now()
	if ce != nil && (interrupted || ctx.Err() != nil) && (ce.Unknown || ce.Code == elb.CodeCanceled) {
		permit.Done(pacer.Aborted)
		return // nothing was learned, and nothing went wrong
	}
	permit.Done(outcome(ce))
	r.tried = true
	if ce != nil {
		r.failed(pacer.ClassDescribe, ce, now)
		r.schedule.missed(now, ce.Fault == elb.FaultThrottled, r)
		return
	}
	r.succeeded(pacer.ClassDescribe)
	full := len(targets) == 0
	if full {
		targets = target.Sorted(r.have)
		r.survey(seen, now)
	}
	o := observation{begun: begun, now: now, full: full}
	for _, t := range targets {
		s, there := seen[t]
		if !there && !full {
			r.unnamed(t, now) // an answer that does not name the target says nothing about it
			continue
		}
		r.observe(t, s, o)
		if known, ok := r.have[t]; ok && full && known.Unnamed >= unnamedBy {
			r.have[t] = known.unnamed(now) // should that not have settled it
		}
	}
	r.schedule.lookedAt(now, full, r)
	for _, s := range r.have {
		if s.Unnamed >= unnamedBy && !full {
			r.schedule.wholeBy(s.AskAt)
		}
	}
}

// unnamed takes in that an answer which should have named t did not.
func (r *reconciler) unnamed(t target.Target, now time.Time) {
	if s, ok := r.have[t]; ok {
		r.have[t] = s.unnamed(now)
	}
}

// survey goes through a look at the whole group: it counts the peers, adopts what is wanted and already there, takes
// what is stale by proof, and keeps the rest of this host's targets as unclaimed. What drains is remembered where it
// may not be registered before it is gone.
func (r *reconciler) survey(seen map[target.Target]elb.Sighting, now time.Time) {
	peers := map[string]bool{}
	r.unclaimed = map[target.Target]elb.Sighting{}
	for t, s := range seen {
		if s.Absent() {
			continue
		}
		peers[t.ID] = true
		if _, known := r.have[t]; known || !r.mine(t) {
			continue
		}
		if !s.Registered() {
			if r.cond.AwaitGone {
				r.learn(t, State{Phase: ledger.Removing, Settled: true, Found: true, Health: s.Health, Reason: s.Reason, Description: s.Description, Since: now})
			}
			continue
		}
		r.find(t, s, now)
	}
	r.env.sawPeers(r.arn, peers, ownID(r.in.self, r.in.facts))
}

// find says whose a target of this host is that was found registered.
func (r *reconciler) find(t target.Target, seen elb.Sighting, now time.Time) {
	wants, wanted := r.want[t]
	switch {
	case wanted:
		run := claimant(wants)
		r.log.Info("adopted a target that was registered already", zap.Stringer("target", t), zap.Stringer("container", run))
		r.adopt(t, seen, run, now)
	case r.ours(t):
		r.log.Info("found a stale target", zap.Stringer("target", t))
		r.adopt(t, seen, target.Run{}, now)
	default:
		r.unclaimed[t] = seen
	}
}

// observation is when a look was begun and answered. What it proves depends on the first.
type observation struct {
	begun, now time.Time
	full       bool
}

// observe takes in what one look says about one target. An observation begun within 10 s of our own write proves
// nothing about the phase, since DescribeTargetHealth lags behind; one begun while a write is in doubt does not end
// the doubt.
//
// | seen       | phase      | then (when settled)                                                    |
// |------------|------------|------------------------------------------------------------------------|
// | registered | registered | health                                                                 |
// | registered | intended   | registered                                                             |
// | registered | leaving    | registered: the removal did not take effect, or a registration came late |
// | draining   | registered | leaving: somebody else removed it                                      |
// | draining   | leaving    | settled; the ledger forgets it (ip targets: once they are gone)        |
// | absent     | registered | somebody else removed it                                               |
// | absent     | leaving    | gone; the ledger forgets it                                            |
func (r *reconciler) observe(t target.Target, seen elb.Sighting, o observation) {
	s, ok := r.have[t]
	if !ok {
		return
	}
	if s.Found && seen.Registered() {
		r.forget(t)
		r.find(t, seen, o.now)
		return
	}
	if !o.full {
		s.Unnamed, s.AskAt = 0, time.Time{}
	}
	settled := s.WrittenAt.IsZero() || !o.begun.Before(s.WrittenAt.Add(settle))
	doubtful := o.begun.Before(s.DoubtUntil)
	if !doubtful && settled {
		s.DoubtUntil, s.DoubtOf = time.Time{}, pacer.ClassNone
	}
	if s.Health != seen.Health {
		s.Since = o.now
	}
	switch {
	case seen.Registered():
		if s.Phase != ledger.Registered && settled {
			if s.Phase == ledger.Removing {
				r.log.Warn("a deregistered target is registered again", zap.Stringer("target", t))
			}
			s.Phase, s.Settled = ledger.Registered, false
		}
		if s.Phase == ledger.Registered || s.Phase == ledger.Intended {
			s.Health, s.Reason, s.Description = seen.Health, seen.Reason, seen.Description
		}
	case !settled || s.Phase == ledger.Intended:
		// Too early to tell; or a registration that has not shown up, and is sent again or removed by the plan.
	default:
		if s.Phase == ledger.Registered {
			r.lost(t, seen)
		}
		s.Phase = ledger.Removing
		s.Health, s.Reason, s.Description = seen.Health, seen.Reason, seen.Description
		if doubtful {
			break
		}
		s.Settled = true
		if seen.Absent() {
			r.forget(t)
			return
		}
	}
	r.learn(t, s)
}

// lost reports that somebody else took a target out.
func (r *reconciler) lost(t target.Target, seen elb.Sighting) {
	if _, wanted := r.want[t]; !wanted {
		return
	}
	r.env.metrics.repaired(r.label(), 1)
	r.log.Info("target is no longer registered though nobody here removed it; registering it again",
		zap.Stringer("target", t), zap.String("health", seen.Health), zap.Stringer("container", r.have[t].Run))
}
