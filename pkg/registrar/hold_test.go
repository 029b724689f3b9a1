package registrar_test

// What the group before keeps for a key that names another one, whatever happens to the key's containers meanwhile.

import (
	"net/netip"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/registrar/elb"
)

// refuseIn has AWS refuse each registration in one group.
func (w *world) refuseIn(name string) {
	w.t.Helper()
	w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "AccessDenied", Status: 403, TargetGroup: name})
}

// movedToARefusing is a world in which the container 1 of web is in the group web, and web names web2, which refuses.
func (w *world) movedToARefusing() {
	w.t.Helper()
	w.addGroup(elbsim.Group{Name: "web2"})
	w.start()
	w.want("web", 1)
	w.after(time.Minute)
	w.refuseIn("web2")
	w.renamed("web2")
	w.want("web", 1)
	w.after(time.Minute)
	w.registered("web", 1)
}

// The only container is replaced while the new group refuses: for a moment nothing is wanted, and that proves no move.
func TestRegistrar_replacedWhileTheNewGroupRefuses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.movedToARefusing()
		w.want()
		w.after(2 * time.Second)
		w.registered("web")
		w.want("web", 2)
		w.after(time.Hour)
		w.registered("web", 2)
		w.sim.ClearFaults()
		w.after(time.Hour)
		w.registered("web")
		w.registered("web2", 2)
	}, web())
}

// After a restart nobody has looked at the container yet: what it wants is not known, and it is not taken for nothing.
func TestRegistrar_notInspectedYetWhileTheNewGroupRefuses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.movedToARefusing()
		w.stop()
		w.start()
		w.d.Unknown = []string{"c1"}
		w.want()
		w.after(10 * time.Second)
		w.registered("web", 1)
		w.d.Unknown = nil
		w.want("web", 1)
		w.after(time.Hour)
		w.registered("web", 1)
	}, web())
}

// It leaves the group before no sooner than the new one has it, where that takes it, too.
func TestRegistrar_notInspectedYetInAMove(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		w.start()
		w.want("web", 1)
		w.after(time.Minute)
		w.stop()
		w.renamed("web2")
		w.start()
		w.d.Unknown = []string{"c1"}
		w.want()
		w.after(10 * time.Second)
		w.d.Unknown = nil
		w.want("web", 1)
		w.after(10 * time.Second)
		w.called("RegisterTargets web 1", "RegisterTargets web2 1", "DeregisterTargets web 1")
	}, web())
}

// The groups have addresses for their targets, and after the restart this host does not know its own yet.
func TestRegistrar_addressNotKnownYetInAMove(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::10")
	for _, family := range []string{"ipv4", "ipv6"} {
		inWorld(t, func(t *testing.T, w *world) {
			w.addGroup(elbsim.Group{Name: "web2", Type: "ip", IPAddressType: family})
			self := wholeSelf()
			self.Address6 = v6
			w.know = func(s *elb.Self) { s.Address6 = v6 }
			w.start()
			w.want("web", 1)
			w.after(time.Minute)
			w.stop()
			w.renamed("web2")
			w.know = func(s *elb.Self) { s.Account, s.Address4 = "", netip.Addr{} }
			w.start()
			w.want("web", 1)
			w.after(10 * time.Minute)
			if n := len(w.sim.Registered("web")); n != 1 {
				t.Errorf("%s: %d in the group before while the address is not known; want its target", family, n)
			}
			w.reg.Identify(self)
			w.apply()
			w.after(10 * time.Second)
			w.called("RegisterTargets web 1", "RegisterTargets web2 1", "DeregisterTargets web 1")
		}, elbsim.Group{Name: "web", Type: "ip", IPAddressType: family})
	}
}

// The group before is another key's by now: what it has of the one that left stays until its new group has it, and nothing
// new comes in.
func TestRegistrar_groupThatIsAnotherKeysTakesNothingIn(t *testing.T) {
	for name, groups := range map[string][]elb.Group{
		"the reference is not found": {{Key: "web", Name: "wbe"}, {Key: "api", Name: "web"}},
		"the new group refuses":      {{Key: "web", Name: "api"}, {Key: "api", Name: "web"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.want("web", 1, "api", 5)
				w.after(time.Minute)
				w.refuseIn("api")
				w.groups = groups
				w.want("web", 1, "api", 5)
				w.after(time.Minute)
				w.registered("web", 1, 5)
				w.want("web", 1, 2, "api", 5)
				w.after(time.Hour)
				w.registered("web", 1, 5)
				w.want("web", 2, "api", 5)
				w.after(time.Hour)
				w.registered("web", 5)
			}, web(), api())
		})
	}
}

// A key takes over the group of another, and its container, in one change: what is new of the other goes to its own group alone.
func TestRegistrar_groupIsTakenOverWhileTheKeyMoves(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		w.start()
		w.want("web", 1)
		w.after(time.Minute)
		w.groups = []elb.Group{{Key: "api", Name: "web"}, {Key: "web", Name: "web2"}}
		w.want("api", 1, "web", 2)
		w.after(time.Minute)
		w.called("RegisterTargets web 1", "RegisterTargets web2 2")
	}, web())
}
