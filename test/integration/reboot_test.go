package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/internal/elbsim"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// services are those of the host that reboots: five containers each, that Docker starts again by itself.
var services = []string{"web", "api", "admin"}

// rebooted is a host just after its power went: fifteen containers were registered, berth and the engine were killed,
// and what the ledger holds is of an earlier boot.
type rebooted struct {
	*rig.Rig
	engine     *harness.PrivateEngine
	containers map[string][]*harness.Container
	before     map[string][]target.Target
}

func reboot(t *testing.T) *rebooted {
	t.Helper()
	h := &rebooted{
		engine:     harness.StartEngine(t, harness.EngineOptions{}),
		containers: map[string][]*harness.Container{}, before: map[string][]target.Target{},
	}
	var groups []elbsim.Group
	for _, s := range services {
		groups = append(groups, elbsim.Group{Name: s})
	}
	h.Rig = rig.New(t, rig.Options{Engine: &h.engine.Engine, Groups: groups})
	agent := h.StartReady(t)
	var specs []harness.Spec
	for i := range 5 * len(services) {
		service := services[i%len(services)]
		specs = append(specs, harness.Spec{Name: service, Labels: h.In(service), Restart: "always"})
	}
	for i, c := range h.engine.RunAll(t, specs...) {
		service := services[i%len(services)]
		h.containers[service] = append(h.containers[service], c)
	}
	h.before = h.now(t)
	for _, s := range services {
		h.WaitExact(t, s, h.before[s]...)
	}
	agent.Kill(t)
	h.engine.Kill(t)
	h.earlierBoot(t)
	h.Sim.ResetCalls()
	return h
}

// now returns what should be registered in each group.
func (h *rebooted) now(t *testing.T) map[string][]target.Target {
	t.Helper()
	out := map[string][]target.Target{}
	for s, containers := range h.containers {
		out[s] = rig.TargetsOf(t, containers...)
	}
	return out
}

// earlierBoot makes the ledger that of an earlier boot.
func (h *rebooted) earlierBoot(t *testing.T) {
	t.Helper()
	const boot = "11111111-2222-3333-4444-555555555555"
	ledger, err := ledger.Open(h.StateDir(), boot, ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	entries := ledger.Claim(elb.Self{InstanceID: rig.Instance, Region: h.Sim.Region()})
	if len(entries) != 5*len(services) {
		t.Errorf("the ledger holds %d targets; want %d", len(entries), 5*len(services))
	}
	for i := range entries {
		entries[i].BootID = boot
	}
	ledger.Record(entries)
	if err := ledger.Close(); err != nil {
		t.Fatal(err)
	}
}

// up starts the engine and waits until all containers serve. It returns what should be registered now, and how many
// of the ports that were registered before are another container's.
func (h *rebooted) up(t *testing.T) (now map[string][]target.Target, strangers int) {
	t.Helper()
	holder := map[target.Target]string{}
	h.engine.Start(t)
	for s, containers := range h.containers {
		for _, c := range containers {
			c.Ask(t)
			holder[rig.TargetsOf(t, c)[0]] = s
		}
	}
	for s, targets := range h.before {
		for _, x := range targets {
			if other := holder[x]; other != "" && other != s {
				strangers++
			}
		}
	}
	return h.now(t), strangers
}

func minus(a, b []target.Target) []target.Target {
	return slices.DeleteFunc(slices.Clone(a), func(t target.Target) bool { return slices.Contains(b, t) })
}

// berth boot runs before the engine: when Docker gives the ports to other containers, nothing is registered any more.
func TestReboot_bootFirst(t *testing.T) {
	t.Parallel()
	h := reboot(t)
	code, stdout, stderr := h.Berth(t, "boot")
	if code != 0 || !strings.Contains(stdout, "deregistered 15 targets") {
		t.Errorf("berth boot = %d\n%s%s", code, stdout, stderr)
	}
	for _, s := range services {
		if err := h.Exact(s); err != nil {
			t.Error(err)
		}
		if calls := h.Calls(s, deregister); len(calls) != 1 {
			t.Errorf("%d removals from %s; want one for all its targets", len(calls), s)
		}
	}
	h.Sim.ResetCalls()
	if code, stdout, _ := h.Berth(t, "boot"); code != 0 || !strings.Contains(stdout, "nothing is registered") {
		t.Errorf("berth boot again = %d, %s", code, stdout)
	}
	if counts := h.Sim.Counts(); len(counts) > 0 {
		t.Errorf("with nothing to do it called %+v", counts)
	}
	now, _ := h.up(t)
	h.StartReady(t)
	for _, s := range services {
		h.WaitExact(t, s, now[s]...)
		if calls := h.Calls(s, deregister); len(calls) > 0 {
			t.Errorf("%d removals from %s that berth boot had emptied", len(calls), s)
		}
	}
}

// Without berth boot other services' containers have the ports that are still registered, until the agent starts: it
// is exact after one removal and one registration in each group, in that order.
func TestReboot_withoutBoot(t *testing.T) {
	t.Parallel()
	h := reboot(t)
	now, strangers := h.up(t)
	t.Logf("%d of 15 targets lead to another service", strangers)
	if strangers == 0 {
		t.Error("no target leads to another service: this test shows nothing")
	}
	h.Start(t)
	for _, s := range services {
		h.WaitExact(t, s, now[s]...)
		removed, added := h.Calls(s, deregister), h.Calls(s, register)
		stale, missing := minus(h.before[s], now[s]), minus(now[s], h.before[s])
		if got := targetsIn(removed); !slices.Equal(got, stale) {
			t.Errorf("removed from %s: %v; want %v", s, got, stale)
		}
		if got := minus(missing, targetsIn(added)); len(got) > 0 {
			t.Errorf("not registered in %s: %v", s, got)
		}
		if len(removed) > 1 || len(added) > 1 {
			t.Errorf("%d removals and %d registrations in %s; want one reconcile", len(removed), len(added), s)
		}
		if len(removed)*len(added) > 0 && removed[0].ID > added[0].ID {
			t.Errorf("in %s the registration came first", s)
		}
	}
	harness.Eventually(t, harness.Patience, "each service's own containers", func() error {
		for _, s := range services {
			for range 10 {
				got, err := harness.AskAt(t.Context(), h.URL(s))
				if err != nil {
					return err
				}
				if !strings.HasPrefix(got.Name, s+"-") {
					return fmt.Errorf("%s answers for %s", got.Name, s)
				}
			}
		}
		return nil
	})
}
