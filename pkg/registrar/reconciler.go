package registrar

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// input is what a reconciler should make true: one immutable value, of one Desired.
type input struct {
	seq      uint64
	self     elb.Self
	keys     []string             // that name this group
	held     []Held               // keys that it serves until the group that they name has accepted their targets
	group    elb.Group            // of the first key; of the ledger where there is none
	groups   map[string]elb.Group // by key
	facts    elb.Facts
	wants    []target.Want
	owner    elb.Ownership
	allotted map[allotment]target.Allotment
	unknown  map[string]bool // container ids
}

// serves reports whether a key of the configuration is served here. A group that serves none is emptied, and forgotten.
func (in *input) serves() bool { return len(in.keys)+len(in.held) > 0 }

// served are the keys that are served here.
func (in *input) served() []string {
	keys := slices.Clone(in.keys)
	for _, h := range in.held {
		keys = append(keys, h.Key)
	}
	return keys
}

// allotment is a host port of one transport protocol and address family: they are given out separately.
type allotment struct {
	port     uint16
	protocol target.Protocol
	ipv6     bool
}

// reconciler brings one target group to what is wanted and keeps it there. One goroutine (run) owns all its state;
// others reach it through the input slot and read what it puts on the board. It holds at most one call in flight.
//
// A step goes: permit, plan, ledger, send. What is sent is decided with the permit in hand, and looked at once more
// when the ledger has it.
type reconciler struct {
	arn string
	env *environment
	log *zap.Logger

	slot    atomic.Pointer[input]           // the newest input
	pruning atomic.Pointer[[]target.Target] // unclaimed targets that somebody wants removed
	wake    chan struct{}                   // one slot: there is a new input, or somebody began to follow

	// Owned by run.
	in        *input
	want      target.Set
	refusals  []Refusal
	have      map[target.Target]State        // what is ours, or may be
	flight    flight                         // the write in flight
	unclaimed map[target.Target]elb.Sighting // this host's targets that are not ours, as of the last full look
	cond      Conditions
	trouble   [pacer.Classes]*elb.CallError
	said      [pacer.Classes]*elb.CallError // the last failure of a row, as the log has it
	attempts  [pacer.Classes]int            // failed in a row, with nothing but idleness between them
	batch     [pacer.Classes]int            // the most targets of one call, after a quota or a bad target refused a larger one; 0: no limit
	turn      [pacer.Classes]int            // where the next batch of one begins, so that a bad target is in nobody's way
	bad       [pacer.Classes]int            // targets that were refused when they were suspects, with nothing accepted since
	doneSeq   uint64                        // of the newest input all of whose calls were answered, or are held up by a failure
	tried     bool                          // a first attempt has ended, well or not
	vain      map[target.Target]bool        // of what is to be removed: what has been tried in vain
	schedule  schedule
	goneSince time.Time // the group was first found not to exist
	would     []Pending // what a dry run has last said that it would do
	unserved  string    // why the group cannot be served, as the log has it
	// mended is env.mended's channel as of when failures for credentials were last forgiven.
	mended <-chan struct{}
}

// keepGone is how long the ledger keeps what was registered in a group that AWS says does not exist: it may have been
// the wrong endpoint, or a role of another account, that said so.
const keepGone = 24 * time.Hour

func newReconciler(groupARN string, env *environment, entries []ledger.Entry) *reconciler {
	r := &reconciler{
		arn: groupARN, env: env,
		log:  env.log.With(zap.String("target_group", elb.Short(groupARN))),
		wake: make(chan struct{}, 1),
		have: map[target.Target]State{}, vain: map[target.Target]bool{},
	}
	for _, e := range entries {
		s := State{Phase: e.Phase, Since: e.Intended, Run: e.Run}
		if e.Phase == ledger.Removing {
			s.Since = e.Removed
		}
		if !e.OfBoot(env.bootID) && e.Phase != ledger.Removing {
			// An earlier boot's registration is no proof of anything: if the port is wanted now, it is registered again;
			// if not, it goes, though its container may be there again, on another port.
			s.Phase = ledger.Intended
			if e.BootID != "" && env.bootID != "" {
				s.Run = target.Run{}
			}
		}
		if e.Phase == ledger.Intended || e.Phase == ledger.Removing {
			// The write that the entry stands for may still be under way.
			s.DoubtUntil = time.Now().Add(doubt)
		}
		r.have[e.Target] = s
	}
	r.schedule.start(time.Now(), len(r.have) > 0 && !env.dry, env.fleet())
	return r
}

// set gives the reconciler something new to make true. It never blocks.
func (r *reconciler) set(in *input) {
	r.slot.Store(in)
	r.poke()
}

func (r *reconciler) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run reconciles until ctx ends, or until the group has left the configuration and nothing of ours is left in it.
// A write in flight is waited for.
func (r *reconciler) run(ctx context.Context) {
	for ctx.Err() == nil {
		r.take()
		step := r.next(time.Now())
		if r.finished() {
			return
		}
		if step.Class == pacer.ClassNone {
			r.publish(step)
			r.pause(ctx, step.At)
			continue
		}
		permit := r.ask(step)
		step, ok := r.await(ctx, permit, step) //mutant:plans-before-permit/wait
		if !ok {
			permit.Drop()
			continue
		}
		switch step.Class {
		case pacer.ClassDeregister:
			r.deregister(ctx, permit, step.Targets)
		case pacer.ClassRegister:
			r.register(ctx, permit, step.Targets)
		case pacer.ClassDescribe:
			r.look(ctx, permit, step.Targets)
		default:
			permit.Drop()
		}
	}
}

// pause waits for something new, or for at.
func (r *reconciler) pause(ctx context.Context, at time.Time) {
	var timer <-chan time.Time
	if !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-r.wake:
	case <-timer:
	}
}

// await waits for the permit and plans again with it in hand. It reports false when another class has become more
// urgent, a removal that was never tried is among what has to be, nothing is left to do, or ctx ended. planned is what the permit was asked for: it goes on the board where
// there is a wait.
func (r *reconciler) await(ctx context.Context, permit *pacer.Permit, planned Step) (Step, bool) {
	select {
	case <-permit.Ready():
	default:
		r.publish(planned)
	}
	for {
		select {
		case <-ctx.Done():
			return Step{}, false
		case <-r.urgent(permit.Class()):
		case <-r.wake:
			r.take()
		case <-permit.Ready():
			r.take()
			step := r.next(time.Now())
			return step, step.Class == permit.Class()
		}
		step := r.next(time.Now())
		r.publish(step)
		if step.Class != permit.Class() || step.Class == pacer.ClassDeregister && r.again(step) != permit.Again() {
			return Step{}, false
		}
	}
}

// urgent returns a channel that tells when the first hold of a class more urgent than c ends, nil where there is none:
// a permit may take longer than that.
func (r *reconciler) urgent(c pacer.Class) <-chan time.Time {
	var at time.Time
	now := time.Now()
	for more := pacer.ClassDeregister; more < c; more++ {
		if hold := r.cond.Hold[more]; hold.After(now) && (at.IsZero() || hold.Before(at)) {
			at = hold
		}
	}
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// ask gets in line for the call of a step. A look that failed comes after all else, unless writes wait for it, too.
func (r *reconciler) ask(s Step) *pacer.Permit {
	again := r.again(s)
	switch {
	case s.Class != pacer.ClassDescribe:
	case again && (r.schedule.looked || r.schedule.failed):
		return r.env.pacer.AskLast()
	case !again && !r.schedule.looked:
		return r.env.pacer.AskFirst(true)
	}
	return r.env.pacer.Ask(s.Class, again)
}

// again reports whether the call of a step is an attempt after a failure. Each removal has a first attempt of its own,
// whatever became of others in the group.
func (r *reconciler) again(s Step) bool {
	if s.Class == pacer.ClassDeregister {
		return !slices.ContainsFunc(s.Targets, func(t target.Target) bool { return !r.vain[t] })
	}
	if len(s.Targets) > 0 {
		if _, refused := r.cond.Refused[s.Class][s.Targets[0]]; refused {
			return true // then all of them were
		}
	}
	return r.trouble[s.Class] != nil
}

// unhurried is how long a call is under way before the rest of the work is done: while it goes out, nothing else of
// ours should want the processor. AWS takes longer to answer.
const unhurried = 5 * time.Millisecond

// during waits for done, which comes of a call of class c, while taking in what is new. Both functions may be nil: late
// is called when done takes its time, interrupt when a removal has begun to wait that nothing holds up.
func (r *reconciler) during(c pacer.Class, done <-chan struct{}, late, interrupt func()) {
	timer := time.NewTimer(unhurried)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-timer.C:
			if late != nil {
				late()
			}
			r.publish(Step{Class: c})
		case <-r.wake:
			r.take()
			if interrupt != nil && Plan(r.want, r.have, r.cond, time.Now()).Class == pacer.ClassDeregister {
				interrupt()
			}
		}
	}
}

// async runs f on a goroutine of its own and returns a channel that is closed when it has returned.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	runtime.Gosched() // f first: what the caller does meanwhile can wait
	return done
}

// next is the plan with the looks that are due put in. A ClassDescribe step without targets looks at the whole group.
func (r *reconciler) next(now time.Time) Step {
	if r.in == nil {
		return Step{}
	}
	if why, _ := r.in.facts.Unsupported(r.in.self); why != "" && r.in.serves() {
		r.doneSeq, r.tried = r.in.seq, true
		if r.env.dry {
			r.say()
			return Step{}
		}
		return Plan(r.want, r.have, r.cond, now) // nothing is wanted; what is ours goes
	}
	hold := r.cond.Hold[pacer.ClassDescribe]
	if !r.schedule.looked && !r.schedule.failed && !hold.After(now) {
		if r.env.dry || !r.env.pacer.Crowded() {
			return Step{Class: pacer.ClassDescribe}
		}
		r.schedule.skip(now, r)
	}
	step := Plan(r.want, r.have, r.cond, now)
	if step.Class != pacer.ClassNone && (!r.env.dry || step.Class == pacer.ClassDescribe) {
		step.Targets = r.portion(step)
		return step
	}
	if r.env.dry {
		r.doneSeq, r.tried, step = r.in.seq, true, Step{}
		r.say()
	}
	remove, add := Outstanding(r.want, r.have, r.cond)
	if len(remove)+len(add) == 0 || r.attempted(remove, add) {
		r.doneSeq, r.tried = r.in.seq, true
	}
	for _, relief := range []time.Time{r.relieve(pacer.ClassDeregister, remove, now), r.relieve(pacer.ClassRegister, add, now)} {
		if !relief.IsZero() && (step.At.IsZero() || relief.Before(step.At)) {
			step.At = relief
		}
	}
	at, full := r.schedule.next(now, r)
	if !at.IsZero() && at.Before(hold) {
		at = hold
	}
	if !at.IsZero() && !at.After(now) {
		if full {
			return Step{Class: pacer.ClassDescribe}
		}
		if own := target.Sorted(r.have); len(own) > 0 && len(own) <= maxTargets {
			return Step{Class: pacer.ClassDescribe, Targets: own}
		}
		return Step{Class: pacer.ClassDescribe}
	}
	if step.At.IsZero() || (!at.IsZero() && at.Before(step.At)) {
		step.At = at
	}
	return step
}

// attempted reports whether everything outstanding is held up by a failed call.
func (r *reconciler) attempted(remove, add []target.Target) bool {
	now := time.Now()
	failed := func(c pacer.Class, outstanding []target.Target) bool {
		_, refused := r.setbacks(c, outstanding, now)
		return len(outstanding) == 0 || refused || r.trouble[c] != nil
	}
	removed, added := failed(pacer.ClassDeregister, remove), failed(pacer.ClassRegister, add)
	return removed && added
}

// finished reports whether the group has left the configuration and nothing of ours is left in it.
func (r *reconciler) finished() bool {
	if r.in == nil {
		return false
	}
	r.forgetGone()
	if r.in.serves() {
		return false
	}
	for _, s := range r.have {
		if s.Phase != ledger.Removing || !s.Settled || !s.DoubtUntil.IsZero() {
			return false
		}
	}
	r.forget(target.Sorted(r.have)...)
	return true
}

// forgetGone forgets what was registered in a group that has been gone from AWS for a day: nothing can be. That it is gone
// is known where it was asked for in its own account and region.
func (r *reconciler) forgetGone() {
	_, account := elb.PlaceOf(r.arn)
	if r.goneSince.IsZero() || time.Since(r.goneSince) < keepGone || account == "" || account != r.in.self.Account || r.env.dry {
		return
	}
	r.forget(target.Sorted(r.have)...)
	r.goneSince = time.Time{}
}
