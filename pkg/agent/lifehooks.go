package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"berth/pkg/config"
	"berth/pkg/host"
	"berth/pkg/status"
)

const (
	// hookPoll is how often a hook's condition is looked at though nothing has changed: it depends on the time, too.
	hookPoll = 500 * time.Millisecond
	// launchFollow is how long the load balancers are looked at often for a launch hook: an hour is the longest that Auto
	// Scaling waits unless it is told otherwise.
	launchFollow = time.Hour
)

// Target lifecycle states: of an instance that is going to be terminated, and those of a warm pool, where it serves nothing.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/warm-pool-instance-lifecycle.html
const (
	stateTerminated = "Terminated"
	warmPrefix      = "Warmed:"
)

// inState reports whether the autoscaling group wants the instance in a state that fits.
func inState(s *host.Snapshot, fits func(state string) bool) bool {
	return slices.ContainsFunc(s.Notices, func(n host.Notice) bool { return n.Kind == host.Lifecycle && fits(n.Action) })
}

// terminating reports whether the instance is going to be terminated, out of a warm pool or not.
func terminating(s *host.Snapshot) bool {
	return inState(s, func(state string) bool { return strings.TrimPrefix(state, warmPrefix) == stateTerminated })
}

// pooled reports whether the instance is in a warm pool, or on its way there.
func pooled(s *host.Snapshot) bool {
	return inState(s, func(state string) bool { return strings.HasPrefix(state, warmPrefix) }) && !terminating(s)
}

// hooks keeps the host's lifecycle hooks until ctx ends.
func (a *Agent) hooks(ctx context.Context) error {
	var wg sync.WaitGroup
	if name := a.cfg.Lifecycle.TerminateHook; name != "" && !a.o.DryRun {
		wg.Go(func() { a.terminateHook(ctx, name) })
	}
	if name := a.cfg.Lifecycle.LaunchHook; name != "" && !a.o.DryRun {
		wg.Go(func() { a.launchHook(ctx, name) })
	}
	wg.Wait()
	<-ctx.Done()
	return nil
}

// hookOf is a lifecycle hook of this instance. It waits for the identity.
func (a *Agent) hookOf(ctx context.Context, t host.Transition, name string) (*host.Hook, error) {
	id, err := a.notices.Identity(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := a.o.AWS.client(ctx, id.Region)
	if err != nil {
		return nil, err
	}
	return &host.Hook{
		API: host.NewHookAPI(cfg), Log: a.log.Named("life"), Instance: id.InstanceID, Transition: t,
		Group: given(a.cfg.Lifecycle.Group), Name: given(name), Metadata: a.notices.Item,
	}, nil
}

// given is a name that is not to be found out.
func given(name string) string {
	if name == config.Auto {
		return ""
	}
	return name
}

// terminateHook waits for the instance's termination, has it wait while the host drains, and lets it go on.
func (a *Agent) terminateHook(ctx context.Context, name string) {
	for a.noticed(ctx, terminating) {
		hook, err := a.hookOf(ctx, host.Terminating, name)
		if err != nil {
			a.hookFailed(ctx, err)
			return
		}
		// What is under way ends with its notice: an instance that comes back is not let go.
		going, cancel := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() {
			defer cancel()
			a.noticed(going, func(s *host.Snapshot) bool { return !terminating(s) })
		})
		a.letGo(going, hook)
		if going.Err() == nil {
			a.hookFailed(ctx, hook.Complete(going))
		}
		back := a.noticed(ctx, func(s *host.Snapshot) bool { return !terminating(s) })
		cancel()
		watch.Wait()
		if !back {
			return
		}
	}
}

// noticed waits until the notices are as asked for; false: ctx has ended.
func (a *Agent) noticed(ctx context.Context, as func(*host.Snapshot) bool) bool {
	for {
		s, changed := a.notices.Snapshot()
		if ctx.Err() != nil {
			return false
		}
		if as(s) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (a *Agent) hookFailed(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		a.log.Named("life").Error("lifecycle hook is left to its timeout", zap.Error(err))
	}
}

// letGo returns when the host's targets are gone and settled, or drain.max_wait is over, or ctx is. Meanwhile the hook is
// kept waiting.
func (a *Agent) letGo(ctx context.Context, hook *host.Hook) {
	begun := time.Now()
	d := &status.Departure{Name: "the host", Host: true, Begun: begun, Latest: begun.Add(a.settings.Load().Drain.MaxWait)}
	before := a.status()
	d.Before(&before)
	stop := a.registrar.Follow(a.groupKeys(false))
	defer stop()
	beat := time.NewTicker(a.cfg.Lifecycle.Heartbeat)
	defer beat.Stop()
	var beats sync.WaitGroup // a call that is retried must not hold up the completion
	defer beats.Wait()
	beating, cancel := context.WithCancel(ctx)
	defer cancel()
	beats.Go(func() {
		for {
			a.hookFailed(beating, hook.Heartbeat(beating))
			select {
			case <-beat.C:
			case <-beating.Done():
				return
			}
		}
	})
	for {
		seen := a.status()
		drained := slices.ContainsFunc(seen.Drains, func(v status.DrainV1) bool { return v.Container == "" })
		if drained && d.Seq == 0 {
			d.Seq = seen.Seq
		}
		if d.Judge(&seen, time.Now()); drained && (d.Phase == status.GonePhase || d.Phase == status.OverduePhase) || !time.Now().Before(d.Latest) {
			a.log.Named("life").Info("targets of the host have gone", zap.String("phase", string(d.Phase)), zap.String("reason", d.Why))
			return
		}
		select {
		case <-time.After(hookPoll):
		case <-ctx.Done():
			return
		}
	}
}

// groupKeys returns the keys of the configured groups, or of those that are required.
func (a *Agent) groupKeys(required bool) []string {
	var keys []string
	for _, g := range a.settings.Load().Groups {
		if g.Required || !required {
			keys = append(keys, g.Key)
		}
	}
	return keys
}

// launchHook lets the instance come into service when every required group has a healthy target of it. Until then it
// says nothing: how long that may take is the hook's own to decide. On the way into a warm pool the same hook holds it, and
// nothing is to be served there: it may go on at once, and again when it comes into service.
func (a *Agent) launchHook(ctx context.Context, name string) {
	for {
		intoPool, ok := a.comesIn(ctx)
		if !ok {
			return
		}
		hook, err := a.hookOf(ctx, host.Launching, name)
		if err == nil {
			err = hook.Complete(ctx)
		}
		a.hookFailed(ctx, err)
		if !a.noticed(ctx, func(s *host.Snapshot) bool { return pooled(s) != intoPool }) {
			return
		}
	}
}

// comesIn waits until every required group has a healthy target of the instance, or it is to come into a warm pool. It
// reports false when ctx has ended.
func (a *Agent) comesIn(ctx context.Context) (intoPool, ok bool) {
	stop := a.registrar.Follow(a.groupKeys(true))
	followed := time.AfterFunc(launchFollow, stop)
	defer stop()
	defer followed.Stop()
	for {
		if s, _ := a.notices.Snapshot(); pooled(s) {
			return true, true
		}
		status := a.status()
		if served(a.groupKeys(true), status.Rows) {
			return false, true
		}
		select {
		case <-time.After(hookPoll):
		case <-ctx.Done():
			return false, false
		}
	}
}

// served reports whether every one of the groups has a healthy target; no groups have none.
func served(keys []string, rows []status.Row) bool {
	return len(keys) > 0 && !slices.ContainsFunc(keys, func(key string) bool {
		return !slices.ContainsFunc(rows, func(r status.Row) bool { return r.Group == key && r.State == status.Healthy })
	})
}
