package cli

import (
	"slices"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// An agent that is told to end while a call is in flight begins no other, waits for that call's reply for 3 s, saves what
// came of it, and is gone within 5 s; the targets stay. The next one goes on from there.
func TestRun_stoppedWithACallInFlight(t *testing.T) {
	for name, tt := range map[string]struct {
		fault elbsim.Fault
		saved ledger.Phase
		moved bool // the call has taken effect
	}{
		"it is answered":       {elbsim.Fault{Kind: elbsim.FaultLatency, Delay: elbsim.Duration(time.Second)}, ledger.Registered, true},
		"it is never answered": {elbsim.Fault{Kind: elbsim.FaultHang}, ledger.Intended, false},
		"its answer is lost":   {elbsim.Fault{Kind: elbsim.FaultLost}, ledger.Intended, true},
	} {
		t.Run(name, func(t *testing.T) {
			sim := agenttest.Account(t, "web")
			engine := enginetest.New()
			dir := agenttest.ShortDir(t)
			var first, second target.Target
			want := func(x target.Target) []target.Target {
				if !tt.moved {
					return nil
				}
				return []target.Target{x}
			}

			agent := startRun(t, dir, engine)
			fault := tt.fault
			fault.Action = "RegisterTargets"
			id, err := sim.AddFault(fault)
			if err != nil {
				t.Fatal(err)
			}
			first = runWeb(t, engine, "web-1")
			agent.until(t, "the call in flight", func() bool { return struck(sim, id) > 0 })
			began := time.Now()
			agent.stop()
			second = runWeb(t, engine, "web-2") // too late for this agent
			code := <-agent.ended
			took := time.Since(began)
			if code != 0 || took > 5*time.Second {
				t.Errorf("it ended with %d after %v; want 0 within 5 s", code, took)
			}
			t.Logf("it ended after %v", took)
			if got := sim.Registered("web"); !slices.Equal(got, want(first)) {
				t.Errorf("registered: %v; want %v", got, want(first))
			}
			if n := struck(sim, id); n != 1 {
				t.Errorf("%d calls; want the one in flight alone", n)
			}
			ledger, err := ledger.Peek(dir)
			if err != nil {
				t.Fatal(err)
			}
			if e := ledger.Entries(); len(e) != 1 || e[0].Target != first || e[0].Phase != tt.saved {
				t.Errorf("saved: %+v; want %v, %s", e, first, tt.saved)
			}

			sim.RemoveFault(id)
			next := startRun(t, dir, engine)
			next.until(t, "both registered", func() bool {
				got := sim.Registered("web")
				return len(got) == 2 && slices.Contains(got, first) && slices.Contains(got, second)
			})
			next.end(t)
			if calls := sim.CallsOf("DeregisterTargets"); len(calls) > 0 {
				t.Errorf("deregistered: %v; want no target to move", calls)
			}
		})
	}
}

func runWeb(t *testing.T, engine *enginetest.Engine, name string) target.Target {
	t.Helper()
	id := engine.Run(enginetest.Spec{Name: name, Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	facts, ok := engine.Facts(id)
	if !ok || len(facts.Published) == 0 {
		t.Fatal("the container has no port")
	}
	return target.Target{ID: agenttest.Instance, Port: facts.Published[0].HostPort}
}

// struck is how many calls a fault has met.
func struck(sim *elbsim.Sim, id string) int {
	for _, f := range sim.Faults() {
		if f.ID == id {
			return f.Struck
		}
	}
	return 0
}
