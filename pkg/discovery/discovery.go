// Package discovery says what should be registered: it watches Docker, inspects containers, and applies labels and
// rules. It never sees AWS. The wanted set is a pure function (Resolve) of facts, rules, drains and the time; the
// Watcher keeps the facts right and publishes what Resolve says.
//
// What removes needs no question, what adds needs an answer: a stop signal, a death or a disconnected network takes a
// container out from the event and memory alone, also while no inspection would be answered; coming in, or back in,
// needs an inspection that nothing newer contradicts. Events carry Docker's clock, which is translated (clock.go);
// inspections and lists count from the moment when they were begun; and so what arrives late is known for what it is (life.go).
//
//	labels.go match.go ports.go      what one container asks for, and how its ports are reached
//	resolve.go judge.go allot.go     the pure function from facts, rules, drains and time to wants and decisions
//	life.go event.go                 what is remembered of one container, and what an event does to it
//	signal.go                        which signals tell a container to stop
//	watcher.go loop.go api.go        the loop that owns it all, and what may be asked of it
//	clock.go                         Docker's times, on a clock that nobody sets
//	stream.go inspect.go list.go     the goroutines that ask Docker, and how their answers are taken in
//	drains.go save.go drainfile.go   what is taken out on purpose, and how that outlives the process
//	unread.go                        drains that cannot be read at the start
//
// The real Docker is in docker; enginetest holds one in memory.
package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"berth/pkg/target"
)

// Verdict is the outcome of one decision about one port of one container in one group.
type Verdict string

// The verdicts.
const (
	Wanted  Verdict = "wanted"  // it should be registered
	NotYet  Verdict = "not_yet" // it will be, when something known has happened: health, a back-off's end
	Leaving Verdict = "leaving" // it was told to stop, or is paused
	Drained Verdict = "drained" // somebody drained it, or the host drains
	Refused Verdict = "refused" // it asks for something that cannot be done; Change says what to change
	Ignored Verdict = "ignored" // nothing asks for it, or it opted out
)

// Decision says in one sentence why a port of a container is or is not wanted in a group.
type Decision struct {
	Run      target.Run      `json:"run"`
	Group    string          `json:"group,omitempty"` // empty: about the container as a whole
	Port     uint16          `json:"port,omitempty"`  // the container's port; 0: about the container or group as a whole
	Protocol target.Protocol `json:"protocol"`
	Verdict  Verdict         `json:"verdict"`
	Why      string          `json:"why"`              // one sentence
	Change   string          `json:"change,omitempty"` // what to change, where a person can
	Since    time.Time       `json:"since,omitzero"`
}

// Hold is how long a drain lasts.
type Hold uint8

// The holds.
const (
	HoldKeep       Hold = iota // until undrained
	HoldRun                    // until this run of the container ends
	HoldConnection             // while the client that asked stays connected
)

// The causes of a drain.
const (
	CauseOperator   = "operator"
	CauseStopSignal = "stop_signal" // the container's own: it was told to stop
	CauseSpot       = "spot"
	CauseLifecycle  = "lifecycle"
	CauseRebalance  = "rebalance"
	CauseShutdown   = "shutdown"
)

var holdNames = [...]string{HoldKeep: "keep", HoldRun: "run", HoldConnection: "connection"}

// String returns "keep", "run" or "connection".
func (h Hold) String() string {
	if int(h) < len(holdNames) {
		return holdNames[h]
	}
	return fmt.Sprintf("hold(%d)", uint8(h))
}

// MarshalText writes the hold's name.
func (h Hold) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads the hold's name.
func (h *Hold) UnmarshalText(b []byte) error {
	for i, name := range holdNames {
		if string(b) == name {
			*h = Hold(i)
			return nil
		}
	}
	return fmt.Errorf("hold %q: must be keep, run or connection", b)
}

// Drain takes a container, a name, or the whole host out of every group.
type Drain struct {
	ID        string `json:"id"`
	Container string `json:"container,omitempty"` // the full container id; Name and this empty: the whole host
	// Name is held whichever container bears it, for a HoldKeep alone; empty: the drain is the container's. Container is
	// then held as well, whatever it is called by now: the one that was drained, and when that is gone the one that bears
	// the name next. So an agent that knows no names holds the bearer, and not the host.
	Name      string    `json:"name,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"` // of the run that HoldRun is for
	Cause     string    `json:"cause"`               // operator, stop_signal, spot, lifecycle, rebalance, shutdown
	By        string    `json:"by,omitempty"`        // who asked
	Reason    string    `json:"reason,omitempty"`    // what for, in the words of whoever asked
	Hold      Hold      `json:"hold"`
	Since     time.Time `json:"since"`
	// Instance and Boot are of the host and the boot that the drain was made on, where they were known: a drain baked
	// into an AMI, or of a run of an earlier boot, holds nobody.
	Instance string `json:"instance_id,omitempty"`
	Boot     string `json:"boot_id,omitempty"`
}

// Host reports whether the drain is the whole host's.
func (d *Drain) Host() bool { return d.Container == "" && d.Name == "" }

// EndsWhenAsked reports whether a person's word ends the drain. What belongs to a connection, to the host or to a stop signal
// ends with its reason alone. A shutdown does not where it restarts all but the kernel: the boot goes on, and the drain with it.
func (d *Drain) EndsWhenAsked() bool {
	return (d.Cause == CauseOperator || d.Cause == CauseShutdown) && d.Hold != HoldConnection
}

// About reports whether the drain is about the run's container, by its id or by its name. That of the host is not.
func (d *Drain) About(run target.Run) bool {
	return d.Container != "" && d.Container == run.ID || d.Name != "" && d.Name == run.Name
}

// Published is one host port that Docker has bound for a container's port.
type Published struct {
	target.PortProto            // the container's port
	HostIP           netip.Addr // 0.0.0.0, ::, or a specific address; zero where the engine gives none
	HostPort         uint16     // 0 where the engine gives none (routed gateway mode)
}

// Compare orders by container port, then by binding.
func (p Published) Compare(o Published) int {
	return cmp.Or(p.PortProto.Compare(o.PortProto), p.HostIP.Compare(o.HostIP), cmp.Compare(p.HostPort, o.HostPort))
}

// Health is the state of a Docker HEALTHCHECK.
type Health string

// The states of a HEALTHCHECK; HealthNone where the container has none.
const (
	HealthNone      Health = ""
	HealthStarting  Health = "starting"
	HealthHealthy   Health = "healthy"
	HealthUnhealthy Health = "unhealthy"
)

// Facts is what one inspection said about one container.
type Facts struct {
	ID          string
	Name        string // without Docker's leading slash
	Image       string // Config.Image: as the user wrote it, whatever the image was re-tagged to since
	Labels      map[string]string
	State       string // created, running, paused, restarting, removing, exited, dead
	StartedAt   time.Time
	FinishedAt  time.Time
	Restarts    int    // how often its restart policy has started it since a person did
	StopSignal  string // as written: "SIGTERM", "TERM", "SIGRTMIN+3", "28"; empty: SIGTERM
	StopTimeout time.Duration
	Health      Health // phantom reports are left out: see docker.go
	NetworkMode string // bridge, host, none, container:ID, or a network's name
	Networks    int    // how many networks it is connected to
	Published   []Published
	// Exposed are the container's declared ports (EXPOSE, --expose, -p), published or not.
	Exposed []target.PortProto
	// Asked are the host ports that the user asked for by number; a published port that is not among them was chosen
	// by Docker.
	Asked map[target.PortProto][]uint16
}

// Listed is one line of a full list: enough to see what has come, gone or changed its state, not what should be
// registered. Resolve never sees it.
type Listed struct {
	ID    string
	State string
	// HostPorts are the host ports that the list shows, sorted and each once: where they differ from the facts, an event
	// went unheard. Nil where the engine does not tell.
	HostPorts []uint16
}

// Stream is the state of the connection to Docker.
type Stream struct {
	Up         bool      `json:"up"`
	Since      time.Time `json:"since,omitzero"` // of the present state
	Reconnects uint64    `json:"reconnects"`
	Err        string    `json:"error,omitempty"`  // why it is down
	Change     string    `json:"change,omitempty"` // what to change about it; Err ends with it
	Engine     string    `json:"engine,omitempty"`
	APIVersion string    `json:"api_version,omitempty"`
}

// Snapshot is what discovery knows and wants at one moment. It is immutable.
type Snapshot struct {
	Seq        uint64 // one more with each publication, from Options.Seq on; never 0
	Generation uint64 // the configuration that it answers
	// Wants has a key for every group of that generation: no key means not computed, an empty value that nothing is
	// wanted.
	Wants     map[string][]target.Want
	Decisions []Decision
	Drains    []Drain
	// Allotted are the host ports of all containers known to run, wanted or not.
	Allotted []target.Allotment
	// Unknown are the ids of containers that a list showed to be there and that no inspection has answered for since
	// the watcher began, and of those that may be drained as far as drains could not be read yet: what is registered for them
	// must stay until that is known.
	Unknown []string
	Stream  Stream
}

// Rule is what the configuration says about one group, as far as discovery needs it.
type Rule struct {
	Group string
	// Name is what the configuration calls the group by in AWS: who is in is in under another Group of this Name, too.
	// Empty: nothing is known of it.
	Name string
	// Match takes containers that carry no label for it; nil: labels alone bring containers in.
	Match *Match
	// Port is the container's port to serve; zero: the only published one.
	Port target.PortProto
	// Healthy holds a container back until the first healthy report of its HEALTHCHECK.
	Healthy bool
	// DeregisterUnhealthy takes a container out when its HEALTHCHECK says unhealthy.
	DeregisterUnhealthy bool
	// StopSignals tell a container of the group to stop, besides SIGTERM, SIGKILL and its own StopSignal.
	StopSignals target.Signals
	// NoLabels makes labels unable to name the group.
	NoLabels bool
}

// Match is a condition on containers. Every field that is set must match; patterns are globs where * matches any
// run of characters, slashes included.
type Match struct {
	Labels map[string]string
	Image  string
	Name   string
}

// Engine is what the watcher asks of Docker. One file (docker.go) implements it.
type Engine interface {
	// Events streams the events that matter, filtered by the server, beginning at since (inclusive). It returns once the
	// stream is open or has failed to open. The message channel is never closed; the error channel gives one error and
	// is closed. Cancelling ctx ends both the wait and the stream.
	Events(ctx context.Context, since time.Time) (<-chan Event, <-chan error)
	// List returns every container, running or not, with its state.
	List(ctx context.Context) ([]Listed, error)
	// Inspect returns the facts of one container, or an error that wraps ErrNotFound.
	Inspect(ctx context.Context, id string) (Facts, error)
	// Ping reports whether the engine answers, and what it is.
	Ping(ctx context.Context) (EngineInfo, error)
}

// EngineInfo says what answered a ping.
type EngineInfo struct {
	Name       string // "docker", or "podman" where its compatible socket answers
	Version    string
	APIVersion string // as negotiated
}

// DrainStore keeps drains across restarts of the agent. Calls may be slow; the watcher's loop never waits for them.
type DrainStore interface {
	// Load returns what was saved last. An error that wraps ErrCorrupt says that there is nothing to be read. Any other leaves
	// it as it is: one that wraps fs.ErrPermission is a person's to mend, after the rest Load may be called again.
	Load() ([]Drain, error)
	// SetAside puts what cannot be read out of the way of the next Save, for a person to look at, and returns its name.
	SetAside() (string, error)
	Save(drains []Drain) error
}

// EngineError says why Docker cannot be reached, and what to change.
type EngineError struct {
	Host   string
	Why    string
	Change string
	Err    error
}

// Error returns one sentence for a person.
func (e *EngineError) Error() string {
	return "reach docker at " + e.Host + ": " + e.Why + "; " + e.Change
}

// Unwrap returns the cause.
func (e *EngineError) Unwrap() error { return e.Err }

// ErrEngineStopped says that the engine is stopped and that connecting would start it.
var ErrEngineStopped = errors.New("docker is stopped")
