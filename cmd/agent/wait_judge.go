package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/pkg/status"
)

// outcome is where a container stands on its way to a goal.
type outcome string

const (
	pending outcome = "pending"
	reached outcome = "reached"
	never   outcome = "never"
)

// progress is what is known of one container while it is waited for.
type progress struct {
	Container string       `json:"container"` // as it was named on the command line
	Outcome   outcome      `json:"outcome"`
	Why       string       `json:"why"`
	Change    string       `json:"change,omitempty"`
	Rows      []status.Row `json:"rows"`

	ports    string    // that Docker picks from on this host, for advice
	name     string    // once the agent has known it
	seen     bool      // the agent has known it
	absentAt time.Time // since when it does not; zero while it does
	// goneSeq is discovery's Seq at which nothing of the container was wanted any more; drained is not before its
	// groups have acted on it.
	goneSeq uint64
}

// label is what messages call it.
func (p *progress) label() string { return cmp.Or(p.name, p.Container) }

// sentence is why and what to change.
func (p *progress) sentence() string {
	if p.Change == "" {
		return p.Why
	}
	return p.Why + "; " + p.Change
}

// judge brings the progress up to date. An empty group means all of them. Its error is about the name.
func (p *progress) judge(s *status.V1, g goal, group string) error {
	rows, err := rowsOf(s.Rows, p.Container)
	if err != nil {
		return err
	}
	p.Rows = []status.Row{}
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
	case goalDrained:
		p.judgeDrained(s)
	case goalRegistered:
		p.judgeServing(func(st status.State) bool { return st.AtLoadBalancer() })
	case goalHealthy:
		p.judgeServing(func(st status.State) bool { return st == status.Healthy })
	}
	return nil
}

// absent is the progress of a container that the agent does not know (any more).
func (p *progress) absent(s *status.V1, g goal) {
	if s.Seq == 0 { // since it was started: it knows no container yet
		p.Outcome, p.Why, p.Change, p.absentAt = pending, unseen(s), "", time.Time{}
		return
	}
	if p.seen && g == goalDrained {
		p.settled(s, "it is gone, and so are its targets")
		return
	}
	if p.absentAt.IsZero() {
		p.absentAt = s.At
	}
	p.Outcome, p.Why, p.Change = pending, "the agent knows no such container yet", ""
	if s.At.Sub(p.absentAt) >= absentGrace {
		p.Outcome, p.Why, p.Change = never, "the agent knows no such container", "see: berth status --all, docker ps"
		if p.seen {
			p.Why = "the container is gone"
		}
	}
}

// judgeServing asks that every port be in a good state. Runs that are on their way out do not count beside a newer one.
func (p *progress) judgeServing(good func(status.State) bool) {
	rows := newestRun(p.Rows)
	asking := slices.DeleteFunc(slices.Clone(rows), func(r status.Row) bool { return r.State == status.Ignored })
	if len(asking) == 0 {
		p.Outcome, p.Why = never, rows[0].Why
		p.Change = cmp.Or(rows[0].Change, "label it (docker run -l berth.targets=GROUP ...) or write a rule")
		return
	}
	p.Outcome, p.Why = reached, ""
	for i := range asking {
		r := &asking[i]
		switch {
		case r.State == status.Refused:
			p.Outcome, p.Why, p.Change = never, describe(r), r.Change
			return
		case !good(r.State) && p.Outcome == reached:
			p.Outcome, p.Why, p.Change = pending, describe(r), advice(r, p.ports)
		}
	}
	if p.Outcome == reached {
		p.Why = fmt.Sprintf("%s in %s", asking[0].State, groupsOf(asking))
	}
}

// judgeDrained asks that nothing of the container be wanted or known to a load balancer, and that its groups have acted
// on that: a group that has not may be about to register it.
func (p *progress) judgeDrained(s *status.V1) {
	for i := range p.Rows {
		r := &p.Rows[i]
		switch {
		case r.State.Wanted():
			p.goneSeq = 0
			p.Outcome, p.Why, p.Change = pending, "nothing drains it: "+describe(r), "run: berth drain "+p.Container
			return
		case (r.State == status.Leaving || r.State == status.Draining) && r.Target.ID != "":
			p.Outcome, p.Why, p.Change = pending, describe(r), r.Change
			return
		}
	}
	if p.goneSeq == 0 {
		p.goneSeq = s.Seq
	}
	p.settled(s, "nothing of it is registered")
}

// settled is the progress of a container of which no row shows a target: why, once every group has acted on that.
func (p *progress) settled(s *status.V1, why string) {
	p.Outcome, p.Why, p.Change = reached, why, ""
	if waiting := behind(s, p.goneSeq, len(p.Rows) == 0, func(g *status.GroupV1) bool { return concerns(p.Rows, g) }); waiting != "" {
		p.Outcome, p.Why = pending, waiting
	}
}

// concerns reports whether rows are about a group; a row without a group may be about any.
func concerns(rows []status.Row, g *status.GroupV1) bool {
	return slices.ContainsFunc(rows, func(r status.Row) bool {
		return r.Group == "" || slices.Contains(g.Keys, r.Group)
	})
}

// newestRun keeps the rows of the run that started last.
func newestRun(rows []status.Row) []status.Row {
	newest := slices.MaxFunc(rows, func(a, b status.Row) int { return a.Run.StartedAt.Compare(b.Run.StartedAt) })
	return slices.DeleteFunc(slices.Clone(rows), func(r status.Row) bool {
		return !r.Run.StartedAt.Equal(newest.Run.StartedAt)
	})
}

// describe says where a row stands: "unhealthy in web: its health checks get no answer in time (Target.Timeout)".
func describe(r *status.Row) string {
	where := ""
	if r.Group != "" {
		where = " in " + r.Group
	}
	reason := ""
	if r.Reason != "" && !strings.Contains(r.Why, r.Reason) {
		reason = " (" + r.Reason + ")"
	}
	return plain(fmt.Sprintf("%s%s: %s%s", r.State, where, r.Why, reason))
}

// advice is what to change. Where the load balancer cannot reach the port it names the ports that a security group must
// let through: ports is the range that Docker picks from on this host ("32768 to 60999"); empty: not known.
func advice(r *status.Row, ports string) string {
	if ports == "" || r.Reason != "Target.Timeout" && r.Reason != "Target.FailedHealthChecks" {
		return r.Change
	}
	return r.Change + " (Docker picks ports " + ports + " on this host)"
}

func groupsOf(rows []status.Row) string {
	var groups []string
	for i := range rows {
		groups = append(groups, cmp.Or(rows[i].Group, "-"))
	}
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(groups))), ", ")
}
