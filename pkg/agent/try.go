package agent

import (
	"context"
	"errors"
	"time"

	"berth/pkg/config"
	"berth/pkg/registrar"
)

// Try runs the parts until Docker has answered for every container and every group has been looked at, or timeout is over, and
// then has use look at them while they still run. complete reports whether all that is so. It is for a Core whose Options say DryRun. Its error is that of
// Run, or of use.
func (a *Core) Try(ctx context.Context, timeout time.Duration, use func(ctx context.Context, s *registrar.Snapshot, complete bool) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	patient, stop := context.WithTimeout(ctx, timeout)
	s, complete := a.allTried(patient)
	stop()
	used := use(ctx, s, complete)
	cancel()
	return errors.Join(<-ended, used)
}

// allTried waits until every group of the configuration, and every other that the ledger holds something of, has been
// looked at, well or not, with all containers known: what is registered for one that is not known stays, so that nothing is said
// of it.
func (a *Core) allTried(ctx context.Context) (*registrar.Snapshot, bool) {
	for {
		d, seen := a.seen.Get()
		s, changed := a.registrar.Snapshot()
		if d != nil && len(d.Unknown) == 0 && allGroupsTried(a.cfg.Groups, s, d.Seq) {
			return s, true
		}
		select {
		case <-changed:
		case <-seen:
		case <-ctx.Done():
			return s, false
		}
	}
}

// allGroupsTried reports whether every group of the configuration has been looked at, and those that left it, which have no
// key, since what is wanted was as it is since seq. A group that was deleted and created again has another ARN: for a moment both have its key, and both have to have
// been looked at.
func allGroupsTried(groups []config.Group, s *registrar.Snapshot, seq uint64) bool {
	tried := map[string]bool{}
	for _, g := range s.Groups {
		looked := g.Tried && g.Seq >= max(1, seq)
		if len(g.Keys) == 0 && !looked {
			return false
		}
		for _, key := range g.Keys {
			before, seen := tried[key]
			tried[key] = looked && (before || !seen)
		}
	}
	for _, g := range groups {
		if !tried[g.Key] {
			return false
		}
	}
	return true
}
