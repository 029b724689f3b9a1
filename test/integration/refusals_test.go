package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// trouble is one row of the table of what AWS may answer: the fault, and how the group is meanwhile.
type trouble struct {
	group string
	fault elbsim.Fault
	state string // empty: it may be over before anybody could look
}

// with puts the fault on the group's calls, and returns how to end it.
func (f trouble) with(t *testing.T, r *rig.Rig) (end func()) {
	t.Helper()
	f.fault.TargetGroup = r.Group(f.group)
	id, err := r.Sim.AddFault(f.fault)
	if err != nil {
		t.Fatal(err)
	}
	return func() { r.Sim.RemoveFault(id) }
}

// groupsOf returns a rig's groups, one for each trouble, and one that has none.
func groupsOf(troubles []trouble) []elbsim.Group {
	groups := []elbsim.Group{{Name: "well"}}
	for _, f := range troubles {
		groups = append(groups, elbsim.Group{Name: f.group})
	}
	return groups
}

// What only a person can mend holds up that group alone: it is named, with what to change, and said once; the agent is
// ready, and the other groups go on. It mends without a restart.
func TestRefused_forGood(t *testing.T) {
	t.Parallel()
	refuse := func(code string) elbsim.Fault {
		return elbsim.Fault{Kind: elbsim.FaultError, Action: register, Code: code}
	}
	troubles := []trouble{
		{group: "gone", fault: refuse("TargetGroupNotFound"), state: "gone"},
		{group: "denied", fault: refuse("AccessDenied"), state: "denied"},
		{group: "full", fault: refuse("TooManyTargets"), state: "full"},
	}
	r := rig.New(t, rig.Options{Groups: groupsOf(troubles)})
	agent := r.StartReady(t)
	var specs []harness.Spec
	var ends []func()
	for _, f := range troubles {
		ends = append(ends, f.with(t, r))
		specs = append(specs, harness.Spec{Labels: r.In(f.group)})
	}
	made := r.Engine.RunAll(t, append(specs, harness.Spec{Labels: r.In("well")})...)
	r.WaitExact(t, "well", rig.TargetsOf(t, made[len(troubles)])...)
	for _, f := range troubles {
		harness.Eventually(t, harness.Patience, "a group that is "+f.state, func() error { return says(t, agent, r, f) })
		if v := metricOf(t, agent, fmt.Sprintf("berth_target_group_ok{target_group=%q}", r.Group(f.group))); v != 0 {
			t.Errorf("berth_target_group_ok of %s is %v; want 0", f.group, v)
		}
	}
	if status := agent.Status(t); !status.Readiness.Ready {
		t.Errorf("berth is not ready: %s", status.Readiness.Waiting())
	}
	if n := logged(t, agent, `"level":"error"`, len(troubles)); n != len(troubles) {
		t.Errorf("%d errors in the log; want one for each of %d groups:\n%s", n, len(troubles), agent.Log())
	}
	for _, end := range ends {
		end()
	}
	for i, f := range troubles {
		r.WaitExact(t, f.group, rig.TargetsOf(t, made[i])...)
		// Each was asked for once and refused, perhaps once more, and then once for good.
		if calls := r.Calls(f.group, register); len(calls) > 4 {
			t.Errorf("%s: %d calls of %s; want few", f.group, len(calls), register)
		}
	}
}

// says returns nil if the agent says of a trouble's group how it is, and what to change.
func says(t *testing.T, agent *rig.Agent, r *rig.Rig, f trouble) error {
	t.Helper()
	for _, g := range agent.Status(t).Groups {
		if !slices.Contains(g.Keys, r.Group(f.group)) {
			continue
		}
		if g.State != f.state || g.Err == "" || g.Change == "" {
			return fmt.Errorf("%s is %s: %q, %q", f.group, g.State, g.Err, g.Change)
		}
		return nil
	}
	return fmt.Errorf("nothing is said of %s", f.group)
}

// What passes by itself is waited for: errors of AWS's own, a registration whose answer is lost and one that comes late,
// an instance that is not running yet, a rate limit. Nobody has to act, and nothing is left behind.
func TestRefused_forAWhile(t *testing.T) {
	t.Parallel()
	throttle := trouble{group: "well", fault: elbsim.Fault{Kind: elbsim.FaultError, Action: register, Code: "Throttling", Times: 3}}
	troubles := []trouble{
		{group: "fails", fault: elbsim.Fault{Kind: elbsim.FaultError, Action: register, Code: "InternalFailure", Times: 2}},
		{group: "lost", fault: elbsim.Fault{Kind: elbsim.FaultLost, Action: register, Times: 1}},
		{group: "late", fault: elbsim.Fault{Kind: elbsim.FaultLate, Action: register, Delay: elbsim.Duration(8 * time.Second), Times: 1}},
		{group: "pending", fault: elbsim.Fault{Kind: elbsim.FaultError, Action: register, Code: "InvalidTarget", Times: 1}},
	}
	r := rig.New(t, rig.Options{Groups: groupsOf(troubles)})
	agent := r.StartReady(t)
	throttle.with(t, r)
	var specs []harness.Spec
	for _, f := range troubles {
		f.with(t, r)
		specs = append(specs, harness.Spec{Labels: r.In(f.group)})
	}
	made := r.Engine.RunAll(t, append(specs, harness.Spec{Labels: r.In("well")})...)
	for i, key := range []string{"fails", "lost", "late", "pending", "well"} {
		r.WaitHealthy(t, key, rig.TargetsOf(t, made[i])...)
		if calls := r.Calls(key, deregister); len(calls) > 0 {
			t.Errorf("%s: %v", key, calls)
		}
	}
	if v := metricOf(t, agent, `berth_aws_requests_total{code="Throttling",operation="RegisterTargets"}`); v != 3 {
		t.Errorf("%v calls were throttled; want 3", v)
	}
	harness.Eventually(t, harness.Patience, "a pacer that waits for nobody", func() error {
		if v := metricOf(t, agent, "berth_pacer_interval_seconds"); v != 0 {
			return fmt.Errorf("%v s between calls", v)
		}
		return nil
	})
	// The one whose registration was late: it goes, and what was late does not bring it back.
	late := rig.TargetsOf(t, made[2])
	made[2].Remove(t)
	r.WaitExact(t, "late")
	if out := targetsIn(r.Calls("late", deregister)); !slices.Equal(out, late) {
		t.Errorf("%s was called for %v; want %v", deregister, out, late)
	}
}

// Somebody deregisters by hand what is ours and wanted: it is registered again when berth looks, which it does soon where
// somebody waits for the container. What is not ours stays as somebody left it.
func TestRefused_byHand(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	foreign := target.Target{ID: rig.Instance, Port: 9}
	if err := r.Sim.Register(r.Group("web"), foreign); err != nil {
		t.Fatal(err)
	}
	agent := r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	ours := rig.TargetsOf(t, c)[0]
	r.WaitExact(t, "web", ours, foreign)
	ask(t, r, 0, "wait", c.Name, "--for", "healthy")
	if err := r.Sim.Deregister(r.Group("web"), ours, foreign); err != nil {
		t.Fatal(err)
	}
	r.Sim.ResetCalls()
	harness.Eventually(t, 2*harness.Patience, "registered again", func() error {
		r.Berth(t, "wait", c.Name, "--for", "drained", "--timeout", "5s") // it waits in vain, and berth looks meanwhile
		return r.Exact("web", ours)
	})
	wantTargets(t, r, register, ours)
	wantTargets(t, r, deregister)
	if n := logged(t, agent, "no longer registered though nobody here removed it", 1); n != 1 {
		t.Errorf("it is said %d times; want once", n)
	}
	repaired := fmt.Sprintf("berth_targets_repaired_total{target_group=%q}", r.Group("web"))
	harness.Eventually(t, harness.Patience, "a repair counted", func() error { // elbsim sees the call before berth its reply
		if v := metricOf(t, agent, repaired); v < 1 {
			return fmt.Errorf("%v", v)
		}
		return nil
	})
	if v := metricOf(t, agent, repaired); v != 1 {
		t.Errorf("berth_targets_repaired_total is %v; want 1", v)
	}
}
