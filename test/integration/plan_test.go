package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// TestPlan: with no agent, the plan is what an agent does next; and planning does none of it.
func TestPlan(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	agent := r.StartReady(t)
	stays := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	goes := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	before := rig.TargetsOf(t, stays, goes)
	r.WaitExact(t, "web", before...)
	ask(t, r, 0, "wait", "--for", "healthy", stays.Name, goes.Name) // the agent has the reply, too
	if code, stdout, stderr := r.Berth(t, "plan", "--detailed-exitcode"); code != 0 || stdout != "0 to register, 0 to deregister\n" {
		t.Errorf("plan with nothing to do = %d\n%s%s", code, stdout, stderr)
	}
	agent.Stop(t)
	foreign := target.Target{ID: rig.Instance, Port: 1}
	if err := r.Sim.Register(r.Group("web"), foreign); err != nil {
		t.Fatal(err)
	}
	gone := rig.TargetsOf(t, goes)[0]
	goes.Remove(t)
	comes := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	fresh := rig.TargetsOf(t, comes)[0]
	writes := len(r.Calls("web", register)) + len(r.Calls("web", deregister))

	code, stdout, stderr := r.Berth(t, "plan", "--detailed-exitcode")
	want := []string{
		fmt.Sprintf("- deregister %s in %s: %s is not to be served here any more", gone, r.Group("web"), goes.Name),
		fmt.Sprintf("+ register %s in %s: port 8080/tcp of %s is published there", fresh, r.Group("web"), comes.Name),
		"1 to register, 1 to deregister",
	}
	if gone == fresh { // Docker gave the new container the old one's port: there is nothing to do
		want = []string{"0 to register, 0 to deregister"}
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	for _, line := range want {
		if !slices.Contains(lines, line) {
			t.Errorf("the plan lacks %q:\n%s%s", line, stdout, stderr)
		}
	}
	if !strings.Contains(stdout, foreign.String()+" in") || !strings.Contains(stdout, "is unclaimed") {
		t.Errorf("the plan does not name the unclaimed target:\n%s", stdout)
	}
	if wantCode := min(2, (len(want)-1)*2); code != wantCode {
		t.Errorf("exit code %d; want %d", code, wantCode)
	}
	if n := len(r.Calls("web", register)) + len(r.Calls("web", deregister)); n != writes {
		t.Errorf("planning made %d writes", n-writes)
	}

	var plan struct {
		Complete bool
		Changes  []struct{ Operation string }
	}
	if _, stdout, _ := r.Berth(t, "plan", "--json"); json.Unmarshal([]byte(stdout), &plan) != nil || !plan.Complete || len(plan.Changes) != len(want)-1 {
		t.Errorf("plan --json = %s", stdout)
	}
	r.StartReady(t)
	r.WaitExact(t, "web", append(rig.TargetsOf(t, stays, comes), foreign)...)
}

// TestPlan_cannotLook says why, with the exit code for it.
func TestPlan_cannotLook(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	r.Configure(t, r.YAML(nil, "")+"  nowhere: {}\n")
	code, stdout, stderr := r.Berth(t, "plan")
	if code != 1 || !strings.Contains(stdout, "! nowhere: gone") || !strings.Contains(stdout, "berth.yaml:") || !strings.Contains(stderr, "not complete") {
		t.Errorf("plan with an unknown group = %d\n%s%s", code, stdout, stderr)
	}
	r.Configure(t, "target_group: {}\n")
	if code, _, stderr := r.Berth(t, "plan"); code != 2 || !strings.Contains(stderr, "target_groups") {
		t.Errorf("plan with a wrong configuration = %d, %s", code, stderr)
	}
}
