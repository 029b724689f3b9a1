package registrar_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/internal/elbsim/iam"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

// policyFile is the policy that we ship.
const policyFile = "../../deploy/iam/policy.json"

// tagged is a group that the shipped policy lets us register in.
func tagged(name string) elbsim.Group {
	return elbsim.Group{Name: name, Tags: map[string]string{"berth": "true"}}
}

// setPolicy has AWS enforce a policy from now on.
func (w *world) setPolicy(p *iam.Policy) { w.sim.SetPolicy(p) }

// sicken makes three groups sick for good, each as AWS itself does it: one is deleted, one is not in the policy, one is full.
func (w *world) sicken() {
	w.t.Helper()
	policy, err := iam.Load(policyFile)
	if err != nil {
		w.t.Fatal(err)
	}
	w.setPolicy(nil) // deleting a group is not in it
	deleteGroup(w.t, w, w.sim.GroupARN("deleted"))
	w.setPolicy(policy)
	var others []target.Target
	for p := range uint16(1000) {
		others = append(others, target.Target{ID: other, Port: p + 1})
	}
	if err := w.sim.Register("full", others...); err != nil {
		w.t.Fatal(err)
	}
}

// replacements replaces the one container of each named group, again and again, and returns how long after each
// replacement the healthy group was exact, for its removal and its registration.
func (w *world) replacements(n int, groups ...string) (removed, added []time.Duration) {
	w.t.Helper()
	waits := func(port int, there bool) time.Duration {
		begun := time.Now()
		for time.Since(begun) < 5*time.Minute {
			if slices.Contains(w.sim.Registered("healthy"), target.Target{ID: instance, Port: uint16(port)}) == there {
				return time.Since(begun)
			}
			w.after(time.Millisecond)
		}
		w.t.Fatalf("healthy: port %d registered: %v; want the other", port, !there)
		return 0
	}
	for i := range n {
		port := 1000 + i
		w.want(wantsOf(groups, port)...)
		added = append(added, waits(port, true))
		w.after(7 * time.Second) // a little more than what a replacement costs of the host's own rate
		w.want()
		removed = append(removed, waits(port, false))
		w.after(3 * time.Second)
	}
	return removed, added
}

func wantsOf(groups []string, port int) []any {
	var specs []any
	for _, g := range groups {
		specs = append(specs, g, port)
	}
	return specs
}

// line is the spread of what was measured.
func line(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("median %v, 99 %% %v, most %v", d[len(d)/2], d[len(d)*99/100], d[len(d)-1])
}

// TestRegistrar_sickNeighbours: with one group deleted, one denied and one full at the same time the healthy group's
// writes come as quickly as without them, container after container. Each of the three says what is wrong, and which line
// to change, once.
func TestRegistrar_sickNeighbours(t *testing.T) {
	const times = 300
	names := []string{"deleted", "denied", "full", "healthy"}
	var alone, beside [2][]time.Duration
	for _, sick := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			w.sim.SetLatency(30 * time.Millisecond)
			for i := range w.groups {
				w.groups[i].Source = fmt.Sprintf("/etc/berth/berth.yaml:%d", i+2)
			}
			if !sick {
				w.groups = w.groups[3:]
			}
			w.start()
			w.want()
			w.after(time.Minute)
			if !sick {
				alone[0], alone[1] = w.replacements(times, "healthy")
				return
			}
			w.sicken()
			beside[0], beside[1] = w.replacements(times, names...)
			w.want(wantsOf(names, 999)...)
			w.after(30 * time.Minute)
			w.saysOfTheSick()
		}, tagged("deleted"), elbsim.Group{Name: "denied"}, tagged("full"), tagged("healthy"))
	}
	for i, what := range []string{"deregistered", "registered"} {
		t.Logf("%s after: alone %s; beside three sick groups %s", what, line(alone[i]), line(beside[i]))
		// A retry of the sick may be a permit ahead: at the host's own rate that is one more interval at the very most.
		interval := []time.Duration{250 * time.Millisecond, time.Second}[i]
		for _, q := range []int{times / 2, times * 99 / 100, times - 1} {
			slack := 5 * time.Millisecond // the grain of what is measured
			if q == times-1 {
				slack = interval
			}
			if beside[i][q] > alone[i][q]+slack {
				t.Errorf("%s: %d of %d took at most %v beside the sick, %v alone", what, q+1, times, beside[i][q], alone[i][q])
			}
		}
	}
}

// saysOfTheSick checks what the status and the log say of each.
func (w *world) saysOfTheSick() {
	w.t.Helper()
	for key, want := range map[string]struct{ state, err, change string }{
		"deleted": {registrar.StateGone, "TargetGroupNotFound", `correct the name "deleted" of target_groups.deleted in /etc/berth/berth.yaml:2`},
		"denied": {
			registrar.StateDenied, "elasticloadbalancing:RegisterTargets on resource: " + w.sim.GroupARN("denied"),
			`statement RegisterInTaggedTargetGroups of deploy/iam/policy.json, which asks for the tag berth=true on the target group), or correct the name "denied" of target_groups.denied in /etc/berth/berth.yaml:3`,
		},
		"full": {registrar.StateFull, "TooManyTargets", `name another in place of the name "full" of target_groups.full in /etc/berth/berth.yaml:4`},
	} {
		g := w.group(key)
		if g.State != want.state || !strings.Contains(g.Err, want.err) || !strings.Contains(g.Change, want.change) {
			w.t.Errorf("status of %s is %s, %q, %q; want %+v", key, g.State, g.Err, g.Change, want)
		}
		said := 0
		for _, e := range w.logs.FilterLevelExact(2).All() { // error
			if change, ok := e.ContextMap()["change"].(string); ok && strings.Contains(change, want.change) {
				said++
			}
		}
		if said == 0 || said > 3 { // of what is gone: the denied write, the look, and the look-up of its name
			w.t.Errorf("the log says %d times what to change about %s; want it once for each thing that was tried", said, key)
		}
	}
	if g := w.group("healthy"); g.State != registrar.StateOK || g.Err != "" {
		w.t.Errorf("the healthy group is %s: %s", g.State, g.Err)
	}
	w.registered("healthy", 999)
}

// TestRegistrar_goneForAll: a group that a thousand hosts serve was deleted. What is left of it costs all of them
// together one or two calls a second, whether or not anybody ever mends it; and made anew it is found.
func TestRegistrar_goneForAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.peers = 1000
		w.start()
		w.want("web", 1)
		w.after(10 * time.Minute)
		deleteGroup(t, w, w.sim.GroupARN("web"))
		w.want("web", 2)
		w.after(5 * time.Hour)
		w.sim.ResetCalls()
		w.after(24 * time.Hour)
		byKind := map[string]int{}
		for _, c := range w.sim.Calls() {
			byKind[c.Action]++
		}
		t.Logf("calls of one host in a day: %v", byKind)
		if all := float64(len(w.sim.Calls())) * 1000 / 86400; all > 2.5 {
			t.Errorf("a thousand hosts make %.1f calls a second for ever", all)
		}
		if byKind["DescribeTargetGroups"] == 0 {
			t.Error("nobody looks whether the group is there again")
		}
		w.addGroup(web())
		w.after(time.Hour)
		w.registered("web", 2)
		if diff := cmp.Diff(registrar.StateOK, w.group("web").State); diff != "" {
			t.Errorf("state (-want +got):\n%s", diff)
		}
	}, web())
}
