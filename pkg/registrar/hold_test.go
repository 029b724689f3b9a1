package registrar_test

// What the group before keeps for a key that names another one, whatever happens to the key's containers meanwhile.

import (
	"net/netip"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
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

// Two wrong references in a row, the first to a group that refuses: it has nothing of the key, and the one that serves takes in
// what is new.
func TestRegistrar_twoWrongReferencesInARow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.movedToARefusing()
		w.renamed("wbe")
		w.want("web", 1)
		w.after(time.Minute)
		w.want("web", 1, 2)
		w.after(time.Hour)
		w.registered("web", 1, 2)
		w.want()
		w.after(time.Minute)
		w.want("web", 3)
		w.after(time.Hour)
		w.registered("web", 3)
	}, web())
}

// removedAtTheBoot ends the agent with all that is registered, and has that removed as `berth boot` does.
func removedAtTheBoot(w *world) {
	w.t.Helper()
	w.stop()
	api, _, _ := w.connect(w.t.Context())
	if n, err := registrar.RemoveStale(w.t.Context(), api, w.ledger, w.ledger.Entries(), registrar.Options{}); n != 1 || err != nil {
		w.t.Fatal(n, err)
	}
}

// The containers of a key end before the agent does, as in a reboot: the next one knows which group served the key, whether it
// ended well, was killed, or `berth boot` has removed what was left.
func TestRegistrar_rebootWithoutContainers(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"in good order": func(w *world) {
			w.want()
			w.after(10 * time.Minute)
			w.stop()
		},
		"removed at the boot": removedAtTheBoot,
		"removed at the boot, by an older agent": func(w *world) {
			removedAtTheBoot(w)
			w.ledger.NoteServes(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.want("web", 1)
				w.after(time.Minute)
				w.renamed("wbe")
				w.want("web", 1)
				w.after(time.Minute)
				end(w)
				w.registered("web")
				w.startWith(registrar.Options{BootID: "boot-2"}, func(api elb.API) elb.API { return api })
				w.want("web")
				w.after(time.Minute)
				w.want("web", 2)
				w.after(time.Hour)
				w.registered("web", 2)
				if g, _ := w.heldBy("web"); g.Name != "web" {
					t.Errorf("held by %q; want the group web", g.Name)
				}
				w.groups = nil
				w.want()
				w.after(time.Hour)
				w.registered("web")
				if kept := w.ledger.Serves(); len(kept) > 0 {
					t.Errorf("the ledger has %v; want nothing of a key that is gone", kept)
				}
			}, web())
		})
	}
}

// That the new group has accepted some is not forgotten with the containers that it had: nothing new comes in to the one before.
func TestRegistrar_acceptedOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		arn := w.sim.GroupARN("web2")
		w.startWith(registrar.Options{}, func(api elb.API) elb.API { return pickyIn{picky{api}, arn} })
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.renamed("web2")
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.registered("web", 1)
		w.registered("web2", 2)
		w.want("web", 1)
		w.after(time.Hour)
		w.refuseIn("web2")
		w.want("web", 1, 3)
		w.after(time.Minute)
		w.registered("web", 1)
		w.registered("web2")
	}, web())
}

// A container changes its key, without a call. The ledger knows it, should that key's reference be wrong later.
func TestRegistrar_containerThatChangesItsKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.groups = []elb.Group{{Key: "a", Name: "web"}, {Key: "b", Name: "web"}}
		w.start()
		w.want("a", 1, 2)
		w.after(time.Minute)
		w.want("a", 1, "b", 2)
		w.after(time.Second)
		if e := w.ledger.Entries(); len(e) != 2 || e[1].Group.Key != "b" {
			t.Errorf("the ledger has %+v; want port 2 under b", e)
		}
		w.stop()
		w.groups = []elb.Group{{Key: "a", Name: "web"}, {Key: "b", Name: "wbe"}}
		w.start()
		w.want("a", 1, "b", 2)
		w.after(time.Hour)
		w.registered("web", 1, 2)
	}, web())
}

// Each time that a key begins to wait for another group is in the log, and each end.
func TestRegistrar_saysEachHold(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Minute)
		for range 2 {
			for _, name := range []string{"wbe", "web"} {
				w.renamed(name)
				w.want("web", 1)
				w.after(time.Minute)
			}
		}
		begun, ended := w.logs.FilterMessageSnippet("names another target group").Len(), w.logs.FilterMessageSnippet("no longer held").Len()
		if begun != 2 || ended != 2 {
			t.Errorf("the log has %d that begin and %d that end; want two of each", begun, ended)
		}
	}, web())
}

// The group of a key without containers is deleted, and made anew under its name: what does not exist is held for nobody.
func TestRegistrar_groupMadeAnewIsNotHeld(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Minute)
		w.want()
		w.after(time.Hour)
		deleteGroup(t, w, w.sim.GroupARN("web"))
		w.addGroup(web())
		w.after(72 * time.Hour) // nothing of ours is there: it is looked at seldom
		s, _ := w.reg.Snapshot()
		if len(s.Groups) != 1 || s.Groups[0].State != registrar.StateOK || s.Groups[0].ARN != w.sim.GroupARN("web") {
			t.Errorf("status %+v; want the new group alone, ok", s.Groups)
		}
		w.want("web", 2)
		w.after(time.Minute)
		w.registered("web", 2)
	}, web())
}
