// Package registrar makes it so: it takes what should be registered and brings each target group there, with one
// reconciler per group, a ledger of what this host has or may have registered, and one pacer for all calls of the
// host. It never sees Docker.
//
//	registrar.go   what is asked for, and what is published of it
//	supervise.go   Registrar: which group is served by whom
//	finder.go      one for each reference: the group that it means
//	assign.go      which wants and keys are whose
//	regroup.go     a key that names another group than before
//	reconciler.go  one for each ARN: permit, plan, ledger, send
//	plan.go        Plan: the next call, pure
//	bind.go        Bind: from wants to targets, pure
//	claims.go      taking in what is new, and whose a target is
//	phase.go       what is known of a target, and the ledger's phase of it
//	write.go       registering and deregistering
//	look.go        what a look at the load balancer shows
//	result.go      what the result of a call means for its kind of calls
//	setback.go     what AWS refused for itself is on hold alone
//	retry.go       what each fault means for a group
//	schedule.go    when to look
//	pending.go     what is still to be done, and why
//	board.go       the state of all groups, and what reconcilers share
//	mended.go      the credentials are good again
//	boot.go        removing from the ledger alone
//	metrics.go     what was changed in AWS
package registrar

import (
	"time"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// Desired is all that the registrar should make true. Groups and wants travel in one value, so that they cannot
// disagree: nothing is deregistered for a group that has no key in Wants.
type Desired struct {
	Seq        uint64 // of the discovery.Snapshot it came from
	Generation uint64 // of the configuration that both Groups and Wants answer
	Groups     []elb.Group
	Wants      map[string][]target.Want
	Allotted   []target.Allotment
	Unknown    []string // container ids: what is registered for them stays, and their ports prove nothing
}

// Refusal says why a want cannot become a target of its group.
type Refusal struct {
	Want   target.Want `json:"want"`
	Why    string      `json:"why"`
	Change string      `json:"change,omitempty"`
}

// Group states, as GroupStatus.State has them.
const (
	StateOK            = "ok"
	StateWaiting       = "waiting" // not tried yet, or trying again soon
	StateThrottled     = "throttled"
	StateDenied        = "denied"
	StateGone          = "gone"
	StateFull          = "full"
	StateMisconfigured = "misconfigured"
)

// TargetStatus is one target of a group, as far as it is ours or wanted.
type TargetStatus struct {
	Target target.Target `json:"target"`
	Phase  ledger.Phase  `json:"phase"`
	// Health and Reason are the load balancer's words of the last look ("initial", "Elb.InitialHealthChecking").
	Health      string        `json:"health,omitempty"`
	Reason      string        `json:"reason,omitempty"`
	Description string        `json:"description,omitempty"`
	Since       time.Time     `json:"since,omitzero"`  // of phase and health
	Wants       []target.Want `json:"wants,omitempty"` // empty: it is on its way out
	Run         target.Run    `json:"run,omitzero"`    // of the ledger's claim
}

// The operations of a Pending.
const (
	PendingRegister   = "register"
	PendingDeregister = "deregister"
)

// Pending is one change that is still to be made.
type Pending struct {
	Operation string        `json:"operation"` // PendingRegister or PendingDeregister
	Target    target.Target `json:"target"`
	Run       target.Run    `json:"run,omitzero"` // that it is, or was, registered for
	Why       string        `json:"why"`          // one sentence
}

// GroupStatus is the state of one target group.
type GroupStatus struct {
	ARN  string   `json:"arn,omitempty"` // empty: not found yet
	Name string   `json:"name,omitempty"`
	Keys []string `json:"keys"` // two keys may name one group; none: it left the configuration
	// Held are the keys that name another group by now, whose targets stay here until that one has accepted them.
	Held  []Held `json:"held,omitempty"`
	State string `json:"state"`
	Err   string `json:"error,omitempty"`
	// Change says what to change and where, when a person must act.
	Change    string          `json:"change,omitempty"`
	Seq       uint64          `json:"seq"`   // of the Desired that the last completed plan acted on
	Tried     bool            `json:"tried"` // a first attempt has ended, well or not
	Facts     elb.Facts       `json:"facts"`
	Targets   []TargetStatus  `json:"targets,omitempty"`
	Refusals  []Refusal       `json:"refusals,omitempty"`
	Unclaimed []target.Target `json:"unclaimed,omitempty"`
	// Pending is what is still to be done: nothing, a moment after a change, unless calls fail or are not made.
	Pending    []Pending `json:"pending,omitempty"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	RetryAt    time.Time `json:"retry_at,omitzero"`
}

// Snapshot is the state of all groups at one moment. It is immutable.
type Snapshot struct {
	At         time.Time `json:"at"`
	Seq        uint64    `json:"seq"` // of the Desired last applied
	Generation uint64    `json:"generation"`
	Connected  bool      `json:"connected"` // identity is known and calls can be made
	Self       elb.Self  `json:"self,omitzero"`
	// ClockAhead is how far this host's clock is ahead of that of AWS, behind where negative; 0: less than ClockFar, or
	// not known.
	ClockAhead time.Duration `json:"clock_ahead,omitzero"`
	Groups     []GroupStatus `json:"groups"` // by key, then by ARN
}
