package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// absentGrace is how long a container may be unknown to the agent: `docker run -d` returns before its events are
// read, and a container that is replaced is gone for a moment.
const absentGrace = 5 * time.Second

// Goal is what `berth wait` waits for.
type Goal string

// The goals.
const (
	GoalRegistered Goal = "registered"
	GoalHealthy    Goal = "healthy"
	GoalDrained    Goal = "drained"
)

// outcome is where a container stands on its way to a goal.
type outcome string

// The outcomes.
const (
	Pending outcome = "pending"
	Reached outcome = "reached"
	Never   outcome = "never"
)

// Progress is what is known of one container while it is waited for.
type Progress struct {
	Container string  `json:"container"` // as it was named on the command line
	Outcome   outcome `json:"outcome"`
	Why       string  `json:"why"`
	Change    string  `json:"change,omitempty"`
	Rows      []Row   `json:"rows"`

	Ports    string    `json:"-"` // that Docker picks from on this host, for advice
	name     string    // once the agent has known it
	seen     bool      // the agent has known it
	absentAt time.Time // since when it does not; zero while it does
	// goneSeq is discovery's Seq at which nothing of the container was wanted any more; drained is not before its
	// groups have acted on it.
	goneSeq uint64
}

// Label is what messages call it.
func (p *Progress) Label() string { return cmp.Or(p.name, p.Container) }

// Sentence is why and what to change.
func (p *Progress) Sentence() string {
	if p.Change == "" {
		return p.Why
	}
	return p.Why + "; " + p.Change
}

// Judge brings the progress up to date. An empty group means all of them. Its error is about the name.
func (p *Progress) Judge(s *V1, g Goal, group string) error {
	rows, err := RowsOf(s.Rows, p.Container)
	if err != nil {
		return err
	}
	p.Rows = []Row{}
	for _, row := range rows {
		if group == "" || row.Group == group || row.Group == "" {
			p.Rows = append(p.Rows, row)
		}
	}
	if len(p.Rows) == 0 {
		p.absent(s, g)
		return nil
	}
	p.seen, p.absentAt = true, time.Time{}
	p.name = shownAs(p.Container, p.Rows[0].Run.ID, p.Rows[0].Run.Name)
	p.Change = ""
	switch g {
	case GoalDrained:
		p.judgeDrained(s)
	case GoalRegistered:
		p.judgeServing(func(st State) bool { return st.AtLoadBalancer() })
	case GoalHealthy:
		p.judgeServing(func(st State) bool { return st == Healthy })
	}
	return nil
}

// absent is the progress of a container that the agent does not know (any more).
func (p *Progress) absent(s *V1, g Goal) {
	if s.Seq == 0 { // since it was started: it knows no container yet
		p.Outcome, p.Why, p.Change, p.absentAt = Pending, unseen(s), "", time.Time{}
		return
	}
	if p.seen && g == GoalDrained {
		p.settled(s, "it is gone, and so are its targets")
		return
	}
	if p.absentAt.IsZero() {
		p.absentAt = s.At
	}
	p.Outcome, p.Why, p.Change = Pending, "the agent knows no such container yet", ""
	if s.At.Sub(p.absentAt) >= absentGrace {
		p.Outcome, p.Why, p.Change = Never, "the agent knows no such container", "see: berth status --all, docker ps"
		if p.seen {
			p.Why = "the container is gone"
		}
	}
}

// judgeServing asks that every port be in a good state. Runs that are on their way out do not count beside a newer one.
func (p *Progress) judgeServing(good func(State) bool) {
	rows := newestRun(p.Rows)
	asking := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.State == Ignored })
	if len(asking) == 0 {
		p.Outcome, p.Why = Never, rows[0].Why
		p.Change = cmp.Or(rows[0].Change, "label it (docker run -l berth.targets=GROUP ...) or write a rule")
		return
	}
	p.Outcome, p.Why = Reached, ""
	for i := range asking {
		r := &asking[i]
		switch {
		case r.State == Refused:
			p.Outcome, p.Why, p.Change = Never, describe(r), r.Change
			return
		case !good(r.State) && p.Outcome == Reached:
			p.Outcome, p.Why, p.Change = Pending, describe(r), Advice(r, p.Ports)
		}
	}
	if p.Outcome == Reached {
		p.Why = fmt.Sprintf("%s in %s", asking[0].State, groupsOf(asking))
	}
}

// judgeDrained asks that nothing of the container be wanted or known to a load balancer, and that its groups have acted
// on that: a group that has not may be about to register it.
func (p *Progress) judgeDrained(s *V1) {
	for i := range p.Rows {
		r := &p.Rows[i]
		switch {
		case r.State.Wanted():
			p.goneSeq = 0
			p.Outcome, p.Why, p.Change = Pending, "nothing drains it: "+describe(r), "run: berth drain "+p.Container
			return
		case (r.State == Leaving || r.State == Draining) && r.Target.ID != "":
			p.Outcome, p.Why, p.Change = Pending, describe(r), r.Change
			return
		}
	}
	if p.goneSeq == 0 {
		p.goneSeq = s.Seq
	}
	p.settled(s, "nothing of it is registered")
}

// settled is the progress of a container of which no row shows a target: why, once every group has acted on that.
func (p *Progress) settled(s *V1, why string) {
	p.Outcome, p.Why, p.Change = Reached, why, ""
	if waiting := Behind(s, p.goneSeq, len(p.Rows) == 0, func(g *GroupV1) bool { return concerns(p.Rows, g) }); waiting != "" {
		p.Outcome, p.Why = Pending, waiting
	}
}

// concerns reports whether rows are about a group; a row without a group may be about any.
func concerns(rows []Row, g *GroupV1) bool {
	return slices.ContainsFunc(rows, func(r Row) bool {
		return r.Group == "" || slices.Contains(g.Keys, r.Group)
	})
}

// newestRun keeps the rows of the run that started last.
func newestRun(rows []Row) []Row {
	newest := slices.MaxFunc(rows, func(a, b Row) int { return a.Run.StartedAt.Compare(b.Run.StartedAt) })
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool {
		return !r.Run.StartedAt.Equal(newest.Run.StartedAt)
	})
}

// describe says where a row stands: "unhealthy in web: its health checks get no answer in time (Target.Timeout)".
func describe(r *Row) string {
	where := ""
	if r.Group != "" {
		where = " in " + r.Group
	}
	reason := ""
	if r.Reason != "" && !strings.Contains(r.Why, r.Reason) {
		reason = " (" + r.Reason + ")"
	}
	return Plain(fmt.Sprintf("%s%s: %s%s", r.State, where, r.Why, reason))
}

// Advice is what to change. Where the load balancer cannot reach the port it names the ports that a security group must
// let through: ports is the range that Docker picks from on this host ("32768 to 60999"); empty: not known.
func Advice(r *Row, ports string) string {
	if ports == "" || r.Reason != "Target.Timeout" && r.Reason != "Target.FailedHealthChecks" {
		return r.Change
	}
	return r.Change + " (Docker picks ports " + ports + " on this host)"
}

func groupsOf(rows []Row) string {
	var groups []string
	for i := range rows {
		groups = append(groups, cmp.Or(rows[i].Group, "-"))
	}
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(groups))), ", ")
}
