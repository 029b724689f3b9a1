package agent

import (
	"context"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/server"
	"berth/pkg/status"
	"berth/pkg/target"
)

// prune has the named targets deregistered that are unclaimed, and waits for it.
func (c *control) prune(w http.ResponseWriter, r *http.Request) {
	server.Extend(w, 2*controlPatrol)
	var p status.PruneV1
	err := read(r, &p)
	switch {
	case err != nil:
	case len(p.Targets) == 0:
		err = refuse(http.StatusBadRequest, "no target is named")
	case len(p.Targets) > maxPrune:
		err = refuse(http.StatusBadRequest, "%d targets are named; at most %d can be", len(p.Targets), maxPrune)
	case c.agent.o.DryRun:
		err = refuse(http.StatusConflict, "the agent runs dry: it changes nothing")
	}
	if err != nil {
		c.asked(r, "prune", err)
		fail(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), controlPatrol)
	defer cancel()
	v := pruneTargets(ctx, c.agent.registrar, p.Targets)
	c.asked(r, "prune", nil, zap.Any("removed", v.Removed), zap.Any("left", v.Left))
	server.WriteJSON(w, http.StatusOK, v)
}

// pruner is the part of the registrar that pruning needs.
type pruner interface {
	Prune(key string, targets []target.Target) bool
	Snapshot() (*registrar.Snapshot, <-chan struct{})
}

// pruneTargets has those of the targets removed that are unclaimed now, and waits until they are or ctx ends.
func pruneTargets(ctx context.Context, r pruner, targets []status.GroupTargetV1) status.PrunedV1 {
	v := status.PrunedV1{Removed: []status.GroupTargetV1{}, Left: []status.LeftV1{}}
	s, _ := r.Snapshot()
	byGroup := map[string][]target.Target{}
	for _, t := range targets {
		g := status.GroupOf(s, t.Group)
		switch {
		case g == nil:
			v.Left = append(v.Left, status.LeftV1{GroupTargetV1: t, Why: "the agent serves no target group of that key"})
		case !slices.Contains(g.Unclaimed, t.Target):
			v.Left = append(v.Left, status.LeftV1{GroupTargetV1: t, Why: "it is not unclaimed (any more)"})
		default:
			byGroup[t.Group] = append(byGroup[t.Group], t.Target)
		}
	}
	for key, unclaimed := range byGroup {
		if !r.Prune(key, unclaimed) {
			for _, t := range unclaimed {
				v.Left = append(v.Left, status.LeftV1{GroupTargetV1: status.GroupTargetV1{Group: key, Target: t}, Why: "the target group has just left the configuration"})
			}
			delete(byGroup, key)
		}
	}
	for {
		s, changed := r.Snapshot()
		for key, waiting := range byGroup {
			waiting = slices.DeleteFunc(waiting, func(t target.Target) bool {
				if !gone(s, key, t) {
					return false
				}
				v.Removed = append(v.Removed, status.GroupTargetV1{Group: key, Target: t})
				return true
			})
			if byGroup[key] = waiting; len(waiting) == 0 {
				delete(byGroup, key)
			}
		}
		if len(byGroup) == 0 {
			return v
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		for key, waiting := range byGroup {
			why := "it is not deregistered yet; the agent goes on trying"
			if g := status.GroupOf(s, key); g != nil && g.Err != "" {
				why += ": " + g.Err
			}
			for _, t := range waiting {
				v.Left = append(v.Left, status.LeftV1{GroupTargetV1: status.GroupTargetV1{Group: key, Target: t}, Why: why})
			}
		}
		return v
	}
}

// gone reports whether the load balancer has let go of a target, or lets its last requests end.
func gone(s *registrar.Snapshot, key string, t target.Target) bool {
	g := status.GroupOf(s, key)
	if g == nil {
		return false
	}
	i := slices.IndexFunc(g.Targets, func(ts registrar.TargetStatus) bool { return ts.Target == t })
	return !slices.Contains(g.Unclaimed, t) && (i < 0 || g.Targets[i].Phase == ledger.Removing || g.Targets[i].Phase == ledger.Absent)
}
