package registrar

// What the result of a call means for its class: when it may try again, with how many targets, and what people hear.

import (
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// failed records a failed call: what it means for the group, and from when on the class may try again.
func (r *reconciler) failed(c pacer.Class, ce *elb.CallError, now time.Time) {
	if r.trouble[c] == nil && now.Sub(r.cond.Hold[c]) > forgiven {
		r.attempts[c], r.said[c] = 0, nil
	}
	r.attempts[c]++
	b := behaviourOf(ce)
	r.cond.Hold[c] = now.Add(b.delay(r.attempts[c], now.Sub(r.env.started), r.env.peers()))
	if ce.Fault == elb.FaultGone {
		if r.goneSince.IsZero() {
			r.goneSince = now
		}
		r.env.gone(r.arn)
	}
	if ce.Fault == elb.FaultDenied && c != pacer.ClassDescribe {
		// A policy that goes by tags denies writes to a group that is gone: it has none any more. A look tells.
		r.schedule.soon(now)
	}
	if before := r.said[c]; before == nil || before.Fault != ce.Fault || before.Code != ce.Code {
		fields := []zap.Field{zap.String("operation", ce.Operation), zap.String("code", ce.Code), zap.Duration("delay", r.cond.Hold[c].Sub(now)), zap.Error(ce)}
		if b.person {
			r.log.Error("call failed", append(fields, zap.String("change", elb.Advice(ce, r.in.group.Reference(), r.in.facts)))...)
		} else {
			r.log.Warn("call failed", fields...)
		}
	}
	r.trouble[c], r.said[c] = ce, ce
}

// portion is the part of a step that is sent at once: all of it, unless a call of this class was refused for one of its
// targets, or for their number.
func (r *reconciler) portion(s Step) []target.Target {
	n := r.batch[s.Class]
	if n == 0 || len(s.Targets) <= n {
		return s.Targets
	}
	if n > 1 {
		return s.Targets[:n]
	}
	at := r.turn[s.Class] % len(s.Targets)
	return s.Targets[at : at+1]
}

// resize halves the batches of a class when a call of n targets was refused for what it named, since AWS takes such a
// call as a whole or not at all, and doubles them when one was accepted.
func (r *reconciler) resize(c pacer.Class, n int, ce *elb.CallError, now time.Time) {
	switch {
	case ce == nil:
		if r.batch[c] *= 2; r.batch[c] > maxTargets {
			r.batch[c] = 0
		}
	case ce.Fault != elb.FaultFull && ce.Fault != elb.FaultInvalid:
	case n > 1:
		r.batch[c] = n / 2
		r.cond.Hold[c] = now.Add(time.Second + rand.N(time.Second)) // it is another call
	case ce.Fault == elb.FaultInvalid && !r.suspected(c):
		r.batch[c] = 0
	default:
		r.batch[c] = 1
		r.turn[c]++
	}
}

// succeeded clears what a failure of the class had left behind.
func (r *reconciler) succeeded(c pacer.Class) {
	if r.said[c] != nil {
		r.log.Info("call succeeded again", zap.String("operation", operations[c]), zap.Int("attempt", r.attempts[c]+1))
	}
	r.attempts[c], r.trouble[c], r.said[c], r.cond.Hold[c] = 0, nil, nil, time.Time{}
	r.goneSince = time.Time{}
}

// forgiven is how long after its last hold a failure lengthens the next one's no more, and is no longer known to whoever reads
// the log. Until then it does, though nothing of the class was to be done meanwhile: a container that comes and goes in a
// group that is denied is no new attempt each time.
const forgiven = time.Hour

// relieve drops the trouble of a class of which nothing is outstanding any more, at the end of its hold: what cannot be
// registered has gone away, or what cannot be removed is wanted again. It returns when to come back for that; zero: it
// need not.
func (r *reconciler) relieve(c pacer.Class, outstanding []target.Target, now time.Time) time.Time {
	if r.trouble[c] == nil || len(outstanding) > 0 {
		return time.Time{}
	}
	if hold := r.cond.Hold[c]; hold.After(now) {
		return hold
	}
	if r.trouble[c].Fault == elb.FaultGone && !r.goneSince.IsZero() {
		return time.Time{} // that is the group's, whatever is to be done in it: until a call says that it is there
	}
	r.log.Debug("what failed is not to be done any more", zap.String("operation", operations[c]))
	r.trouble[c] = nil
	return time.Time{}
}

// outcome is what the pacer needs to know of a call.
func outcome(ce *elb.CallError) pacer.Outcome {
	switch {
	case ce == nil:
		return pacer.Accepted
	case ce.Fault == elb.FaultThrottled:
		return pacer.Throttled
	case ce.Code == elb.CodeTimeout || ce.Code == elb.CodeConnection || ce.Code == elb.CodeCanceled:
		return pacer.Unanswered
	case ce.Unknown || ce.Fault == elb.FaultTransient:
		return pacer.Failed
	case ce.Code == elb.CodeCredentials:
		return pacer.Aborted // no call was made
	}
	return pacer.Accepted
}
