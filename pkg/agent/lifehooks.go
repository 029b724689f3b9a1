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

// launchFollow is how long the load balancers are looked at often for a launch hook: an hour is the longest that Auto
// Scaling waits unless it is told otherwise.
const launchFollow = time.Hour

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

// hooks keeps the host's lifecycle hooks. It does not poll: it looks at the status when the agent has published something
// newer, and at the times that the judges of departure and arrival name.
type hooks struct {
	notices   func() (*host.Snapshot, <-chan struct{})
	view      func() view
	groups    func(generation uint64, required bool) []string
	follow    func(keys []string) (stop func())
	hookOf    func(ctx context.Context, t host.Transition, name string) (*host.Hook, error)
	maxWait   func() time.Duration
	heartbeat time.Duration
	terminate string // the hooks' names; empty: not kept
	launch    string
	log       *zap.Logger
}

func (a *Agent) newHooks() *hooks {
	h := &hooks{
		notices: a.notices.Snapshot, view: a.view, groups: a.groupKeys, follow: a.registrar.Follow, hookOf: a.hookOf,
		maxWait:   func() time.Duration { return a.settings.Load().Drain.MaxWait },
		heartbeat: a.cfg.Lifecycle.Heartbeat, log: a.log.Named("life"),
	}
	if !a.o.DryRun {
		h.terminate, h.launch = a.cfg.Lifecycle.TerminateHook, a.cfg.Lifecycle.LaunchHook
	}
	return h
}

// run works until ctx ends.
func (h *hooks) run(ctx context.Context) error {
	var wg sync.WaitGroup
	if h.terminate != "" {
		wg.Go(func() { h.terminateHook(ctx) })
	}
	if h.launch != "" {
		wg.Go(func() { h.launchHook(ctx) })
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
func (h *hooks) terminateHook(ctx context.Context) {
	for h.noticed(ctx, terminating) {
		hook, err := h.hookOf(ctx, host.Terminating, h.terminate)
		if err != nil {
			h.hookFailed(ctx, err)
			return
		}
		// What is under way ends with its notice: an instance that comes back is not let go.
		going, cancel := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() {
			defer cancel()
			h.noticed(going, func(s *host.Snapshot) bool { return !terminating(s) })
		})
		h.letGo(going, hook)
		if going.Err() == nil {
			h.hookFailed(ctx, hook.Complete(going))
		}
		back := h.noticed(ctx, func(s *host.Snapshot) bool { return !terminating(s) })
		cancel()
		watch.Wait()
		if !back {
			return
		}
	}
}

// noticed waits until the notices are as asked for; false: ctx has ended.
func (h *hooks) noticed(ctx context.Context, as func(*host.Snapshot) bool) bool {
	for {
		s, changed := h.notices()
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

func (h *hooks) hookFailed(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		h.log.Error("lifecycle hook is left to its timeout", zap.Error(err))
	}
}

// beaten logs a heartbeat if it went otherwise than the last one.
func (h *hooks) beaten(ctx context.Context, last, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil && last != nil:
		h.log.Info("lifecycle hook is kept waiting again")
	case err != nil && (last == nil || host.CodeOf(err) != host.CodeOf(last)):
		h.log.Error("lifecycle hook is left to its timeout, trying again", zap.Error(err))
	}
}

// letGo returns when the host's targets are gone and settled, or drain.max_wait is over, or ctx is. Meanwhile the hook is
// kept waiting.
func (h *hooks) letGo(ctx context.Context, hook *host.Hook) {
	begun, before := time.Now(), h.view()
	d := status.HostDeparture(status.DepartureOptions{
		Before: &before.V1, Latest: begun.Add(h.maxWait()), Refusal: status.RefusalEndsNothing,
	})
	stop := h.follow(h.groups(before.Generation, false))
	defer stop()
	beat := time.NewTicker(h.heartbeat)
	defer beat.Stop()
	var beats sync.WaitGroup // a call that is retried must not hold up the completion
	defer beats.Wait()
	beating, cancel := context.WithCancel(ctx)
	defer cancel()
	beats.Go(func() {
		var last error
		for {
			err := hook.Heartbeat(beating)
			h.beaten(beating, last, err)
			last = err
			select {
			case <-beat.C:
			case <-beating.Done():
				return
			}
		}
	})
	for seen := before; ; seen = h.view() {
		phase, next := d.Judge(&seen.V1, time.Now())
		if phase.Over() {
			h.log.Info("targets of the host have gone", zap.String("phase", string(phase)), zap.String("reason", d.Reason().Why))
			return
		}
		if !seen.changed(ctx, next, nil) {
			return
		}
	}
}

// launchHook lets the instance come into service when every required group has a healthy target of it. Until then it
// says nothing: how long that may take is the hook's own to decide. On the way into a warm pool the same hook holds it, and
// nothing is to be served there: it may go on at once, and again when it comes into service.
func (h *hooks) launchHook(ctx context.Context) {
	for {
		intoPool, ok := h.comesIn(ctx)
		if !ok {
			return
		}
		hook, err := h.hookOf(ctx, host.Launching, h.launch)
		if err == nil {
			err = hook.Complete(ctx)
		}
		h.hookFailed(ctx, err)
		if !h.noticed(ctx, func(s *host.Snapshot) bool { return pooled(s) != intoPool }) {
			return
		}
	}
}

// comesIn waits until every required group has a healthy target of the instance, or it is to come into a warm pool. It
// reports false when ctx has ended.
func (h *hooks) comesIn(ctx context.Context) (intoPool, ok bool) {
	seen := h.view()
	stop := h.follow(h.groups(seen.Generation, true))
	followed := time.AfterFunc(launchFollow, stop)
	defer stop()
	defer followed.Stop()
	for ; ; seen = h.view() {
		s, noticed := h.notices()
		if pooled(s) {
			return true, true
		}
		outcome, next := status.HostArrival(h.groups(seen.Generation, true)).Judge(&seen.V1, time.Now())
		if outcome == status.Reached {
			return false, true
		}
		if !seen.changed(ctx, next, noticed) {
			return false, false
		}
	}
}

// groupKeys returns the keys of the groups that one generation of the configuration has, or of those that it requires.
func (a *Core) groupKeys(generation uint64, required bool) []string {
	s := a.settings.Load()
	if of := s.of(generation); of != nil {
		s = of
	}
	var keys []string
	for _, g := range s.Groups {
		if g.Required || !required {
			keys = append(keys, g.Key)
		}
	}
	return keys
}
