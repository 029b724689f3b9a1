package elbsim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/internal/elbsim/limits"
	"berth/internal/elbsim/wire"
	"berth/pkg/target"
)

// operation is one action of a service.
type operation struct {
	bucket limits.Kind
	decode func(wire.Form) (request, *wire.Error)
}

// request is a decoded call. Its effect may take place later than its reply, or without one.
type request interface {
	// subject returns what the call is about.
	subject() subject
	// apply carries the call out at now, with the Sim locked. The reply writes a copy: the Sim is no longer locked then.
	apply(s *Sim, now time.Time) (wire.Reply, *wire.Error)
}

// subject is what a call is about, for policies, faults and the record.
type subject struct {
	groups   []string // ARNs or names of target groups
	targets  []description
	resource string            // the ARN that policies look at, where it is not the first of groups
	detail   map[string]string // further parameters, for the record
}

// service is an AWS service on the wire, known by its version.
type service struct {
	prefix     string // of its actions in policies
	namespace  string
	operations map[string]operation
}

func services() map[string]service {
	return map[string]service{
		"2015-12-01": {
			prefix: "elasticloadbalancing", namespace: "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/",
			operations: map[string]operation{
				"CreateTargetGroup":             {limits.All, decodeCreateGroup},
				"DeleteTargetGroup":             {limits.All, decodeDeleteGroup},
				"ModifyTargetGroup":             {limits.All, decodeModifyGroup},
				"ModifyTargetGroupAttributes":   {limits.All, decodeModifyAttributes},
				"DescribeTargetGroups":          {limits.Describe, decodeDescribeGroups},
				"DescribeTargetGroupAttributes": {limits.Describe, decodeDescribeAttributes},
				"DescribeTargetHealth":          {limits.Describe, decodeDescribeHealth},
				"RegisterTargets":               {limits.Register, decodeRegister},
				"DeregisterTargets":             {limits.Register, decodeDeregister},
			},
		},
		"2011-01-01": {
			prefix: "autoscaling", namespace: "http://autoscaling.amazonaws.com/doc/2011-01-01/",
			operations: map[string]operation{
				"CompleteLifecycleAction":        {limits.None, decodeLifecycle},
				"RecordLifecycleActionHeartbeat": {limits.None, decodeLifecycle},
				"DescribeAutoScalingInstances":   {limits.None, decodeDescribeInstances},
				"DescribeLifecycleHooks":         {limits.None, decodeDescribeHooks},
			},
		},
	}
}

// incoming is a call on its way: what was sent and what came of it.
type incoming struct {
	service service
	action  string
	op      operation
	req     request // nil where failed
	subject subject
	failed  *wire.Error // why it cannot be carried out
	id      uint64
	arrived time.Time
	fault   verdict
}

// decode reads a call. What is wrong with it is a reply like any other.
func (s *Sim) decode(body string) *incoming {
	in := &incoming{service: s.services["2015-12-01"]}
	f, err := wire.ParseForm(body)
	if err != nil {
		in.failed = err
		return in
	}
	action, version := f.Text("Action"), f.Text("Version")
	svc, known := s.services[version]
	if known {
		in.service = svc
	}
	in.action = wire.Clip(action)
	if known {
		in.op, known = svc.operations[action]
	}
	if action == "" {
		in.failed = wire.ErrMissingAction()
		return in
	}
	if !known {
		in.failed = wire.ErrInvalidAction(action, version)
		return in
	}
	req, err := in.op.decode(f)
	if err != nil {
		in.failed = err
		return in
	}
	in.req, in.subject = req, req.subject()
	return in
}

// call carries out one API call from its arrival to its reply. A call whose client goes away meanwhile takes effect all
// the same: AWS does not hear that nobody listens any more.
func (s *Sim) call(ctx context.Context, body, client string) outcome {
	in := s.decode(body)
	in.arrived = s.lock()
	in.id = s.record.begin(in, client)
	in.fault = s.matchFaults(in.action, "", in.subject)
	s.admit(in)
	wait := s.latency + in.fault.latency
	if wait <= 0 || in.fault.before() || in.fault.kind == FaultLate {
		return s.finish(ctx, in, in.arrived)
	}
	s.mu.Unlock()
	came := sleep(ctx, wait)
	now := s.lock()
	if !came {
		s.later(in, in.arrived.Add(wait))
		return s.end(ctx, in, now, outcome{end: endHang}, outcomeLeft)
	}
	return s.finish(ctx, in, now)
}

// admit decides, on arrival, whether the call is let in: first the throttle, then the policy, then its form.
func (s *Sim) admit(in *incoming) {
	if in.action == "" || in.op.decode == nil || in.fault.before() {
		return
	}
	if !s.throttle.Take(in.op.bucket, in.arrived) {
		in.failed = wire.ErrThrottled(s.throttle.Code)
		return
	}
	if s.policy != nil {
		if err := s.authorize(in); err != nil {
			in.failed = err
		}
	}
}

// finish carries the call out, as far as faults let it, and unlocks.
func (s *Sim) finish(ctx context.Context, in *incoming, now time.Time) outcome {
	switch in.fault.kind {
	case FaultError:
		in.failed = in.fault.err
	case FaultReset:
		return s.end(ctx, in, now, outcome{end: endReset}, outcomeReset)
	case FaultHang:
		return s.end(ctx, in, now, outcome{end: endHang}, outcomeHang)
	case FaultEmpty:
		return s.end(ctx, in, now, outcome{status: 200, contentType: "text/html"}, outcomeEmpty)
	case FaultLate:
		s.later(in, in.arrived.Add(in.fault.delay))
		return s.end(ctx, in, now, outcome{end: endHang}, outcomeLate)
	}
	var result wire.Reply
	if in.failed == nil {
		result, in.failed = in.req.apply(s, now)
		s.record.took(in.id, now, in.failed)
	}
	id := s.requestID()
	if in.fault.kind == FaultLost {
		return s.end(ctx, in, now, outcome{end: in.fault.silence}, outcomeLost)
	}
	out, said := outcome{status: 200, contentType: "text/xml", requestID: id, header: s.dated(now)}, outcomeOK
	if in.failed != nil {
		out.status, said = in.failed.Status, in.failed.Code
		out.body = wire.EncodeError(in.service.namespace, id, in.failed)
		return s.end(ctx, in, now, out, said)
	}
	// What the reply writes is a copy: the lock is not needed any more, and the XML of a large group takes a while.
	s.mu.Unlock()
	out.body = wire.EncodeReply(in.service.namespace, in.action, id, result)
	if in.fault.kind == FaultTruncate {
		out.body, said = out.body[:len(out.body)/2], outcomeTruncated
	}
	s.lock()
	return s.end(ctx, in, now, out, said)
}

// later lets the call take effect at a later time, if it was admitted.
func (s *Sim) later(in *incoming, at time.Time) {
	if in.failed == nil && in.req != nil {
		s.pending.add(effect{at, in.req, in.id})
	}
}

// end writes the outcome down and unlocks. An outcome without reply lasts until the client has gone.
func (s *Sim) end(ctx context.Context, in *incoming, now time.Time, out outcome, said string) outcome {
	c := s.record.end(in.id, in, now, said, out.status)
	s.mu.Unlock()
	if s.cfg.OnCall != nil {
		s.cfg.OnCall(c)
	}
	if out.end == endHang {
		<-ctx.Done()
	}
	return out
}

// requestID looks like AWS's and is different for each call.
func (s *Sim) requestID() string {
	s.requests++
	a, b := s.rng.Uint64(), s.requests
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>36&0xfff, b&0xffffffffffff)
}

// targetsOf returns the targets as they were sent; port 0 where none was.
func (sub subject) targetsOf() []target.Target {
	if len(sub.targets) == 0 {
		return nil
	}
	out := make([]target.Target, len(sub.targets))
	for i, d := range sub.targets {
		out[i] = target.Target{ID: d.id, Port: d.port}
	}
	return out
}

// lifecycle is an autoscaling call about a lifecycle hook. It is recorded and has no other effect.
type lifecycle struct {
	group  string
	detail map[string]string
}

func decodeLifecycle(f wire.Form) (request, *wire.Error) {
	group, err := f.Required("AutoScalingGroupName")
	if err != nil {
		return nil, err
	}
	if _, err := f.Required("LifecycleHookName"); err != nil {
		return nil, err
	}
	if f.Text("Action") == "CompleteLifecycleAction" {
		result, err := f.Required("LifecycleActionResult")
		if err != nil {
			return nil, err
		}
		if !slices.Contains([]string{"CONTINUE", "ABANDON"}, result) {
			return nil, wire.ErrValidation("Lifecycle action result must be one of CONTINUE, ABANDON")
		}
	}
	if !f.Has("InstanceId") && !f.Has("LifecycleActionToken") {
		return nil, wire.ErrValidation("Either the instance id or the lifecycle action token must be given")
	}
	detail := map[string]string{}
	for _, name := range []string{"AutoScalingGroupName", "LifecycleHookName", "LifecycleActionResult", "LifecycleActionToken", "InstanceId"} {
		if f.Has(name) {
			detail[name] = f.Text(name)
		}
	}
	return &lifecycle{group, detail}, nil
}

func (l *lifecycle) subject() subject {
	return subject{resource: "autoScalingGroup:*:autoScalingGroupName/" + l.group, detail: l.detail}
}

func (l *lifecycle) apply(*Sim, time.Time) (wire.Reply, *wire.Error) { return wire.NoResult, nil }

// authorize checks a call against the policy. Describe calls know no resources: IAM asks about "*" for them.
func (s *Sim) authorize(in *incoming) *wire.Error {
	action := in.service.prefix + ":" + in.action
	var (
		resource = "*"
		tags     map[string]string
	)
	switch {
	case in.subject.resource != "":
		resource = fmt.Sprintf("arn:%s:%s:%s:%s:%s", partition(s.cfg.Region), in.service.prefix, s.cfg.Region, s.cfg.Account, in.subject.resource)
	case in.op.bucket != limits.Describe && len(in.subject.groups) > 0:
		resource = in.subject.groups[0]
		if g := s.groups[resource]; g != nil {
			tags = g.tags
		} else if !strings.HasPrefix(resource, "arn:") {
			resource = fmt.Sprintf("arn:%s:elasticloadbalancing:%s:%s:targetgroup/%s/*", partition(s.cfg.Region), s.cfg.Region, s.cfg.Account, resource)
		}
	}
	if allowed, explicit := s.policy.Allows(action, resource, tags, s.cfg.Region); !allowed {
		return wire.ErrAccessDenied(s.cfg.Caller, action, resource, explicit)
	}
	return nil
}
