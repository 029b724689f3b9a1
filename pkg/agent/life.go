package agent

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"berth/pkg/discovery"
	"berth/pkg/host"
)

// spotLeftover is how long the drain of a spot notice still holds that an earlier agent of this boot saw, and this one
// does not see any more: what pkg/host gives a notice that is gone.
const spotLeftover = 10 * time.Minute

// life turns what happens to the host into drains of the whole host, and ends them. What drains is what the metadata
// service says; a question that it does not answer changes nothing.
//
//	cause     | drains                                   | ends
//	----------|------------------------------------------|-----------------------------------------------------------
//	spot      | while the notice is in force             | with it; after a restart, when none is seen for 10 minutes;
//	          |                                          | at once if it is of an earlier boot
//	lifecycle | Terminated, Detached, Standby, Warmed:*  | when a read of the state says otherwise
//	rebalance | while recommended, if drain.on_rebalance | with it, or with the setting
//
// The drains are kept on disk, so that an agent that is restarted while the metadata service is silent drains on.
type life struct {
	notices  func() (*host.Snapshot, <-chan struct{})
	seen     func() (*discovery.Snapshot, <-chan struct{})
	drains   drainer
	onAdvice func() bool // whether a recommendation to rebalance drains
	draining func(bool)  // is told whether the host drains. Never blocks
	bootID   string
	log      *zap.Logger

	began time.Time
	mine  map[string]bool // causes whose drain this process has begun
	known chan struct{}   // closed when the first lifecycle state has been acted on
}

// drainer is the part of the watcher that life needs.
type drainer interface {
	Drain(ctx context.Context, d discovery.Drain) (uint64, error)
	Undrain(ctx context.Context, id string) (uint64, error)
}

func (a *Core) newLife() *life {
	return &life{
		notices: a.notices.Snapshot, seen: a.seen.Get, drains: a.watcher, bootID: a.o.BootID,
		onAdvice: func() bool { return a.settings.Load().Drain.OnRebalance },
		draining: a.pacer.SetDraining, log: a.log.Named("life"), known: make(chan struct{}),
	}
}

// run works until ctx ends.
func (l *life) run(ctx context.Context) error {
	l.began, l.mine = time.Now(), map[string]bool{}
	acted := false
	for {
		n, noticed := l.notices()
		s, published := l.seen()
		next := l.step(ctx, n, s)
		if n.LifecycleKnown && !acted {
			acted = true
			close(l.known)
		}
		var timer <-chan time.Time
		if next > 0 {
			timer = time.After(next)
		}
		select {
		case <-noticed:
		case <-published:
		case <-timer:
		case <-ctx.Done():
			return nil
		}
	}
}

// causes are those that are life's.
var causes = []string{discovery.CauseSpot, discovery.CauseLifecycle, discovery.CauseRebalance}

// step makes the host's drains what they should be, and returns when to look again though nothing was said; 0: never.
func (l *life) step(ctx context.Context, n *host.Snapshot, s *discovery.Snapshot) (next time.Duration) {
	want, have := l.wanted(n), map[string]discovery.Drain{}
	hostDrains := len(want) > 0
	if s != nil {
		for _, d := range s.Drains {
			if d.Host() {
				have[d.Cause] = d
				hostDrains = true
			}
		}
	}
	l.draining(hostDrains)
	for _, cause := range causes {
		w, wanted := want[cause]
		h, held := have[cause]
		switch {
		case wanted && (!held || h.Reason != w.Reason || h.Boot != "" && h.Boot != l.bootID):
			l.begin(ctx, w)
		case wanted:
			l.mine[cause] = true
		case held:
			if wait := l.mayEnd(cause, &h, n); wait > 0 {
				next = wait // only one cause has a time of its own
			} else if wait == 0 {
				l.end(ctx, &h)
			}
		}
	}
	return next
}

// wanted are the drains that the notices call for, by cause.
func (l *life) wanted(n *host.Snapshot) map[string]discovery.Drain {
	out := map[string]discovery.Drain{}
	for _, notice := range n.Notices {
		d := discovery.Drain{Since: notice.At, Boot: l.bootID}
		switch notice.Kind {
		case host.Spot:
			d.Cause, d.Reason = discovery.CauseSpot, "EC2 takes the instance back ("+notice.Action+")"
			if !notice.Deadline.IsZero() {
				d.Reason += " at " + notice.Deadline.UTC().Format(time.RFC3339)
			}
		case host.Lifecycle:
			d.Cause, d.Reason = discovery.CauseLifecycle, "the autoscaling group wants the instance "+notice.Action
		case host.Rebalance:
			if !l.onAdvice() {
				continue
			}
			d.Cause, d.Reason = discovery.CauseRebalance, "EC2 recommends to rebalance"
		case host.Maintenance:
			continue // shown, not acted on
		}
		d.ID = discovery.DrainID(d.Cause, "")
		out[d.Cause] = d
	}
	return out
}

// mayEnd says how long a drain without a notice goes on: 0 not at all, negative until something else is known.
func (l *life) mayEnd(cause string, d *discovery.Drain, n *host.Snapshot) time.Duration {
	if d.Boot != "" && l.bootID != "" && d.Boot != l.bootID {
		return 0 // left from an earlier boot
	}
	switch cause {
	case discovery.CauseSpot:
		if l.mine[cause] {
			return 0 // the notice's own afterlife is over
		}
		return max(0, time.Until(l.began.Add(spotLeftover)))
	case discovery.CauseLifecycle:
		if !n.LifecycleRead {
			return -1
		}
	case discovery.CauseRebalance:
		if !l.mine[cause] && (n.Waiting != "" || !n.LifecycleRead) && l.onAdvice() {
			return -1
		}
	}
	return 0
}

func (l *life) begin(ctx context.Context, d discovery.Drain) {
	_, err := l.drains.Drain(ctx, d)
	if errors.Is(err, discovery.ErrNotSaved) {
		l.log.Warn("drain of the host is not on disk", zap.String("cause", d.Cause), zap.Error(err))
		err = nil
	}
	if err != nil {
		if ctx.Err() == nil {
			l.log.Error("host cannot be drained", zap.String("cause", d.Cause), zap.Error(err))
		}
		return
	}
	if !l.mine[d.Cause] {
		l.log.Warn("host drains", zap.String("cause", d.Cause), zap.String("reason", d.Reason))
	}
	l.mine[d.Cause] = true
}

func (l *life) end(ctx context.Context, d *discovery.Drain) {
	_, err := l.drains.Undrain(ctx, d.ID)
	if err != nil && !errors.Is(err, discovery.ErrNotSaved) && !errors.Is(err, discovery.ErrNotFound) {
		if ctx.Err() == nil {
			l.log.Error("drain of the host cannot be ended", zap.String("cause", d.Cause), zap.Error(err))
		}
		return
	}
	delete(l.mine, d.Cause)
	l.log.Info("host drains no longer", zap.String("cause", d.Cause), zap.Time("since", d.Since))
}

// lifecycleActed waits until the autoscaling lifecycle state was read once and acted on, or could not be for half a
// minute: an instance that is being taken out of service must not register itself first.
func (a *Core) lifecycleActed(ctx context.Context) error {
	select {
	case <-a.life.known:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
