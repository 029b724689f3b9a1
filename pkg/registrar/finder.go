package registrar

import (
	"context"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/pacer"
)

// finding is what a finder has to say about a reference.
type finding struct {
	ref   string // reference.key
	facts elb.Facts
	err   *elb.CallError
	retry time.Time // when it asks again, where err is set
}

// finder finds the group that one reference of the configuration names, and finds it anew when somebody notices that
// the group is gone: a group that was deleted and created again under its name has a new ARN.
type finder struct {
	ref    elb.Reference
	env    *environment
	log    *zap.Logger
	report func(context.Context, finding)
	again  chan struct{} // one slot
	cancel context.CancelFunc
	known  bool // the facts are known already: nothing is asked before somebody doubts them
}

func (f *finder) poke() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// run asks until it is answered, and again when poked. It ends with ctx.
func (f *finder) run(ctx context.Context) {
	attempts := 0
	var last *elb.CallError
	if f.known && !f.wait(ctx) {
		return
	}
	for ctx.Err() == nil {
		permit := f.ask(attempts)
		select {
		case <-ctx.Done():
			permit.Drop()
			return
		case <-permit.Ready():
		}
		mended := f.env.mended.next()
		facts, ce := f.env.calls.Find(ctx, f.ref)
		if ctx.Err() != nil && ce != nil && (ce.Unknown || ce.Code == elb.CodeCanceled) {
			permit.Done(pacer.Aborted)
			return
		}
		permit.Done(outcome(ce))
		if ctx.Err() != nil {
			return
		}
		if ce == nil {
			if last != nil {
				f.log.Info("found the target group", zap.String("reference", f.ref.String()), zap.Int("attempt", attempts+1))
			}
			attempts, last = 0, nil
			f.report(ctx, finding{ref: f.ref.Identity(), facts: facts})
			if !f.wait(ctx) {
				return
			}
			continue
		}
		attempts++
		b := behaviourOf(ce)
		delay := b.delay(attempts, time.Since(f.env.started), f.env.peers())
		if last == nil || last.Fault != ce.Fault || last.Code != ce.Code {
			fields := []zap.Field{zap.String("reference", f.ref.String()), zap.String("code", ce.Code), zap.Duration("delay", delay), zap.Error(ce)}
			if b.person {
				f.log.Error("cannot find the target group", append(fields, zap.String("change", elb.Advice(ce, f.ref, elb.Facts{})))...)
			} else {
				f.log.Warn("cannot find the target group", fields...)
			}
		}
		if ce.Fault != elb.FaultCredentials {
			mended = nil
		}
		last = ce
		f.report(ctx, finding{ref: f.ref.Identity(), err: ce, retry: time.Now().Add(delay)})
		if b.first > 0 && !f.sleep(ctx, delay, mended) {
			return
		}
	}
}

// ask gets in line for a look-up after so many that failed.
func (f *finder) ask(failed int) *pacer.Permit {
	if failed > 0 {
		return f.env.pacer.Ask(pacer.ClassDescribe, true)
	}
	return f.env.pacer.AskFirst(false)
}

// wait waits for a poke. It reports false when ctx ended.
func (f *finder) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-f.again:
		return true
	}
}

// sleep waits for d whatever pokes it: what was refused is not asked sooner because somebody noticed again. What was refused
// for its credentials is when they are mended.
func (f *finder) sleep(ctx context.Context, d time.Duration, mended <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	case <-mended:
		return true
	}
}
