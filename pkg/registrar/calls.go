package registrar

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"berth/pkg/target"
)

// The operations, by the names that IAM and the metrics use.
const (
	opRegister       = "RegisterTargets"
	opDeregister     = "DeregisterTargets"
	opDescribeHealth = "DescribeTargetHealth"
	opDescribeGroups = "DescribeTargetGroups"
)

// operations maps what is paced to what is called.
var operations = [classes]string{
	ClassDeregister: opDeregister,
	ClassRegister:   opRegister,
	ClassDescribe:   opDescribeHealth,
}

// caller makes the calls: each with its deadline, its metrics, and its failure classified. It neither retries nor
// waits.
type caller struct {
	api API
	CallOptions
}

// CallOptions are what the calls can do without.
type CallOptions struct {
	Metrics *CallMetrics
	// WriteTimeout bounds RegisterTargets and DeregisterTargets, ReadTimeout the describes.
	WriteTimeout, ReadTimeout time.Duration
	DryRun                    bool // nothing is written, whoever asks for it
	// OnCredentials is told of each call whether its credentials were good: nil says that the service took the signature.
	// May be nil.
	OnCredentials func(*CallError)
}

// newCaller returns a caller of api.
func newCaller(api API, o CallOptions) *caller {
	if o.OnCredentials == nil {
		o.OnCredentials = func(*CallError) {}
	}
	return &caller{api: api, CallOptions: o}
}

// onDate has f told of each reply how far this host's clock is ahead of that of AWS, one reply at a time, where the API
// is NewAPI's.
func (c *caller) onDate(f func(ahead time.Duration)) {
	if dated, ok := c.api.(*client); ok {
		dated.onDate(f)
	}
}

// do makes one call. A call that went out is never cancelled by ctx when it writes: it may still take effect after
// the next one. Its deadline alone ends it.
func (c *caller) do(ctx context.Context, operation, group string, f func(context.Context) error) *CallError {
	timeout := c.ReadTimeout
	if operation == opRegister || operation == opDeregister {
		if c.DryRun {
			return &CallError{Operation: operation, Group: group, Fault: FaultMisconfigured, Code: "DryRun", Message: "a dry run changes nothing"}
		}
		ctx, timeout = context.WithoutCancel(ctx), c.WriteTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begun := time.Now()
	ce := classify(operation, group, f(ctx))
	if api, ok := c.api.(interface{ unsigned() bool }); ok && ce != nil && signatureCodes[ce.Code] && api.unsigned() {
		ce.Fault = FaultTransient
	}
	c.Metrics.call(operation, ce, time.Since(begun))
	switch {
	case ce != nil && ce.Fault == FaultCredentials:
		if api, ok := c.api.(interface{ refresh() }); ok && ce.Code != codeCredentials {
			api.refresh()
		}
		c.OnCredentials(ce)
	case ce == nil || !ce.Unknown && ce.Code != codeConnection && ce.Code != codeCanceled:
		c.OnCredentials(nil)
	}
	return ce
}

func (c *caller) register(ctx context.Context, groupARN string, targets []target.Target) *CallError {
	return c.do(ctx, opRegister, groupARN, func(ctx context.Context) error {
		_, err := c.api.RegisterTargets(ctx, &elasticloadbalancingv2.RegisterTargetsInput{
			TargetGroupArn: &groupARN, Targets: descriptions(targets),
		})
		return err
	})
}

func (c *caller) deregister(ctx context.Context, groupARN string, targets []target.Target) *CallError {
	return c.do(ctx, opDeregister, groupARN, func(ctx context.Context) error {
		_, err := c.api.DeregisterTargets(ctx, &elasticloadbalancingv2.DeregisterTargetsInput{
			TargetGroupArn: &groupARN, Targets: descriptions(targets),
		})
		return err
	})
}

// descriptions always names the port: without the one that a target was registered with, a deregistration succeeds
// and does nothing.
func descriptions(targets []target.Target) []types.TargetDescription {
	out := make([]types.TargetDescription, len(targets))
	for i, t := range targets {
		out[i] = types.TargetDescription{Id: aws.String(t.ID), Port: aws.Int32(int32(t.Port))}
	}
	return out
}

// sighting is what one look said of one target.
type sighting struct{ Health, Reason, Description string }

// registered reports whether the target is in the group and not draining. The load balancer answers for a target that
// it does not know with "unused" and Target.NotRegistered.
func (s sighting) registered() bool {
	return s.Health != string(types.TargetHealthStateEnumDraining) && !s.absent() //mutant:counts-draining-as-present
}

func (s sighting) absent() bool {
	return s.Health == "" ||
		s.Health == string(types.TargetHealthStateEnumUnused) && s.Reason == string(types.TargetHealthReasonEnumNotRegistered)
}

// look asks for the health of the named targets, or of the whole group where there are none.
func (c *caller) look(ctx context.Context, groupARN string, targets []target.Target) (map[target.Target]sighting, *CallError) {
	seen := map[target.Target]sighting{}
	ce := c.do(ctx, opDescribeHealth, groupARN, func(ctx context.Context) error {
		in := &elasticloadbalancingv2.DescribeTargetHealthInput{TargetGroupArn: &groupARN}
		if len(targets) > 0 {
			in.Targets = descriptions(targets)
		}
		out, err := c.api.DescribeTargetHealth(ctx, in)
		if err != nil {
			return err
		}
		for _, d := range out.TargetHealthDescriptions {
			if d.Target == nil || d.Target.Id == nil || d.Target.Port == nil || d.TargetHealth == nil {
				continue
			}
			port, err := target.CheckPort(*d.Target.Port)
			if err != nil {
				continue // a target without a port of its own is none that we could have made
			}
			seen[target.Target{ID: *d.Target.Id, Port: port}] = sighting{
				Health:      string(d.TargetHealth.State),
				Reason:      string(d.TargetHealth.Reason),
				Description: aws.ToString(d.TargetHealth.Description),
			}
		}
		return nil
	})
	return seen, ce
}

// find asks for the facts of one group, by ARN or by name: one group a call, since one unknown name fails them all.
func (c *caller) find(ctx context.Context, ref reference) (GroupFacts, *CallError) {
	var facts GroupFacts
	ce := c.do(ctx, opDescribeGroups, ref.String(), func(ctx context.Context) error {
		in := &elasticloadbalancingv2.DescribeTargetGroupsInput{Names: []string{ref.Name}}
		if ref.ARN != "" {
			in = &elasticloadbalancingv2.DescribeTargetGroupsInput{TargetGroupArns: []string{ref.ARN}}
		}
		out, err := c.api.DescribeTargetGroups(ctx, in)
		if err != nil {
			return err
		}
		if len(out.TargetGroups) == 0 || aws.ToString(out.TargetGroups[0].TargetGroupArn) == "" || out.TargetGroups[0].TargetType == "" {
			return errNoGroup
		}
		facts = factsOf(out.TargetGroups[0])
		return nil
	})
	if ce != nil && errors.Is(ce.Err, errNoGroup) {
		ce.Fault, ce.Code, ce.Message, ce.Unknown = FaultGone, "TargetGroupNotFound", "the answer names no target group", false
	}
	return facts, ce
}

var (
	errNoGroup    = errors.New("no target group in the answer")
	errNoProvider = errors.New("no provider of credentials is configured")
)

func factsOf(g types.TargetGroup) GroupFacts {
	f := GroupFacts{
		ARN:           aws.ToString(g.TargetGroupArn),
		Name:          aws.ToString(g.TargetGroupName),
		TargetType:    string(g.TargetType),
		Protocol:      string(g.Protocol),
		IPAddressType: string(g.IpAddressType),
		VPC:           aws.ToString(g.VpcId),
		LoadBalancers: slices.Clone(g.LoadBalancerArns),
	}
	if port, err := target.CheckPort(aws.ToInt32(g.Port)); err == nil {
		f.Port = port
	}
	return f
}

// short names a group in messages by the part of its ARN that people know: "web-prod". What is no ARN stays as it is.
func short(groupARN string) string {
	if name := arnName(groupARN); name != "" {
		return name
	}
	return groupARN
}

// placeOf returns region and account of an ARN; both are empty where it is none.
func placeOf(groupARN string) (region, account string) {
	a, err := arn.Parse(groupARN)
	if err != nil {
		return "", ""
	}
	return a.Region, a.AccountID
}
