package registrar

// What AWS refused is on hold alone. It takes a call as a whole or not at all: one target that it does not take has all of the
// call refused, so that the call is halved until one is refused by itself.

import (
	"time"

	"go.uber.org/zap"

	"berth/internal/backoff"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// Setback is what is known of a target that AWS has refused. The zero Setback: as one of several, any of which may have been
// the reason.
type Setback struct {
	Until    time.Time // it was refused by itself, and is not tried again before
	attempts int       // refused by itself in a row
	said     *elb.CallError
}

// probe is the wait after the first target that was refused by itself, before one of the others that were refused with it is
// tried. It doubles with each further one, for as long as none is accepted: then it is not the targets.
const probe = time.Second

// together is how many times as long as of one alone the longest hold of a target is where several are refused by themselves. More
// would have one that is mended, or left alone, wait for hours: it is Again that has all of them tried no more often than one.
const together = 3

// refusedAlone takes in that AWS refused t, by itself.
func (r *reconciler) refusedAlone(c pacer.Class, t target.Target, ce *elb.CallError, now time.Time) {
	r.trouble[c], r.attempts[c], r.cond.Hold[c] = nil, 0, time.Time{} // the service takes calls of the class
	s := r.cond.Refused[c][t]
	if s.Until.IsZero() { // or again, after another one was accepted
		r.bad[c]++
	}
	s.attempts++
	b, uptime := behaviourOf(ce), now.Sub(r.env.started)
	longest := b.longest(r.env.peers())
	upTo := longest
	for x, other := range r.cond.Refused[c] {
		if x != t && other.attempts > 0 {
			upTo = min(upTo+longest, together*longest)
		}
	}
	s.Until = now.Add(b.delayUpTo(upTo, s.attempts, uptime))
	r.cond.Again[c] = now.Add(backoff.Jitter(min(backoff.Double(probe, r.bad[c]-1, longest), b.soon(uptime))))
	if s.said == nil || s.said.Code != ce.Code {
		r.log.Error("target was refused", zap.Stringer("target", t), zap.String("operation", ce.Operation), zap.String("code", ce.Code),
			zap.Duration("delay", s.Until.Sub(now)), zap.Error(ce), zap.String("change", elb.Advice(ce, r.in.group.Reference(), r.in.facts)))
	}
	s.said = ce
	r.setback(c, t, s)
}

// refusedTogether takes in that AWS refused a call for one of its targets or more, nobody knows which.
func (r *reconciler) refusedTogether(c pacer.Class, targets []target.Target, ce *elb.CallError) {
	r.trouble[c], r.attempts[c] = nil, 0
	for _, t := range targets {
		if _, before := r.cond.Refused[c][t]; !before {
			r.setback(c, t, Setback{})
		}
	}
	r.log.Debug("a call was refused for one of its targets; trying fewer", zap.Stringers("targets", targets), zap.Error(ce))
}

func (r *reconciler) setback(c pacer.Class, t target.Target, s Setback) {
	if r.cond.Refused[c] == nil {
		r.cond.Refused[c] = map[target.Target]Setback{}
	}
	r.cond.Refused[c][t] = s
}

// taken takes in that AWS accepted a call. If one of its targets had been refused by itself, whatever that was for may be over
// for the others, too: they are tried again, like those of which it is not known yet.
func (r *reconciler) taken(c pacer.Class, targets []target.Target) {
	r.bad[c] = 0
	r.cond.Again[c] = time.Time{}
	mended := false
	for _, t := range targets {
		s, before := r.cond.Refused[c][t]
		if !before {
			continue
		}
		delete(r.cond.Refused[c], t)
		if s.said != nil {
			mended = true
			r.log.Info("target is no longer refused", zap.Stringer("target", t), zap.String("operation", operations[c]), zap.Int("attempt", s.attempts+1))
		}
	}
	if !mended {
		return
	}
	for t, s := range r.cond.Refused[c] {
		s.Until = time.Time{}
		r.cond.Refused[c][t] = s
	}
}

// suspected reports whether a call of class c was refused for one of several targets, and nobody knows yet for which.
func (r *reconciler) suspected(c pacer.Class) bool {
	for _, s := range r.cond.Refused[c] {
		if s.Until.IsZero() {
			return true
		}
	}
	return false
}

// setbacks drops what is known of refusals of targets with which nothing is to be done any more, when their holds have been
// over for long. It returns one that still stands, the one that is tried first, and whether all of the targets have one.
func (r *reconciler) setbacks(c pacer.Class, outstanding []target.Target, now time.Time) (first Setback, all bool) {
	if len(r.cond.Refused[c]) == 0 {
		return Setback{}, false
	}
	open := make(map[target.Target]bool, len(outstanding))
	all = len(outstanding) > 0
	for _, t := range outstanding {
		open[t] = true
		s, refused := r.cond.Refused[c][t]
		all = all && refused
		if s.said != nil && (first.said == nil || s.Until.Before(first.Until)) {
			first = s
		}
	}
	for t, s := range r.cond.Refused[c] {
		if !open[t] && now.Sub(s.Until) > forgiven {
			delete(r.cond.Refused[c], t)
		}
	}
	return first, all
}
