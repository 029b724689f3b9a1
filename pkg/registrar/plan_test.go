package registrar

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func tgt(port uint16) target.Target { return target.Target{ID: "i-1", Port: port} }

func wantPorts(ports ...uint16) target.Set {
	set := target.Set{}
	for _, p := range ports {
		set.Add(tgt(p), target.Want{Group: "web", Run: target.Run{ID: fmt.Sprint("c", p)}, Port: 80, HostPort4: p})
	}
	return set
}

func TestPlan(t *testing.T) {
	later := epoch.Add(time.Minute)
	cases := map[string]struct {
		want target.Set
		have map[target.Target]State
		cond Conditions
		step Step
	}{
		"nothing anywhere": {},
		"wanted and absent": {
			want: wantPorts(1, 2), step: Step{Class: pacer.ClassRegister, Targets: []target.Target{tgt(1), tgt(2)}},
		},
		"wanted and registered": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): {Phase: ledger.Registered}},
		},
		"wanted and draining counts as absent": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): {Phase: ledger.Removing, Health: "draining"}},
			step: Step{Class: pacer.ClassRegister, Targets: []target.Target{tgt(1)}},
		},
		"wanted, draining, in a group of type ip": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): {Phase: ledger.Removing}}, cond: Conditions{AwaitGone: true},
		},
		"wanted and intended is sent again": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): {Phase: ledger.Intended, DoubtUntil: later}},
			step: Step{Class: pacer.ClassRegister, Targets: []target.Target{tgt(1)}},
		},
		"removal first": {
			want: wantPorts(2), have: map[target.Target]State{tgt(1): {Phase: ledger.Registered}},
			step: Step{Class: pacer.ClassDeregister, Targets: []target.Target{tgt(1)}},
		},
		"an intent that is no longer wanted is removed": {
			have: map[target.Target]State{tgt(1): {Phase: ledger.Intended}},
			step: Step{Class: pacer.ClassDeregister, Targets: []target.Target{tgt(1)}},
		},
		"a failing removal holds no registration up": {
			want: wantPorts(2), have: map[target.Target]State{tgt(1): {Phase: ledger.Registered}},
			cond: Conditions{Hold: [pacer.Classes]time.Time{pacer.ClassDeregister: later}},
			step: Step{Class: pacer.ClassRegister, Targets: []target.Target{tgt(2)}},
		},
		"everything on hold waits for the first hold to end": {
			want: wantPorts(2), have: map[target.Target]State{tgt(1): {Phase: ledger.Registered}},
			cond: Conditions{Hold: [pacer.Classes]time.Time{pacer.ClassDeregister: later, pacer.ClassRegister: later.Add(time.Second)}},
			step: Step{At: later},
		},
		"a kept target stays": {
			have: map[target.Target]State{tgt(1): {Phase: ledger.Registered}},
			cond: Conditions{Keep: map[target.Target]bool{tgt(1): true}},
		},
		"removed and in doubt: look when the doubt ends": {
			have: map[target.Target]State{tgt(1): {Phase: ledger.Removing, DoubtUntil: later}},
			step: Step{At: later},
		},
		"the doubt has ended": {
			have: map[target.Target]State{tgt(1): {Phase: ledger.Removing, DoubtUntil: epoch}},
			step: Step{Class: pacer.ClassDescribe, Targets: []target.Target{tgt(1)}},
		},
		"registered, with a registration in doubt that can do no more": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): State{Phase: ledger.Registered}.doubted(pacer.ClassRegister, epoch)},
		},
		"removed, with a removal in doubt that can do no more": {
			have: map[target.Target]State{tgt(1): State{Phase: ledger.Removing}.doubted(pacer.ClassDeregister, epoch)},
		},
		"draining and wanted again, in a group of type ip, with a removal in doubt": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): State{Phase: ledger.Removing}.doubted(pacer.ClassDeregister, epoch)},
			cond: Conditions{AwaitGone: true},
			step: Step{Class: pacer.ClassDescribe, Targets: []target.Target{tgt(1)}},
		},
		"registered, with a removal in doubt for certain": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): State{Phase: ledger.Registered}.doubted(pacer.ClassDeregister, epoch)},
			step: Step{Class: pacer.ClassDescribe, Targets: []target.Target{tgt(1)}},
		},
		"removed, with a registration in doubt before a removal in doubt": {
			have: map[target.Target]State{
				tgt(1): State{Phase: ledger.Removing}.doubted(pacer.ClassRegister, epoch).doubted(pacer.ClassDeregister, epoch),
			},
			step: Step{Class: pacer.ClassDescribe, Targets: []target.Target{tgt(1)}},
		},
		"registered, with a removal in doubt": {
			want: wantPorts(1), have: map[target.Target]State{tgt(1): {Phase: ledger.Registered, DoubtUntil: epoch}},
			step: Step{Class: pacer.ClassDescribe, Targets: []target.Target{tgt(1)}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := Plan(c.want, c.have, c.cond, epoch)
			if diff := cmp.Diff(c.step, got); diff != "" {
				t.Errorf("Plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlan_atMost200(t *testing.T) {
	want := target.Set{}
	for p := uint16(1); p <= 500; p++ {
		want.Add(tgt(p), target.Want{})
	}
	if got := Plan(want, nil, Conditions{}, epoch); len(got.Targets) != maxTargets || got.Targets[199] != tgt(200) {
		t.Errorf("Plan sends %d targets up to %v; want the first 200", len(got.Targets), got.Targets[len(got.Targets)-1])
	}
}

// apply is what the load balancer does with a step that succeeds.
func apply(have map[target.Target]State, step Step, now time.Time) {
	for _, t := range step.Targets {
		s := have[t]
		switch step.Class {
		case pacer.ClassDeregister:
			s.Phase = ledger.Removing
		case pacer.ClassRegister:
			s.Phase = ledger.Registered
		case pacer.ClassDescribe:
			s.DoubtUntil = time.Time{}
		}
		have[t] = s
	}
}

func present(have map[target.Target]State) map[target.Target]bool {
	out := map[target.Target]bool{}
	for t, s := range have {
		if s.Phase == ledger.Registered || s.Phase == ledger.Intended {
			out[t] = true
		}
	}
	return out
}

func genPort() *rapid.Generator[uint16] { return rapid.Uint16Range(1, 600) }

func genState(now time.Time) *rapid.Generator[State] {
	return rapid.Custom(func(t *rapid.T) State {
		s := State{Phase: rapid.SampledFrom([]ledger.Phase{ledger.Intended, ledger.Registered, ledger.Removing}).Draw(t, "phase")}
		if rapid.Bool().Draw(t, "in doubt") {
			s.DoubtUntil = now.Add(time.Duration(rapid.IntRange(-60, 60).Draw(t, "doubt")) * time.Second)
		}
		return s
	})
}

// TestPlan_converges is the law of the plan: following it brings any state to what is wanted, each step only ever
// gets closer, and at the goal there is nothing to do.
func TestPlan_converges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := epoch
		want := wantPorts(rapid.SliceOfDistinct(genPort(), rapid.ID).Draw(t, "want")...)
		have := map[target.Target]State{}
		for p, s := range rapid.MapOf(genPort(), genState(now)).Draw(t, "have") {
			have[tgt(p)] = s
		}
		var cond Conditions
		for c := range cond.Hold {
			if rapid.Bool().Draw(t, "on hold") {
				cond.Hold[c] = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "hold")) * time.Second)
			}
		}
		for steps := 0; ; steps++ {
			if steps > 50 {
				t.Fatalf("no end after %d steps: %v", steps, Plan(want, have, cond, now))
			}
			step := Plan(want, have, cond, now)
			if step.Class == pacer.ClassNone {
				if step.At.IsZero() {
					break
				}
				if !step.At.After(now) {
					t.Fatalf("asked to wait until %v at %v", step.At, now)
				}
				now = step.At
				continue
			}
			if len(step.Targets) == 0 || len(step.Targets) > maxTargets || !slices.IsSortedFunc(step.Targets, target.Target.Compare) {
				t.Fatalf("%v of %d targets", step.Class, len(step.Targets))
			}
			for _, x := range step.Targets {
				_, wanted := want[x]
				if step.Class == pacer.ClassRegister && !wanted || step.Class == pacer.ClassDeregister && wanted {
					t.Fatalf("%v of %v; wanted: %v", step.Class, x, wanted)
				}
			}
			apply(have, step, now)
		}
		goal := map[target.Target]bool{}
		for x := range want {
			goal[x] = true
		}
		if diff := cmp.Diff(goal, present(have)); diff != "" {
			t.Fatalf("registered (-want +got):\n%s", diff)
		}
	})
}

// TestPlan_doesNothingAtTheGoal: Plan(want, want) is empty.
func TestPlan_doesNothingAtTheGoal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := wantPorts(rapid.SliceOfDistinct(genPort(), rapid.ID).Draw(t, "want")...)
		have := map[target.Target]State{}
		for x := range want {
			have[x] = State{Phase: ledger.Registered}
		}
		before := maps.Clone(have)
		if got := Plan(want, have, Conditions{}, epoch); got.Class != pacer.ClassNone || !got.At.IsZero() {
			t.Fatalf("Plan(want, want) = %v", got)
		}
		if diff := cmp.Diff(before, have); diff != "" {
			t.Fatalf("Plan changed its input:\n%s", diff)
		}
	})
}
