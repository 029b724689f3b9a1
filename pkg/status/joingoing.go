package status

import (
	"cmp"
	"slices"
	"strings"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// This file is the half of Join that begins at the load balancer: targets which no want of discovery covers.

// fromTargets gives every target that no want of discovery covers its rows.
func (j *joiner) fromTargets() {
	if j.r == nil {
		return
	}
	for i := range j.r.Groups {
		g := &j.r.Groups[i]
		for n := range g.Targets {
			ts := &g.Targets[n]
			if j.keptRows(g, ts) {
				continue
			}
			_, covered := j.covered[ts]
			if !j.stillWanted(ts) && !covered {
				j.rows = append(j.rows, j.goingRow(g, ts))
			}
		}
		for _, t := range g.Unclaimed {
			row := Row{Group: GroupLabel(g), HostPort: t.Port, Target: t, State: Unclaimed}
			row.Why = "it is registered for this host, but the agent did not register it"
			row.Change = "if nobody else looks after it, remove it with: berth prune"
			j.rows = append(j.rows, row)
		}
	}
}

// keptRows adds a row for each want that a target serves though the configuration names another group for it, and reports
// whether there was one.
func (j *joiner) keptRows(g *registrar.GroupStatus, ts *registrar.TargetStatus) bool {
	found := false
	for _, w := range ts.Wants {
		k := keyOf(w)
		if _, wanted := j.seen[k]; j.kept[k].status != ts || !wanted && j.speaks(w.Group) {
			continue
		}
		found = true
		row := Row{Run: w.Run, Group: GroupLabel(g), ContainerPort: w.PortProto(), Since: ts.Since}
		row.take(ts)
		if ts.Phase == ledger.Registered {
			row.judge(ts)
		} else {
			row.pend(g, ts.Phase)
		}
		for _, h := range g.Held {
			if h.Key == w.Group {
				row.Why = sentence(row.Why, "it stays here for "+h.Key+", because "+h.Why)
			}
		}
		j.rows = append(j.rows, row)
	}
	return found
}

// stillWanted adds a row for each want of a target about which discovery is silent, and reports whether there was
// one: silence (no snapshot, a group not computed) is not a wish to remove.
func (j *joiner) stillWanted(ts *registrar.TargetStatus) bool {
	found := false
	for _, w := range ts.Wants {
		if j.speaks(w.Group) {
			continue
		}
		k := keyOf(w)
		if _, ok := j.seen[k]; ok || j.byWant[k].status != ts {
			continue
		}
		j.seen[k] = struct{}{}
		found = true
		j.rows = append(j.rows, j.wantRow(w, nil))
	}
	return found
}

// speaks reports whether discovery has computed the group.
func (j *joiner) speaks(group string) bool {
	if j.d == nil {
		return false
	}
	_, ok := j.d.Wants[group]
	return ok
}

// goingRow is the row of a target that is not wanted any more.
func (j *joiner) goingRow(g *registrar.GroupStatus, ts *registrar.TargetStatus) Row {
	row := Row{Run: ts.Run, Group: GroupLabel(g), HostPort: ts.Target.Port, Since: ts.Since}
	row.take(ts)
	if len(ts.Wants) > 0 {
		row.Run, row.Group, row.ContainerPort = ts.Wants[0].Run, ts.Wants[0].Group, ts.Wants[0].PortProto()
	}
	c := j.explain(g, ts)
	why := ""
	if c != nil {
		row.Change, why = c.Change, c.Why
		row.Run, row.Group = c.Run, cmp.Or(c.Group, row.Group)
		if c.Port != 0 {
			row.ContainerPort = target.PortProto{Port: c.Port, Protocol: c.Protocol}
		}
	}
	switch {
	case ts.Phase == ledger.Absent && c != nil:
		row.State, row.Why = stateOf(c.Verdict), why
		row.Since = c.Since
	case ts.Phase == ledger.Absent:
		row.State, row.Why = Leaving, "it is deregistered"
	case ts.Phase == ledger.Removing:
		row.State = Draining
		row.Why = sentence(why, "it is deregistered, and the load balancer lets its open requests end")
	case c == nil && j.unknown(ts.Run):
		row.judge(ts)
		row.Why = "its container has not been inspected since the agent started, so it stays as it was"
	case c != nil && c.Verdict == discovery.NotYet && j.unknown(ts.Run):
		row.judge(ts)
		row.Why = sentence(why, "it stays as it was")
	case g.Err != "":
		row.State, row.Change = Leaving, g.Change
		row.Why = sentence(why, "it cannot be deregistered now: "+g.Err)
	default:
		row.State = Leaving
		row.Why = sentence(cmp.Or(why, "no container wants it any more"), "it is about to be deregistered")
	}
	return row
}

// explain finds the decision that says why a target is not wanted, and marks it as told. Without the container's port
// (the claim of an earlier time) the decision must be the only one about that run in the group.
func (j *joiner) explain(g *registrar.GroupStatus, ts *registrar.TargetStatus) *discovery.Decision {
	for _, w := range ts.Wants {
		if c, ok := j.unwanted[keyOf(w)]; ok {
			return j.tell(c)
		}
	}
	run := ts.Run
	if len(ts.Wants) > 0 {
		run = ts.Wants[0].Run
	}
	if run.ID == "" {
		return nil
	}
	started := run.StartedAt.UnixNano()
	keys := slices.Clone(g.Keys)
	for _, h := range g.Held {
		keys = append(keys, h.Key)
	}
	for _, key := range append(keys, "") {
		if about := j.byRun[runKey{key, run.ID, started}]; len(about) == 1 {
			// One sentence about the container as a whole may explain several of its targets; one about a port, one.
			if _, told := j.used[about[0]]; !told || about[0].Port == 0 {
				return j.tell(about[0])
			}
		}
	}
	return nil
}

func (j *joiner) tell(c *discovery.Decision) *discovery.Decision {
	j.used[c] = struct{}{}
	return c
}

func (j *joiner) unknown(run target.Run) bool {
	return j.d != nil && run.ID != "" && slices.Contains(j.d.Unknown, run.ID)
}

// sentence joins a cause and what follows from it into one sentence.
func sentence(cause, effect string) string {
	if cause == "" {
		return effect
	}
	return strings.TrimRight(cause, ".") + "; " + effect
}
