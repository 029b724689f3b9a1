package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"berth/pkg/config"
	"berth/pkg/host"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
)

const (
	// clockWarn and clockFail are how far the clock may be off: AWS refuses signatures that are 5 minutes old.
	clockWarn = 5 * time.Second
	clockFail = 4 * time.Minute
)

// checkedHost is what the checks of target groups know of this host.
type checkedHost struct {
	id     host.Identity
	client *elbv2.Client
	cfg    *config.Config
	clock  bool // it has been looked at
}

// aws looks at everything that needs AWS, in the order in which one thing needs the other.
func (c *checkCommand) aws(ctx context.Context, cfg *config.Config) {
	id, ok := c.identity(ctx, cfg)
	if !ok {
		c.add("credentials", gradeSkip, "without the instance's identity nothing is asked of AWS", "")
		return
	}
	awsCfg, err := loadAWS(ctx, id.Region)
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
	h := &checkedHost{id: id, cfg: cfg, client: elbv2.NewFromConfig(awsCfg, func(o *elbv2.Options) { o.Retryer = aws.NopRetryer{} })}
	for _, g := range cfg.Groups {
		c.group(ctx, h, g)
	}
}

// time looks at the clock by the answer of a call.
func (c *checkCommand) time(h *checkedHost, meta middleware.Metadata) {
	at, known := awsmiddleware.GetServerTime(meta)
	if h.clock || !known {
		return
	}
	h.clock = true
	off := time.Since(at).Abs()
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
func (c *checkCommand) awsFailed(name, action string, g grade, err error) {
	var api smithy.APIError
	change := ""
	if errors.As(err, &api) {
		err = fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
		switch api.ErrorCode() {
		case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation":
			change = "allow elasticloadbalancing:" + action + " in the instance role's policy (docs/security.md)"
		case "TargetGroupNotFound":
			change = "make the target group in this region and account, or correct its name in the configuration"
		case "ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch":
			change = "look at the credentials, and at the clock"
		}
	}
	c.add(name, g, action+": "+err.Error(), change)
}

// group looks at one target group of the configuration.
func (c *checkCommand) group(ctx context.Context, h *checkedHost, g config.Group) {
	ctx, cancel := context.WithTimeout(ctx, 2*checkTime)
	defer cancel()
	name := "target_group " + g.Key
	in := &elbv2.DescribeTargetGroupsInput{Names: []string{g.Name}}
	if g.ARN != "" {
		in = &elbv2.DescribeTargetGroupsInput{TargetGroupArns: []string{g.ARN}}
	}
	out, err := h.client.DescribeTargetGroups(ctx, in)
	if err == nil && len(out.TargetGroups) != 1 {
		err = fmt.Errorf("%d target groups were found", len(out.TargetGroups))
	}
	if err != nil {
		c.awsFailed(name, "DescribeTargetGroups", gradeFail, err)
		return
	}
	c.time(h, out.ResultMetadata)
	found := &out.TargetGroups[0]
	facts := elb.Facts{
		ARN: aws.ToString(found.TargetGroupArn), Name: aws.ToString(found.TargetGroupName), TargetType: string(found.TargetType),
		Protocol: string(found.Protocol), IPAddressType: string(found.IpAddressType), VPC: aws.ToString(found.VpcId),
		LoadBalancers: found.LoadBalancerArns,
	}
	if why, change := facts.Unsupported(selfOf(h.id)); why != "" {
		c.add(name, gradeFail, why, change)
		return
	}
	c.add(name, gradeOK, fmt.Sprintf("type %s, protocol %s, in %s", facts.TargetType, facts.Protocol, facts.VPC), "")
	if len(facts.LoadBalancers) == 0 {
		c.add(name, gradeWarn, "no load balancer uses it", "point a listener or a rule at it")
	}
	c.healthCheck(name, found)
	c.delay(ctx, h, name, facts.ARN)
	c.members(ctx, h, name, found)
}

// healthCheck looks for checks that cannot work with ports that Docker picks.
func (c *checkCommand) healthCheck(name string, g *types.TargetGroup) {
	port := aws.ToString(g.HealthCheckPort)
	if port != "" && port != "traffic-port" {
		c.add(name, gradeFail, "its health check asks port "+port+" of the host for every target", "set the health check's port to traffic-port: each container has a port of its own")
		return
	}
	if g.Protocol == types.ProtocolEnumUdp && g.HealthCheckProtocol != "" {
		c.add(name, gradeWarn, "its UDP ports are checked over "+string(g.HealthCheckProtocol)+" on the same port number, which Docker does not pick for both",
			"use a TCP_UDP group with -p PORT:PORT/tcp -p PORT:PORT/udp, or a health check on a fixed port that stands for the host")
	}
}

// delay compares the deregistration delay with what a drain waits for.
func (c *checkCommand) delay(ctx context.Context, h *checkedHost, name, groupARN string) {
	out, err := h.client.DescribeTargetGroupAttributes(ctx, &elbv2.DescribeTargetGroupAttributesInput{TargetGroupArn: &groupARN})
	if err != nil {
		c.awsFailed(name, "DescribeTargetGroupAttributes", gradeSkip, err) // the agent does without it, and so does the shipped policy
		return
	}
	for _, a := range out.Attributes {
		seconds, err := strconv.Atoi(aws.ToString(a.Value))
		if aws.ToString(a.Key) != "deregistration_delay.timeout_seconds" || err != nil {
			continue
		}
		if delay := time.Duration(seconds) * time.Second; delay > h.cfg.Drain.MaxWait {
			c.add(name, gradeWarn, fmt.Sprintf("its deregistration delay (%s) is longer than drain.max_wait (%s): berth stop does not wait for its end", delay, h.cfg.Drain.MaxWait),
				"shorten the delay to what the longest request takes, or raise drain.max_wait")
		}
	}
}

// members looks at who is registered for this host already.
func (c *checkCommand) members(ctx context.Context, h *checkedHost, name string, g *types.TargetGroup) {
	out, err := h.client.DescribeTargetHealth(ctx, &elbv2.DescribeTargetHealthInput{TargetGroupArn: g.TargetGroupArn})
	if err != nil {
		c.awsFailed(name, "DescribeTargetHealth", gradeFail, err)
		return
	}
	kept := map[string]bool{}
	if l, err := ledger.Peek(h.cfg.StateDir); err == nil {
		for _, e := range l.Entries() {
			kept[e.ARN()+" "+e.Target.String()] = true
		}
	}
	var attached, zone []string
	for _, d := range out.TargetHealthDescriptions {
		if d.Target == nil || aws.ToString(d.Target.Id) != h.id.InstanceID {
			continue
		}
		port := aws.ToInt32(d.Target.Port)
		at := fmt.Sprintf("%s:%d", h.id.InstanceID, port)
		if port == aws.ToInt32(g.Port) && !kept[aws.ToString(g.TargetGroupArn)+" "+at] {
			attached = append(attached, at)
		}
		if d.TargetHealth != nil && d.TargetHealth.Reason == types.TargetHealthReasonEnumNotInUse && len(g.LoadBalancerArns) > 0 {
			zone = append(zone, at)
		}
	}
	if len(attached) > 0 {
		c.add(name, gradeWarn, strings.Join(attached, ", ")+" is registered at the group's default port, and not by berth: an autoscaling group is attached to the target group",
			"detach it (aws autoscaling detach-load-balancer-target-groups), then: berth prune")
	}
	if len(zone) > 0 {
		slices.Sort(zone)
		c.add(name, gradeWarn, "the load balancer sends nothing to "+strings.Join(zone, ", "), "enable availability zone "+h.id.AvailabilityZone+" for the load balancer, and point a listener rule at the group")
	}
}
