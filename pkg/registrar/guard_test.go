package registrar_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// What a registrar must not do with what it knows only in part: of its host, of a group, of a reply, of an earlier boot.

// A dry run writes nothing, not even where a group cannot be served and what is in it would go.
func TestRegistrar_dryRunUnserved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Second)
		w.stop()
		w.sim.ResetCalls()
		w.know = func(s *elb.Self) { s.VPC = "vpc-elsewhere" }
		w.dry = true
		w.start()
		w.want("web", 1)
		w.after(time.Hour)
		w.called()
		w.registered("web", 1)
		if p := w.group("web").Pending; len(p) != 1 || p[0].Operation != "deregister" {
			t.Errorf("pending is %+v; want the removal that a real run would make", p)
		}
	}, web())
}

// An overridden identity has neither account nor address. Both are taken in when the metadata service answers.
func TestRegistrar_accountLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		whole := wholeSelf()
		w.know = func(s *elb.Self) { *s = elb.Self{InstanceID: s.InstanceID, Region: s.Region} }
		w.start()
		w.want("ips", 1)
		w.after(time.Minute)
		if got := w.sim.Registered("ips"); len(got) != 0 {
			t.Fatalf("registered %v without an address", got)
		}
		w.reg.Identify(whole)
		w.after(2 * time.Second)
		if got := w.sim.Registered("ips"); len(got) != 1 {
			t.Errorf("registered %v; want the host's address, now that it is known", got)
		}
	}, elbsim.Group{Name: "ips", Type: "ip"})
}

// After a restart the host's address is not known at once. What serves stays; what has ended goes.
func TestRegistrar_addressLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("ips", 1, 2)
		w.after(2 * time.Second)
		w.stop()
		whole := wholeSelf()
		w.know = func(s *elb.Self) { s.Account, s.Address4 = "", netip.Addr{} }
		w.start()
		w.want("ips", 1)
		w.after(time.Minute)
		if got := w.sim.Registered("ips"); len(got) != 1 || got[0].Port != 1 {
			t.Fatalf("registered %v while the address is not known; want the port that is served", got)
		}
		w.reg.Identify(whole)
		w.after(2 * time.Second)
		w.want()
		w.after(2 * time.Second)
		if got := w.sim.Registered("ips"); len(got) != 0 {
			t.Errorf("registered %v; want nothing", got)
		}
	}, elbsim.Group{Name: "ips", Type: "ip"})
}

// An ip target that drains is waited for by the next agent, too, with the ledger and without.
func TestRegistrar_ipTargetOverRestart(t *testing.T) {
	for name, lost := range map[string]bool{"with the ledger": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.want("ips", 1, 2)
				w.after(2 * time.Second)
				w.want("ips", 2)
				w.after(80 * time.Second) // it has been seen to drain
				w.stop()
				if lost {
					w.ledger = ledger.NewMemory()
				}
				w.start()
				w.want("ips", 1, 2)
				w.after(time.Minute)
				if got := w.sim.Registered("ips"); len(got) != 1 {
					t.Fatalf("registered %v while one drains", got)
				}
				w.after(6 * time.Minute)
				if got := w.sim.Registered("ips"); len(got) != 2 {
					t.Errorf("registered %v after it was gone; want both: %v", got, w.calls())
				}
				if n := len(w.ledger.Entries()); n != 2 {
					t.Errorf("the ledger holds %d entries; want 2", n)
				}
			}, elbsim.Group{Name: "ips", Type: "ip"})
		})
	}
}

// A success without an answer, as of a proxy, says nothing: neither that a group is empty nor that a call took effect.
func TestRegistrar_emptyReplies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(5 * time.Minute)
		w.fault(elbsim.Fault{Kind: elbsim.FaultEmpty})
		w.want("web", 1, 2)
		w.after(48 * time.Hour) // a look at the whole group is among those that fail
		g := w.group("web")
		if g.State != registrar.StateWaiting || !strings.Contains(g.Err, "proxy") {
			t.Errorf("status is %s: %s; want waiting, for a reply that is none", g.State, g.Err)
		}
		for _, x := range g.Targets {
			if x.Target.Port == 2 && x.Phase == ledger.Registered {
				t.Error("what was not registered counts as registered")
			}
		}
		w.sim.ClearFaults()
		w.want("web", 2)
		w.after(10 * time.Minute)
		w.registered("web", 2)
	}, web())
}

// After a reboot a container may have another port than before, and is not inspected yet: what it had goes.
func TestRegistrar_unknownOfOtherBoot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ledgerOf("boot-0", "web", 1)
		w.start()
		w.d.Unknown = []string{"before", "another"}
		w.want()
		w.after(5 * time.Second)
		w.registered("web")
	}, web())
}

// A group of another account that the configuration names is cleaned up after like any other.
func TestRegistrar_otherAccount(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.know = func(s *elb.Self) { s.Account = "210987654321" }
		w.start()
		w.want("web", 1, 2)
		w.after(2 * time.Second)
		w.stop()
		w.start()
		w.want("web", 2)
		w.after(10 * time.Second)
		w.registered("web", 2)
	}, web())
}

// What was registered in a group that is gone is forgotten after a day, by those who can know that it is gone.
func TestRegistrar_goneForADay(t *testing.T) {
	for name, test := range map[string]struct {
		account string
		named   bool
		left    int
	}{
		"no longer named":          {account, false, 0},
		"named":                    {account, true, 0},
		"of another account":       {"210987654321", false, 1},
		"of an account not known":  {"", false, 1},
		"named, of another's even": {"210987654321", true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.know = func(s *elb.Self) { s.Account = test.account }
				x := target.Target{ID: instance, Port: 1}
				arn := strings.Replace(w.sim.GroupARN("web"), "/web/", "/old/", 1)
				w.ledger.Record([]ledger.Entry{{
					Facts:  elb.Facts{ARN: arn, Name: "old", TargetType: "instance", Protocol: "HTTP"},
					Target: x, Run: run("c1"), Phase: ledger.Registered, BootID: boot,
				}})
				if test.named {
					w.groups = append(w.groups, elb.Group{Key: "old", ARN: arn})
				}
				w.start()
				w.want()
				w.after(23 * time.Hour)
				if n := len(w.ledger.Entries()); n != 1 {
					t.Errorf("after 23 h the ledger holds %d entries; want the one", n)
				}
				w.after(3 * time.Hour)
				if n := len(w.ledger.Entries()); n != test.left {
					t.Errorf("after 26 h the ledger holds %d entries; want %d", n, test.left)
				}
			}, web())
		})
	}
}

// An ip target of this host's that somebody else registers, and that is found draining, is theirs when they bring it back.
func TestRegistrar_foundDraining(t *testing.T) {
	for name, want := range map[string][]any{"nobody here wants it": nil, "somebody does": {"ips", 9000}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				x := target.Target{ID: "10.0.0.10", Port: 9000}
				for _, change := range []func(string, ...target.Target) error{w.sim.Register, w.sim.Deregister} {
					if err := change("ips", x); err != nil {
						t.Fatal(err)
					}
				}
				w.start()
				w.want(want...)
				w.after(time.Minute)
				if n := len(w.writes()); n > 0 {
					t.Errorf("writes while it drains: %v", w.writes())
				}
				if want == nil && len(w.group("ips").Targets) > 0 {
					t.Errorf("status shows %+v as this host's", w.group("ips").Targets)
				}
				if err := w.sim.Register("ips", x); err != nil {
					t.Fatal(err)
				}
				w.after(time.Hour)
				if n := len(w.writes()); n > 0 {
					t.Errorf("writes after it came back: %v", w.writes())
				}
				w.want()
				w.after(5 * time.Second)
				if got := w.sim.Registered("ips"); len(got) != 1 && want == nil {
					t.Errorf("registered %v; want what somebody else has registered", got)
				}
			}, elbsim.Group{Name: "ips", Type: "ip"})
		})
	}
}

// An ip target that somebody else takes out is waited for by the next agent as by this one.
func TestRegistrar_ipTargetRemovedByHand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("ips", 1)
		w.after(time.Minute)
		if err := w.sim.Deregister("ips", target.Target{ID: "10.0.0.10", Port: 1}); err != nil {
			t.Fatal(err)
		}
		for begun := time.Now(); w.group("ips").Targets[0].Phase == ledger.Registered; w.after(time.Second) { // until a look shows it
			if time.Since(begun) > 10*time.Minute {
				t.Errorf("no look in ten minutes: %v", w.calls())
				return
			}
		}
		w.stop()
		if e := w.ledger.Entries(); len(e) != 1 || e[0].Phase != ledger.Removing {
			t.Errorf("the ledger has %+v; want the target, leaving", e)
		}
		w.start()
		w.want("ips", 1)
		w.after(2 * time.Hour)
		if got := w.sim.Registered("ips"); len(got) != 1 {
			t.Errorf("registered %v; want it back", got)
		}
	}, elbsim.Group{Name: "ips", Type: "ip", DeregistrationDelay: time.Hour})
}

// Where the host turns out to have no such address, what it has under an old one goes.
func TestRegistrar_noAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("ips", 1)
		w.after(2 * time.Second)
		w.stop()
		w.know = func(s *elb.Self) { s.Address4 = netip.Addr{} }
		w.start()
		w.want("ips", 1)
		w.after(2 * time.Second)
		if got := w.sim.Registered("ips"); len(got) != 0 {
			t.Errorf("registered %v by an address that the host has no more", got)
		}
	}, elbsim.Group{Name: "ips", Type: "ip"})
}
