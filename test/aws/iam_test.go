package aws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"berth/internal/elbsim"
	"berth/internal/elbsim/iam"
	"berth/pkg/config"
	agenthost "berth/pkg/host"
	"berth/pkg/registrar"
	"berth/test/agenttest"
	"berth/test/rig"
)

// policyFile is the policy that we ship.
const policyFile = "../../deploy/iam/policy.json"

// document is a policy that a test takes things out of.
type document struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid, Effect string
	Action      []string
	Resource    string
	Condition   map[string]map[string]string `json:",omitempty"`
}

func shipped(t *testing.T) document {
	t.Helper()
	raw, err := os.ReadFile(policyFile)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

// without is the policy without one action.
func (d document) without(action string) document {
	out := document{Version: d.Version}
	for _, s := range d.Statement {
		s.Action = slices.DeleteFunc(slices.Clone(s.Action), func(a string) bool { return a == action })
		if len(s.Action) > 0 {
			out.Statement = append(out.Statement, s)
		}
	}
	return out
}

func (d document) policy(t *testing.T) *iam.Policy {
	t.Helper()
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	p, err := iam.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// liveUnder lives through all that the agent asks of AWS under a policy: a group is found, a container comes, is verified and
// goes; a lifecycle hook is found out, held and completed. It returns what could not be done, as a person is told of it,
// and how many calls were denied.
func liveUnder(t *testing.T, region string, p *iam.Policy) (problems []string, denied int) {
	t.Helper()
	web := agenttest.Group("web")
	web.Name, web.Source = "web-prod", "/etc/berth/berth.yaml:2"
	prepare := func(sim *elbsim.Sim) {
		if _, err := sim.AddGroup(elbsim.Group{Name: "web-prod", Tags: map[string]string{"berth": "true"}}); err != nil {
			t.Fatal(err)
		}
		sim.SetAutoScaling(elbsim.AutoScaling{Group: "asg", Hooks: []elbsim.LifecycleHook{{Name: "out", Transition: "autoscaling:EC2_INSTANCE_TERMINATING"}}})
		sim.SetPolicy(p)
	}
	inFakeTime(t, elbsim.Config{Region: region}, []config.Group{web}, prepare, func(h *host) {
		status := func() {
			if g := h.group("web"); g.State != registrar.StateOK {
				problems = append(problems, "status: "+g.State+": "+g.Err+" ("+g.Change+")")
			}
		}
		id := h.run("web")
		h.after(10 * time.Minute) // found, looked at, registered, verified
		if n := len(h.sim.Registered("web-prod")); n != 1 {
			problems = append(problems, fmt.Sprintf("%d targets registered while the container runs", n))
		}
		status()
		h.engine.Stop(id)
		h.after(10 * time.Minute)
		if n := len(h.sim.Registered("web-prod")); n != 0 {
			problems = append(problems, fmt.Sprintf("%d targets registered after the container ended", n))
		}
		problems = append(problems, h.said()...)
		status()
		api, err := agenttest.AWS(h.sim).Client(h.Context(), h.sim.Region())
		if err != nil {
			h.Fatal(err)
		}
		hook := &agenthost.Hook{
			API: agenthost.NewHookAPI(api), Log: zap.NewNop(), Instance: rig.Instance, Transition: agenthost.Terminating,
		}
		for _, do := range []error{hook.Heartbeat(h.Context()), hook.Complete(h.Context())} {
			if do != nil {
				problems = append(problems, do.Error())
			}
		}
		for _, c := range h.sim.Calls() {
			if c.Outcome == "AccessDenied" {
				denied++
			}
		}
	})
	return problems, denied
}

// The shipped policy is enough, in every partition of AWS: not one call is denied.
func TestPolicy_enough(t *testing.T) {
	for _, region := range []string{"eu-central-1", "cn-north-1", "us-gov-west-1", "eusc-de-east-1"} {
		if problems, denied := liveUnder(t, region, shipped(t).policy(t)); len(problems) > 0 || denied > 0 {
			t.Errorf("%s: under the shipped policy %d calls are denied: %q", region, denied, problems)
		}
	}
}

// Each action of the shipped policy is needed: without it something is not done, and whoever looks is told which action is
// missing; where the registrar says it, on what resource to allow it, and the statement that would.
func TestPolicy_least(t *testing.T) {
	d := shipped(t)
	tried := 0
	for _, s := range d.Statement {
		for _, action := range s.Action {
			tried++
			t.Run(action, func(t *testing.T) {
				problems, denied := liveUnder(t, region, d.without(action).policy(t))
				t.Logf("%d denied: %q", denied, problems)
				if denied == 0 {
					t.Fatal("nothing was denied without it: it is not needed")
				}
				named := slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, "is not authorized to perform: "+action+" ") })
				if !named {
					t.Errorf("nobody is told that %s is missing: %q", action, problems)
				}
				if strings.HasPrefix(action, "elasticloadbalancing:") {
					advised := slices.ContainsFunc(problems, func(p string) bool {
						return strings.HasPrefix(p, "status: denied: ") && strings.Contains(p, "allow "+action+" on ") && strings.Contains(p, "statement "+s.Sid+" of deploy/iam/policy.json")
					})
					if !advised {
						t.Errorf("the status does not say to allow %s as statement %s does: %q", action, s.Sid, problems)
					}
				}
				for _, other := range d.Statement {
					for _, a := range other.Action {
						if a != action && slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, "perform: "+a+" ") }) {
							t.Errorf("%s is said to be missing, too", a)
						}
					}
				}
			})
		}
	}
	if tried < 8 {
		t.Errorf("the policy has %d actions; want those for target groups and those for lifecycle hooks", tried)
	}
}

// What the shipped policy allows to change is no more than it must: groups that carry the tag, and lifecycle actions.
func TestPolicy_narrow(t *testing.T) {
	for _, s := range shipped(t).Statement {
		for _, action := range s.Action {
			if strings.Contains(action, "*") || s.Effect != "Allow" {
				t.Errorf("%s: %s %s; want single actions allowed", s.Sid, s.Effect, action)
			}
			if _, what, _ := strings.Cut(action, ":"); s.Resource == "*" && !strings.HasPrefix(what, "Describe") {
				t.Errorf("%s: %s on everything", s.Sid, action)
			}
		}
	}
	web := agenttest.Group("web")
	web.Name, web.Source = "untagged", "/etc/berth/berth.yaml:2"
	prepare := func(sim *elbsim.Sim) {
		if _, err := sim.AddGroup(elbsim.Group{Name: "untagged", Tags: map[string]string{"berth": "false"}}); err != nil {
			t.Fatal(err)
		}
		sim.SetPolicy(shipped(t).policy(t))
	}
	inFakeTime(t, elbsim.Config{}, []config.Group{web}, prepare, func(h *host) {
		h.run("web")
		h.after(time.Minute)
		if n := len(h.sim.Registered("untagged")); n != 0 {
			t.Errorf("%d targets were registered in a group without the tag", n)
		}
		if g := h.group("web"); !strings.Contains(g.Change, "the tag berth=true on the target group") || !strings.Contains(g.Change, "/etc/berth/berth.yaml:2") {
			t.Errorf("the status says %s: %q", g.State, g.Change)
		}
	})
}
