// Package status says what is shown, in one place for commands, page, metrics and control socket: the rows, made of what
// discovery and the registrar publish, the agent's readiness, and the types of the JSON under /v1. It is pure: it reads no
// file and asks nobody.
//
//	status.go     what GET /v1/status answers
//	v1.go         the other types under /v1
//	row.go        rows and their states
//	join.go       from snapshots to rows
//	joingoing.go  rows of what leaves
//	meaning.go    what the load balancer's reasons mean, and what to change
//	ready.go      readiness
//	departure.go  the one judge of what has left the load balancer
//	arrival.go    the one judge of what serves there
//	subject.go    what the two are about: a run, a name, the host, a target
//	select.go     which rows and groups a name means
//	text.go       sentences joined, and made plain for a terminal
package status

import (
	"cmp"
	"strings"
	"time"

	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// State is where one port of one container stands, from Docker's fact to the load balancer's health check. It is a
// closed set.
type State string

// The states of a row. The first group is wanted and has a target at the load balancer, whose word it is; the second
// is wanted and has none yet; the third is going or gone; the last are not wanted, and why.
const (
	Healthy     State = "healthy"     // gets requests
	Unhealthy   State = "unhealthy"   // registered; its health checks fail
	Initial     State = "initial"     // registered; its first health checks are running
	Unused      State = "unused"      // registered; no load balancer sends it anything
	Unavailable State = "unavailable" // registered; the load balancer knows no health for it
	Registered  State = "registered"  // registered; no look at its health has been taken yet

	Registering State = "registering" // about to be registered, or the outcome is not known yet
	Blocked     State = "blocked"     // the target group cannot take it; Why says what the group's trouble is

	Draining State = "draining" // deregistered; the load balancer lets open requests end
	Leaving  State = "leaving"  // it is to be taken out: with a Target, the load balancer still has it

	NotYet    State = "not_yet"   // waits for something known: its health check, the end of a back-off
	Drained   State = "drained"   // taken out by an operator or because the host drains
	Refused   State = "refused"   // asks for what cannot be done; Change says what to change
	Ignored   State = "ignored"   // nothing asks for it, or it opted out
	Unclaimed State = "unclaimed" // registered for this host, by somebody else as far as the agent can tell
)

// States are all states, in the order in which a target usually passes them.
func States() []State {
	return []State{
		Registering, Blocked, Registered, Initial, Healthy, Unhealthy, Unused, Unavailable, Leaving, Draining,
		NotYet, Drained, Refused, Ignored, Unclaimed,
	}
}

// Wanted reports whether a row in this state should be a target, whether or not it is one yet.
func (s State) Wanted() bool {
	return s == Registering || s == Blocked || s.AtLoadBalancer()
}

// AtLoadBalancer reports whether a row in this state is wanted and known to be registered.
func (s State) AtLoadBalancer() bool {
	switch s {
	case Healthy, Unhealthy, Initial, Unused, Unavailable, Registered:
		return true
	default:
		return false
	}
}

// Row is one port of one container in one target group: what became of it, and why. A target that no container stands
// behind, on its way out or unclaimed, has a row too, with an empty Run.
type Row struct {
	// Run is the run of the container; zero where there is none.
	Run target.Run `json:"container,omitzero"`
	// Group is the group's key in the configuration, or its name or ARN after it has left it; empty for a container
	// that no group is about.
	Group string `json:"target_group,omitempty"`
	// ContainerPort is zero where the row is about a container as a whole, or where no container stands behind it.
	ContainerPort target.PortProto `json:"container_port,omitzero"`
	// HostPort is the port on the host, 0 where none is known.
	HostPort uint16 `json:"host_port,omitempty"`
	// Target is what the load balancer knows or will know; zero while that is not decided.
	Target target.Target `json:"target,omitzero"`
	State  State         `json:"state"`
	Since  time.Time     `json:"since,omitzero"` // of the state; zero: not known
	// Why says in one sentence why it is in this state.
	Why string `json:"why"`
	// Change says what a person can change about it, where a person can.
	Change string `json:"change,omitempty"`
	// Health and Reason are the load balancer's own words ("unhealthy", "Target.Timeout") of the last look.
	Health string `json:"health,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Compare orders rows by container, group, port and target; those without a container come last.
func (r Row) Compare(o Row) int {
	return cmp.Or(
		compareBool(r.Run.ID == "", o.Run.ID == ""),
		r.Run.Compare(o.Run),
		cmp.Compare(r.Group, o.Group),
		r.ContainerPort.Compare(o.ContainerPort),
		r.Target.Compare(o.Target),
		cmp.Compare(r.State, o.State),
		cmp.Compare(r.Why, o.Why),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// take copies what the load balancer knows.
func (r *Row) take(ts *registrar.TargetStatus) {
	r.Target, r.HostPort = ts.Target, ts.Target.Port
	r.Health, r.Reason = ts.Health, ts.Reason
}

// judge says how a registered target does, in the load balancer's words and what they usually mean.
func (r *Row) judge(ts *registrar.TargetStatus) {
	if !ts.Since.IsZero() {
		r.Since = ts.Since
	}
	// "unhealthy.draining" is a registered target of an NLB whose open connections are being ended.
	health, _, _ := strings.Cut(ts.Health, ".")
	switch State(health) {
	case Healthy, Unhealthy, Initial, Unused, Unavailable:
		r.State = State(health)
	default:
		r.State = Registered
	}
	m := meaningOf(ts.Health, ts.Reason)
	r.Why, r.Change = m.why, m.change
	if m.unknown && ts.Description != "" {
		r.Why = "the load balancer says: " + ts.Description
	}
}

// pend says why a wanted target is not registered. phase is empty where the registrar has not taken it up yet.
func (r *Row) pend(g *registrar.GroupStatus, phase ledger.Phase) {
	r.State, r.Change = Registering, g.Change
	switch g.State {
	case registrar.StateDenied, registrar.StateGone, registrar.StateFull, registrar.StateMisconfigured:
		r.State = Blocked
		r.Why = cmp.Or(g.Err, "the target group's state is "+g.State)
		return
	case registrar.StateThrottled:
		r.Why = "AWS asks for fewer calls; it is registered as soon as the next one is allowed"
		return
	}
	switch {
	case g.Err != "":
		r.Why = "the agent is trying again: " + g.Err
	case phase == ledger.Intended:
		r.Why = "its registration has been sent, and the answer is not in yet"
	case phase == ledger.Removing:
		r.Why = "it is still being deregistered, and is registered again next"
	case g.ARN == "":
		r.Why = "the target group has not been looked up yet"
	default:
		r.Why = "it is about to be registered"
	}
}
