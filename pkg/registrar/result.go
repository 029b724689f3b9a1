package registrar

// What the result of a call means for its class: when it may try again, with how many targets, and what people hear.

import (
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"berth/pkg/target"
)

// failed records a failed call: what it means for the group, and from when on the class may try again.
func (r *reconciler) failed(c Class, ce *CallError, now time.Time) {
	r.attempts[c]++
	b := ce.behaviour()
	r.cond.Hold[c] = now.Add(b.delay(r.attempts[c], now.Sub(r.env.started), r.env.peers()))
	if ce.Fault == FaultGone {
		if r.goneSince.IsZero() {
			r.goneSince = now
		}
		r.env.gone(r.arn)
	}
	if ce.Fault == FaultDenied && c != ClassDescribe {
		// A policy that goes by tags denies writes to a group that is gone: it has none any more. A look tells.
		r.schedule.soon(now)
	}
	if before := r.trouble[c]; before == nil || before.Fault != ce.Fault || before.Code != ce.Code {
		fields := []zap.Field{zap.String("operation", ce.Operation), zap.String("code", ce.Code), zap.Duration("delay", r.cond.Hold[c].Sub(now)), zap.Error(ce)}
		if b.person {
			r.log.Error("call failed", append(fields, zap.String("change", advice(ce, r.in.group.reference(), r.in.facts)))...)
		} else {
			r.log.Warn("call failed", fields...)
		}
	}
	r.trouble[c] = ce
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
func (r *reconciler) resize(c Class, n int, ce *CallError, now time.Time) {
	switch {
	case ce == nil:
		if r.batch[c] *= 2; r.batch[c] > maxTargets {
			r.batch[c] = 0
		}
	case ce.Fault != FaultFull && ce.Fault != FaultInvalid:
	case n > 1:
		r.batch[c] = n / 2
		r.cond.Hold[c] = now.Add(time.Second + rand.N(time.Second)) // it is another call
	default:
		r.batch[c] = 1
		r.turn[c]++
	}
}

// succeeded clears what a failure of the class had left behind.
func (r *reconciler) succeeded(c Class) {
	if r.trouble[c] != nil {
		r.log.Info("call succeeded again", zap.String("operation", operations[c]), zap.Int("attempt", r.attempts[c]+1))
	}
	r.attempts[c], r.trouble[c], r.cond.Hold[c] = 0, nil, time.Time{}
	r.goneSince = time.Time{}
}

// outcome is what the pacer needs to know of a call.
func outcome(ce *CallError) Outcome {
	switch {
	case ce == nil:
		return Accepted
	case ce.Fault == FaultThrottled:
		return Throttled
	case ce.Code == codeTimeout || ce.Code == codeConnection || ce.Code == codeCanceled:
		return Unanswered
	case ce.Unknown || ce.Fault == FaultTransient:
		return Failed
	case ce.Code == codeCredentials:
		return Aborted // no call was made
	}
	return Accepted
}
