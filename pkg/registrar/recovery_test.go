package registrar_test

import (
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// What was removed before Docker started is not removed again: after a reboot each host would make a call for nothing.
func TestRegistrar_removedAtBoot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var removed []ledger.Entry
		for port := uint16(1); port <= 2; port++ {
			removed = append(removed, ledger.Entry{
				Group: w.groups[0], Facts: elb.Facts{ARN: w.sim.GroupARN("web"), Name: "web", TargetType: "instance", Protocol: "HTTP"},
				Target: target.Target{ID: instance, Port: port}, Run: run("before"), Phase: ledger.Removing, BootID: "boot-0",
			})
		}
		w.ledger.Record(removed)
		w.start()
		w.want("web", 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 2, 3)
		w.called("RegisterTargets web 2 3")
		// Should a registration of before have come late, it is found all the same.
		w.foreign("web", 1)
		w.after(time.Minute)
		w.registered("web", 2, 3)
		w.after(10 * time.Minute)
		if n := len(w.ledger.Entries()); n != 2 {
			t.Errorf("the ledger holds %d entries; want those of what is registered", n)
		}
	}, web())
}

// Credentials are the whole host's: when they are good again, whatever was refused for them goes on at once, however long
// each would have waited by itself.
func TestRegistrar_credentialsMended(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.peers = 1000
		w.start()
		w.want("web", 1, "api", 1)
		w.after(10 * time.Minute)
		id, err := w.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Code: "ExpiredToken", Status: 403})
		if err != nil {
			t.Fatal(err)
		}
		w.addGroup(elbsim.Group{Name: "dns"})
		w.groups = append(w.groups, elb.Group{Key: "dns", Name: "dns"})
		w.want("dns", 5)
		w.after(2 * time.Hour)
		before := len(w.calls())
		w.after(2 * time.Hour)
		if n := len(w.calls()) - before; n > 40 {
			t.Errorf("%d calls in two hours of refused credentials", n)
		}
		w.sim.RemoveFault(id)
		for mended := time.Now(); w.credentialsErr() != ""; w.after(time.Second) {
			if time.Since(mended) > time.Hour {
				t.Fatal("nobody has tried for an hour")
			}
		}
		w.after(10 * time.Second)
		w.registered("web")
		w.registered("api")
		w.registered("dns", 5)
	}, web(), api())
}

// A removal that a look has shown leaves the ledger. Should the target be seen registered again, because a registration
// came late, the ledger has it again: its removal may fail, and the next agent has to know of it.
func TestRegistrar_backAfterItsRemovalWasSeen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Minute)
		w.want()
		stop := w.reg.Follow([]string{"web"})
		w.after(30 * time.Second)
		if e := w.ledger.Entries(); len(e) != 0 || len(w.group("web").Targets) != 1 {
			t.Fatalf("the ledger has %+v, the status %+v; want the target draining, and nothing left to look after", e, w.group("web").Targets)
		}
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "DeregisterTargets", Code: "AccessDenied", Status: 403})
		w.foreign("web", 1)
		w.after(30 * time.Second)
		stop()
		w.registered("web", 1)
		if e := w.ledger.Entries(); len(e) != 1 || e[0].Phase != ledger.Registered || e[0].Target.Port != 1 || e[0].Run.ID != "c1" {
			t.Errorf("the ledger has %+v; want the target, registered", e)
		}
	}, elbsim.Group{Name: "web", DeregistrationDelay: time.Hour})
}

// A removal that fails at once, and may have taken effect, is in doubt for the next agent as well.
func TestRegistrar_doubtfulAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Minute)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "DeregisterTargets", Code: "InternalFailure", Status: 500})
		w.want()
		w.after(time.Millisecond)
		if n := len(w.calls("DeregisterTargets")); n != 1 {
			t.Fatalf("%d calls; want one", n)
		}
		if e := w.ledger.Entries(); len(e) != 1 || e[0].Phase != ledger.Intended {
			t.Errorf("the ledger has %+v; want the target, intended", e)
		}
	}, web())
}
