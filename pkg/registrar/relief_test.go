package registrar_test

import (
	"fmt"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
)

// A failure is nobody's trouble any more when what failed is not to be done any more: the status says so without a call.
func TestRegistrar_relieved(t *testing.T) {
	for code, state := range map[string]string{
		"TooManyTargets": registrar.StateFull, "AccessDenied": registrar.StateDenied, "Throttling": registrar.StateThrottled,
	} {
		t.Run(code, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.want("web", 1)
				w.after(15 * time.Minute) // no look is due soon
				w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: code, Action: "RegisterTargets"})
				w.want("web", 1, 2)
				w.after(10 * time.Second)
				if g := w.group("web"); g.State != state {
					t.Errorf("status is %s; want %s", g.State, state)
				}
				w.want("web", 1)
				before := len(w.writes())
				w.after(time.Minute)
				if g := w.group("web"); g.State != registrar.StateOK || g.Err != "" || len(w.writes()) != before {
					t.Errorf("status is %s: %s, after %v; want ok without another write", g.State, g.Err, w.writes()[before:])
				}
			}, web())
		})
	}
}

// A container that comes and goes where it is denied makes no call each time.
func TestRegistrar_comesAndGoesDenied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(5 * time.Minute)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "AccessDenied", Action: "RegisterTargets"})
		before := len(w.writes())
		for i := range 6 * 60 {
			w.want("web", 1, wanted("web", uint16(100+i), fmt.Sprint("loop", i)))
			w.after(5 * time.Second)
			w.want("web", 1)
			w.after(5 * time.Second)
		}
		if n := len(w.writes()) - before; n > 25 {
			t.Errorf("%d calls within an hour; want them further and further apart, up to 5 min", n)
		}
		w.sim.ClearFaults()
		w.after(2 * time.Hour)
		w.want("web", 1, 2)
		w.after(2 * time.Second)
		w.registered("web", 1, 2)
	}, web())
}

// A group that is gone is gone also when nothing is to be done in it, until a look says otherwise.
func TestRegistrar_goneWithNothingToDo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(5 * time.Minute)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "TargetGroupNotFound", TargetGroup: "web"})
		w.want("web", 1, 2)
		w.after(10 * time.Second)
		w.want("web", 1)
		w.after(2 * time.Minute)
		if g := w.group("web"); g.State != registrar.StateGone {
			t.Errorf("status is %s: %s; want gone", g.State, g.Err)
		}
		w.sim.ClearFaults()
		w.after(30 * time.Minute)
		if g := w.group("web"); g.State != registrar.StateOK {
			t.Errorf("status is %s: %s; want ok after a look", g.State, g.Err)
		}
	}, web())
}
