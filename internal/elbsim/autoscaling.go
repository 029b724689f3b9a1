package elbsim

import (
	"slices"
	"strings"
	"time"

	"berth/internal/elbsim/wire"
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

func decodeDescribeInstances(f wire.Form) (request, *wire.Error) {
	ids, err := f.Texts("InstanceIds")
	return &describeInstances{ids}, err
}

func (d *describeInstances) subject() subject {
	return subject{detail: map[string]string{"InstanceIds": strings.Join(d.ids, " ")}}
}

func (d *describeInstances) apply(s *Sim, _ time.Time) (wire.Reply, *wire.Error) {
	id, group := s.cfg.Instance.ID, s.scaling.Group
	return func(x *wire.Writer) {
		var found []string
		if group != "" && (len(d.ids) == 0 || slices.Contains(d.ids, id)) {
			found = append(found, id)
		}
		wire.List(x, "AutoScalingInstances", found, func(id string) {
			x.Text("InstanceId", id)
			x.Text("AutoScalingGroupName", group)
			x.Text("LifecycleState", "InService")
			x.Text("HealthStatus", "HEALTHY")
		})
	}, nil
}

// describeHooks is autoscaling's DescribeLifecycleHooks.
type describeHooks struct{ group string }

func decodeDescribeHooks(f wire.Form) (request, *wire.Error) {
	group, err := f.Required("AutoScalingGroupName")
	return &describeHooks{group}, err
}

func (d *describeHooks) subject() subject {
	return subject{detail: map[string]string{"AutoScalingGroupName": d.group}}
}

func (d *describeHooks) apply(s *Sim, _ time.Time) (wire.Reply, *wire.Error) {
	if d.group != s.scaling.Group {
		return nil, wire.ErrValidation("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", wire.Clip(d.group))
	}
	hooks := s.scaling.Hooks
	return func(x *wire.Writer) {
		wire.List(x, "LifecycleHooks", hooks, func(h LifecycleHook) {
			x.Text("LifecycleHookName", h.Name)
			x.Text("AutoScalingGroupName", d.group)
			x.Text("LifecycleTransition", h.Transition)
			x.Text("DefaultResult", "ABANDON")
		})
	}, nil
}
