package agent

import (
	"context"
	"errors"
	"time"

	"berth/pkg/config"
	"berth/pkg/registrar"
)

// Dry runs a Core that changes nothing until every group has been looked at, or timeout is over, and then has use look at it
// while it still runs. complete reports whether every group has been. Its errors are those of NewCore, of Run, and of use.
func Dry(
	ctx context.Context, o Options, timeout time.Duration, use func(ctx context.Context, a *Core, s *registrar.Snapshot, complete bool) error,
) error {
	o.DryRun = true
	a, err := NewCore(ctx, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	patient, stop := context.WithTimeout(ctx, timeout)
	s, complete := a.allTried(patient)
	stop()
	used := use(ctx, a, s, complete)
	cancel()
	return errors.Join(<-ended, used)
}

// allTried waits until every group of the configuration, and every other that the ledger holds something of, has been
// looked at, well or not.
func (a *Core) allTried(ctx context.Context) (*registrar.Snapshot, bool) {
	for {
		s, changed := a.registrar.Snapshot()
		if allGroupsTried(a.cfg.Groups, s) {
			return s, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, false
		}
	}
}

// allGroupsTried reports whether every group of the configuration has been looked at, and those that left it, which have no
// key. A group that was deleted and created again has another ARN: for a moment both have its key, and both have to have
// been looked at.
func allGroupsTried(groups []config.Group, s *registrar.Snapshot) bool {
	tried := map[string]bool{}
	for _, g := range s.Groups {
		looked := g.Tried && g.Seq > 0
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
