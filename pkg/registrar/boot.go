package registrar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// Reachable returns the entries whose groups self's calls can reach, in order: those of its region, as far as that is
// known. Groups of other accounts are among them. Each other entry is a warning in log: it is left alone, since no call
// from here removes it and none proves it gone.
func Reachable(entries []ledger.Entry, self elb.Self, log *zap.Logger) []ledger.Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e ledger.Entry) bool {
		region, _ := elb.PlaceOf(e.ARN())
		if region != "" && (self.Region == "" || region == self.Region) {
			return false
		}
		log.Warn("ledger holds a target of another region, which is left alone",
			zap.String("target_group_arn", e.ARN()), zap.Stringer("target", e.Target))
		return true
	})
}

// RemoveStale deregisters these entries from the ledger alone: it asks neither Docker nor what is registered. It tries
// until all are accepted or ctx ends, groups side by side, and returns how many were accepted and an error that names
// what was not. A group that does not exist holds nothing.
func RemoveStale(ctx context.Context, api elb.API, ledger *ledger.Ledger, stale []ledger.Entry, o Options) (removed int, err error) {
	o = o.withDefaults()
	calls := elb.New(api, o.calls(nil))
	byARN := map[string][]target.Target{}
	for _, e := range stale {
		byARN[e.ARN()] = append(byARN[e.ARN()], e.Target)
	}
	var mu sync.Mutex // guards removed and errs
	var errs []error
	var groups sync.WaitGroup
	for groupARN, targets := range byARN {
		groups.Go(func() {
			n, err := removeAll(ctx, calls, o, ledger, groupARN, targets)
			mu.Lock()
			defer mu.Unlock()
			removed += n
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	groups.Wait()
	return removed, errors.Join(errs...)
}

func removeAll(ctx context.Context, calls *elb.Client, o Options, kept *ledger.Ledger, groupARN string, targets []target.Target) (removed int, err error) {
	attempts, size := 0, maxTargets
	var refused error // of targets that were refused by themselves
	for len(targets) > 0 {
		if ctx.Err() != nil {
			return removed, errors.Join(refused, err, fmt.Errorf("deregister %d targets from %s: %w", len(targets), elb.Short(groupARN), ctx.Err()))
		}
		permit := o.Pacer.Ask(pacer.ClassDeregister, attempts > 0)
		select {
		case <-ctx.Done():
		case <-permit.Ready():
		}
		if ctx.Err() != nil {
			permit.Drop()
			continue
		}
		batch := targets[:min(len(targets), size)]
		ce := calls.Deregister(ctx, groupARN, batch)
		permit.Done(outcome(ce))
		if ce == nil || ce.Fault == elb.FaultGone {
			o.Log.Info("deregistered what the ledger holds",
				zap.String("target_group", elb.Short(groupARN)), zap.Stringers("targets", batch))
			kept.Note(groupARN, batch, ledger.Removing)
			targets, removed = targets[len(batch):], removed+len(batch)
			attempts, err, size = 0, nil, min(2*size, maxTargets)
			continue
		}
		if ce.Fault == elb.FaultInvalid { // for one of them, which is in nobody else's way
			if size = max(1, len(batch)/2); len(batch) == 1 {
				refused = errors.Join(refused, fmt.Errorf("deregister %s: %w", batch[0], ce))
				targets = targets[1:]
			}
			continue
		}
		attempts++
		err = ce
		b := behaviourOf(ce)
		if b.person && ce.Fault != elb.FaultCredentials {
			return removed, errors.Join(refused, fmt.Errorf("deregister %d targets: %w", len(targets), ce))
		}
		o.Log.Warn("call failed", zap.String("operation", elb.OpDeregister), zap.String("target_group", elb.Short(groupARN)), zap.Error(ce))
		select {
		case <-ctx.Done():
		case <-time.After(min(b.delay(attempts, time.Hour, 0), 2*time.Second)):
		}
	}
	return removed, refused
}
