package registrar_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/pkg/registrar/ledger"
)

// refusal is a fault that has calls of one action refused: they certainly take no effect.
func refusal(action, code string) elbsim.Fault {
	return elbsim.Fault{Kind: elbsim.FaultError, Action: action, Code: code, Status: 400}
}

// phases are the targets of a group as its status has them, by port.
func (w *world) phases(group string) map[uint16]ledger.Phase {
	w.t.Helper()
	out := map[uint16]ledger.Phase{}
	for _, x := range w.group(group).Targets {
		out[x.Target.Port] = x.Phase
	}
	return out
}

func (w *world) unchanged(what string, want, got any) {
	w.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-before +after):\n%s", what, diff)
	}
}

// A target was deregistered, and that took no effect. It is wanted again for a moment, and its registration is refused:
// the removal is still looked after, and made good when the look comes.
func TestRegistrar_refusedRegistrationKeepsARemoval(t *testing.T) {
	for _, code := range []string{"Throttling", "AccessDenied", "TooManyTargets", "InvalidTarget", "ExpiredToken", "ValidationError"} {
		for _, restarted := range []bool{false, true} {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.want("web", 1)
				w.after(2 * time.Minute)
				w.want()
				w.after(2 * time.Second)
				phases, entries := w.phases("web"), w.ledger.Entries()
				if len(entries) != 1 || entries[0].Phase != ledger.Removing || phases[1] != ledger.Removing {
					t.Fatalf("the ledger has %+v, the status %v; want the target, leaving", entries, phases)
				}
				w.fault(refusal("RegisterTargets", code))
				w.want("web", 1)
				w.after(time.Second)
				if n := len(w.calls("RegisterTargets")); n < 2 {
					t.Fatalf("%s: not registered again: %v", code, w.writes())
				}
				w.unchanged(code+": status while it is wanted", phases, w.phases("web"))
				w.want()
				w.after(time.Second)
				w.unchanged(code+": status", phases, w.phases("web"))
				w.unchanged(code+": ledger", entries, w.ledger.Entries())
				w.foreign("web", 1) // its removal took no effect
				if restarted {
					w.stop()
					w.start()
					w.want()
				}
				w.after(2 * time.Minute)
				w.registered("web")
				w.foreignStands("web")
			}, web())
		}
	}
}

// A target that drains stays visible until it is gone, though a registration of it was refused meanwhile: else whoever
// waits for it to be gone is told so too early.
func TestRegistrar_refusedRegistrationKeepsADraining(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Minute)
		w.want()
		defer w.reg.Follow([]string{"web"})()
		w.after(30 * time.Second)
		before := w.group("web").Targets
		if len(before) != 1 || before[0].Phase != ledger.Removing || before[0].Health != "draining" {
			t.Fatalf("targets %+v; want one that drains", before)
		}
		w.fault(refusal("RegisterTargets", "Throttling"))
		w.want("web", 1)
		w.after(time.Second)
		w.want()
		w.after(time.Second)
		if n := len(w.calls("RegisterTargets")); n < 2 {
			t.Fatalf("not registered again: %v", w.writes())
		}
		w.unchanged("targets", before, w.group("web").Targets)
		w.after(50 * time.Minute)
		w.unchanged("targets", before, w.group("web").Targets)
		w.after(20 * time.Minute)
		if after := w.group("web").Targets; len(after) != 0 {
			t.Errorf("targets %+v; want none: it is gone", after)
		}
	}, elbsim.Group{Name: "web", DeregistrationDelay: time.Hour})
}

// A registration of somebody else's target that is refused leaves it somebody else's.
func TestRegistrar_refusedRegistrationKeepsTheUnclaimed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 5)
		w.start()
		w.want()
		w.after(5 * time.Second)
		before := w.group("web").Unclaimed
		if len(before) != 1 {
			t.Fatalf("unclaimed %v; want one", before)
		}
		w.fault(refusal("RegisterTargets", "AccessDenied"))
		w.fault(refusal("DescribeTargetHealth", "Throttling"))
		w.want("web", 5)
		w.after(time.Second)
		w.want()
		w.after(time.Second)
		if n := len(w.calls("RegisterTargets")); n != 1 {
			t.Fatalf("%d registrations; want one", n)
		}
		w.unchanged("unclaimed", before, w.group("web").Unclaimed)
		w.registered("web", 5)
	}, web())
}

// A deregistration that is refused leaves the target registered, as it was, once the ledger had it in doubt while the call
// was under way.
func TestRegistrar_refusedDeregistration(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(10 * time.Minute)
		targets, entries := w.group("web").Targets, w.ledger.Entries()
		w.fault(refusal("DeregisterTargets", "AccessDenied"))
		w.fault(elbsim.Fault{Kind: elbsim.FaultLatency, Action: "DeregisterTargets", Delay: elbsim.Duration(time.Second)})
		w.fault(refusal("DescribeTargetHealth", "Throttling"))
		w.want()
		w.after(500 * time.Millisecond)
		if e := w.ledger.Entries(); len(e) != 1 || e[0].Phase != ledger.Intended {
			t.Errorf("while the call is under way the ledger has %+v; want it intended", e)
		}
		w.after(time.Second)
		for i := range targets {
			targets[i].Wants = nil // which it has no more
		}
		w.unchanged("targets", targets, w.group("web").Targets)
		w.unchanged("ledger", entries, w.ledger.Entries())
		w.called("RegisterTargets web 1", "DeregisterTargets web 1")
	}, web())
}

// A claim that passes to another run while a call is under way has passed, whatever becomes of the call.
func TestRegistrar_claimPassesDuringACall(t *testing.T) {
	slow := func(action string) elbsim.Fault {
		return elbsim.Fault{Kind: elbsim.FaultLatency, Action: action, Delay: elbsim.Duration(time.Second)}
	}
	next := wanted("web", 2, "next")
	for _, tt := range []struct {
		name   string
		faults []elbsim.Fault
		before []any // wanted before the call, as the arguments of want
		call   []any // wanted when it begins
	}{
		{
			name:   "deregistration refused",
			faults: []elbsim.Fault{slow("DeregisterTargets"), refusal("DeregisterTargets", "AccessDenied")},
			before: []any{"web", 1, 2}, call: []any{"web", 1},
		},
		{
			name:   "registration accepted",
			faults: []elbsim.Fault{slow("RegisterTargets")},
			before: []any{"web", 1}, call: []any{"web", 1, 2},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.want(tt.before...)
				w.after(2 * time.Minute)
				for _, f := range tt.faults {
					w.fault(f)
				}
				w.want(tt.call...)
				w.after(500 * time.Millisecond)
				w.want("web", 1, next)
				w.after(2 * time.Second)
				w.registered("web", 1, 2)
				e := w.ledger.Entries()
				if len(e) != 2 || !e[1].Run.Same(next.Run) || e[1].Phase != ledger.Registered {
					t.Errorf("the ledger has %+v; want port 2 registered for the next run", e)
				}
			}, web())
		})
	}
}

// A removal that fails at once, and may have taken effect: whoever comes next must not take its target for registered.
func TestRegistrar_removalOfUnknownOutcomeIsNotedAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Minute)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "DeregisterTargets", Code: "InternalFailure", Status: 500})
		w.want()
		w.after(time.Millisecond)
		if e := w.ledger.Entries(); len(w.calls("DeregisterTargets")) != 1 || len(e) != 1 || e[0].Phase != ledger.Intended {
			t.Errorf("a millisecond after the call the ledger has %+v; want one intended", e)
		}
	}, web())
}
