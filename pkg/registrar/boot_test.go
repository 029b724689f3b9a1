package registrar_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// ledgerOf fills the world's ledger with registrations of another boot, and AWS with what they stand for.
func (w *world) ledgerOf(bootID, group string, ports ...int) {
	w.t.Helper()
	for _, p := range ports {
		x := target.Target{ID: instance, Port: uint16(p)}
		w.ledger.Record([]ledger.Entry{{
			// As a ledger is read that has the frozen fields alone: what the ARN and the id give away is filled in.
			Facts:  elb.Facts{ARN: w.sim.GroupARN(group), Name: group, TargetType: "instance"},
			Target: x, Run: run("before"),
			Phase: ledger.Registered, BootID: bootID,
		}})
		if err := w.sim.Register(group, x); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) removeStale(within time.Duration) (int, error) {
	w.t.Helper()
	api, _, err := w.connect(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return registrar.RemoveStale(ctx, api, w.ledger, ledger.Stale(w.ledger.Entries(), boot), registrar.Options{})
}

func TestReachable(t *testing.T) {
	const other = "arn:aws:elasticloadbalancing:eu-central-1:210987654321:targetgroup/theirs/0123456789abcdef"
	const far = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/far/0123456789abcdef"
	here := elb.Self{InstanceID: instance, Region: region, Account: account}
	for name, tt := range map[string]struct {
		arn  string
		self elb.Self
		want int
	}{
		"another account's": {other, here, 1},
		"another region's":  {far, here, 0},
		"no ARN":            {"web", here, 0},
		"region not known":  {far, elb.Self{InstanceID: instance}, 1},
		"nothing known":     {"web", elb.Self{}, 0},
	} {
		core, logs := observer.New(zap.InfoLevel)
		entries := []ledger.Entry{{Facts: elb.Facts{ARN: tt.arn}, Target: target.Target{ID: instance, Port: 1}}}
		if got := registrar.Reachable(entries, tt.self, zap.New(core)); len(got) != tt.want || logs.Len() != 1-tt.want {
			t.Errorf("%s: got %v and %d warnings; want %d and %d", name, got, logs.Len(), tt.want, 1-tt.want)
		}
	}
}

// TestStale: a boot that is not known is nobody's.
func TestStale(t *testing.T) {
	for _, tt := range []struct {
		entry, now string
		phase      ledger.Phase
		want       int
	}{
		{"a", "a", ledger.Registered, 0},
		{"a", "b", ledger.Registered, 1},
		{"", "b", ledger.Intended, 1},
		{"a", "", ledger.Registered, 1},
		{"", "", ledger.Registered, 1},
		{"", "", ledger.Removing, 0},
	} {
		if got := ledger.Stale([]ledger.Entry{{BootID: tt.entry, Phase: tt.phase}}, tt.now); len(got) != tt.want {
			t.Errorf("%s entry of boot %q, in boot %q: got %v; want %d", tt.phase, tt.entry, tt.now, got, tt.want)
		}
	}
}

func TestRemoveStale(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.foreign("web", 9)
		w.ledgerOf("boot-0", "web", 1, 2)
		w.ledgerOf("boot-0", "api", 3)
		w.ledgerOf(boot, "api", 4)
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "InternalFailure", TargetGroup: "api", Times: 2})
		removed, err := w.removeStale(15 * time.Second)
		if err != nil || removed != 3 {
			t.Errorf("RemoveStale = %d, %v; want 3", removed, err)
		}
		w.registered("web", 9)
		w.registered("api", 4)
		w.foreignStands("web")
		for _, c := range w.calls() {
			if !strings.HasPrefix(c, "Deregister") {
				t.Errorf("called %s; the ledger alone is asked", c)
			}
		}
		if n, err := w.removeStale(time.Second); n != 0 || err != nil {
			t.Errorf("a second time = %d, %v; want nothing to do", n, err)
		}
	}, web(), api())
}

// TestRemoveStale_inVain: AWS hangs: the rest of the boot does not.
func TestRemoveStale_inVain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ledgerOf("boot-0", "web", 1)
		w.ledgerOf("boot-0", "api", 2)
		w.fault(elbsim.Fault{Kind: elbsim.FaultHang, TargetGroup: "web"})
		begun := time.Now()
		removed, err := w.removeStale(15 * time.Second)
		if took := time.Since(begun); took > 18*time.Second {
			t.Errorf("took %v; want no more than a call's deadline beyond 15 s", took)
		}
		if removed != 1 || err == nil || !strings.Contains(err.Error(), "deregister 1 targets from web") {
			t.Errorf("RemoveStale = %d, %v; want the one of api, and an error that names web", removed, err)
		}
		if left := ledger.Stale(w.ledger.Entries(), boot); len(left) != 1 {
			t.Errorf("ledger has %v left; want the one that failed, for the agent to remove", left)
		}
	}, web(), api())
}

// TestRegistrar_frozenFieldsAlone: an entry of which only the fields are known that all versions have is enough to
// clean up.
func TestRegistrar_frozenFieldsAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ledgerOf(boot, "web", 1, 2)
		w.ledgerOf(boot, "api", 3)
		w.groups = w.groups[:1]
		w.start()
		w.want("web", 2)
		w.after(2 * time.Minute)
		w.registered("web", 2)
		w.registered("api")
		if writes := w.writes(); len(writes) != 2 {
			t.Errorf("writes are %v; want one removal a group", writes)
		}
	}, web(), api())
}

// A removal of an earlier boot's target is in the ledger like any other: whoever comes after an agent that dies while it is
// under way, or before it is known what became of it, must not count on it.
func TestRegistrar_removesOfAnEarlierBoot(t *testing.T) {
	for name, fault := range map[string]elbsim.Fault{
		"under way": {Kind: elbsim.FaultLatency, Action: "DeregisterTargets", Delay: elbsim.Duration(time.Minute)},
		"in doubt":  {Kind: elbsim.FaultError, Action: "DeregisterTargets", Code: "InternalFailure", Status: 500},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.ledgerOf("boot-0", "web", 1)
				w.fault(fault)
				w.start()
				w.want()
				w.after(2 * time.Second)
				if got := w.ledger.Entries(); len(got) != 1 || got[0].Phase != ledger.Intended {
					t.Errorf("the ledger has %+v; want it intended", got)
				}
			}, web())
		})
	}
}

// A target that AWS refuses to deregister is said, and keeps no other one registered.
func TestRemoveStale_refusedTarget(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ledgerOf("boot-0", "web", 1, 2, 3, 4, 5)
		api, _, err := w.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		removed, err := registrar.RemoveStale(t.Context(), unremovable{api}, w.ledger, ledger.Stale(w.ledger.Entries(), boot), registrar.Options{})
		if removed != 4 || err == nil || !strings.Contains(err.Error(), "InvalidTarget") || !strings.Contains(err.Error(), ":1:") {
			t.Errorf("removed %d, %v; want 4, and an error that names the refused one", removed, err)
		}
		w.registered("web", 1)
	}, web())
}
