package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"berth/internal/elbsim"
	"berth/internal/elbsim/iam"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// elsewhere is the ARN of a target group in another region than the rig's.
const elsewhere = "arn:aws:elasticloadbalancing:ap-south-1:123456789012:targetgroup/web/0123456789abcdef"

// refusal is what one group of the configuration is to say of itself: its state, what is wrong, and what to change.
// LINE stands for the file and the line that name the group, REAL for its name in AWS.
type refusal struct {
	key, state, wrong, change string
}

// names puts the group's own name and place into what it should say.
func (f refusal) names(r *rig.Rig, text string) string {
	line := fmt.Sprintf("%s:%d", r.ConfigPath(), f.line())
	return strings.NewReplacer("LINE", line, "REAL", nameOf(r, f.key)).Replace(text)
}

func (f refusal) line() int {
	return 2 + slices.IndexFunc(refusals, func(o refusal) bool { return o.key == f.key })
}

// refusals are groups that a person must do something about, one a line of the configuration, in this order.
var refusals = []refusal{
	{"deleted", "gone", "TargetGroupNotFound", `create the target group, or correct the name "REAL" of target_groups.deleted in LINE`},
	{
		"denied", "denied", "is not authorized to perform: elasticloadbalancing:RegisterTargets on resource: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/REAL/",
		`the tag berth=true on the target group), or correct the name "REAL" of target_groups.denied in LINE`,
	},
	{"full", "full", "TooManyTargets", `raise the quota on targets of this target group or load balancer, or spread the service over more groups: name another in place of the name "REAL" of target_groups.full in LINE`},
	{
		"foreign", "misconfigured", "it is in vpc-0fedcba9876543210, this instance in vpc-0123456789abcdef0",
		`use a target group in this instance's VPC, and name it in place of the name "REAL" of target_groups.foreign in LINE`,
	},
	{"nothing", "gone", "TargetGroupNotFound", `create the target group, or correct the name "no-such-group" of target_groups.nothing in LINE`},
	{"far", "misconfigured", "the target group is in ap-south-1, this instance in us-east-1", "correct the ARN " + elsewhere + " of target_groups.far in LINE"},
	{"healthy", "ok", "", ""},
}

// refusedYAML is the configuration, one group a line.
func refusedYAML(r *rig.Rig) string {
	var b strings.Builder
	b.WriteString("target_groups:\n")
	for _, f := range refusals {
		switch f.key {
		case "nothing":
			b.WriteString("  nothing: {name: no-such-group}\n")
		case "far":
			b.WriteString("  far: {arn: \"" + elsewhere + "\"}\n")
		default:
			fmt.Fprintf(&b, "  %s: {name: %s}\n", f.key, nameOf(r, f.key))
		}
	}
	return b.String()
}

// nameOf returns a group's name in AWS. The one that is deleted has no listener, which would keep it.
func nameOf(r *rig.Rig, key string) string {
	if key == "deleted" {
		return "deleted-" + r.Group("healthy")
	}
	return r.Group(key)
}

// deleteGroup deletes a target group as its owner would.
func deleteGroup(t *testing.T, r *rig.Rig, key string) {
	t.Helper()
	arn := r.Sim.GroupARN(nameOf(r, key))
	if err := r.Sim.Detach(arn); err != nil {
		t.Fatal(err)
	}
	client := elb.New(elb.Options{
		Region: r.Sim.Region(), BaseEndpoint: awssdk.String(r.Server.URL()), Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", ""),
	})
	if _, err := client.DeleteTargetGroup(context.Background(), &elb.DeleteTargetGroupInput{TargetGroupArn: &arn}); err != nil {
		t.Fatal(err)
	}
}

// Whatever a person has to mend is said of its group in /readyz, in the log and by berth status, each with the line of the
// file to change; meanwhile the agent is ready and the healthy group is served. The program, on a real engine, under the
// shipped policy.
func TestRefused(t *testing.T) {
	t.Parallel()
	tags := map[string]string{"berth": "true"}
	r := rig.New(t, rig.Options{
		Groups: []elbsim.Group{
			{Name: "denied"},
			{Name: "full", Tags: tags},
			{Name: "healthy", Tags: tags},
			{Name: "foreign", Tags: tags, VPC: "vpc-0fedcba9876543210"},
		},
		Sim: elbsim.Config{AnyInstance: true, Quotas: elbsim.Quotas{TargetsPerGroup: 2}},
	})
	if _, err := r.Sim.AddGroup(elbsim.Group{Name: nameOf(r, "deleted"), Tags: tags}); err != nil {
		t.Fatal(err)
	}
	r.Configure(t, refusedYAML(r))
	for p := range uint16(2) {
		if err := r.Sim.Register(r.Group("full"), target.Target{ID: "i-0fedcba9876543210", Port: p + 1}); err != nil {
			t.Fatal(err)
		}
	}
	agent := r.StartReady(t)
	deleteGroup(t, r, "deleted")
	r.Sim.SetPolicy(shipped(t).policy(t))
	keys := slices.Collect(func(yield func(string) bool) {
		for _, f := range refusals {
			if !yield(f.key) {
				return
			}
		}
	})
	c := r.Engine.Run(t, harness.Spec{Labels: map[string]string{rig.Label: strings.Join(keys, ",")}})
	r.WaitExact(t, "healthy", rig.TargetsOf(t, c)...)
	for _, f := range refusals {
		t.Run(f.key, func(t *testing.T) {
			harness.Eventually(t, harness.Patience, "what is to be said", func() error { return f.said(t, r, agent) })
		})
	}
	if status, body := agent.Get(t, "/readyz"); status != 200 {
		t.Errorf("/readyz is %d: a group's own trouble makes no agent unready:\n%s", status, body)
	}
}

// said returns nil if /readyz, log and status say of the group what they should.
func (f refusal) said(t *testing.T, r *rig.Rig, agent *rig.Agent) error {
	t.Helper()
	_, readyz := agent.Get(t, "/readyz")
	_, status, _ := r.Berth(t, "status")
	if f.state == "ok" {
		if !strings.Contains(readyz, "[ok  ] target_group "+f.key+": ok, 1 target\n") || strings.Contains(status, "target_group "+f.key+":") {
			return fmt.Errorf("/readyz:\n%s\nstatus:\n%s", readyz, status)
		}
		return nil
	}
	wrong, change := f.names(r, f.wrong), f.names(r, f.change)
	line := regexp.MustCompile(`(?m)^\[warn\] target_group ` + f.key + `: ` + f.state + `: .*$`).FindString(readyz)
	if !strings.Contains(line, wrong) || !strings.Contains(line, change) {
		return fmt.Errorf("/readyz says %q of it; want %q and %q\n%s", line, wrong, change, readyz)
	}
	_, rest, _ := strings.Cut(status, "  target_group "+f.key+": "+f.state+": ")
	paragraph, _, _ := strings.Cut(rest, "  target_group ")
	if !strings.Contains(paragraph, wrong) || !strings.Contains(paragraph, change) {
		return fmt.Errorf("status says %q of it; want %q and %q\n%s", paragraph, wrong, change, status)
	}
	for _, l := range errorsOf(agent.Log()) {
		if strings.Contains(l.err, wrong) && strings.Contains(l.change, change) {
			return nil
		}
	}
	return fmt.Errorf("the log does not say %q and %q: %+v", wrong, change, errorsOf(agent.Log()))
}

// logged is a line of the log that a person must do something about.
type logged struct{ message, err, change string }

func errorsOf(log string) []logged {
	var out []logged
	for line := range strings.Lines(log) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) != nil || fields["level"] != "error" {
			continue
		}
		text := func(keys ...string) string {
			for _, k := range keys {
				if s, ok := fields[k].(string); ok {
					return s
				}
			}
			return ""
		}
		out = append(out, logged{text("msg", "message"), text("error"), text("change")})
	}
	return out
}

// An instance profile without rights, or none at all: every group and the credentials say so, and what to attach.
func TestRefused_noRights(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env     []string
		prepare func(*elbsim.Sim) error
		ready   int
		readyz  []string
		log     []string
	}{
		"a profile without rights": {
			prepare: func(s *elbsim.Sim) error {
				p, err := iam.Parse([]byte(`{"Statement": {"Effect": "Allow", "Action": "ec2:DescribeInstances", "Resource": "*"}}`))
				s.SetPolicy(p)
				return err
			},
			ready: 200,
			readyz: []string{
				"denied: ", "is not authorized to perform: elasticloadbalancing:DescribeTargetGroups on resource: *",
				"allow elasticloadbalancing:DescribeTargetGroups on * in the policy of this instance's role (statement FindTargetGroups of deploy/iam/policy.json)",
			},
			log: []string{"allow elasticloadbalancing:DescribeTargetGroups on * in the policy of this instance's role (statement FindTargetGroups of deploy/iam/policy.json)"},
		},
		"no profile": {
			env: noKeys, prepare: noCredentials(elbsim.Fault{Kind: elbsim.FaultError, Status: 404}),
			ready: 503, readyz: []string{"[wait] credentials: ", attach}, log: []string{attach + " to this instance"},
		},
		"credentials: 500": {
			env: noKeys, prepare: noCredentials(elbsim.Fault{Kind: elbsim.FaultError, Status: 500}),
			ready: 503, readyz: []string{"[wait] credentials: ", attach}, log: []string{attach + " to this instance"},
		},
		"credentials: 401": {
			env: noKeys, prepare: noCredentials(elbsim.Fault{Kind: elbsim.FaultError, Status: 401}),
			ready: 503, readyz: []string{"[wait] credentials: ", attach}, log: []string{attach + " to this instance"},
		},
		"credentials: no answer": {
			env: noKeys, prepare: noCredentials(elbsim.Fault{Kind: elbsim.FaultHang}),
			ready: 503, readyz: []string{"[wait] credentials: ", attach}, log: []string{attach + " to this instance"},
		},
		"expired": {
			prepare: func(s *elbsim.Sim) error {
				_, err := s.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Code: "ExpiredToken"})
				return err
			},
			ready: 503, readyz: []string{"[wait] credentials: ", "ExpiredToken", attach}, log: []string{attach + " to this instance"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Options{Env: tt.env})
			if err := tt.prepare(r.Sim); err != nil {
				t.Fatal(err)
			}
			agent := r.Start(t)
			c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			harness.Eventually(t, harness.Patience, "what is to be said", func() error {
				if _, err := agent.TryStatus(t); err != nil {
					return err
				}
				code, readyz := agent.Get(t, "/readyz")
				_, status, _ := r.Berth(t, "status")
				for _, want := range tt.readyz {
					if code != tt.ready || !strings.Contains(readyz, want) {
						return fmt.Errorf("/readyz is %d\n%s\nwant %d and %q", code, readyz, tt.ready, want)
					}
					if want := strings.TrimPrefix(want, "[wait] "); !strings.Contains(status, want) {
						return fmt.Errorf("status is\n%s\nwant %q", status, want)
					}
				}
				for _, want := range tt.log {
					if !slices.ContainsFunc(errorsOf(agent.Log()), func(l logged) bool { return strings.Contains(l.change, want) }) {
						return fmt.Errorf("the log does not say %q: %+v", want, errorsOf(agent.Log()))
					}
				}
				return nil
			})
			// It mends without a restart.
			r.Sim.SetPolicy(nil)
			r.Sim.ClearFaults()
			r.WaitExact(t, "web", rig.TargetsOf(t, c)...)
			harness.Eventually(t, harness.Patience, "ready", func() error {
				if code, body := agent.Get(t, "/readyz"); code != 200 || strings.Contains(body, "warn") {
					return fmt.Errorf("%d:\n%s", code, body)
				}
				return nil
			})
		})
	}
}

// attach is what to do without credentials.
const attach = "attach an instance profile with the policy of deploy/iam/policy.json"

// noKeys takes the keys away that a rig gives its agent: those of the instance profile are left.
var noKeys = []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}

// noCredentials has the metadata service give none, in one way or another.
func noCredentials(f elbsim.Fault) func(*elbsim.Sim) error {
	f.Action, f.Path = "IMDS", "/latest/meta-data/iam/security-credentials/*"
	return func(s *elbsim.Sim) error {
		_, err := s.AddFault(f)
		return err
	}
}

// What can be seen to be wrong without asking anybody is refused at once: exit status 2, and the line with its key.
func TestRefused_atStart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ line, says string }{
		"another service": {`web: {arn: "arn:aws:s3:::bucket"}`, `:2: target_groups.web.arn: "arn:aws:s3:::bucket": must be the ARN of a target group`},
		"a load balancer": {
			`web: {arn: "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/web/0123456789abcdef"}`,
			`:2: target_groups.web.arn: "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/web/0123456789abcdef": must be the ARN of a target group`,
		},
		"another region than configured": {`web: {arn: "` + elsewhere + `"}` + "\nregion: us-east-1", `:2: target_groups.web.arn: "` + elsewhere + `": `},
		"no name":                        {`web: {name: "not_a_name"}`, `:2: target_groups.web.name: "not_a_name": `},
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{})
			r.Configure(t, "target_groups:\n  "+tt.line+"\n")
			agent := r.Start(t)
			if code := agent.Wait(); code != 2 || !strings.Contains(agent.Log(), tt.says) {
				t.Errorf("berth ended with %d, and says\n%s\nwant 2 and %q", code, agent.Log(), tt.says)
			}
			if calls := r.Sim.Calls(); len(calls) > 0 {
				t.Errorf("%d calls were made: %v", len(calls), calls)
			}
		})
	}
}
