package registrar

import (
	"context"
	"maps"
	"slices"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// assign gives each reconciler its input: the keys that name its group, and what is wanted under them. A group whose
// wants were not computed keeps what it had.
func (r *Registrar) assign(ctx context.Context, d *Desired) {
	keysOf := map[string][]elb.Group{}
	var unfound []elb.Group
	for _, g := range d.Groups {
		if facts, ok := r.found[g.Reference().Identity()]; ok {
			keysOf[facts.ARN] = append(keysOf[facts.ARN], g)
		} else {
			unfound = append(unfound, g)
		}
	}
	r.moves.follow(d.Groups, r.found)
	stays := r.stays(d)
	r.moving.Store(len(stays) > 0)
	// What has left the configuration is cleaned up, unless it may be what a reference names that is not found yet, or is held
	// for a key that names another one.
	for _, groupARN := range slices.Concat(slices.Collect(maps.Keys(r.reconcilers)), slices.Collect(maps.Keys(r.recovered)), slices.Collect(maps.Keys(stays))) {
		if _, named := keysOf[groupARN]; !named && (stays[groupARN] != nil || !mayBe(groupARN, unfound)) {
			keysOf[groupARN] = nil
			if r.reconcilers[groupARN] == nil {
				// Before any other is looked at: nobody takes the groups of the configuration for all there is.
				_, facts := r.leftIn(groupARN)
				r.env.board.put(groupARN, GroupStatus{ARN: groupARN, Name: facts.Name, State: StateWaiting, Facts: facts})
			}
		}
	}
	base := input{seq: d.Seq, self: r.self, allotted: make(map[allotment]target.Allotment, len(d.Allotted)), unknown: make(map[string]bool, len(d.Unknown))}
	for _, a := range d.Allotted {
		base.allotted[allotment{a.HostPort, a.Protocol, a.IPv6}] = a
	}
	for _, id := range d.Unknown {
		base.unknown[id] = true
	}
	for groupARN, groups := range keysOf {
		in := base
		if !r.fill(&in, d, groupARN, groups, stays[groupARN]) {
			continue
		}
		if r.reconcilers[groupARN] == nil {
			r.startReconciler(ctx, groupARN)
		}
		r.reconcilers[groupARN].set(&in)
	}
	r.post(d, stays)
}

// mayBe reports whether one of the groups that were not found yet may be this one.
func mayBe(groupARN string, unfound []elb.Group) bool {
	facts := elb.Facts{ARN: groupARN, Name: elb.NameOf(groupARN)}
	return slices.ContainsFunc(unfound, func(g elb.Group) bool { return g.Reference().Names(facts) })
}

// leftIn returns what an earlier agent left of a group that is not served yet.
func (r *Registrar) leftIn(groupARN string) (elb.Group, elb.Facts) {
	if entries := r.recovered[groupARN]; len(entries) > 0 {
		return entries[0].Group, entries[0].Facts
	}
	return elb.Group{ARN: groupARN}, r.moves.kept[groupARN]
}

// fill completes an input. It reports false where the group's wants are not known.
func (r *Registrar) fill(in *input, d *Desired, groupARN string, groups []elb.Group, kept *stay) bool {
	in.owner = elb.OwnLedger
	in.groups = make(map[string]elb.Group, len(groups))
	if len(groups) > 0 {
		in.group, in.facts = groups[0], r.found[groups[0].Reference().Identity()]
	} else if running := r.reconcilers[groupARN]; running != nil {
		before := running.slot.Load()
		in.group, in.facts = before.group, before.facts
	} else {
		in.group, in.facts = r.leftIn(groupARN)
	}
	for _, g := range groups {
		wants, computed := d.Wants[g.Key]
		if !computed { //mutant:missing-key-is-empty
			return false
		}
		in.keys = append(in.keys, g.Key)
		in.groups[g.Key] = g
		in.wants = append(in.wants, wants...)
		if g.Ownership == elb.OwnInstance {
			in.owner = elb.OwnInstance
		}
	}
	slices.Sort(in.keys)
	if kept == nil {
		return true
	}
	in.held, in.wants = kept.held, append(in.wants, kept.wants...)
	maps.Copy(in.groups, kept.groups)
	return !kept.unknown
}

// post puts on the board what there is to say of each group of the configuration until its reconciler speaks for it, and what
// is held for keys that name another group.
func (r *Registrar) post(d *Desired, stays map[string]*stay) {
	sought := make(map[string]GroupStatus, len(d.Groups))
	for _, g := range d.Groups {
		s := GroupStatus{ARN: g.ARN, Name: g.Name, Keys: []string{g.Key}, State: StateWaiting}
		if f, ok := r.missing[g.Reference().Identity()]; ok {
			s.State, s.Err, s.Change = behaviours[f.err.Fault].state, f.err.Error(), elb.Advice(f.err, g.Reference(), elb.Facts{})
			s.Seq, s.Tried, s.RetryAt = d.Seq, true, f.retry
		}
		sought[g.Key] = s
	}
	held := make(map[string][]Held, len(stays))
	for groupARN, kept := range stays {
		held[groupARN] = kept.held
	}
	r.env.board.edit(func() { r.env.board.sought, r.env.board.held = sought, held })
}
