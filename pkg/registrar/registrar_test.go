package registrar_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

func TestRegistrar_follows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2)
		w.after(time.Second)
		w.registered("web", 1, 2)
		w.want("web", 2, 3)
		w.after(3 * time.Second)
		w.registered("web", 2, 3)
		w.want()
		w.after(time.Second)
		w.registered("web")
		w.called("RegisterTargets web 1 2", "DeregisterTargets web 1", "RegisterTargets web 3", "DeregisterTargets web 2 3")
	}, web())
}

func TestRegistrar_groupsAreApart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.fault(elbsim.Fault{Kind: elbsim.FaultHang, TargetGroup: "web"})
		w.start()
		w.want("web", 1, "api", 2)
		w.after(time.Second)
		w.registered("api", 2)
	}, web(), api())
}

// TestRegistrar_oneReconcilerForTwoKeys: two keys may name one group, by name and by ARN; and giving a key another
// name makes no call at all.
func TestRegistrar_oneReconcilerForTwoKeys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.groups = append(w.groups, elb.Group{Key: "same", ARN: w.sim.GroupARN("web")})
		w.start()
		w.want("web", 1, "same", 2)
		w.after(2 * time.Second)
		w.registered("web", 1, 2)
		if g := w.group("same"); len(g.Keys) != 2 || len(g.Targets) != 2 {
			t.Errorf("status of both keys is %+v; want one group with two keys and two targets", g)
		}
		w.after(10 * time.Minute)
		w.sim.ResetCalls()
		w.groups = []elb.Group{{Key: "renamed", Name: "web"}}
		w.want("renamed", 1, 2)
		w.after(20 * time.Second)
		w.registered("web", 1, 2)
		if calls := w.calls("RegisterTargets", "DeregisterTargets", "DescribeTargetGroups"); len(calls) > 0 {
			t.Errorf("renaming a key made calls: %v", calls) // a verification may come due at the same time
		}
	}, web())
}

// TestRegistrar_namedAnotherWay: a group that is served by name is then named by its ARN: its targets stay throughout.
func TestRegistrar_namedAnotherWay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "AccessDenied", Action: "DescribeTargetGroups"})
		w.groups = []elb.Group{{Key: "web", ARN: w.sim.GroupARN("web")}}
		w.want("web", 1)
		w.after(time.Hour)
		w.registered("web", 1)
		w.called("RegisterTargets web 1")
	}, web())
}

// TestRegistrar_newRunSamePort: the port passed from one container to another in the same group. The target is right
// as it is.
func TestRegistrar_newRunSamePort(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", wanted("web", 1, "old"))
		w.after(time.Second)
		w.want("web", wanted("web", 1, "new"))
		w.after(time.Second)
		w.called("RegisterTargets web 1")
		if entries := w.ledger.Entries(); len(entries) != 1 || entries[0].Run.ID != "new" {
			t.Errorf("ledger has %+v; want the one claim to be the new run's", entries)
		}
	}, web())
}

// TestRegistrar_removedWhileRegistering: a write in flight is waited for, not cancelled, and what it did is undone.
func TestRegistrar_removedWhileRegistering(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Second)
		w.sim.SetLatency(2 * time.Second)
		w.want("web", 1)
		w.after(500 * time.Millisecond)
		w.want()
		w.after(time.Second)
		w.called("RegisterTargets web 1")
		w.after(4 * time.Second)
		w.registered("web")
		w.called("RegisterTargets web 1", "DeregisterTargets web 1")
	}, web())
}

// TestRegistrar_replyLost: a registration took effect and its reply was lost while the container died.
func TestRegistrar_replyLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultLost, Action: "RegisterTargets", Times: 1})
		w.want("web", 1)
		w.after(time.Second)
		w.want()
		w.after(5 * time.Second)
		w.registered("web")
		if entries := w.ledger.Entries(); len(entries) != 1 {
			t.Errorf("the ledger has %+v while the outcome is in doubt; want the entry kept", entries)
		}
		w.after(2 * time.Minute)
		if entries := w.ledger.Entries(); len(entries) != 0 {
			t.Errorf("the ledger still has %+v after the removal was confirmed", entries)
		}
	}, web())
}

// TestRegistrar_registeredLate: a registration whose reply timed out lands after our deregistration. The look at the
// end of the doubt finds it.
func TestRegistrar_registeredLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultLate, Delay: elbsim.Duration(20 * time.Second), Action: "RegisterTargets", Times: 1})
		w.want("web", 1)
		w.after(time.Second)
		w.want()
		w.after(10 * time.Second)
		w.registered("web") // deregistered, and not registered yet
		w.after(10 * time.Second)
		w.registered("web", 1) // here it is
		w.after(30 * time.Second)
		w.registered("web")
		w.called("RegisterTargets web 1", "DeregisterTargets web 1", "DeregisterTargets web 1")
	}, web())
}

// TestRegistrar_removedLate: a deregistration whose reply timed out lands after the port was registered again.
func TestRegistrar_removedLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultLate, Delay: elbsim.Duration(20 * time.Second), Action: "DeregisterTargets", Times: 1})
		w.want()
		w.after(time.Second)
		w.want("web", wanted("web", 1, "next"))
		w.after(10 * time.Second)
		w.registered("web", 1)
		w.after(57 * time.Second)
		w.registered("web", 1)
		w.called("RegisterTargets web 1", "DeregisterTargets web 1", "RegisterTargets web 1", "RegisterTargets web 1")
	}, web())
}

// TestRegistrar_deniedRemoval: what cannot be removed holds nothing up that is to be added.
func TestRegistrar_deniedRemoval(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "AccessDenied", Action: "DeregisterTargets"})
		w.want("web", 2)
		w.after(3 * time.Second)
		w.registered("web", 1, 2)
		g := w.group("web")
		if g.State != registrar.StateDenied || !strings.Contains(g.Change, "elasticloadbalancing:DeregisterTargets on "+w.sim.GroupARN("web")) {
			t.Errorf("status is %s: %q; want denied, naming action and ARN", g.State, g.Change)
		}
		w.after(time.Hour)
		if n := len(w.calls("DeregisterTargets")); n < 5 || n > 30 {
			t.Errorf("%d attempts in an hour; want a slow retry", n)
		}
		w.sim.ClearFaults()
		w.after(6 * time.Minute)
		w.registered("web", 2)
		if g := w.group("web"); g.State != registrar.StateOK {
			t.Errorf("status is still %s: %s", g.State, g.Err)
		}
	}, web())
}

func TestRegistrar_full(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "TooManyTargets", Action: "RegisterTargets"})
		w.want("web", 1, 2)
		w.after(time.Second)
		if g := w.group("web"); g.State != registrar.StateFull {
			t.Errorf("status is %s", g.State)
		}
		w.sim.ClearFaults()
		w.want("web", 2) // the removal makes room: the registration does not wait out its hold
		w.after(3 * time.Second)
		w.registered("web", 2)
	}, web())
}

// TestRegistrar_removedByHand: somebody else deregisters our target: the next verification registers it again.
func TestRegistrar_removedByHand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(3 * time.Minute)
		if err := w.sim.Deregister("web", target.Target{ID: instance, Port: 1}); err != nil {
			t.Fatal(err)
		}
		w.after(7 * time.Minute)
		w.registered("web", 1)
		w.called("RegisterTargets web 1", "RegisterTargets web 1")
		if n := w.logs.FilterMessageSnippet("no longer registered").Len(); n != 1 {
			t.Errorf("logged %d times; want once", n)
		}
	}, web())
}

// TestRegistrar_foreign: what is not ours stays, whoever's it is.
func TestRegistrar_foreign(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 7, 8)
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		w.want()
		w.after(30 * time.Hour)
		w.registered("web", 7, 8)
		w.foreignStands("web")
		want := []target.Target{{ID: instance, Port: 7}, {ID: instance, Port: 8}}
		if diff := cmp.Diff(want, w.group("web").Unclaimed); diff != "" {
			t.Errorf("unclaimed (-want +got):\n%s", diff)
		}
	}, web())
}

func TestRegistrar_ownershipInstance(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.groups[0].Ownership = elb.OwnInstance
		w.foreign("web", 7, 8)
		w.start()
		w.want("web", 8)
		w.after(5 * time.Second)
		w.registered("web", 8)
		w.foreignStands("web")
		w.called("DeregisterTargets web 7")
	}, web())
}

// TestRegistrar_staleByProof: Docker gave the port of an unclaimed target to a container that is not wanted there.
func TestRegistrar_staleByProof(t *testing.T) {
	allot := func(w *world, port uint16, protocol target.Protocol) {
		w.d.Allotted = []target.Allotment{{Run: run("stranger"), HostPort: port, Protocol: protocol, Proof: true}}
	}
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 7, 8, 9)
		w.start()
		allot(w, 7, target.TCP)
		w.want("web", 9)
		w.after(5 * time.Second)
		w.registered("web", 8, 9)
		w.called("DeregisterTargets web 7")
		allot(w, 8, target.UDP) // an HTTP group has nothing to do with that
		w.want("web", 9)
		w.after(5 * time.Second)
		w.registered("web", 8, 9)
		allot(w, 8, target.TCP)
		w.want("web", 9)
		w.after(5 * time.Second)
		w.registered("web", 9)
		w.foreignStands("web")
		w.called("DeregisterTargets web 7", "DeregisterTargets web 8")
	}, web())
}

// TestRegistrar_adopts: what is wanted and registered already is ours from then on, without a call.
func TestRegistrar_adopts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 1, 2)
		w.start()
		w.want("web", 1, 2)
		w.after(5 * time.Second)
		w.called()
		w.want("web", 2)
		w.after(5 * time.Second)
		w.registered("web", 2)
		if g := w.group("web"); len(g.Unclaimed) != 0 {
			t.Errorf("unclaimed: %v", g.Unclaimed)
		}
	}, web())
}

// TestRegistrar_restart: a fresh process with the ledger of the last one removes the stale first, without asking
// anybody, and leaves alone what is right.
func TestRegistrar_restart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.stop()
		w.sim.ResetCalls()
		w.start()
		w.want("web", 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 2, 3)
		w.called("DeregisterTargets web 1", "RegisterTargets web 3")
		if first := w.calls()[0]; first != "DeregisterTargets web 1" {
			t.Errorf("the first call was %s", first)
		}
	}, web())
}

// TestRegistrar_restartWithNothingToDo costs no call at once, and one or two looks within ten minutes.
func TestRegistrar_restartWithNothingToDo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(10 * time.Minute)
		w.stop()
		w.sim.ResetCalls()
		w.start()
		w.want("web", 1)
		w.after(10 * time.Minute)
		w.called()
		if n := len(w.calls()); n == 0 || n > 6 {
			t.Errorf("%d calls in the ten minutes after a restart: %v", n, w.calls())
		}
	}, web())
}

// TestRegistrar_otherBoot: the ledger of an earlier boot proves nothing: what is wanted is registered again.
func TestRegistrar_otherBoot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		arn := w.sim.GroupARN("web")
		entry := func(port uint16) ledger.Entry {
			return ledger.Entry{
				Group: w.groups[0], Facts: elb.Facts{ARN: arn, Name: "web", TargetType: "instance", Protocol: "HTTP"},
				Target: target.Target{ID: instance, Port: port}, Run: run("before"), Phase: ledger.Registered, BootID: "boot-0",
			}
		}
		w.ledger.Record([]ledger.Entry{entry(1), entry(2)})
		w.foreign("web", 1) // 2 is gone from the group meanwhile
		w.start()
		w.want("web", wanted("web", 2, "after"))
		w.after(5 * time.Second)
		w.registered("web", 2)
		w.called("DeregisterTargets web 1", "RegisterTargets web 2")
	}, web())
}

// TestRegistrar_notComputed: a group whose wants the snapshot does not name keeps what it has.
func TestRegistrar_notComputed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		w.d.Wants = map[string][]target.Want{}
		w.apply()
		w.after(time.Hour)
		w.registered("web", 1)
	}, web())
}

// TestRegistrar_unknownContainer: a container that no inspection has answered for keeps what is registered for it,
// unless its port has passed to another.
func TestRegistrar_unknownContainer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2)
		w.after(time.Second)
		w.stop()
		w.start()
		w.d.Unknown = []string{"c1", "c2"}
		w.d.Allotted = []target.Allotment{{Run: run("stranger"), HostPort: 2}}
		w.want()
		w.after(time.Minute)
		w.registered("web", 1)
		w.d.Unknown = nil
		w.want()
		w.after(5 * time.Second)
		w.registered("web")
	}, web())
}

// TestRegistrar_groupLeaves: a group that leaves the configuration is emptied of what is ours, and forgotten.
func TestRegistrar_groupLeaves(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 9)
		w.start()
		w.want("web", 1, "api", 2)
		w.after(2 * time.Second)
		w.groups = w.groups[1:]
		w.want("api", 2)
		w.after(2 * time.Minute)
		w.registered("web", 9)
		w.registered("api", 2)
		w.foreignStands("web")
		if s, _ := w.reg.Snapshot(); len(s.Groups) != 1 {
			t.Errorf("status still has %d groups", len(s.Groups))
		}
		w.groups = append(w.groups, elb.Group{Key: "web", Name: "web"})
		w.want("web", 1, "api", 2)
		w.after(5 * time.Second)
		w.registered("web", 1, 9)
	}, web(), api())
}

// TestRegistrar_leftWhileStopped: the group left the configuration while no agent ran.
func TestRegistrar_leftWhileStopped(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, "api", 2)
		w.after(2 * time.Second)
		w.stop()
		w.groups = w.groups[1:]
		w.start()
		w.want("api", 2)
		w.after(2 * time.Minute)
		w.registered("web")
		w.registered("api", 2)
	}, web(), api())
}

func TestRegistrar_groupNotFound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.groups = append(w.groups, elb.Group{Key: "later", Name: "later-prod", Source: "/etc/berth/conf.d/later.yaml:3"})
		w.start()
		w.want("web", 1, "later", 2)
		w.after(time.Second)
		w.registered("web", 1)
		g := w.group("later")
		if g.State != registrar.StateGone || !g.Tried || !strings.Contains(g.Change, "/etc/berth/conf.d/later.yaml:3") {
			t.Errorf("status is %+v; want gone, naming the line to change", g)
		}
		w.addGroup(elbsim.Group{Name: "later-prod"})
		w.after(6 * time.Minute)
		w.registered("later-prod", 2)
		if n := w.logs.FilterMessage("cannot find the target group").Len(); n != 1 {
			t.Errorf("logged %d times; want once", n)
		}
	}, web())
}

// TestRegistrar_groupMadeAnew: deleted, and created again under its name. It has another ARN, and is found within
// one verification.
func TestRegistrar_groupMadeAnew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(3 * time.Minute)
		before := w.sim.GroupARN("web")
		deleteGroup(t, w, before)
		w.addGroup(web())
		if w.sim.GroupARN("web") == before {
			t.Fatal("the new group has the old ARN")
		}
		w.after(10 * time.Minute)
		w.registered("web", 1)
		if g := w.group("web"); g.State != registrar.StateOK || g.ARN == before {
			t.Errorf("status is %s of %s", g.State, g.ARN)
		}
		if n := len(w.ledger.Entries()); n != 2 {
			t.Errorf("the ledger has %d entries; want the new group's, and for a day the old one's", n)
		}
		w.after(26 * time.Hour)
		if entries := w.ledger.Entries(); len(entries) != 1 || entries[0].Facts.ARN == before {
			t.Errorf("the ledger has %+v after a day; want the new group's entry alone", entries)
		}
	}, web())
}

// TestRegistrar_ipTarget: a draining ip target is registered again only when it is gone.
func TestRegistrar_ipTarget(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("ips", 1)
		w.after(2 * time.Second)
		if got := w.sim.Registered("ips"); len(got) != 1 || got[0] != (target.Target{ID: "10.0.0.10", Port: 1}) {
			t.Fatalf("registered %v; want the host's address", got)
		}
		w.want()
		w.after(2 * time.Second)
		w.want("ips", wanted("ips", 1, "next"))
		w.after(50 * time.Second)
		if got := w.sim.Registered("ips"); len(got) != 0 {
			t.Fatalf("registered %v while it drains", got)
		}
		w.after(2 * time.Minute)
		if got := w.sim.Registered("ips"); len(got) != 1 {
			t.Errorf("registered %v after it was gone; want it back", got)
		}
	}, elbsim.Group{Name: "ips", Type: "ip", DeregistrationDelay: time.Minute})
}

// TestRegistrar_drainingComesBack: an instance target that drains is registered again at once.
func TestRegistrar_drainingComesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Second)
		w.want()
		w.after(2 * time.Second)
		w.want("web", wanted("web", 1, "next"))
		w.after(2 * time.Second)
		w.registered("web", 1)
	}, web())
}

// TestRegistrar_stops: Run returns when the write in flight has been answered, and begins none after.
func TestRegistrar_stops(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Second)
		w.sim.SetLatency(2 * time.Second)
		w.want("web", 1)
		w.after(time.Second)
		w.want("web", 1, 2)
		begun := time.Now()
		w.stop()
		if took := time.Since(begun); took < time.Second-time.Millisecond || took > 3*time.Second {
			t.Errorf("Run took %v to end; want the second that the reply still took", took)
		}
		w.registered("web", 1)
		if e := w.ledger.Entries(); len(e) != 1 || e[0].Phase != ledger.Registered {
			t.Errorf("the ledger has %+v; want the one target, confirmed", e)
		}
	}, web())
}

// TestRegistrar_coalesces: what comes while the rate holds it up goes out in one call.
func TestRegistrar_coalesces(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Minute)
		var ports []any
		for p := 1; p <= 30; p++ {
			ports = append(ports, p)
			w.want(append([]any{"web"}, ports...)...)
			w.after(100 * time.Millisecond)
		}
		w.after(5 * time.Second)
		if got := len(w.sim.Registered("web")); got != 30 {
			t.Errorf("%d of 30 registered", got)
		}
		if n := len(w.writes()); n > 8 {
			t.Errorf("%d calls for 30 containers within 3 s: %v", n, w.writes())
		}
	}, web())
}

// TestRegistrar_throttled: every call of the account is throttled for a while. All is registered in the end, and few
// calls were made.
func TestRegistrar_throttled(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Minute)
		w.sim.ResetCalls()
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "Throttling"})
		w.want("web", 1, "api", 2)
		w.after(5 * time.Minute)
		if n := len(w.calls()); n > 40 {
			t.Errorf("%d calls in five minutes of throttling", n)
		}
		if g := w.group("web"); g.State != registrar.StateThrottled {
			t.Errorf("status is %s", g.State)
		}
		w.sim.ClearFaults()
		w.after(2 * time.Minute)
		w.registered("web", 1)
		w.registered("api", 2)
	}, web(), api())
}

// TestRegistrar_idle: a host where nothing happens makes no more than the budgeted calls in a day.
func TestRegistrar_idle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(5 * time.Minute)
		w.sim.ResetCalls()
		for range 1000 { // what changes nothing causes no call
			w.want("web", 1)
			w.after(86400 * time.Millisecond)
		}
		day := int((24 * time.Hour) / (5 * time.Minute * 7 / 10))
		if n := len(w.calls()); n > day+1 || len(w.writes()) > 0 {
			t.Errorf("%d calls in a day, of them writes %v; want at most %d looks", n, w.writes(), day)
		}
	}, web())
}

// TestRegistrar_follow: somebody waits for health: it is looked at every few seconds, and no longer when nobody does.
func TestRegistrar_follow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.sim.SetBackend(target.Target{ID: instance, Port: 1}, elbsim.TimedOut())
		w.start()
		w.want("web", 1)
		w.after(5 * time.Second)
		w.sim.ResetCalls()
		stop := w.reg.Follow([]string{"web"})
		w.after(time.Minute)
		if n := len(w.calls()); n < 11 || n > 31 {
			t.Errorf("%d looks in a minute of waiting; want one every 2 to 5 s", n)
		}
		stop()
		stop()
		w.sim.ResetCalls()
		w.after(time.Hour)
		if n := len(w.calls()); n > 30 {
			t.Errorf("%d looks in an hour without anybody waiting", n)
		}
		if s := w.group("web").Targets[0]; s.Health != "unhealthy" || s.Reason != "Target.Timeout" {
			t.Errorf("status is %+v; want what the load balancer says", s)
		}
	}, web())
}

// TestRegistrar_seq: a group's status names the state it has acted on.
func TestRegistrar_seq(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		if got := w.group("web").Seq; got != w.d.Seq {
			t.Fatalf("acted on %d; want %d", got, w.d.Seq)
		}
		w.fault(elbsim.Fault{Kind: elbsim.FaultLatency, Delay: elbsim.Duration(2 * time.Second)})
		w.want()
		w.after(time.Second)
		if got := w.group("web").Seq; got != w.d.Seq-1 {
			t.Errorf("acted on %d while the removal is under way; want %d", got, w.d.Seq-1)
		}
		w.after(2 * time.Second)
		if got := w.group("web").Seq; got != w.d.Seq {
			t.Errorf("acted on %d; want %d", got, w.d.Seq)
		}
	}, web())
}

// TestRegistrar_snapshotTells: the channel closes when something changed.
func TestRegistrar_snapshotTells(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Minute)
		_, changed := w.reg.Snapshot()
		w.after(time.Second)
		select {
		case <-changed:
			t.Error("told of a change where there was none")
		default:
		}
		w.want("web", 1)
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("not told of the change")
		}
	}, web())
}

func TestRegistrar_otherRegion(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.groups = append(w.groups, elb.Group{
			Key: "far", ARN: "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/far/0123456789abcdef", Source: "/etc/berth/berth.yaml:9",
		})
		w.start()
		w.want("web", 1, "far", 2)
		w.after(time.Hour)
		g := w.group("far")
		if g.State != registrar.StateMisconfigured || !strings.Contains(g.Err, "us-east-1") || !strings.Contains(g.Change, "/etc/berth/berth.yaml:9") {
			t.Errorf("status is %+v; want misconfigured, naming the region and the line", g)
		}
		for _, c := range w.calls() {
			if strings.Contains(c, "far") {
				t.Errorf("called %s", c)
			}
		}
		w.registered("web", 1)
	}, web())
}

func deleteGroup(t *testing.T, w *world, arn string) {
	t.Helper()
	if err := w.sim.Detach(arn); err != nil {
		t.Fatal(err)
	}
	client := elasticloadbalancingv2.New(elasticloadbalancingv2.Options{
		Region: region, HTTPClient: w.sim.HTTPClient(), Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", ""),
	})
	if _, err := client.DeleteTargetGroup(context.Background(), &elasticloadbalancingv2.DeleteTargetGroupInput{TargetGroupArn: &arn}); err != nil {
		t.Fatal(err)
	}
}

// TestRegistrar_prune: unclaimed targets go when somebody says so, and nothing but unclaimed ones.
func TestRegistrar_prune(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 7, 8)
		w.start()
		w.want("web", 1)
		w.after(5 * time.Second)
		if !w.reg.Prune("web", []target.Target{{ID: instance, Port: 7}, {ID: instance, Port: 1}, {ID: other, Port: 1}}) {
			t.Error("the group is not served")
		}
		w.after(5 * time.Second)
		w.registered("web", 1, 8)
		w.foreignStands("web")
		w.called("RegisterTargets web 1", "DeregisterTargets web 7")
		if w.reg.Prune("nobody", nil) {
			t.Error("a group that is not there was served")
		}
	}, web())
}

// TestRegistrar_dryRun says what it would do, and does nothing of it.
func TestRegistrar_dryRun(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 3, 7)
		w.ledgerOf(boot, "web", 2)
		w.dry = true
		w.start()
		w.d.Allotted = []target.Allotment{{Run: run("stranger"), HostPort: 7, Proof: true}}
		w.want("web", 1, 3)
		w.after(time.Hour)
		w.registered("web", 2, 3, 7)
		w.called()
		got := []string{}
		for _, p := range w.group("web").Pending {
			got = append(got, p.Operation+" "+p.Target.String()+": "+p.Why)
		}
		want := []string{
			"deregister " + instance + ":2: before is not to be served here any more",
			"deregister " + instance + ":7: it is stale: Docker has given port 7 to stranger, which is not served here",
			"register " + instance + ":1: port 80/tcp of c1 is published there",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pending (-want +got):\n%s", diff)
		}
		if n := w.logs.FilterMessageSnippet("would").Len(); n != 3 {
			t.Errorf("%d lines say what would be done; want each once", n)
		}
		w.d.Allotted = nil
		w.want("web", 2, 3, 7)
		w.after(time.Minute)
		if n := w.logs.FilterMessageSnippet("would change nothing").Len(); n != 1 {
			t.Errorf("%d lines say that nothing would be done", n)
		}
	}, web())
}

// TestRegistrar_identifiedLater: the host's VPC comes after the first registrations. A group of another VPC is then
// said to be misconfigured, and what was registered in it goes.
func TestRegistrar_identifiedLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		_, known, _ := w.connect(context.Background())
		known.VPC = "vpc-elsewhere"
		stranger := known
		stranger.InstanceID = other
		w.reg.Identify(stranger)
		w.after(time.Second)
		w.registered("web", 1)
		w.reg.Identify(known)
		w.after(time.Second)
		w.registered("web")
		if g := w.group("web"); g.State != registrar.StateMisconfigured || len(g.Refusals) != 1 {
			t.Errorf("status is %+v; want misconfigured, with the want refused", g)
		}
		w.after(time.Hour)
		if said := w.logs.FilterMessageSnippet("cannot be served").All(); len(said) != 1 || !strings.Contains(said[0].ContextMap()["change"].(string), "/etc/berth/berth.yaml:7") {
			t.Errorf("the log says %+v; want the line to change, once", said)
		}
	}, web())
}

// TestRegistrar_noProof: a port that a user chose, or that is of a container which somebody else registers, proves
// nothing about a target that nobody here knows.
func TestRegistrar_noProof(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 7, 8)
		w.start()
		w.d.Allotted = []target.Allotment{{Run: run("fixed"), HostPort: 7}, {Run: run("other half"), HostPort: 8, IPv6: true, Proof: true}}
		w.want()
		w.after(time.Hour)
		w.registered("web", 7, 8)
		w.called()
	}, web())
}

// TestRegistrar_unknownOfInstance: all of the instance's targets are ours, but a container that nobody has looked at may
// be the one that is served.
func TestRegistrar_unknownOfInstance(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.groups[0].Ownership = elb.OwnInstance
		w.foreign("web", 7)
		w.start()
		w.d.Unknown = []string{"c7"}
		w.want()
		w.after(time.Minute)
		w.registered("web", 7)
		w.d.Unknown = nil
		w.want()
		w.after(5 * time.Second)
		w.registered("web")
	}, web())
}

// TestRegistrar_unknownHolder: the port of a container of which it is not known whether it is to be served proves nothing, of
// whosever the instance's targets are.
func TestRegistrar_unknownHolder(t *testing.T) {
	for name, owner := range map[string]elb.Ownership{"the ledger's": elb.OwnLedger, "the instance's": elb.OwnInstance} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.groups[0].Ownership = owner
				w.foreign("web", 7)
				w.start()
				w.d.Unknown = []string{run("c7").ID}
				w.d.Allotted = []target.Allotment{{Run: run("c7"), HostPort: 7, Proof: true}}
				w.want()
				w.after(time.Minute)
				w.registered("web", 7)
				w.called()
				w.d.Unknown = nil
				w.want()
				w.after(5 * time.Second)
				w.registered("web")
			}, web())
		})
	}
}

// TestRegistrar_roomForOne: a quota leaves room for one of two. AWS refuses a call as a whole, so a smaller one is sent.
func TestRegistrar_roomForOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "TooManyTargets", Action: "RegisterTargets", Times: 2})
		w.want("web", 1, 2, 3, 4, 5)
		w.after(10 * time.Second)
		w.registered("web", 1, 2, 3, 4, 5)
		if n := len(w.writes()); n > 7 {
			t.Errorf("%d writes: %v", n, w.writes())
		}
	}, web())
}

// TestRegistrar_oneBadTarget: a target that AWS does not take keeps no other out.
func TestRegistrar_oneBadTarget(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(3 * time.Minute)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "InvalidTarget", Action: "RegisterTargets", Times: 3}) // 2, 1, and the first of two
		w.want("web", 1, 2)
		w.after(10 * time.Minute)
		w.registered("web", 1, 2)
	}, web())
}

// TestRegistrar_madeAnewWhileStopped: a group was deleted and created again under its name, and the ledger knows both:
// nothing is removed from the new one because it might be the old.
func TestRegistrar_madeAnewWhileStopped(t *testing.T) {
	for range 20 { // the ledger's two are looked at in any order
		inWorld(t, func(t *testing.T, w *world) {
			w.ledgerOf(boot, "web", 1)
			before := w.sim.GroupARN("web")
			deleteGroup(t, w, before)
			w.addGroup(web())
			w.ledgerOf(boot, "web", 1)
			w.start()
			w.want("web", 1)
			for range 60 {
				w.after(5 * time.Second)
				w.registered("web", 1)
			}
		}, web())
	}
}

// TestRegistrar_doubtEndsAfterWrite: a doubt that ends just after a write is looked at once, when a look proves something.
func TestRegistrar_doubtEndsAfterWrite(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want()
		w.after(time.Second)
		w.fault(elbsim.Fault{Kind: elbsim.FaultLost, Action: "RegisterTargets", Times: 1})
		w.want("web", 1)
		w.after(30 * time.Second) // the call has timed out after 3 s, and was made again
		w.sim.ResetCalls()
		w.want()
		w.after(20 * time.Second)
		if n := len(w.calls("DescribeTargetHealth")); n > 3 {
			t.Errorf("%d looks in 20 s: %v", n, w.calls())
		}
		w.registered("web")
	}, web())
}

// TestRegistrar_crowded: where calls are throttled from the start, what is wanted goes out before the first look at a
// group; the look follows, and finds what it would have found.
func TestRegistrar_crowded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 7)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "Throttling", Action: "DescribeTargetGroups", Times: 1})
		w.start()
		w.d.Allotted = []target.Allotment{{Run: run("stranger"), HostPort: 7, Protocol: target.TCP, Proof: true}}
		w.want("web", 9)
		w.after(10 * time.Second)
		w.registered("web", 7, 9)
		w.called("RegisterTargets web 9")
		if looks := w.calls("DescribeTargetHealth"); len(looks) > 0 {
			t.Errorf("%q went out while calls were scarce", looks)
		}
		w.after(2 * time.Minute)
		w.registered("web", 9)
		w.called("RegisterTargets web 9", "DeregisterTargets web 7")
		w.foreignStands("web")
	}, web())
}

// TestRegistrar_outage: nothing works for ten minutes. Of what failed nothing is looked at before it is done, and what
// can no longer do harm is not looked at for its own sake.
func TestRegistrar_outage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(5 * time.Minute)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "ServiceUnavailable", Status: 503})
		w.want("web", 2)
		w.after(10 * time.Minute)
		w.sim.ClearFaults()
		w.sim.ResetCalls()
		w.after(30 * time.Second)
		w.registered("web", 2)
		writes := w.writes() // whichever hold ended first
		slices.Sort(writes)
		if diff := cmp.Diff([]string{"DeregisterTargets web 1", "RegisterTargets web 2"}, writes); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
		w.after(2 * time.Minute)
		if looks := w.calls("DescribeTargetHealth"); len(looks) > 4 {
			t.Errorf("%d looks after the outage: %q", len(looks), looks)
		}
		w.registered("web", 2)
	}, web())
}
