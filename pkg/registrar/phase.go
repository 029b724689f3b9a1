package registrar

import (
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
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
