package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/smithy-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/latest"
	"berth/pkg/discovery"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
	"berth/pkg/status/statustest"
	"berth/pkg/target"
)

// hookFixture is a host in fake time whose lifecycle hooks run: what discovery, the registrar and the metadata service say
// is the test's. Call it inside a bubble.
type hookFixture struct {
	*testing.T
	seen    latest.Value[discovery.Snapshot]
	board   latest.Value[registrar.Snapshot]
	notices latest.Value[host.Snapshot]
	views   atomic.Int64 // how often the status was built
	logs    *observer.ObservedLogs
	seq     uint64
	begun   time.Time

	mu        sync.Mutex // guards all below
	required  []string
	followed  int               // groups that are looked at often
	beats     int               // heartbeats
	beatErr   func(n int) error // of heartbeat n; nil: none
	completed []time.Duration   // after the beginning
}

// RecordLifecycleActionHeartbeat counts.
func (f *hookFixture) RecordLifecycleActionHeartbeat(context.Context, *autoscaling.RecordLifecycleActionHeartbeatInput, ...func(*autoscaling.Options)) (*autoscaling.RecordLifecycleActionHeartbeatOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beats++
	if f.beatErr != nil {
		if err := f.beatErr(f.beats); err != nil {
			return nil, err
		}
	}
	return &autoscaling.RecordLifecycleActionHeartbeatOutput{}, nil
}

// CompleteLifecycleAction keeps when it was called.
func (f *hookFixture) CompleteLifecycleAction(context.Context, *autoscaling.CompleteLifecycleActionInput, ...func(*autoscaling.Options)) (*autoscaling.CompleteLifecycleActionOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.completed = append(f.completed, time.Since(f.begun))
	return &autoscaling.CompleteLifecycleActionOutput{}, nil
}

// DescribeAutoScalingInstances is not called: the group's name is given.
func (f *hookFixture) DescribeAutoScalingInstances(context.Context, *autoscaling.DescribeAutoScalingInstancesInput, ...func(*autoscaling.Options)) (*autoscaling.DescribeAutoScalingInstancesOutput, error) {
	panic("not called")
}

// DescribeLifecycleHooks is not called: the hook's name is given.
func (f *hookFixture) DescribeLifecycleHooks(context.Context, *autoscaling.DescribeLifecycleHooksInput, ...func(*autoscaling.Options)) (*autoscaling.DescribeLifecycleHooksOutput, error) {
	panic("not called")
}

// newHookFixture runs the hooks of that name, with group web required, until the test ends.
func newHookFixture(t *testing.T, terminate, launch string) *hookFixture {
	f := &hookFixture{T: t, begun: time.Now(), required: []string{"web"}}
	var core zapcore.Core
	core, f.logs = observer.New(zap.InfoLevel)
	f.notice("")
	h := &hooks{
		notices: f.notices.Get,
		view: func() view {
			f.views.Add(1)
			d, docker := f.seen.Get()
			r, aws := f.board.Get()
			n, _ := f.notices.Get()
			return view{status.Of(time.Now(), status.AgentV1{}, status.Host{Notices: n.Notices}, d, r), docker, aws}
		},
		groups: func(_ uint64, required bool) []string {
			f.mu.Lock()
			defer f.mu.Unlock()
			if required {
				return f.required
			}
			return []string{"web", "api"}
		},
		follow: func(keys []string) func() {
			f.follow(len(keys))
			return sync.OnceFunc(func() { f.follow(-len(keys)) })
		},
		hookOf: func(_ context.Context, transition host.Transition, name string) (*host.Hook, error) {
			return &host.Hook{API: f, Log: zap.NewNop(), Instance: statustest.Instance, Transition: transition, Group: "web-asg", Name: name}, nil
		},
		maxWait: func() time.Duration { return 5 * time.Minute }, heartbeat: time.Minute,
		terminate: terminate, launch: launch, log: zap.New(core),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		if f.followed != 0 {
			t.Errorf("%d groups are still looked at often", f.followed)
		}
	})
	synctest.Wait()
	return f
}

func (f *hookFixture) follow(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followed += n
}

func (f *hookFixture) require(keys ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.required = keys
}

// notice has the autoscaling group want the instance in a state; empty: it wants nothing of it.
func (f *hookFixture) notice(state string) {
	s := &host.Snapshot{}
	if state != "" {
		s.Notices = []host.Notice{{Kind: host.Lifecycle, Action: state, At: time.Now()}}
	}
	f.notices.Set(s)
}

// want has discovery publish what it wants of one container, with the drains that hold.
func (f *hookFixture) want(w []target.Want, drains ...discovery.Drain) {
	f.seq++
	f.seen.Set(&discovery.Snapshot{Seq: f.seq, Generation: 1, Wants: map[string][]target.Want{"web": w}, Drains: drains})
}

// act has group web act on the newest of that, with that for its state and its targets.
func (f *hookFixture) act(state string, targets ...registrar.TargetStatus) {
	f.board.Set(&registrar.Snapshot{At: time.Now(), Seq: f.seq, Connected: true, Groups: []registrar.GroupStatus{{
		ARN: "arn:web", Keys: []string{"web"}, Facts: elb.Facts{Protocol: "HTTP"}, State: state, Tried: true, Seq: f.seq, Targets: targets,
	}}})
}

// viewed is how often the status was built while time passed, and after all that followed from it.
func (f *hookFixture) viewed(d time.Duration) int64 {
	before := f.views.Load()
	time.Sleep(d)
	synctest.Wait()
	return f.views.Load() - before
}

func (f *hookFixture) completions() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.completed)
}

var hookWant = target.Want{Group: "web", Run: target.Run{ID: "c1", Name: "web-1"}, Port: 8080, HostPort4: 32768, Dynamic: true}

func hookTarget(phase ledger.Phase, health string) registrar.TargetStatus {
	ts := registrar.TargetStatus{
		Target: target.Target{ID: statustest.Instance, Port: 32768}, Phase: phase, Health: health, Run: hookWant.Run,
	}
	if phase == ledger.Registered {
		ts.Wants = []target.Want{hookWant}
	}
	return ts
}

// Heartbeats that fail all the time are logged when that begins, when it changes, and when it ends: each text names another
// request.
func TestTerminateHook_heartbeatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHookFixture(t, "going", "")
		f.want([]target.Want{hookWant})
		f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy"))
		f.beatErr = func(n int) error {
			switch {
			case n <= 2:
				return &smithy.GenericAPIError{Code: "AccessDenied", Message: fmt.Sprintf("request %d", n)}
			case n <= 4:
				return &smithy.GenericAPIError{Code: "ValidationError", Message: fmt.Sprintf("request %d", n)}
			}
			return nil
		}
		f.notice("Terminated")
		time.Sleep(4*time.Minute + time.Second) // one at the notice, one each minute
		synctest.Wait()
		if n := f.logs.FilterMessage("lifecycle hook is left to its timeout, trying again").Len(); n != 2 {
			t.Errorf("%d errors; want one of each: %v", n, f.logs.All())
		}
		if n := f.logs.FilterMessage("lifecycle hook is kept waiting again").Len(); n != 1 {
			t.Errorf("%d times that it is kept waiting again; want 1: %v", n, f.logs.All())
		}
	})
}

// The terminate hook is completed the moment that the load balancers have settled. Until then the status is built once for
// each snapshot, and at that moment, but never because time passes.
func TestTerminateHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHookFixture(t, "going", "")
		f.want([]target.Want{hookWant})
		f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy"))
		if n := f.viewed(24 * time.Hour); n != 0 {
			t.Errorf("the status was built %d times though the instance stays; want 0", n)
		}
		f.notice("Terminated")
		if n := f.viewed(30 * time.Second); n != 1 || f.followed != 2 {
			t.Errorf("at the notice: the status was built %d times and %d groups are followed; want once, and all of 2", n, f.followed)
		}
		for _, step := range []struct {
			name string
			do   func()
		}{
			{"drained", func() { f.want(nil, discovery.Drain{ID: "lifecycle", Cause: discovery.CauseLifecycle}) }},
			{"denied", func() { f.act(registrar.StateDenied, hookTarget(ledger.Registered, "healthy")) }},
			{"draining", func() { f.act(registrar.StateOK, hookTarget(ledger.Removing, "draining")) }},
		} {
			step.do()
			if n := f.viewed(30 * time.Second); n != 1 {
				t.Errorf("%s: the status was built %d times; want 1", step.name, n)
			}
		}
		// The time to settle begins when it is deregistered, and a group whose load balancer has it again begins once more.
		f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy"))
		f.viewed(time.Second)
		out := time.Since(f.begun)
		f.act(registrar.StateOK, hookTarget(ledger.Removing, "draining"))
		f.viewed(4 * time.Second)
		f.act(registrar.StateOK)
		if n := f.viewed(6*time.Second - 1); n != 1 || len(f.completions()) != 0 {
			t.Errorf("gone: the status was built %d times, completed at %v; want once, and not yet", n, f.completions())
		}
		if n := f.viewed(1); n != 1 || !slices.Equal(f.completions(), []time.Duration{out + 10*time.Second}) {
			t.Errorf("settled: the status was built %d times, completed at %v; want once, at %v", n, f.completions(), out+10*time.Second)
		}
		if n := f.viewed(time.Hour); n != 0 || f.beats != 3 || f.followed != 0 {
			t.Errorf("afterwards: the status was built %d times, %d heartbeats, %d groups followed; want 0, 3 and 0", n, f.beats, f.followed)
		}
		// It comes back, and goes once more: nothing of it is registered, so that there is nothing to wait for.
		f.notice("")
		f.viewed(time.Minute)
		again := time.Since(f.begun)
		f.notice("Terminated")
		f.viewed(time.Minute)
		if got := f.completions(); len(got) != 2 || got[1] != again {
			t.Errorf("completed at %v; want once more at %v", got, again)
		}
	})
}

// What is never deregistered holds the hook for drain.max_wait, and not for a moment longer. A group that refuses does not
// shorten that: somebody may mend it.
func TestTerminateHook_maxWait(t *testing.T) {
	for name, tt := range map[string]struct {
		state   string
		drained bool
		targets []registrar.TargetStatus
	}{
		"refused":            {registrar.StateDenied, true, []registrar.TargetStatus{hookTarget(ledger.Registered, "healthy")}},
		"throttled":          {registrar.StateThrottled, true, []registrar.TargetStatus{hookTarget(ledger.Registered, "healthy")}},
		"it drains for long": {registrar.StateOK, true, []registrar.TargetStatus{hookTarget(ledger.Removing, "draining")}},
		"nobody drains it":   {registrar.StateOK, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newHookFixture(t, "going", "")
				f.want([]target.Want{hookWant})
				f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy"))
				f.notice("Terminated")
				synctest.Wait()
				var drains []discovery.Drain
				if tt.drained {
					drains = []discovery.Drain{{ID: "lifecycle", Cause: discovery.CauseLifecycle}}
				}
				f.want(nil, drains...)
				f.act(tt.state, tt.targets...)
				synctest.Wait()
				if n := f.viewed(5*time.Minute - 1); n != 0 || len(f.completions()) != 0 {
					t.Errorf("the status was built %d times, completed at %v; want 0, and not yet", n, f.completions())
				}
				if n := f.viewed(1); n != 1 || !slices.Equal(f.completions(), []time.Duration{5 * time.Minute}) {
					t.Errorf("the status was built %d times, completed at %v; want once, at 5 min", n, f.completions())
				}
			})
		})
	}
}

// Where EC2 takes the instance back the hook is completed 10 s before that, however long drain.max_wait is.
func TestTerminateHook_spot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHookFixture(t, "going", "")
		f.want([]target.Want{hookWant})
		f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy"))
		f.notices.Set(&host.Snapshot{Notices: []host.Notice{
			{Kind: host.Spot, Action: "terminate", At: time.Now(), Deadline: time.Now().Add(2 * time.Minute)},
			{Kind: host.Lifecycle, Action: "Terminated", At: time.Now()},
		}})
		synctest.Wait()
		f.want(nil, discovery.Drain{ID: "spot", Cause: discovery.CauseSpot})
		f.act(registrar.StateOK, hookTarget(ledger.Removing, "draining"))
		f.viewed(110*time.Second - 1)
		if got := f.completions(); len(got) != 0 {
			t.Errorf("completed at %v; want not yet", got)
		}
		f.viewed(1)
		if got := f.completions(); !slices.Equal(got, []time.Duration{110 * time.Second}) {
			t.Errorf("completed at %v; want at 1m50s", got)
		}
	})
}

// An instance that comes back is not let go.
func TestTerminateHook_comesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHookFixture(t, "going", "")
		f.want([]target.Want{hookWant})
		f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy"))
		f.notice("Terminated")
		f.viewed(time.Minute)
		f.notice("")
		if n := f.viewed(time.Hour); n != 0 || len(f.completions()) != 0 || f.followed != 0 {
			t.Errorf("the status was built %d times, completed at %v, %d groups followed; want nothing of it", n, f.completions(), f.followed)
		}
	})
}

// The launch hook is completed at the snapshot that shows every required group healthy, or at the reload that requires no
// more than is. The status is built once for each snapshot or notice.
func TestLaunchHook(t *testing.T) {
	for name, last := range map[string]func(*hookFixture){
		"healthy": func(f *hookFixture) { f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy")) },
		"reloaded": func(f *hookFixture) {
			f.require("web", "api")
			f.act(registrar.StateOK, hookTarget(ledger.Registered, "healthy"))
			synctest.Wait()
			if got := f.completions(); len(got) > 0 {
				f.Errorf("completed at %v though api is required, too", got)
			}
			f.require("web")
			f.want([]target.Want{hookWant})
		},
		"into a warm pool": func(f *hookFixture) { f.notice("Warmed:Running") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newHookFixture(t, "", "coming")
				if n := f.viewed(24 * time.Hour); n != 0 {
					t.Errorf("the status was built %d times though nothing is known; want 0", n)
				}
				f.want([]target.Want{hookWant})
				f.viewed(time.Hour)
				f.act(registrar.StateOK, hookTarget(ledger.Registered, "unhealthy"))
				if n := f.viewed(24 * time.Hour); n != 1 || len(f.completions()) != 0 {
					t.Errorf("unhealthy: the status was built %d times, completed at %v; want once, and not yet", n, f.completions())
				}
				at := time.Since(f.begun)
				last(f)
				f.viewed(0)
				if got := f.completions(); !slices.Equal(got, []time.Duration{at}) {
					t.Errorf("completed at %v; want once, at %v", got, at)
				}
				if n := f.viewed(24 * time.Hour); n != 0 {
					t.Errorf("afterwards the status was built %d times; want 0", n)
				}
			})
		})
	}
}
