package elbsim

import (
	"slices"
	"strings"
	"time"
)

// AutoScaling is the autoscaling group that the first instance is in.
type AutoScaling struct {
	Group string
	Hooks []LifecycleHook
}

// LifecycleHook is a lifecycle hook of an autoscaling group.
type LifecycleHook struct {
	Name       string
	Transition string // autoscaling:EC2_INSTANCE_LAUNCHING or autoscaling:EC2_INSTANCE_TERMINATING
}

// SetAutoScaling puts the first instance into an autoscaling group. The zero value takes it out.
func (s *Sim) SetAutoScaling(a AutoScaling) {
	s.lock()
	defer s.mu.Unlock()
	a.Hooks = slices.Clone(a.Hooks)
	s.scaling = a
}

// describeInstances is autoscaling's DescribeAutoScalingInstances.
type describeInstances struct{ ids []string }

func decodeDescribeInstances(f form) (request, *APIError) {
	ids, err := f.texts("InstanceIds")
	return &describeInstances{ids}, err
}

func (d *describeInstances) subject() subject {
	return subject{detail: map[string]string{"InstanceIds": strings.Join(d.ids, " ")}}
}

func (d *describeInstances) apply(s *Sim, _ time.Time) (reply, *APIError) {
	id, group := s.cfg.Instance.ID, s.scaling.Group
	return func(x *xmlWriter) {
		var found []string
		if group != "" && (len(d.ids) == 0 || slices.Contains(d.ids, id)) {
			found = append(found, id)
		}
		xmlList(x, "AutoScalingInstances", found, func(id string) {
			x.text("InstanceId", id)
			x.text("AutoScalingGroupName", group)
			x.text("LifecycleState", "InService")
			x.text("HealthStatus", "HEALTHY")
		})
	}, nil
}

// describeHooks is autoscaling's DescribeLifecycleHooks.
type describeHooks struct{ group string }

func decodeDescribeHooks(f form) (request, *APIError) {
	group, err := f.required("AutoScalingGroupName")
	return &describeHooks{group}, err
}

func (d *describeHooks) subject() subject {
	return subject{detail: map[string]string{"AutoScalingGroupName": d.group}}
}

func (d *describeHooks) apply(s *Sim, _ time.Time) (reply, *APIError) {
	if d.group != s.scaling.Group {
		return nil, errValidation("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", clip(d.group))
	}
	hooks := s.scaling.Hooks
	return func(x *xmlWriter) {
		xmlList(x, "LifecycleHooks", hooks, func(h LifecycleHook) {
			x.text("LifecycleHookName", h.Name)
			x.text("AutoScalingGroupName", d.group)
			x.text("LifecycleTransition", h.Transition)
			x.text("DefaultResult", "ABANDON")
		})
	}, nil
}
