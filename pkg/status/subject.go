package status

import (
	"cmp"
	"slices"
	"time"

	"berth/pkg/registrar"
	"berth/pkg/target"
)

// Reason is why something stands where it does.
type Reason struct {
	Why    string
	Change string // what a person can change about it, where a person can
}

// Sentence is why and what to change.
func (r Reason) Sentence() string { return Joined(r.Why, r.Change) }

func reasonOf(r *Row) Reason { return Reason{Why: describe(r), Change: r.Change} }

// kind is what a departure is about.
type kind int

// The kinds.
const (
	aRun kind = iota
	aName
	theHost
	aTarget
)

// subject is what departs. Which rows are about it depends on what it is.
type subject struct {
	kind   kind
	named             // of aRun its ref alone; of aName
	run    target.Run // of aRun
	key    string     // of aTarget: the group's key or label
	target target.Target
}

// Label is what messages call it.
func (u *subject) Label() string {
	switch u.kind {
	case theHost:
		return "the host"
	case aTarget:
		return u.target.String()
	case aName:
		return u.named.Label()
	case aRun:
	}
	return shownAs(u.ref, u.run.ID, u.run.Name)
}

// rows returns the rows that are about it.
func (u *subject) rows(s *V1) []*Row {
	if u.kind == aName {
		return u.find(s)
	}
	var rows []*Row
	for i := range s.Rows {
		if r := &s.Rows[i]; u.concerns(s, r) {
			rows = append(rows, r)
		}
	}
	return rows
}

// concerns reports whether a row is about the run, the host or the target.
func (u *subject) concerns(s *V1, r *Row) bool {
	switch u.kind {
	case theHost:
		return r.State != Unclaimed && r.State != Ignored && r.State != Refused
	case aTarget:
		if r.Target != u.target {
			return false
		}
		g := GroupNamed(s, u.key)
		return r.Group == u.key || g != nil && slices.Contains(g.Keys, r.Group)
	case aRun:
		if u.run.ID == "" { // a name that no container bears: of those that bore it something may still drain
			return r.Run.Name == u.run.Name
		}
		return r.Run.ID == u.run.ID
	case aName:
	}
	return false
}

// mayBeIn reports whether a row is about a group. A row without a group says of a container that was only named that it
// may be in any; of a run that it is in none.
func (u *subject) mayBeIn(r *Row, g *GroupV1) bool {
	return slices.Contains(g.Keys, r.Group) || slices.ContainsFunc(g.Held, func(h registrar.Held) bool { return h.Key == r.Group }) || r.Group == "" && u.kind == aName
}

// absentGrace is how long a container may be unknown to the agent: `docker run -d` returns before its events are
// read, and a container that is replaced is gone for a moment.
const absentGrace = 5 * time.Second

// named is a container by what it was called on the command line, and what the agent has known of it.
type named struct {
	ref      string
	group    string    // alone of which it is asked; empty: all
	name     string    // once the agent has known it
	known    bool      // the agent has known it
	missing  bool      // the agent does not know it now
	absentAt time.Time // since when it was found missing; zero: it is not
}

// Label is what messages call it.
func (n *named) Label() string { return cmp.Or(n.name, n.ref) }

// find returns its rows. A beginning of several ids names none of them: RowsIn says so to whoever asks first.
func (n *named) find(s *V1) []*Row {
	rows, _ := RowsIn(s.Rows, n.ref, n.group)
	n.missing = len(rows) == 0
	if n.missing {
		return nil
	}
	n.known, n.absentAt = true, time.Time{}
	n.name = shownAs(n.ref, rows[0].Run.ID, rows[0].Run.Name)
	found := make([]*Row, len(rows))
	for i := range rows {
		found[i] = &rows[i]
	}
	return found
}

// absent says what it means that the agent does not know the container (any more), when that becomes final, and whether it
// is.
func (n *named) absent(s *V1, now time.Time) (why Reason, next time.Time, final bool) {
	if s.Seq == 0 { // since the agent was started: it knows no container yet
		n.absentAt = time.Time{}
		return Reason{Why: unseen(s)}, time.Time{}, false
	}
	if n.absentAt.IsZero() {
		n.absentAt = now
	}
	if end := n.absentAt.Add(absentGrace); now.Before(end) {
		return Reason{Why: "the agent knows no such container yet"}, end, false
	}
	why = Reason{Why: "the agent knows no such container", Change: "see: berth status --all, docker ps"}
	if n.known {
		why.Why = "the container is gone"
	}
	return why, time.Time{}, true
}
