package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Goal is how far a container is to arrive.
type Goal string

// The goals.
const (
	GoalRegistered Goal = "registered"
	GoalHealthy    Goal = "healthy"
)

// met reports whether a row in this state has arrived.
func (g Goal) met(s State) bool {
	if g == GoalRegistered {
		return s.AtLoadBalancer()
	}
	return s == Healthy
}

// Outcome is how far an arrival has come.
type Outcome string

// The outcomes.
const (
	Pending Outcome = "pending"
	Reached Outcome = "reached"
	Never   Outcome = "never"
)

// Arrival judges whether something serves at the load balancer: a container by its name, the host in some groups, or what
// discovery wants since a Seq. It is the only judge of that. Each status is shown to it; all that it remembers of them is
// whether, and until when, the agent knew the container.
type Arrival struct {
	named
	goal  Goal
	ports string
	judge func(*Arrival, *V1, time.Time) (Outcome, Reason, time.Time)

	outcome Outcome
	reason  Reason
}

// NamedArrival is that of a container by its name, or an id or the beginning of one: in one group, or in all where group is
// empty. ports is the range that Docker picks from on this host, for advice; empty: not known.
func NamedArrival(ref, group string, goal Goal, ports string) *Arrival {
	return &Arrival{named: named{ref: ref, group: group}, goal: goal, ports: ports, judge: (*Arrival).judgeNamed, outcome: Pending}
}

// HostArrival is that of the host in all of some groups, by their keys: each has a healthy target of it. A host that is to
// arrive nowhere does not.
func HostArrival(groups []string) *Arrival {
	return &Arrival{outcome: Pending, judge: func(_ *Arrival, s *V1, _ time.Time) (Outcome, Reason, time.Time) {
		if len(groups) == 0 {
			return Pending, Reason{Why: "no target group is required"}, time.Time{}
		}
		for _, key := range groups {
			if !slices.ContainsFunc(s.Rows, func(r Row) bool { return r.Group == key && r.State == Healthy }) {
				return Pending, Reason{Why: "target group " + key + " has no healthy target of this host"}, time.Time{}
			}
		}
		return Reached, Reason{Why: "healthy in " + strings.Join(groups, ", ")}, time.Time{}
	}}
}

// WantsArrival is that of what discovery wants since seq: every group that can has acted on it.
func WantsArrival(seq uint64) *Arrival {
	return &Arrival{outcome: Pending, judge: func(_ *Arrival, s *V1, _ time.Time) (Outcome, Reason, time.Time) {
		if why := behind(s, seq, false, func(*GroupV1) bool { return true }); why != "" {
			return Pending, Reason{Why: why}, time.Time{}
		}
		return Reached, Reason{Why: "all target groups have acted on it"}, time.Time{}
	}}
}

// Outcome is what Judge last said.
func (a *Arrival) Outcome() Outcome { return a.outcome }

// Reason says why the outcome is what it is, and what to change.
func (a *Arrival) Reason() Reason { return a.reason }

// Judge says how far the arrival has come by a status, and when that may change by time alone: whoever waits asks again
// with a newer status, or at next. A zero next says that only a newer status changes anything.
func (a *Arrival) Judge(s *V1, now time.Time) (outcome Outcome, next time.Time) {
	a.outcome, a.reason, next = a.judge(a, s, now)
	return a.outcome, next
}

// judgeNamed asks that every port be in a good state. Runs that are on their way out do not count beside a newer one.
func (a *Arrival) judgeNamed(s *V1, now time.Time) (Outcome, Reason, time.Time) {
	rows := a.find(s)
	if len(rows) == 0 {
		why, next, final := a.absent(s, now)
		if final {
			return Never, why, next
		}
		return Pending, why, next
	}
	outcome, why := a.serving(newestRun(rows))
	return outcome, why, time.Time{}
}

func (a *Arrival) serving(rows []*Row) (Outcome, Reason) {
	asking := slices.DeleteFunc(slices.Clone(rows), func(r *Row) bool { return r.State == Ignored })
	if len(asking) == 0 {
		return Never, Reason{
			Why:    rows[0].Why,
			Change: cmp.Or(rows[0].Change, "label it (docker run -l berth.targets=GROUP ...) or write a rule"),
		}
	}
	outcome, why := Reached, Reason{Why: fmt.Sprintf("%s in %s", asking[0].State, groupsOf(asking))}
	for _, r := range asking {
		switch {
		case r.State == Refused:
			return Never, reasonOf(r)
		case !a.goal.met(r.State) && outcome == Reached:
			outcome, why = Pending, Reason{Why: describe(r), Change: Advice(r, a.ports)}
		}
	}
	return outcome, why
}

// newestRun keeps the rows of the run that started last. One that is on its way out is older than one that is not, whatever
// Docker's dates say: the host's clock may have been set between.
func newestRun(rows []*Row) []*Row {
	present := slices.DeleteFunc(slices.Clone(rows), func(r *Row) bool { return r.State == Draining || r.State == Leaving })
	if len(present) == 0 {
		present = rows
	}
	newest := slices.MaxFunc(present, func(a, b *Row) int { return a.Run.StartedAt.Compare(b.Run.StartedAt) })
	return slices.DeleteFunc(slices.Clone(rows), func(r *Row) bool {
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

func groupsOf(rows []*Row) string {
	var groups []string
	for _, r := range rows {
		groups = append(groups, cmp.Or(r.Group, "-"))
	}
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(groups))), ", ")
}
