package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/smithy-go"
	"go.uber.org/zap"
)

// The transitions that lifecycle hooks hold.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks.html
const (
	transitionTerminating = "autoscaling:EC2_INSTANCE_TERMINATING"
	transitionLaunching   = "autoscaling:EC2_INSTANCE_LAUNCHING"
)

// groupTagPath is where the metadata service has the group's name, if the instance's tags are in it.
const groupTagPath = "tags/instance/aws:autoscaling:groupName"

const (
	// hookTimeout is the deadline of one call to Auto Scaling.
	hookTimeout = 10 * time.Second
	// hookTries is how often a call is tried; hookWait the wait after the first failure, doubled after each.
	hookTries = 6
	hookWait  = time.Second
)

// HookAPI is the part of Auto Scaling that hooks need, with the SDK's own signatures.
type HookAPI interface {
	RecordLifecycleActionHeartbeat(context.Context, *autoscaling.RecordLifecycleActionHeartbeatInput, ...func(*autoscaling.Options)) (*autoscaling.RecordLifecycleActionHeartbeatOutput, error)
	CompleteLifecycleAction(context.Context, *autoscaling.CompleteLifecycleActionInput, ...func(*autoscaling.Options)) (*autoscaling.CompleteLifecycleActionOutput, error)
	DescribeAutoScalingInstances(context.Context, *autoscaling.DescribeAutoScalingInstancesInput, ...func(*autoscaling.Options)) (*autoscaling.DescribeAutoScalingInstancesOutput, error)
	DescribeLifecycleHooks(context.Context, *autoscaling.DescribeLifecycleHooksInput, ...func(*autoscaling.Options)) (*autoscaling.DescribeLifecycleHooksOutput, error)
}

// NewHookAPI returns a client of Auto Scaling. The SDK's own retries are off: Hooks has its own, and bounded.
func NewHookAPI(cfg aws.Config) HookAPI {
	return autoscaling.NewFromConfig(cfg, func(o *autoscaling.Options) { o.Retryer = aws.NopRetryer{} })
}

// Transition is what a lifecycle hook holds: the instance's way in, or its way out.
type Transition string

// The transitions.
const (
	Launching   Transition = "launch"
	Terminating Transition = "terminate"
)

func (t Transition) wire() string {
	if t == Launching {
		return transitionLaunching
	}
	return transitionTerminating
}

// Hook is one transition of this instance that waits for somebody: its lifecycle hooks, by name.
type Hook struct {
	API HookAPI
	Log *zap.Logger
	// Instance is this instance's id: it serves in the place of the action's token, which is only in notifications.
	Instance   string
	Transition Transition
	// Group is the autoscaling group's name; empty: it is found out.
	Group string
	// Name is the hook's; empty: every one of the group for the transition.
	Name string
	// Metadata asks the instance metadata service for the group's name before Auto Scaling is asked. May be nil.
	Metadata func(ctx context.Context, path string) (content string, found bool, err error)

	names []string // found out
}

// ErrNoHook says that the instance is in no autoscaling group, or that the group has no such hook.
var ErrNoHook = errors.New("no lifecycle hook")

// Heartbeat has the transition wait for another period of the hooks' heartbeat timeout.
func (h *Hook) Heartbeat(ctx context.Context) error {
	return h.each(ctx, "record heartbeat of", func(ctx context.Context, name string) error {
		_, err := h.API.RecordLifecycleActionHeartbeat(ctx, &autoscaling.RecordLifecycleActionHeartbeatInput{
			AutoScalingGroupName: &h.Group, LifecycleHookName: &name, InstanceId: &h.Instance,
		})
		return err
	})
}

// Complete lets the transition go on. That no action is active is no error: it timed out, or was completed before.
func (h *Hook) Complete(ctx context.Context) error {
	return h.each(ctx, "complete", func(ctx context.Context, name string) error {
		_, err := h.API.CompleteLifecycleAction(ctx, &autoscaling.CompleteLifecycleActionInput{
			AutoScalingGroupName: &h.Group, LifecycleHookName: &name, InstanceId: &h.Instance,
			LifecycleActionResult: aws.String("CONTINUE"),
		})
		if notActive(err) {
			h.Log.Info("lifecycle hook waits for nothing", zap.String("hook", name), zap.Error(err))
			return nil
		}
		if err == nil {
			h.Log.Info("lifecycle hook completed", zap.String("hook", name), zap.String("autoscaling_group", h.Group))
		}
		return err
	})
}

// notActive reports whether Auto Scaling knows no action of the instance for the hook. It says so with its error for
// everything that is wrong with a request.
func notActive(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == "ValidationError"
}

// each calls one action for each hook, and retries it.
func (h *Hook) each(ctx context.Context, verb string, call func(context.Context, string) error) error {
	if err := h.retry(ctx, h.find); err != nil {
		return fmt.Errorf("find the %s hook: %w", h.Transition, err)
	}
	var errs []error
	for _, name := range h.names {
		if err := h.retry(ctx, func(ctx context.Context) error { return call(ctx, name) }); err != nil {
			errs = append(errs, fmt.Errorf("%s lifecycle hook %s: %w", verb, name, err))
		}
	}
	return errors.Join(errs...)
}

// retry calls f until it succeeds, hookTries times at most, each under a deadline. What waiting cannot cure is not tried
// again.
func (h *Hook) retry(ctx context.Context, f func(context.Context) error) error {
	wait := hookWait
	for try := 1; ; try++ {
		bounded, cancel := context.WithTimeout(ctx, hookTimeout)
		err := f(bounded)
		cancel()
		if err == nil || ctx.Err() != nil || try == hookTries || hopeless(err) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		wait *= 2
	}
}

// CodeOf is AWS's code of an error, which stays the same when it happens again: its text names the request. It is empty
// where AWS has not answered.
func CodeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// hopeless reports whether trying again within a minute is of no use.
func hopeless(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return errors.Is(err, ErrNoHook)
	}
	switch api.ErrorCode() {
	case "AccessDenied", "UnauthorizedOperation", "ValidationError":
		return true
	}
	return false
}

// find learns the names that were not given. What was found stays.
func (h *Hook) find(ctx context.Context) error {
	if h.Group == "" && h.Metadata != nil {
		// Most instances have no tags there: any answer but a name is none.
		if name, found, err := h.Metadata(ctx, groupTagPath); err == nil && found {
			h.Group = name
		}
	}
	if h.Group == "" {
		out, err := h.API.DescribeAutoScalingInstances(ctx, &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: []string{h.Instance}})
		if err != nil {
			return fmt.Errorf("describe the autoscaling group of %s: %w", h.Instance, err)
		}
		if len(out.AutoScalingInstances) == 0 {
			return fmt.Errorf("%w: instance %s is in no autoscaling group", ErrNoHook, h.Instance)
		}
		h.Group = aws.ToString(out.AutoScalingInstances[0].AutoScalingGroupName)
	}
	if h.Name != "" {
		h.names = []string{h.Name}
	}
	if len(h.names) > 0 {
		return nil
	}
	out, err := h.API.DescribeLifecycleHooks(ctx, &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: &h.Group})
	if err != nil {
		return fmt.Errorf("describe the lifecycle hooks of %s: %w", h.Group, err)
	}
	h.names = namesOf(out.LifecycleHooks, h.Transition)
	if len(h.names) == 0 {
		return fmt.Errorf("%w: autoscaling group %s has none for %s", ErrNoHook, h.Group, h.Transition.wire())
	}
	return nil
}

func namesOf(hooks []types.LifecycleHook, t Transition) []string {
	var names []string
	for _, hook := range hooks {
		if aws.ToString(hook.LifecycleTransition) == t.wire() {
			names = append(names, aws.ToString(hook.LifecycleHookName))
		}
	}
	return names
}

// Item asks the metadata service for one item, for Hook.Metadata.
func (n *Notices) Item(ctx context.Context, path string) (content string, found bool, err error) {
	return n.identityIMDS.get(ctx, path)
}
