package status

import (
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

// This file is the control half of the API: what the control socket alone answers, because it changes something or
// makes the agent ask Docker. Config.Control serves it; Client asks for it. docs/http.md describes it.

// ReloadedV1 is what POST /v1/reload answers.
type ReloadedV1 struct {
	Generation uint64   `json:"generation"` // of the configuration now in force
	Seq        uint64   `json:"seq"`        // from which it counts
	Keys       []string `json:"target_groups"`
	// Emptied are the groups that it names no more and that have targets of this host.
	Emptied []registrar.Emptied `json:"emptied,omitempty"`
}

// PruneV1 is the body of POST /v1/prune: targets that were shown as unclaimed.
type PruneV1 struct {
	Targets []GroupTargetV1 `json:"targets"`
}

// GroupTargetV1 is a target of a group, by the group's key.
type GroupTargetV1 struct {
	Group  string        `json:"target_group"`
	Target target.Target `json:"target"`
}

// PrunedV1 is what POST /v1/prune answers, when each target is gone or will not go.
type PrunedV1 struct {
	Removed []GroupTargetV1 `json:"removed"`
	Left    []LeftV1        `json:"left"`
}

// LeftV1 is a target that was not removed.
type LeftV1 struct {
	GroupTargetV1
	Why string `json:"why"`
}

// DrainRequestV1 is the body of POST /v1/drains. Either Container or Host is given.
type DrainRequestV1 struct {
	// Container is a name, an id, or the beginning of one. With a hold of keep a name is held, whichever container bears it.
	Container string `json:"container,omitempty"`
	// Host drains the whole host.
	Host bool `json:"host,omitempty"`
	// Hold is keep (until undrained; the default), run (until this run of the container ends) or connection: the answer
	// stays open, and the drain ends with it.
	Hold string `json:"hold,omitempty"`
	// Cause is operator (the default), or shutdown: the host's alone, and forgotten with this boot.
	Cause string `json:"cause,omitempty"`
	// Reason is a sentence for whoever wonders later.
	Reason string `json:"reason,omitempty"`
}

// HoldConnection is the DrainRequestV1.Hold of a drain that ends with its connection.
const HoldConnection = "connection"

// DrainedV1 is what POST /v1/drains answers: the drain holds, and nothing of it is wanted from Seq on.
type DrainedV1 struct {
	Drain DrainV1    `json:"drain"`
	Run   target.Run `json:"container,omitzero"`
	// Seq is discovery's, from which the wants are gone. A group whose own seq is at least that has acted on it.
	Seq uint64 `json:"seq"`
	// MaxWait is the configured longest wait for the targets to be gone and settled: "2m0s".
	MaxWait string `json:"max_wait"`
	// Warning says what is not as it should be although the drain holds.
	Warning string `json:"warning,omitempty"`
}

// Wait returns MaxWait as a duration, and whether it can be read: zero is a wait like others.
func (d DrainedV1) Wait() (time.Duration, bool) {
	w, err := time.ParseDuration(d.MaxWait)
	return w, err == nil
}

// UndrainedV1 is what DELETE /v1/drains answers.
type UndrainedV1 struct {
	Ended []DrainV1  `json:"ended"` // none: nothing of it could be ended
	Run   target.Run `json:"container,omitzero"`
	Seq   uint64     `json:"seq"` // from which they no longer count
	// Left are the drains that still hold what was asked about: a stop signal, a connection, and of a container those of the
	// host, too.
	Left    []DrainV1 `json:"left,omitempty"`
	Warning string    `json:"warning,omitempty"`
}

// ExplainedV1 is what GET /v1/explain answers.
type ExplainedV1 struct {
	// Seq is that of the snapshot which holds what Docker said when it was asked for this answer.
	Seq uint64     `json:"seq"`
	Run target.Run `json:"container"`
	// Steps are in the order in which they are decided; those about a port name it and its group.
	Steps []StepV1 `json:"steps"`
	Rows  []Row    `json:"rows"` // of the container
}

// StepV1 is one step of a decision.
type StepV1 struct {
	// Outcome is ok (it leads on), wait (something known has to happen first) or stop (somebody has to change something,
	// or nothing asks for it).
	Outcome string `json:"outcome"`
	About   string `json:"about"` // container, request, port, drain, wanted, target_group, load_balancer
	Group   string `json:"target_group,omitempty"`
	// ContainerPort is zero where the step is about the container or the group as a whole.
	ContainerPort target.PortProto `json:"container_port,omitzero"`
	Why           string           `json:"why"`
	Change        string           `json:"change,omitempty"`
}

// The outcomes of a step.
const (
	StepOK   = "ok"
	StepWait = "wait"
	StepStop = "stop"
)

// NewDrainV1 shows a drain.
func NewDrainV1(d discovery.Drain) DrainV1 { return drainV1(d) }

// ErrorV1 is the body of every answer under /v1 that is no success.
type ErrorV1 struct {
	Err string `json:"error"`
}

// MaxWait is the longest that a request may wait for a change (?after=).
const MaxWait = 55 * time.Second
