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

// Join says what became of every port: it brings together what Docker's half wants (d) and what the load balancer's
// half has done (r), by container run. Status, waiting commands, the page and the metrics all come from it. Either
// may be nil, which means that it has not spoken yet. The result is in a stable order.
//
// Every want is in exactly one row. Every target of r is in a row: in one for each want that it serves, in exactly
// one where it serves none.
//
//	d wants it | r has the target | r refuses it | row
//	yes        | registered       |              | the load balancer's health
//	yes        | intended, absent |              | registering, or blocked by the group's trouble
//	yes        | no               | no           | registering, or blocked by the group's trouble
//	yes        | no               | yes          | refused
//	yes        | in another group | any          | as above, and a row of that group: it keeps it until this one has it
//	no         | leaving          |              | draining, with the decision's sentence
//	no         | registered       |              | leaving, with the decision's sentence
//	no         | no               |              | the decision's verdict
//	silent     | any              |              | as r alone knows it
func Join(d *discovery.Snapshot, r *registrar.Snapshot) []Row {
	j := newJoiner(d, r)
	j.fromWants()
	j.fromTargets()
	j.fromRefusals()
	j.fromDecisions()
	slices.SortFunc(j.rows, Row.Compare)
	return j.rows
}

// portKey identifies one port of one run in one group: the key on which both halves are joined.
type portKey struct {
	group   string
	id      string
	started int64
	port    target.PortProto
}

// runKey identifies one run in one group.
type runKey struct {
	group   string
	id      string
	started int64
}

func keyOf(w target.Want) portKey {
	return portKey{w.Group, w.Run.ID, w.Run.StartedAt.UnixNano(), w.PortProto()}
}

func keyOfDecision(c *discovery.Decision) portKey {
	return portKey{c.Group, c.Run.ID, c.Run.StartedAt.UnixNano(), target.PortProto{Port: c.Port, Protocol: c.Protocol}}
}

func (k portKey) run() runKey { return runKey{k.group, k.id, k.started} }

// placed is a target with its group.
type placed struct {
	group  *registrar.GroupStatus
	status *registrar.TargetStatus
}

type joiner struct {
	d *discovery.Snapshot
	r *registrar.Snapshot

	groups   map[string]*registrar.GroupStatus // by key
	byWant   map[portKey]placed
	kept     map[portKey]placed // in a group that has it until the one that the configuration names has accepted it
	refusals map[portKey]*registrar.Refusal
	wanted   map[portKey]*discovery.Decision  // verdict wanted
	unwanted map[portKey]*discovery.Decision  // any other verdict; the first where there are several
	byRun    map[runKey][]*discovery.Decision // any other verdict
	used     map[*discovery.Decision]struct{} // has its row
	covered  map[*registrar.TargetStatus]struct{}
	seen     map[portKey]struct{} // wants that have their row

	rows []Row
}

func newJoiner(d *discovery.Snapshot, r *registrar.Snapshot) *joiner {
	j := &joiner{
		d: d, r: r,
		groups:   map[string]*registrar.GroupStatus{},
		byWant:   map[portKey]placed{},
		kept:     map[portKey]placed{},
		refusals: map[portKey]*registrar.Refusal{},
		wanted:   map[portKey]*discovery.Decision{},
		unwanted: map[portKey]*discovery.Decision{},
		byRun:    map[runKey][]*discovery.Decision{},
		used:     map[*discovery.Decision]struct{}{},
		covered:  map[*registrar.TargetStatus]struct{}{},
		seen:     map[portKey]struct{}{},
	}
	if r != nil {
		j.indexGroups(r.Groups)
	}
	if d != nil {
		j.indexDecisions(d.Decisions)
	}
	return j
}

func (j *joiner) indexGroups(groups []registrar.GroupStatus) {
	for i := range groups {
		g := &groups[i]
		for _, k := range g.Keys {
			if _, ok := j.groups[k]; !ok {
				j.groups[k] = g
			}
		}
		for n := range g.Targets {
			for _, w := range g.Targets[n].Wants {
				if holds(g, w.Group) {
					j.kept[keyOf(w)] = placed{g, &g.Targets[n]}
					continue
				}
				// A key that moved to another ARN may be named by both: the group that carries it now wins.
				if old, ok := j.byWant[keyOf(w)]; ok && slices.Contains(old.group.Keys, w.Group) {
					continue
				}
				j.byWant[keyOf(w)] = placed{g, &g.Targets[n]}
			}
		}
		for n := range g.Refusals {
			if holds(g, g.Refusals[n].Want.Group) {
				continue // nobody means that group any more
			}
			j.refusals[keyOf(g.Refusals[n].Want)] = &g.Refusals[n]
		}
	}
}

// holds reports whether a group has targets of a key that names another one.
func holds(g *registrar.GroupStatus, key string) bool {
	return slices.ContainsFunc(g.Held, func(h registrar.Held) bool { return h.Key == key })
}

func (j *joiner) indexDecisions(decisions []discovery.Decision) {
	for i := range decisions {
		c := &decisions[i]
		k := keyOfDecision(c)
		if c.Verdict == discovery.Wanted {
			j.wanted[k] = c
			continue
		}
		if _, ok := j.unwanted[k]; !ok {
			j.unwanted[k] = c
		}
		j.byRun[k.run()] = append(j.byRun[k.run()], c)
	}
}

// fromWants gives every want of discovery its row.
func (j *joiner) fromWants() {
	if j.d == nil {
		return
	}
	for _, wants := range j.d.Wants {
		for _, w := range wants {
			k := keyOf(w)
			if _, ok := j.seen[k]; ok {
				continue
			}
			j.seen[k] = struct{}{}
			c := j.wanted[k]
			if c != nil {
				j.used[c] = struct{}{}
			}
			j.rows = append(j.rows, j.wantRow(w, c))
		}
	}
}

// wantRow is the row of a port that should be a target. c may be nil.
func (j *joiner) wantRow(w target.Want, c *discovery.Decision) Row {
	row := j.ownRow(w, c)
	if at, ok := j.kept[keyOf(w)]; ok && !row.State.AtLoadBalancer() && at.status.Phase == ledger.Registered {
		row.Why = sentence(row.Why, "target group "+GroupLabel(at.group)+" still serves it")
	}
	return row
}

// ownRow is the row of a port in the group that the configuration names.
func (j *joiner) ownRow(w target.Want, c *discovery.Decision) Row {
	row := Row{Run: w.Run, Group: w.Group, ContainerPort: w.PortProto(), HostPort: cmp.Or(w.HostPort4, w.HostPort6)}
	if c != nil {
		row.Since = c.Since
	}
	if at, ok := j.byWant[keyOf(w)]; ok {
		j.covered[at.status] = struct{}{}
		row.take(at.status)
		if at.status.Phase == ledger.Registered {
			row.judge(at.status)
			return row
		}
		row.pend(at.group, at.status.Phase)
		return row
	}
	if refusal, ok := j.refusals[keyOf(w)]; ok {
		row.State, row.Why, row.Change = Refused, refusal.Why, refusal.Change
		return row
	}
	if g, ok := j.groups[w.Group]; ok && j.r.Connected {
		row.pend(g, "")
		return row
	}
	row.State = Registering
	switch {
	case j.r == nil:
		row.Why = "the agent has only just started and has not looked at its target groups yet"
	case !j.r.Connected:
		row.Why = "the agent waits for the instance's identity and AWS credentials"
	default:
		row.Why = "the target group has not been looked up yet"
	}
	return row
}

// fromRefusals gives the refusals of wants about which discovery is silent their rows.
func (j *joiner) fromRefusals() {
	if j.r == nil {
		return
	}
	for i := range j.r.Groups {
		for _, refusal := range j.r.Groups[i].Refusals {
			k := keyOf(refusal.Want)
			if _, ok := j.seen[k]; ok || j.speaks(refusal.Want.Group) || holds(&j.r.Groups[i], refusal.Want.Group) {
				continue
			}
			j.seen[k] = struct{}{}
			j.rows = append(j.rows, j.wantRow(refusal.Want, nil))
		}
	}
}

// fromDecisions gives the decisions that explained no want and no target rows of their own.
func (j *joiner) fromDecisions() {
	if j.d == nil {
		return
	}
	for i := range j.d.Decisions {
		c := &j.d.Decisions[i]
		if _, ok := j.used[c]; ok {
			continue
		}
		j.rows = append(j.rows, Row{
			Run: c.Run, Group: c.Group, ContainerPort: portOf(c),
			State: stateOf(c.Verdict), Since: c.Since, Why: c.Why, Change: c.Change,
		})
	}
}

func portOf(c *discovery.Decision) target.PortProto {
	if c.Port == 0 {
		return target.PortProto{}
	}
	return target.PortProto{Port: c.Port, Protocol: c.Protocol}
}

// stateOf maps a verdict; what a newer discovery may add is shown as ignored.
func stateOf(v discovery.Verdict) State {
	switch v {
	case discovery.Wanted:
		return Registering
	case discovery.NotYet:
		return NotYet
	case discovery.Leaving:
		return Leaving
	case discovery.Drained:
		return Drained
	case discovery.Refused:
		return Refused
	case discovery.Ignored:
		return Ignored
	default:
		return Ignored
	}
}

// GroupLabel names a group as its users do: by its key, and after it has left the configuration by its name. While it has
// targets of a key that names another group, which may well be its name, the end of its ARN is added: "web/6d0ecf831eec9f09".
func GroupLabel(g *registrar.GroupStatus) string {
	return groupLabel(g.Keys, len(g.Held) > 0, cmp.Or(g.Name, g.Facts.Name), g.ARN)
}

func groupLabel(keys []string, held bool, name, arn string) string {
	if len(keys) > 0 {
		return keys[0]
	}
	if _, end, ok := strings.Cut(arn, ":targetgroup/"); ok && held {
		return end
	}
	return cmp.Or(name, arn)
}
