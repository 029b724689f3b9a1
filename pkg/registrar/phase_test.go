package registrar

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
)

// somewhen is a time that is set.
var somewhen = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestLedgerPhase goes through everything that a phase depends on. Each combination is of exactly one row.
func TestLedgerPhase(t *testing.T) {
	const write, noWrite, either = "write", "no write", "either"
	rows := []struct {
		flight    string
		phases    []ledger.Phase // none: any
		doubt     string         // "yes", "no" or either, as all below
		settled   string
		found     string
		awaitGone string
		want      ledger.Phase
	}{
		{write, nil, either, either, either, either, ledger.Intended},
		{noWrite, nil, either, either, "yes", either, ledger.Absent},
		{noWrite, []ledger.Phase{"", ledger.Absent}, either, either, "no", either, ledger.Absent},
		{noWrite, []ledger.Phase{ledger.Intended}, either, either, "no", either, ledger.Intended},
		{noWrite, []ledger.Phase{ledger.Registered}, "no", either, "no", either, ledger.Registered},
		{noWrite, []ledger.Phase{ledger.Registered}, "yes", either, "no", either, ledger.Intended},
		{noWrite, []ledger.Phase{ledger.Removing}, either, "no", "no", either, ledger.Removing},
		{noWrite, []ledger.Phase{ledger.Removing}, "yes", "yes", "no", either, ledger.Removing},
		{noWrite, []ledger.Phase{ledger.Removing}, "no", "yes", "no", "yes", ledger.Removing},
		{noWrite, []ledger.Phase{ledger.Removing}, "no", "yes", "no", "no", ledger.Absent},
	}
	fits := func(want string, is bool) bool { return want == either || (want == "yes") == is }
	both := []bool{false, true}
	for _, phase := range []ledger.Phase{"", ledger.Intended, ledger.Registered, ledger.Removing, ledger.Absent} {
		for _, inFlight := range []pacer.Class{pacer.ClassNone, pacer.ClassDeregister, pacer.ClassRegister, pacer.ClassDescribe} {
			for bits := range 16 {
				doubt, settled, found, awaitGone := both[bits&1], both[bits>>1&1], both[bits>>2&1], both[bits>>3]
				s := State{Phase: phase, Settled: settled, Found: found}
				if doubt {
					s.DoubtUntil = somewhen
				}
				name := fmt.Sprintf("%q, %s in flight, doubt %t, settled %t, found %t, await gone %t", phase, inFlight, doubt, settled, found, awaitGone)
				var want []ledger.Phase
				for _, r := range rows {
					flight := noWrite
					if inFlight == pacer.ClassDeregister || inFlight == pacer.ClassRegister {
						flight = write
					}
					if r.flight == flight && (r.phases == nil || slices.Contains(r.phases, phase)) &&
						fits(r.doubt, doubt) && fits(r.settled, settled) && fits(r.found, found) && fits(r.awaitGone, awaitGone) {
						want = append(want, r.want)
					}
				}
				if len(want) != 1 {
					t.Fatalf("%s: %d rows have it; want one", name, len(want))
				}
				if got := ledgerPhase(s, inFlight, awaitGone); got != want[0] {
					t.Errorf("%s: %s; want %s", name, got, want[0])
				}
			}
		}
	}
}

// TestLedgerPhase_moments has each moment at which something becomes known that the ledger has to have.
func TestLedgerPhase_moments(t *testing.T) {
	registered := State{Phase: ledger.Registered}
	intended := State{Phase: ledger.Intended}
	leaving := State{Phase: ledger.Removing}
	settled := State{Phase: ledger.Removing, Settled: true}
	inDoubt := func(s State, c pacer.Class) State { return s.doubted(c, somewhen) }
	for _, tt := range []struct {
		moment    string
		state     State
		inFlight  pacer.Class
		awaitGone bool
		want      ledger.Phase
	}{
		{"a registration is about to be sent", State{}, pacer.ClassRegister, false, ledger.Intended},
		{"one of a target that is leaving is", leaving, pacer.ClassRegister, false, ledger.Intended},
		{"it was accepted", registered, pacer.ClassNone, false, ledger.Registered},
		{"it was accepted, and an earlier one may still take effect", inDoubt(registered, pacer.ClassRegister), pacer.ClassNone, false, ledger.Intended},
		{"it was accepted, and an earlier removal may still take effect", inDoubt(registered, pacer.ClassDeregister), pacer.ClassNone, false, ledger.Intended},
		{"its outcome is not known", inDoubt(intended, pacer.ClassRegister), pacer.ClassNone, false, ledger.Intended},
		{"it was refused, and the target was not known before", State{}, pacer.ClassNone, false, ledger.Absent},
		{"it was refused, and the target was leaving before", leaving, pacer.ClassNone, false, ledger.Removing},
		{"it was refused, and an earlier one may still take effect", inDoubt(intended, pacer.ClassRegister), pacer.ClassNone, false, ledger.Intended},
		{"a deregistration takes its time", registered, pacer.ClassDeregister, false, ledger.Intended},
		{"it was accepted", leaving, pacer.ClassNone, false, ledger.Removing},
		{"it was accepted, and a registration may still take effect", inDoubt(leaving, pacer.ClassRegister), pacer.ClassNone, false, ledger.Removing},
		{"its outcome is not known", inDoubt(intended, pacer.ClassDeregister), pacer.ClassNone, false, ledger.Intended},
		{"it was refused", registered, pacer.ClassNone, false, ledger.Registered},
		{"it was refused, and a registration may still take effect", inDoubt(registered, pacer.ClassRegister), pacer.ClassNone, false, ledger.Intended},
		{"it was refused, and the target may be registered", intended, pacer.ClassNone, false, ledger.Intended},
		{"a claim passes while nothing is in flight", registered, pacer.ClassNone, false, ledger.Registered},
		{"a claim passes while a removal is in flight", registered, pacer.ClassDeregister, false, ledger.Intended},
		{"a claim passes while a write is in doubt", inDoubt(registered, pacer.ClassRegister), pacer.ClassNone, false, ledger.Intended},
		{"a target was found registered", registered, pacer.ClassNone, false, ledger.Registered},
		{"an ip target was found draining", State{Phase: ledger.Removing, Settled: true, Found: true}, pacer.ClassNone, true, ledger.Absent},
		{"a look shows an intent registered", registered, pacer.ClassNone, false, ledger.Registered},
		{"a look shows it registered too early to end a doubt", inDoubt(registered, pacer.ClassRegister), pacer.ClassNone, false, ledger.Intended},
		{"a look shows a removal", settled, pacer.ClassNone, false, ledger.Absent},
		{"a look shows a removal of an ip target, which drains", settled, pacer.ClassNone, true, ledger.Removing},
		{"a look shows a removal too early to end a doubt", inDoubt(leaving, pacer.ClassRegister), pacer.ClassNone, false, ledger.Removing},
		{"a look shows that it is gone", State{}, pacer.ClassNone, true, ledger.Absent},
		{"a look is in flight", registered, pacer.ClassDescribe, false, ledger.Registered},
		{"the group is gone, or left", State{}, pacer.ClassNone, false, ledger.Absent},
	} {
		if got := ledgerPhase(tt.state, tt.inFlight, tt.awaitGone); got != tt.want {
			t.Errorf("%s: %s; want %s", tt.moment, got, tt.want)
		}
	}
}
