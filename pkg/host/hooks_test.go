package host

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/smithy-go"
	"go.uber.org/zap"
)

// fakeHooks is Auto Scaling with one group and its hooks.
type fakeHooks struct {
	group string // empty: the instance is in none
	hooks []types.LifecycleHook
	fail  []error // of the next calls, in order
	calls []string
}

func (f *fakeHooks) call(what string) error {
	f.calls = append(f.calls, what)
	if len(f.fail) == 0 {
		return nil
	}
	err := f.fail[0]
	f.fail = f.fail[1:]
	return err
}

func (f *fakeHooks) RecordLifecycleActionHeartbeat(_ context.Context, in *autoscaling.RecordLifecycleActionHeartbeatInput, _ ...func(*autoscaling.Options)) (*autoscaling.RecordLifecycleActionHeartbeatOutput, error) {
	return nil, f.call("heartbeat " + *in.AutoScalingGroupName + " " + *in.LifecycleHookName + " " + *in.InstanceId)
}

func (f *fakeHooks) CompleteLifecycleAction(_ context.Context, in *autoscaling.CompleteLifecycleActionInput, _ ...func(*autoscaling.Options)) (*autoscaling.CompleteLifecycleActionOutput, error) {
	return nil, f.call("complete " + *in.AutoScalingGroupName + " " + *in.LifecycleHookName + " " + *in.InstanceId + " " + *in.LifecycleActionResult)
}

func (f *fakeHooks) DescribeAutoScalingInstances(_ context.Context, in *autoscaling.DescribeAutoScalingInstancesInput, _ ...func(*autoscaling.Options)) (*autoscaling.DescribeAutoScalingInstancesOutput, error) {
	out := &autoscaling.DescribeAutoScalingInstancesOutput{}
	if f.group != "" {
		out.AutoScalingInstances = []types.AutoScalingInstanceDetails{{AutoScalingGroupName: &f.group}}
	}
	return out, f.call("instances " + in.InstanceIds[0])
}

func (f *fakeHooks) DescribeLifecycleHooks(_ context.Context, in *autoscaling.DescribeLifecycleHooksInput, _ ...func(*autoscaling.Options)) (*autoscaling.DescribeLifecycleHooksOutput, error) {
	return &autoscaling.DescribeLifecycleHooksOutput{LifecycleHooks: f.hooks}, f.call("hooks " + *in.AutoScalingGroupName)
}

func hookNamed(name, transition string) types.LifecycleHook {
	return types.LifecycleHook{LifecycleHookName: aws.String(name), LifecycleTransition: aws.String(transition)}
}

func apiError(code string) error { return &smithy.GenericAPIError{Code: code, Message: "told to"} }

func TestHook(t *testing.T) {
	both := []types.LifecycleHook{hookNamed("up", transitionLaunching), hookNamed("down-1", transitionTerminating), hookNamed("down-2", transitionTerminating)}
	tagged := func(_ context.Context, path string) (string, bool, error) { return "tagged", path == groupTagPath, nil }
	untagged := func(context.Context, string) (string, bool, error) { return "", false, nil }
	for _, test := range []struct {
		name  string
		hook  Hook
		fake  fakeHooks
		calls []string
		fails error // nil: it succeeds
		took  time.Duration
	}{
		{
			name: "all given", hook: Hook{Group: "web", Name: "going"},
			calls: []string{"heartbeat web going i-1", "complete web going i-1 CONTINUE"},
		},
		{
			name: "group from the instance's tags", hook: Hook{Name: "going", Metadata: tagged}, fake: fakeHooks{group: "asked"},
			calls: []string{"heartbeat tagged going i-1", "complete tagged going i-1 CONTINUE"},
		},
		{
			name: "all found out, once", hook: Hook{Metadata: untagged}, fake: fakeHooks{group: "asked", hooks: both},
			calls: []string{
				"instances i-1", "hooks asked", "heartbeat asked down-1 i-1", "heartbeat asked down-2 i-1",
				"complete asked down-1 i-1 CONTINUE", "complete asked down-2 i-1 CONTINUE",
			},
		},
		{
			name: "no group", hook: Hook{}, fake: fakeHooks{}, fails: ErrNoHook,
			calls: []string{"instances i-1", "instances i-1"},
		},
		{
			name: "no hook for this transition", hook: Hook{Transition: Launching, Group: "web"}, fake: fakeHooks{hooks: both[1:]}, fails: ErrNoHook,
			calls: []string{"hooks web", "hooks web"},
		},
		{
			name: "trouble that passes", hook: Hook{Group: "web", Name: "going"},
			fake:  fakeHooks{fail: []error{apiError("Throttling"), errors.New("reset")}},
			calls: []string{"heartbeat web going i-1", "heartbeat web going i-1", "heartbeat web going i-1", "complete web going i-1 CONTINUE"},
			took:  3 * time.Second,
		},
		{
			name: "denied", hook: Hook{Group: "web", Name: "going"}, fake: fakeHooks{fail: []error{apiError("AccessDenied"), apiError("AccessDenied")}},
			calls: []string{"heartbeat web going i-1", "complete web going i-1 CONTINUE"}, fails: errAny,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := test.hook
				h.API, h.Log, h.Instance = &test.fake, zap.NewNop(), "i-1"
				if h.Transition == "" {
					h.Transition = Terminating
				}
				began := time.Now()
				for _, err := range []error{h.Heartbeat(t.Context()), h.Complete(t.Context())} {
					if (err != nil) != (test.fails != nil) || err != nil && !errors.Is(test.fails, errAny) && !errors.Is(err, test.fails) {
						t.Errorf("got %v; want %v", err, test.fails)
					}
				}
				if !slices.Equal(test.fake.calls, test.calls) {
					t.Errorf("calls %q; want %q", test.fake.calls, test.calls)
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("took %v; want %v", took, test.took)
				}
			})
		})
	}
}

var errAny = errors.New("any error")

// An action that is over needs no completion, and a service that never answers is not asked for ever.
func TestHook_Complete_ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := &fakeHooks{fail: []error{apiError("ValidationError")}}
		h := &Hook{API: over, Log: zap.NewNop(), Instance: "i-1", Transition: Terminating, Group: "web", Name: "going"}
		if err := h.Complete(t.Context()); err != nil || len(over.calls) != 1 {
			t.Errorf("got %v after %q; want nil after one call", err, over.calls)
		}
		silent := &fakeHooks{fail: slices.Repeat([]error{apiError("ServiceUnavailable")}, 100)}
		h = &Hook{API: silent, Log: zap.NewNop(), Instance: "i-1", Transition: Terminating, Group: "web", Name: "going"}
		if err := h.Complete(t.Context()); err == nil || len(silent.calls) != hookTries {
			t.Errorf("got %v after %d calls; want an error after %d", err, len(silent.calls), hookTries)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		if err := h.Complete(ctx); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("got %v after %v; want an error when the context ends", err, time.Since(began))
		}
	})
}
