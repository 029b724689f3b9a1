package agent

import (
	"context"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

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
	v := pruneTargets(ctx, c.agent.registrar.Prune, c.agent.view, p.Targets)
	c.asked(r, "prune", nil, zap.Any("removed", v.Removed), zap.Any("left", v.Left))
	server.WriteJSON(w, http.StatusOK, v)
}

// pruneTargets has those of the targets removed that are unclaimed now, and waits until they are or ctx ends. prune is the
// registrar's Prune.
func pruneTargets(ctx context.Context, prune func(key string, targets []target.Target) bool, look func() view, targets []status.GroupTargetV1) status.PrunedV1 {
	v := status.PrunedV1{Removed: []status.GroupTargetV1{}, Left: []status.LeftV1{}}
	leave := func(t status.GroupTargetV1, why string) {
		v.Left = append(v.Left, status.LeftV1{GroupTargetV1: t, Why: why})
	}
	seen := look()
	byGroup := map[string][]target.Target{}
	for _, t := range targets {
		g := status.GroupNamed(&seen.V1, t.Group)
		switch {
		case g == nil || !slices.Contains(g.Keys, t.Group):
			leave(t, "the agent serves no target group of that key")
		case !slices.ContainsFunc(seen.Rows, func(r status.Row) bool {
			return r.State == status.Unclaimed && r.Target == t.Target && slices.Contains(g.Keys, r.Group)
		}):
			leave(t, "it is not unclaimed (any more)")
		default:
			byGroup[t.Group] = append(byGroup[t.Group], t.Target)
		}
	}
	type going struct {
		at status.GroupTargetV1
		*status.Departure
	}
	var open []going
	for key, unclaimed := range byGroup {
		served := prune(key, unclaimed)
		for _, t := range unclaimed {
			at := status.GroupTargetV1{Group: key, Target: t}
			if served {
				open = append(open, going{at, status.TargetDeparture(key, t)})
			} else {
				leave(at, "the target group has just left the configuration")
			}
		}
	}
	for {
		var next time.Time
		open = slices.DeleteFunc(open, func(g going) bool {
			phase, change := g.Judge(&seen.V1, time.Now())
			if phase == status.DrainingPhase || phase == status.GonePhase { // whoever prunes need not wait for the last requests
				v.Removed = append(v.Removed, g.at)
				return true
			}
			next = status.Sooner(next, change)
			return false
		})
		if len(open) == 0 {
			return v
		}
		if !seen.changed(ctx, next, nil) {
			break
		}
		seen = look()
	}
	for _, g := range open {
		why := "it is not deregistered yet; the agent goes on trying"
		if of := status.GroupNamed(&seen.V1, g.at.Group); of != nil && of.Err != "" {
			why += ": " + of.Err
		}
		leave(g.at, why)
	}
	return v
}
