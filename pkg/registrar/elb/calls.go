package elb

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"berth/pkg/target"
)

// The operations, by the names that IAM and the metrics use.
const (
	OpRegister       = "RegisterTargets"
	OpDeregister     = "DeregisterTargets"
	OpDescribeHealth = "DescribeTargetHealth"
	OpDescribeGroups = "DescribeTargetGroups"
	// OpDescribeAttributes is of an Inspector alone.
	OpDescribeAttributes = "DescribeTargetGroupAttributes"
)

// Client makes the calls: each with its deadline, its metrics, and its failure classified. It neither retries nor
// waits.
type Client struct {
	api API
	Options
}

// Options are what the calls can do without.
type Options struct {
	Metrics *Metrics
	// WriteTimeout bounds RegisterTargets and DeregisterTargets, ReadTimeout the describes.
	WriteTimeout, ReadTimeout time.Duration
	DryRun                    bool // nothing is written, whoever asks for it
	// OnCredentials is told of each call whether its credentials were good: nil says that the service took the signature.
	// May be nil.
	OnCredentials func(*CallError)
}

// New returns a caller of api.
func New(api API, o Options) *Client {
	if o.OnCredentials == nil {
		o.OnCredentials = func(*CallError) {}
	}
	return &Client{api: api, Options: o}
}

// OnDate has f told of each reply how far this host's clock is ahead of that of AWS, one reply at a time, where the API
// is NewAPI's.
func (c *Client) OnDate(f func(ahead time.Duration)) {
	if dated, ok := c.api.(*sdkClient); ok {
		dated.onDate(f)
	}
}

// do makes one call. A call that went out is never cancelled by ctx when it writes: it may still take effect after
// the next one. Its deadline alone ends it.
func (c *Client) do(ctx context.Context, operation, group string, f func(context.Context) error) *CallError {
	timeout := c.ReadTimeout
	if operation == OpRegister || operation == OpDeregister {
		if c.DryRun {
			return &CallError{Operation: operation, Group: group, Fault: FaultMisconfigured, Code: "DryRun", Message: "a dry run changes nothing"}
		}
		ctx, timeout = context.WithoutCancel(ctx), c.WriteTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begun := time.Now()
	var way passage
	ce := classify(operation, group, f(way.trace(ctx)))
	if ce != nil && way.none() {
		ce.Unknown = false
	}
	if api, ok := c.api.(interface{ unsigned() bool }); ok && ce != nil && signatureCodes[ce.Code] && api.unsigned() {
		ce.Fault = FaultTransient
	}
	c.Metrics.call(operation, ce, time.Since(begun))
	switch {
	case ce != nil && ce.Fault == FaultCredentials:
		if api, ok := c.api.(interface{ refresh() }); ok && ce.Code != CodeCredentials {
			api.refresh()
		}
		c.OnCredentials(ce)
	case ce == nil || !ce.Unknown && ce.Code != CodeConnection && ce.Code != CodeCanceled:
		c.OnCredentials(nil)
	}
	return ce
}

// Register sends RegisterTargets. It returns nil when the service accepted the call.
func (c *Client) Register(ctx context.Context, groupARN string, targets []target.Target) *CallError {
	return c.do(ctx, OpRegister, groupARN, func(ctx context.Context) error {
		_, err := c.api.RegisterTargets(ctx, &elasticloadbalancingv2.RegisterTargetsInput{
			TargetGroupArn: &groupARN, Targets: descriptions(targets),
		})
		return err
	})
}

// Deregister sends DeregisterTargets. A success proves nothing: only a look does.
func (c *Client) Deregister(ctx context.Context, groupARN string, targets []target.Target) *CallError {
	return c.do(ctx, OpDeregister, groupARN, func(ctx context.Context) error {
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

// ReasonNotInUse is the load balancer's reason for a target that it sends nothing to: no listener uses the group, or the
// target is in a zone that is not enabled.
const ReasonNotInUse = string(types.TargetHealthReasonEnumNotInUse)

// Sighting is what one look said of one target.
type Sighting struct{ Health, Reason, Description string }

// Registered reports whether the target is in the group and not draining. The load balancer answers for a target that
// it does not know with "unused" and Target.NotRegistered.
func (s Sighting) Registered() bool {
	return s.Health != string(types.TargetHealthStateEnumDraining) && !s.Absent() //mutant:counts-draining-as-present
}

// Absent reports whether the target is not in the group at all.
func (s Sighting) Absent() bool {
	return s.Health == "" ||
		s.Health == string(types.TargetHealthStateEnumUnused) && s.Reason == string(types.TargetHealthReasonEnumNotRegistered)
}

// Look asks for the health of the named targets, or of the whole group where there are none.
func (c *Client) Look(ctx context.Context, groupARN string, targets []target.Target) (map[target.Target]Sighting, *CallError) {
	seen := map[target.Target]Sighting{}
	ce := c.do(ctx, OpDescribeHealth, groupARN, func(ctx context.Context) error {
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
			seen[target.Target{ID: sameID(*d.Target.Id), Port: port}] = Sighting{
				Health:      string(d.TargetHealth.State),
				Reason:      string(d.TargetHealth.Reason),
				Description: aws.ToString(d.TargetHealth.Description),
			}
		}
		return nil
	})
	return seen, ce
}

// sameID returns a target's id in the one spelling that ids are compared in: an IPv6 address has many.
func sameID(id string) string {
	if a, err := netip.ParseAddr(id); err == nil {
		return a.String()
	}
	return id
}

// Find asks for the facts of one group, by ARN or by name: one group a call, since one unknown name fails them all.
func (c *Client) Find(ctx context.Context, ref Reference) (Facts, *CallError) {
	g, ce := c.group(ctx, ref)
	if ce != nil {
		return Facts{}, ce
	}
	return factsOf(*g), nil
}

func (c *Client) group(ctx context.Context, ref Reference) (*types.TargetGroup, *CallError) {
	var found *types.TargetGroup
	ce := c.do(ctx, OpDescribeGroups, ref.String(), func(ctx context.Context) error {
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
		found = &out.TargetGroups[0]
		return nil
	})
	if ce != nil && errors.Is(ce.Err, errNoGroup) {
		ce.Fault, ce.Code, ce.Message, ce.Unknown = FaultGone, "TargetGroupNotFound", "the answer names no target group", false
	}
	return found, ce
}

var (
	errNoGroup    = errors.New("no target group in the answer")
	errNoProvider = errors.New("no provider of credentials is configured")
)

func factsOf(g types.TargetGroup) Facts {
	f := Facts{
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

// Short names a group in messages by the part of its ARN that people know: "web-prod". What is no ARN stays as it is.
func Short(groupARN string) string {
	if name := NameOf(groupARN); name != "" {
		return name
	}
	return groupARN
}

// PlaceOf returns region and account of an ARN; both are empty where it is none.
func PlaceOf(groupARN string) (region, account string) {
	a, err := arn.Parse(groupARN)
	if err != nil {
		return "", ""
	}
	return a.Region, a.AccountID
}

// NameOf returns the name in a target group's ARN (".../targetgroup/NAME/0123456789abcdef"), "" where arn is none.
func NameOf(arn string) string {
	_, rest, found := strings.Cut(arn, ":targetgroup/")
	if !found {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}
