package registrar

import (
	"slices"
	"time"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// ledgerPhase returns the phase that the ledger has of a target: Absent where it has no entry. It follows from what is
// known of the target (the zero State: nothing), from the class of the call in flight that names it (ClassNone: none
// does), and from whether the group's targets have to be gone before they may come back.
//
// The ledger speaks to the next agent, which cannot ask this one: it calls a target registered or leaving only while
// nothing that was sent can still change that.
//
// | in flight | known                              | ledger                                                       |
// |-----------|------------------------------------|--------------------------------------------------------------|
// | a write   | anything                           | intended: its outcome has to be looked at                    |
// | no write  | registered, nothing in doubt       | registered                                                   |
// | no write  | registered, a write in doubt       | intended                                                     |
// | no write  | intended                           | intended                                                     |
// | no write  | leaving, no look has shown it yet  | leaving                                                      |
// | no write  | leaving, a look has shown it       | no entry; leaving where the target has to be gone before it  |
// |           |                                    | comes back: the next agent has to wait for it as this one does |
// | no write  | found draining, nobody's           | no entry: it is not ours                                     |
// | no write  | nothing                            | no entry                                                     |
func ledgerPhase(s State, inFlight pacer.Class, awaitGone bool) ledger.Phase {
	certain := s.DoubtUntil.IsZero()
	switch {
	case inFlight == pacer.ClassRegister || inFlight == pacer.ClassDeregister:
		return ledger.Intended
	case s.Found:
		return ledger.Absent
	case s.Phase == ledger.Registered && certain:
		return ledger.Registered
	case s.Phase == ledger.Registered || s.Phase == ledger.Intended:
		return ledger.Intended
	case s.Phase == ledger.Removing && s.Settled && certain && !awaitGone:
		return ledger.Absent
	case s.Phase == ledger.Removing:
		return ledger.Removing
	}
	return ledger.Absent
}

// unsure reports whether a write may still change what is known: one in flight, or one in doubt.
func (s State) unsure(inFlight pacer.Class) bool {
	return inFlight != pacer.ClassNone || !s.DoubtUntil.IsZero()
}

// flight is the write in flight, and the targets that it names.
type flight struct {
	class   pacer.Class
	targets []target.Target
}

// of returns the class of the write in flight that names t, ClassNone where none does.
func (f flight) of(t target.Target) pacer.Class {
	if slices.Contains(f.targets, t) {
		return f.class
	}
	return pacer.ClassNone
}

// learn makes s what is known of t, in the ledger as well.
func (r *reconciler) learn(t target.Target, s State) {
	r.have[t] = s
	r.tell(t)
}

// update changes what is known of targets, in the ledger as well.
func (r *reconciler) update(targets []target.Target, f func(*State)) {
	for _, t := range targets {
		s := r.have[t]
		f(&s)
		r.have[t] = s
	}
	r.tell(targets...)
}

// forget forgets targets, in the ledger as well: nothing is known of them, and nothing is left to look after.
func (r *reconciler) forget(targets ...target.Target) {
	for _, t := range targets {
		delete(r.have, t)
	}
	r.tell(targets...)
}

// tell brings what the ledger has of targets to what follows from what is known of them, and is the only place that does,
// but for the intent that a registration waits for. It never waits itself, and where nothing has changed it writes nothing.
func (r *reconciler) tell(targets ...target.Target) {
	var claims []ledger.Entry
	notes := map[ledger.Phase][]target.Target{}
	for _, h := range r.env.ledger.Holdings(r.arn, targets) {
		t := h.Target()
		s := r.have[t]
		phase := ledgerPhase(s, r.flight.of(t), r.cond.AwaitGone)
		e, entered := h.Entry()
		switch {
		case phase == ledger.Absent && !entered:
		case phase == ledger.Absent:
			notes[phase] = append(notes[phase], t)
		case !entered || s.Run.ID != "" && !s.Run.Same(e.Run):
			claims = append(claims, r.entry(t, phase, s.Run))
		case phase == ledger.Intended && e.Phase == ledger.Registered && e.BootID != r.env.bootID && !s.unsure(r.flight.of(t)):
			// Whoever reads that another boot had it registered takes it for an intent: see newReconciler. Of a call that may
			// still take effect that says nothing.
		case phase != e.Phase || phase == ledger.Registered && e.Confirmed.IsZero():
			notes[phase] = append(notes[phase], t)
		}
	}
	r.env.ledger.Record(claims)
	for phase, of := range notes {
		r.env.ledger.Note(r.arn, of, phase)
	}
	if len(notes[ledger.Registered]) > 0 || slices.ContainsFunc(claims, func(e ledger.Entry) bool { return e.Phase == ledger.Registered }) {
		r.env.accepted()
	}
}

// memory is what was known of a target before a call that names it, by the reconciler and by the ledger.
type memory struct {
	target    target.Target
	state     State
	known     bool // there is a state
	seen      elb.Sighting
	unclaimed bool // it was seen registered, and was not ours
	held      ledger.Holding
}

// recall returns what is known of t now, and what the ledger had of it.
func (r *reconciler) recall(t target.Target, held ledger.Holding) memory {
	m := memory{target: t, held: held}
	m.state, m.known = r.have[t]
	m.seen, m.unclaimed = r.unclaimed[t]
	return m
}

// restore makes what was known before what is known: a call that certainly took no effect has taught nothing.
func (r *reconciler) restore(before []memory) {
	targets, held := make([]target.Target, len(before)), make([]ledger.Holding, len(before))
	for i, m := range before {
		targets[i], held[i] = m.target, m.held
		if m.known {
			r.have[m.target] = m.state
		} else {
			delete(r.have, m.target)
		}
		if m.unclaimed {
			r.unclaimed[m.target] = m.seen
		}
	}
	r.env.ledger.Restore(held)
	r.tell(targets...) // which changes nothing, unless the call was not all that happened meanwhile
}

func (r *reconciler) entry(t target.Target, phase ledger.Phase, run target.Run) ledger.Entry {
	e := ledger.Entry{Group: r.groupOf(t), Facts: r.in.facts, Target: t, Run: run, Phase: phase, Intended: time.Now(), BootID: r.env.bootID}
	switch phase {
	case ledger.Registered:
		e.Confirmed = e.Intended
	case ledger.Removing:
		e.Removed = e.Intended
	}
	return e
}
