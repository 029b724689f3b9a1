package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"berth/pkg/agent"
	"berth/pkg/config"
	"berth/pkg/host"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

const (
	// clockWarn and clockFail are how far the clock may be off: AWS refuses signatures that are 5 minutes old.
	clockWarn = 5 * time.Second
	clockFail = 4 * time.Minute
)

// checkedHost is what the checks of target groups know of this host.
type checkedHost struct {
	id    host.Identity
	elb   *elb.Inspector
	cfg   *config.Config
	ahead *time.Duration // of this host's clock, by the last reply; nil: not known
	clock bool           // it has been looked at
}

// newCheckedHost returns a host whose calls are as awsCfg says.
func newCheckedHost(id host.Identity, awsCfg aws.Config, cfg *config.Config) *checkedHost {
	h := &checkedHost{id: id, cfg: cfg, elb: elb.NewInspector(awsCfg, elb.Options{ReadTimeout: 2 * checkTime})}
	h.elb.OnDate(func(ahead time.Duration) { h.ahead = &ahead })
	return h
}

// aws looks at everything that needs AWS, in the order in which one thing needs the other.
func (c *checkCommand) aws(ctx context.Context, cfg *config.Config) {
	id, ok := c.identity(ctx, cfg)
	if !ok {
		c.add("credentials", gradeSkip, "without the instance's identity nothing is asked of AWS", "")
		return
	}
	awsCfg, err := host.AWSConfig(ctx, id.Region)
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, checkTime)
		var creds aws.Credentials
		creds, err = awsCfg.Credentials.Retrieve(bounded)
		cancel()
		if err == nil {
			c.add("credentials", gradeOK, "from "+creds.Source, "")
		}
	}
	if err != nil {
		c.add("credentials", gradeFail, err.Error(), "give the instance a role (an instance profile) with the policy of docs/security.md")
		return
	}
	h := newCheckedHost(id, awsCfg, cfg)
	for _, g := range cfg.Groups {
		c.group(ctx, h, g)
	}
}

// time looks at the clock by the answer of a call.
func (c *checkCommand) time(h *checkedHost) {
	if h.clock || h.ahead == nil {
		return
	}
	h.clock = true
	off := h.ahead.Abs()
	switch {
	case off > clockFail:
		c.add("clock", gradeFail, fmt.Sprintf("it is off by %s", off.Round(time.Second)), "AWS refuses signatures that are 5 minutes off: start chronyd or systemd-timesyncd")
	case off > clockWarn:
		c.add("clock", gradeWarn, fmt.Sprintf("it is off by %s", off.Round(time.Second)), "start chronyd or systemd-timesyncd")
	default:
		c.add("clock", gradeOK, "it agrees with AWS's", "")
	}
}

// awsFailed says why a call failed and what to do.
func (c *checkCommand) awsFailed(name string, g grade, ce *elb.CallError) {
	why, change := ce.Err.Error(), ""
	var api smithy.APIError
	if errors.As(ce, &api) || ce.Fault == elb.FaultGone {
		why = ce.Code + ": " + ce.Message
	}
	switch ce.Code {
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation":
		change = "allow elasticloadbalancing:" + ce.Operation + " in the instance role's policy (docs/security.md)"
	case "TargetGroupNotFound":
		change = "make the target group in this region and account, or correct its name in the configuration"
	case "ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch":
		change = "look at the credentials, and at the clock"
	}
	c.add(name, g, ce.Operation+": "+why, change)
}

// group looks at one target group of the configuration.
func (c *checkCommand) group(ctx context.Context, h *checkedHost, g config.Group) {
	ctx, cancel := context.WithTimeout(ctx, 2*checkTime)
	defer cancel()
	name := "target_group " + g.Key
	facts, check, ce := h.elb.Describe(ctx, elb.Reference{ARN: g.ARN, Name: g.Name, Key: g.Key, Source: g.Source})
	if ce != nil {
		c.awsFailed(name, gradeFail, ce)
		return
	}
	c.time(h)
	if why, change := facts.Unsupported(agent.SelfOf(h.id)); why != "" {
		c.add(name, gradeFail, why, change)
		return
	}
	c.add(name, gradeOK, fmt.Sprintf("type %s, protocol %s, in %s", facts.TargetType, facts.Protocol, facts.VPC), "")
	if len(facts.LoadBalancers) == 0 {
		c.add(name, gradeWarn, "no load balancer uses it", "point a listener or a rule at it")
	}
	c.healthCheck(name, facts, check)
	c.delay(ctx, h, name, facts.ARN)
	c.members(ctx, h, name, facts)
}

// healthCheck looks for checks that cannot work with ports that Docker picks.
func (c *checkCommand) healthCheck(name string, facts elb.Facts, check elb.HealthCheck) {
	if check.Port != "" && check.Port != "traffic-port" {
		c.add(name, gradeFail, "its health check asks port "+check.Port+" of the host for every target", "set the health check's port to traffic-port: each container has a port of its own")
		return
	}
	if facts.Protocol == "UDP" && check.Protocol != "" {
		c.add(name, gradeWarn, "its UDP ports are checked over "+check.Protocol+" on the same port number, which Docker does not pick for both",
			"use a TCP_UDP group with -p PORT:PORT/tcp -p PORT:PORT/udp, or a health check on a fixed port that stands for the host")
	}
}

// delay compares the deregistration delay with what a drain waits for.
func (c *checkCommand) delay(ctx context.Context, h *checkedHost, name, groupARN string) {
	delay, ce := h.elb.DeregistrationDelay(ctx, groupARN)
	if ce != nil {
		c.awsFailed(name, gradeSkip, ce) // the agent does without it, and so does the shipped policy
		return
	}
	if delay > h.cfg.Drain.MaxWait {
		c.add(name, gradeWarn, fmt.Sprintf("its deregistration delay (%s) is longer than drain.max_wait (%s): berth stop does not wait for its end", delay, h.cfg.Drain.MaxWait),
			"shorten the delay to what the longest request takes, or raise drain.max_wait")
	}
}

// members looks at who is registered for this host already.
func (c *checkCommand) members(ctx context.Context, h *checkedHost, name string, facts elb.Facts) {
	seen, ce := h.elb.Look(ctx, facts.ARN, nil)
	if ce != nil {
		c.awsFailed(name, gradeFail, ce)
		return
	}
	kept := map[string]bool{}
	if l, err := ledger.Peek(h.cfg.StateDir); err == nil {
		for _, e := range l.Entries() {
			kept[e.ARN()+" "+e.Target.String()] = true
		}
	}
	var attached, zone []string
	for _, t := range target.Sorted(seen) {
		if t.ID != h.id.InstanceID {
			continue
		}
		if t.Port == facts.Port && !kept[facts.ARN+" "+t.String()] {
			attached = append(attached, t.String())
		}
		if seen[t].Reason == elb.ReasonNotInUse && len(facts.LoadBalancers) > 0 {
			zone = append(zone, t.String())
		}
	}
	if len(attached) > 0 {
		c.add(name, gradeWarn, strings.Join(attached, ", ")+" is registered at the group's default port, and not by berth: an autoscaling group is attached to the target group",
			"detach it (aws autoscaling detach-load-balancer-target-groups), then: berth prune")
	}
	if len(zone) > 0 {
		c.add(name, gradeWarn, "the load balancer sends nothing to "+strings.Join(zone, ", "), "enable availability zone "+h.id.AvailabilityZone+" for the load balancer, and point a listener rule at the group")
	}
}
