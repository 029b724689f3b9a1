// Package registrar makes it so: it takes what should be registered and brings each target group there, with one
// reconciler per group, a ledger of what this host has or may have registered, and one pacer for all calls of the
// host. It never sees Docker.
package registrar

import (
	"context"
	"net/netip"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"berth/pkg/target"
)

// API is the part of Elastic Load Balancing v2 that the registrar calls, with the SDK's own signatures.
type API interface {
	RegisterTargets(context.Context, *elasticloadbalancingv2.RegisterTargetsInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.RegisterTargetsOutput, error)
	DeregisterTargets(context.Context, *elasticloadbalancingv2.DeregisterTargetsInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.DeregisterTargetsOutput, error)
	DescribeTargetHealth(context.Context, *elasticloadbalancingv2.DescribeTargetHealthInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.DescribeTargetHealthOutput, error)
	DescribeTargetGroups(context.Context, *elasticloadbalancingv2.DescribeTargetGroupsInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.DescribeTargetGroupsOutput, error)
}

// Ownership says which of this host's targets in a group are Berth's to remove.
type Ownership string

// The ownerships.
const (
	OwnLedger   Ownership = "ledger"   // those that the ledger holds, were adopted, or are stale by proof
	OwnInstance Ownership = "instance" // every target with this instance's id
)

// Group is a target group as the configuration names it.
type Group struct {
	Key       string    `json:"key"`            // in the configuration; labels use it
	Name      string    `json:"name,omitempty"` // in AWS, where ARN is empty
	ARN       string    `json:"arn,omitempty"`
	Ownership Ownership `json:"ownership,omitempty"` // empty: OwnLedger
	Source    string    `json:"source,omitempty"`    // file and line that name it, for messages: "/etc/berth/berth.yaml:12"
}

// GroupFacts is what DescribeTargetGroups says about a group, as far as it matters to us.
type GroupFacts struct {
	ARN           string `json:"group_arn"`
	Name          string `json:"name,omitempty"`
	TargetType    string `json:"target_type"`               // instance, ip, lambda, alb
	Protocol      string `json:"protocol"`                  // HTTP, HTTPS, TCP, TLS, UDP, TCP_UDP, GENEVE, QUIC, TCP_QUIC
	IPAddressType string `json:"ip_address_type,omitempty"` // ipv4, ipv6
	VPC           string `json:"vpc_id,omitempty"`
	Port          uint16 `json:"port,omitempty"` // the group's default port
	// LoadBalancers are the ARNs of the load balancers that use the group; none: its targets are unused.
	LoadBalancers []string `json:"load_balancers,omitempty"`
}

// Self is this host, as load balancers know it.
type Self struct {
	InstanceID string     `json:"instance_id"`
	Region     string     `json:"region"`
	Account    string     `json:"account,omitempty"`
	VPC        string     `json:"vpc_id,omitempty"` // empty: not known
	Address4   netip.Addr `json:"address_4,omitzero"`
	Address6   netip.Addr `json:"address_6,omitzero"`
}

// Desired is all that the registrar should make true. Groups and wants travel in one value, so that they cannot
// disagree: nothing is deregistered for a group that has no key in Wants.
type Desired struct {
	Seq        uint64 // of the discovery.Snapshot it came from
	Generation uint64 // of the configuration that both Groups and Wants answer
	Groups     []Group
	Wants      map[string][]target.Want
	Allotted   []target.Allotment
	Unknown    []string // container ids: what is registered for them stays
}

// Refusal says why a want cannot become a target of its group.
type Refusal struct {
	Want   target.Want `json:"want"`
	Why    string      `json:"why"`
	Change string      `json:"change,omitempty"`
}

// Phase is where a target stands between us and the load balancer.
type Phase string

// The phases.
const (
	Intended   Phase = "intended"   // a registration was sent or is about to be; its outcome is not known
	Registered Phase = "registered" // the load balancer has it
	Removing   Phase = "leaving"    // deregistered; it may be draining
	Absent     Phase = "absent"
)

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
	Phase  Phase         `json:"phase"`
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
	ARN   string   `json:"arn,omitempty"` // empty: not found yet
	Name  string   `json:"name,omitempty"`
	Keys  []string `json:"keys"` // two keys may name one group; none: it left the configuration
	State string   `json:"state"`
	Err   string   `json:"error,omitempty"`
	// Change says what to change and where, when a person must act.
	Change    string          `json:"change,omitempty"`
	Seq       uint64          `json:"seq"`   // of the Desired that the last completed plan acted on
	Tried     bool            `json:"tried"` // a first attempt has ended, well or not
	Facts     GroupFacts      `json:"facts"`
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
	Self       Self      `json:"self,omitzero"`
	// ClockAhead is how far this host's clock is ahead of that of AWS, behind where negative; 0: less than ClockFar, or
	// not known.
	ClockAhead time.Duration `json:"clock_ahead,omitzero"`
	Groups     []GroupStatus `json:"groups"` // by key, then by ARN
}
