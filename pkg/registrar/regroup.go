package registrar

// A key that names another group than before. Its targets stay in the group that served it until the new one is found and has
// accepted them: a reference that does not exist, or a group that refuses, takes nobody out.

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// Held is a key of the configuration whose targets a group still has, though the configuration names another one for it.
type Held struct {
	Key string `json:"key"`
	Why string `json:"why"` // one sentence: what the other group lacks
}

// moves is which group each key means, and which it meant before. It belongs to the supervisor's goroutine.
type moves struct {
	serves   map[string]string          // ARN, by key: what its reference was found to mean
	former   map[string]map[string]bool // ARNs, by key: what may still have targets of it
	accepted map[string]elb.Facts       // by key: the group that last accepted a target of it
	kept     map[string]elb.Facts       // by ARN: accepted, as an earlier agent left it
	gone     map[string]bool            // ARNs of which AWS has said that there is no such group
	said     map[holding]bool           // those that are held, as the log has it
}

// holding is a key and a group that is held for it.
type holding struct{ key, arn string }

func newMoves() moves {
	return moves{
		serves: map[string]string{}, former: map[string]map[string]bool{},
		accepted: map[string]elb.Facts{}, kept: map[string]elb.Facts{}, gone: map[string]bool{}, said: map[holding]bool{},
	}
}

// recall takes in what an earlier agent left: the entries of its ledger that can be reached, and the groups that last accepted a
// target of each key. A target that is registered, or may be, says most. Where a key has none, as after a reboot, it is the group
// that last accepted one, or one that a target has just left.
func (m *moves) recall(entries []ledger.Entry, serves map[string]elb.Facts, region string) {
	registered := map[string]bool{}
	for _, e := range entries {
		if e.Phase != ledger.Removing {
			m.had(e.Group.Key, e.ARN())
		}
		registered[e.Group.Key] = registered[e.Group.Key] || e.Phase == ledger.Registered
	}
	for key, facts := range serves {
		if of, _ := elb.PlaceOf(facts.ARN); of == "" || region != "" && of != region {
			continue
		}
		m.accepted[key], m.kept[facts.ARN] = facts, facts
		if !registered[key] {
			m.had(key, facts.ARN)
		}
	}
	left := map[string]string{}
	for _, e := range entries {
		if e.Phase == ledger.Removing && len(m.former[e.Group.Key]) == 0 {
			left[e.Group.Key] = e.ARN()
		}
	}
	for key, groupARN := range left {
		m.had(key, groupARN)
	}
}

// had notes that a group may still have targets of a key.
func (m *moves) had(key, groupARN string) {
	if m.former[key] == nil {
		m.former[key] = map[string]bool{}
	}
	m.former[key][groupARN] = true //mutant:empties-the-old-group
}

// follow takes in what the keys of a configuration mean now: found is by reference. A key that is gone holds nothing.
func (m *moves) follow(groups []elb.Group, found map[string]elb.Facts) {
	configured := make(map[string]bool, len(groups))
	for _, g := range groups {
		configured[g.Key] = true
		before, now := m.serves[g.Key], found[g.Reference().Identity()].ARN
		if before != "" && before != now {
			m.had(g.Key, before)
			delete(m.serves, g.Key)
		}
		if now != "" {
			m.serves[g.Key] = now
			m.left(g.Key, now)
		}
	}
	maps.DeleteFunc(m.serves, func(key, _ string) bool { return !configured[key] })
	maps.DeleteFunc(m.former, func(key string, _ map[string]bool) bool { return !configured[key] })
	maps.DeleteFunc(m.accepted, func(key string, _ elb.Facts) bool { return !configured[key] })
}

// remember has the ledger know which group last accepted a target of each key, for an agent that finds no entry of the key:
// its containers may have ended by then.
func (r *Registrar) remember() {
	d := r.desired.Load()
	if d == nil || r.env.dry {
		return
	}
	has := map[holding]bool{}
	for _, e := range r.env.ledger.Entries() {
		if e.Phase == ledger.Registered {
			has[holding{e.Group.Key, e.ARN()}] = true
		}
	}
	for _, g := range d.Groups {
		if facts := r.found[g.Reference().Identity()]; has[holding{g.Key, facts.ARN}] {
			r.moves.accepted[g.Key] = facts
		}
	}
	r.env.ledger.NoteServes(maps.Clone(r.moves.accepted))
}

// left notes that a group is none that a key has left any more.
func (m *moves) left(key, groupARN string) {
	delete(m.former[key], groupARN)
	if len(m.former[key]) == 0 {
		delete(m.former, key)
	}
}

// stay is what a group keeps for keys that name another one.
type stay struct {
	held    []Held
	wants   []target.Want
	groups  map[string]elb.Group // as the keys named it, or as the ledger has it
	unknown bool                 // the wants of a key were not computed: the group keeps what it had
}

// stays returns what each group keeps, by ARN.
//
// | the key's group                      | the group before keeps                                                 |
// |--------------------------------------|------------------------------------------------------------------------|
// | is not found                         | all that is wanted for the key: what is new comes in there, too         |
// | is found, and has accepted nothing   | likewise                                                               |
// | has accepted some                    | what it has of the rest                                                |
// | has accepted all                     | nothing                                                                |
//
// Where there are several groups before, nothing new comes in to any, and nor does it to one that another key names by now: that
// one's clients have other work for it. A group is left when the new one has accepted some, or it does not exist itself, and
// it has nothing of the rest: that nothing is wanted for a moment, or that nobody has looked at a container yet, proves no move.
func (r *Registrar) stays(d *Desired) map[string]*stay {
	out := map[string]*stay{}
	for _, g := range d.Groups {
		former := r.moves.former[g.Key]
		if len(former) == 0 {
			continue
		}
		r.narrow(g.Key, former)
		wants, computed := d.Wants[g.Key]
		facts, found := r.found[g.Reference().Identity()]
		rest, some := wants, false
		if found && computed {
			rest = r.unaccepted(facts, wants)
			some = len(rest) < len(wants) || r.hasAccepted(facts, g.Key)
		}
		for _, groupARN := range slices.Sorted(maps.Keys(former)) {
			before, ok := r.knownOf(groupARN)
			if !ok {
				continue
			}
			open := addressOpen(r.self, before)
			kept := rest
			if !open && (len(former) > 1 || some || r.othersName(d.Groups, g.Key, before)) {
				kept = r.entered(before, rest)
			}
			moved := found && computed && (some || r.moves.gone[groupARN] || len(wants) > 0 && len(rest) == 0)
			if set, _ := Bind(r.self, before, kept); moved && len(set) == 0 && len(d.Unknown) == 0 && !open {
				r.moves.left(g.Key, groupARN)
				r.sayHeld(g, before, "")
				continue
			}
			s := out[groupARN]
			if s == nil {
				s = &stay{groups: map[string]elb.Group{}}
				out[groupARN] = s
			}
			why := r.whyHeld(g, facts)
			r.sayHeld(g, before, why)
			s.unknown = s.unknown || !computed
			s.held = append(s.held, Held{g.Key, why})
			s.wants = append(s.wants, kept...)
			s.groups[g.Key] = r.namedBefore(groupARN, g.Key)
		}
	}
	r.sayOver()
	return out
}

// narrow drops groups before that have nothing of a key, where there are several: one that refused it, between another that has
// its targets and the one that it names now, or all but the last that accepted one.
func (r *Registrar) narrow(key string, former map[string]bool) {
	if len(former) < 2 {
		return
	}
	having := map[string]bool{}
	for _, e := range r.env.ledger.Entries() {
		if e.Group.Key == key && e.Phase != ledger.Removing && former[e.ARN()] {
			having[e.ARN()] = true
		}
	}
	if last := r.moves.accepted[key].ARN; len(having) == 0 && former[last] {
		having[last] = true
	}
	if len(having) > 0 {
		maps.DeleteFunc(former, func(groupARN string, _ bool) bool { return !having[groupARN] })
	}
}

// othersName reports whether another key than this one names a group, or may: its reference was not found yet.
func (r *Registrar) othersName(groups []elb.Group, key string, before elb.Facts) bool {
	return slices.ContainsFunc(groups, func(g elb.Group) bool {
		facts, found := r.found[g.Reference().Identity()]
		return g.Key != key && (facts.ARN == before.ARN || !found && g.Reference().Names(before))
	})
}

// knownOf returns the facts of a group that was served before; false where it is not served and another version has not
// written them whole.
func (r *Registrar) knownOf(groupARN string) (elb.Facts, bool) {
	if rec := r.reconcilers[groupARN]; rec != nil {
		return rec.slot.Load().facts, true
	}
	if entries := r.recovered[groupARN]; len(entries) > 0 {
		facts := entries[0].Facts
		return facts, facts.TargetType != "" && facts.Protocol != ""
	}
	facts := r.moves.kept[groupARN]
	return facts, facts.TargetType != "" && facts.Protocol != ""
}

// namedBefore returns how a key named a group that it names no more.
func (r *Registrar) namedBefore(groupARN, key string) elb.Group {
	if rec := r.reconcilers[groupARN]; rec != nil {
		if g, ok := rec.slot.Load().groups[key]; ok {
			return g
		}
	}
	for _, e := range r.recovered[groupARN] {
		if e.Group.Key == key {
			return e.Group
		}
	}
	return elb.Group{Key: key, ARN: groupARN}
}

// unaccepted returns the wants that a group has not accepted yet, as the ledger knows, which outlives the agent.
func (r *Registrar) unaccepted(f elb.Facts, wants []target.Want) []target.Want {
	accepted := r.inLedger(f, wants, func(e *ledger.Entry) bool { return e.Phase == ledger.Registered && e.BootID == r.env.bootID })
	return slices.DeleteFunc(slices.Clone(wants), func(w target.Want) bool { return accepted[keyOfWant(w)] })
}

// hasAccepted reports whether a group has a target of a key, of whatever boot, or is the last that had one.
func (r *Registrar) hasAccepted(f elb.Facts, key string) bool {
	if r.moves.accepted[key].ARN == f.ARN {
		return true
	}
	has := slices.ContainsFunc(r.env.ledger.Entries(), func(e ledger.Entry) bool {
		return e.ARN() == f.ARN && e.Group.Key == key && e.Phase == ledger.Registered
	})
	if has {
		r.moves.accepted[key] = f
	}
	return has
}

// entered returns the wants that a group has, or may have.
func (r *Registrar) entered(f elb.Facts, wants []target.Want) []target.Want {
	entered := r.inLedger(f, wants, func(e *ledger.Entry) bool { return e.Phase == ledger.Registered || e.Phase == ledger.Intended })
	return slices.DeleteFunc(slices.Clone(wants), func(w target.Want) bool { return !entered[keyOfWant(w)] })
}

// wantKey is what tells the wants of one key apart.
type wantKey struct {
	id      string
	started int64
	port    target.PortProto
}

func keyOfWant(w target.Want) wantKey {
	return wantKey{w.Run.ID, w.Run.StartedAt.UnixNano(), w.PortProto()}
}

// inLedger returns which of the wants have an entry of their own run in a group that is as it should be.
func (r *Registrar) inLedger(f elb.Facts, wants []target.Want, is func(*ledger.Entry) bool) map[wantKey]bool {
	set, _ := Bind(r.self, f, wants)
	out := map[wantKey]bool{}
	for _, h := range r.env.ledger.Holdings(f.ARN, set.Sorted()) {
		e, entered := h.Entry()
		if !entered || !is(&e) {
			continue
		}
		for _, w := range set[h.Target()] {
			if w.Run.Same(e.Run) {
				out[keyOfWant(w)] = true
			}
		}
	}
	return out
}

// whyHeld says what the group that a key names lacks.
func (r *Registrar) whyHeld(g elb.Group, facts elb.Facts) string {
	ref := g.Reference()
	if facts.ARN != "" {
		return fmt.Sprintf("%s has not accepted all of %s yet", ref, g.Key)
	}
	if f, ok := r.missing[ref.Identity()]; ok {
		return fmt.Sprintf("%s is not found: %s", ref, cmp.Or(f.err.Message, f.err.Code))
	}
	return ref.String() + " has not been looked up yet"
}

// sayHeld logs when a group begins to be held for a key that names another one, and when that ends: why is empty then.
func (r *Registrar) sayHeld(g elb.Group, before elb.Facts, why string) {
	id := holding{g.Key, before.ARN}
	switch {
	case why != "" && !r.moves.said[id]:
		r.moves.said[id] = true
		r.env.log.Warn("key names another target group; the one before keeps its targets until that has accepted them",
			zap.String("key", g.Key), zap.String("target_group", elb.Short(before.ARN)), zap.String("why", why))
	case why == "" && r.moves.said[id]:
		delete(r.moves.said, id)
		r.env.log.Info("key is served by its new target group", zap.String("key", g.Key), zap.String("before", elb.Short(before.ARN)))
	}
}

// sayOver logs of what the log has as held and is no group before any more that this has ended: the key names it again, is gone
// from the configuration, or has nothing there.
func (r *Registrar) sayOver() {
	for id := range r.moves.said {
		if !r.moves.former[id.key][id.arn] {
			delete(r.moves.said, id)
			r.env.log.Info("target group is no longer held for a key that named another one",
				zap.String("key", id.key), zap.String("target_group", elb.Short(id.arn)))
		}
	}
}

// Emptied is a group that a configuration names no more, and that has targets of this host.
type Emptied struct {
	Name    string `json:"name,omitempty"`
	ARN     string `json:"arn"`
	Targets int    `json:"targets"`
	// Until are the keys that name another group now: their targets stay until that one has accepted them. Those of other
	// keys, and all where there is none, go at once.
	Until []string `json:"until,omitempty"`
}

// Emptied returns which groups are emptied when the configuration names the groups now, and has named the groups before.
func (s *Snapshot) Emptied(before, now []elb.Group) []Emptied {
	var out []Emptied
	for i := range s.Groups {
		was := &s.Groups[i]
		e := Emptied{Name: cmp.Or(was.Name, elb.NameOf(was.ARN)), ARN: was.ARN}
		for _, t := range was.Targets {
			if t.Phase == ledger.Registered || t.Phase == ledger.Intended {
				e.Targets++
			}
		}
		names := func(g elb.Group) bool { return g.Reference().Names(was.Facts) }
		had := map[string]bool{}
		for _, g := range before {
			if names(g) || slices.ContainsFunc(was.Held, func(h Held) bool { return h.Key == g.Key }) {
				had[g.Key] = true
			}
		}
		if len(had) == 0 || e.Targets == 0 || slices.ContainsFunc(now, names) {
			continue
		}
		for _, g := range now {
			if had[g.Key] {
				e.Until = append(e.Until, g.Key)
			}
		}
		slices.Sort(e.Until)
		out = append(out, e)
	}
	return out
}
