package registrar

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// deregister sends one DeregisterTargets and records what became of it. The ledger is not asked before: what removes
// never waits for the disk.
func (r *reconciler) deregister(ctx context.Context, permit *pacer.Permit, targets []target.Target) {
	var ce *elb.CallError
	done := async(func() { ce = r.env.calls.Deregister(ctx, r.arn, targets) })
	r.flight = flight{pacer.ClassDeregister, targets}
	var held []ledger.Holding
	r.during(pacer.ClassDeregister, done, func() {
		// Whoever comes after us must not take them for registered, should we not live to hear the reply.
		held = r.env.ledger.Holdings(r.arn, targets)
		r.tell(targets...)
	}, nil)
	r.flight = flight{}
	now := r.wrote(pacer.ClassDeregister, permit, targets, ce)
	for _, t := range targets {
		if delete(r.vain, t); ce != nil && outcome(ce) != pacer.Aborted && len(r.want[t]) == 0 {
			r.vain[t] = true // one that is wanted again has a first attempt before it the next time
		}
	}
	if ce != nil {
		if ce.Unknown {
			// They may be gone or not. Should one be wanted again, it is registered again.
			r.update(targets, func(s *State) {
				*s = s.doubted(pacer.ClassDeregister, now.Add(doubt))
				s.Phase, s.WrittenAt = ledger.Intended, now
			})
			return
		}
		r.env.ledger.Restore(held)
		r.tell(targets...)
		return
	}
	if t := r.trouble[pacer.ClassRegister]; t != nil && t.Fault == elb.FaultFull {
		r.cond.Hold[pacer.ClassRegister] = time.Time{} // there is room again
	}
	r.log.Info("deregistered", zap.Stringers("targets", targets), zap.Stringers("containers", r.runs(targets)))
	r.env.metrics.changed(r.label(), elb.OpDeregister, len(targets))
	r.update(targets, func(s *State) {
		s.Phase, s.Health, s.Reason, s.Description = ledger.Removing, "", "", ""
		s.Since, s.WrittenAt, s.Settled = now, now, false
	})
}

// register writes the ledger, looks whether the targets are still wanted, sends one RegisterTargets and records what
// became of it. Of targets whose registration is not sent, or is refused, what was known before is known again.
func (r *reconciler) register(ctx context.Context, permit *pacer.Permit, targets []target.Target) {
	entries := make([]ledger.Entry, len(targets))
	for i, t := range targets {
		entries[i] = r.entry(t, ledger.Intended, claimant(r.want[t]))
	}
	held := r.env.ledger.Holdings(r.arn, targets)
	r.flight = flight{pacer.ClassRegister, targets}
	var err error
	r.during(pacer.ClassRegister, async(func() { err = r.env.ledger.Intend(context.WithoutCancel(ctx), entries) }), nil, nil)
	if err != nil && !errors.Is(err, ledger.ErrDegraded) {
		r.log.Error("ledger did not take an intent", zap.Error(err))
	}
	var send []target.Target
	var spared, before []memory
	for i, t := range targets {
		m := r.recall(t, held[i])
		if _, wanted := r.want[t]; !wanted || ctx.Err() != nil { //mutant:plans-before-permit/send
			spared = append(spared, m)
			continue
		}
		s := r.have[t]
		// The run is another one's, if that has changed meanwhile.
		s.Phase, s.Run, s.Since = ledger.Intended, claimant(r.want[t]), time.Now() //mutant:plans-before-permit/run
		s.Health, s.Reason, s.Description, s.Settled, s.Found = "", "", "", false, false
		r.learn(t, s)
		delete(r.unclaimed, t)
		send, before = append(send, t), append(before, m)
	}
	r.flight = flight{pacer.ClassRegister, send}
	r.restore(spared)
	if len(send) == 0 {
		r.flight = flight{}
		permit.Drop()
		return
	}
	var ce *elb.CallError
	r.during(pacer.ClassRegister, async(func() { ce = r.env.calls.Register(ctx, r.arn, send) }), nil, nil)
	r.flight = flight{}
	now := r.wrote(pacer.ClassRegister, permit, send, ce)
	switch {
	case ce == nil:
		r.env.pacer.Registered()
		r.log.Info("registered", zap.Stringers("targets", send), zap.Stringers("containers", r.runs(send)))
		r.env.metrics.changed(r.label(), elb.OpRegister, len(send))
		r.update(send, func(s *State) { s.Phase, s.Since, s.WrittenAt = ledger.Registered, now, now })
	case ce.Unknown:
		r.update(send, func(s *State) {
			*s = s.doubted(pacer.ClassRegister, now.Add(doubt))
			s.WrittenAt = now
		})
	default:
		r.restore(before) //mutant:refused-call-forgets
	}
	r.own()
}

// wrote ends a write: the permit, the looks that it asks for, and what it says about the class, or about its targets alone.
// It returns the time of the reply.
func (r *reconciler) wrote(c pacer.Class, permit *pacer.Permit, targets []target.Target, ce *elb.CallError) time.Time {
	permit.Done(outcome(ce))
	now := time.Now()
	r.tried = true
	if ce == nil || ce.Unknown {
		r.schedule.wrote(now, r)
	}
	switch {
	case ce == nil:
		r.succeeded(c)
		r.taken(c, targets)
	case ce.Fault != elb.FaultInvalid:
		r.failed(c, ce, now)
	case len(targets) > 1:
		r.refusedTogether(c, targets, ce)
	default:
		r.refusedAlone(c, targets[0], ce, now)
	}
	r.resize(c, len(targets), ce, now)
	return now
}

func (r *reconciler) runs(targets []target.Target) []target.Run {
	out := make([]target.Run, len(targets))
	for i, t := range targets {
		out[i] = r.have[t].Run
	}
	return out
}

// label is the group's name in metrics: its first key, or its name in AWS once it has left the configuration.
func (r *reconciler) label() string {
	if r.in != nil && len(r.in.keys) > 0 {
		return r.in.keys[0]
	}
	return elb.Short(r.arn)
}
