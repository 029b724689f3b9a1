// Package config reads what the operator wrote: /etc/berth/berth.yaml, the files of conf.d beside it, BERTH_*
// variables and flags. It is strict: what it does not understand is an error with the file, the line, the key, the
// value and the rule, and nothing starts. It knows nothing of Docker, of AWS, or of the running agent.
//
// config.go holds the values, settings.go the table of every scalar key (its flag, variable, default and check),
// groups.go the schema of a target group, load.go and yaml.go the reading of files, sources.go that of flags and
// variables, check.go the rules between keys, reload.go what a running agent can take over.
package config

import (
	"time"

	"berth/pkg/target"
)

// Where the configuration is looked for.
const (
	DefaultPath  = "/etc/berth/berth.yaml"
	confDirName  = "conf.d" // beside the file
	confFileExt  = ".yaml"
	maxFileBytes = 256 << 10
)

// Off in the place of an address says that nothing listens there.
const Off = "off"

// Config is a complete and checked configuration. It is immutable once loaded.
type Config struct {
	// Groups are the target groups, sorted by key; never empty in a Config that Load returned.
	Groups []Group
	// Listen is the address of /metrics, /healthz and /readyz: "host:port", where an empty host is every address. Empty:
	// they are not served there.
	Listen string
	// StatusListen is the address of the status page and /v1/status. Whoever reaches it sees container names.
	// Empty: they are served on the control socket alone.
	StatusListen string
	// ControlSocket is the absolute path of the unix socket for the berth command.
	ControlSocket string
	// StateDir is the absolute path of the directory of the ledger and the drains.
	StateDir string
	// InstanceID and Region override what the instance metadata service says; empty: ask it. An override that it
	// contradicts is refused.
	InstanceID string
	Region     string
	Docker     Docker
	Log        Log
	Drain      Drain
	Lifecycle  Lifecycle
	AWS        AWS

	// Files are the paths that were read, in order; empty when flags alone named the groups.
	Files []string

	origins map[string]origin
	main    string          // the path of the main file, which may be missing
	saying  map[string]bool // the files that are not empty
}

// Docker is how the engine is reached.
type Docker struct {
	// Socket is the absolute path of the engine's unix socket.
	Socket string
}

// Log is what is logged, and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string
	// Format is json, console, or auto: console on a terminal, json elsewhere.
	Format string
}

// Drain bounds how long targets are waited for on their way out.
type Drain struct {
	// MaxWait is the longest wait of one drain for its targets to be gone and settled. Longer loses fewer requests of
	// slow clients; shorter makes deployments quicker. Zero waits for nothing.
	MaxWait time.Duration
	// ShutdownMaxWait is the same while the host shuts down.
	ShutdownMaxWait time.Duration
	// StopSurvivorAfter is how long after its stop signal a container that still runs is served again.
	StopSurvivorAfter time.Duration
	// OnRebalance drains the host when EC2 recommends to rebalance: advice that is often wrong, and then costs capacity.
	OnRebalance bool
}

// Auto has a name of Lifecycle found out.
const Auto = "auto"

// Lifecycle is what the host tells its autoscaling group.
type Lifecycle struct {
	// Group is the autoscaling group's name; Auto: what the instance's tags or Auto Scaling itself say.
	Group string
	// TerminateHook is the lifecycle hook that holds the instance's termination; Auto: every one of the group for that;
	// empty: none.
	TerminateHook string
	// LaunchHook is the one that holds its coming into service, likewise.
	LaunchHook string
	// Heartbeat is how often the terminate hook is kept waiting while the host drains: less than the hook's own timeout.
	Heartbeat time.Duration
}

// AWS is how Elastic Load Balancing is called.
type AWS struct {
	// Peers is the number of hosts that share the account's request limits; 0: learned from the target groups.
	Peers int
	// WriteTimeout is the deadline of one registration or deregistration.
	WriteTimeout time.Duration
	// ReadTimeout is the deadline of one description.
	ReadTimeout time.Duration
}

// RegisterWhen is the moment at which a container is registered.
type RegisterWhen string

// The moments.
const (
	WhenRunning RegisterWhen = "running" // as soon as it runs and its port is published
	WhenHealthy RegisterWhen = "healthy" // at the first healthy report of its HEALTHCHECK
)

// Ownership says which of this host's targets in a group Berth may remove.
type Ownership string

// The ownerships.
const (
	OwnLedger   Ownership = "ledger"   // those that Berth registered, adopted, or can prove stale
	OwnInstance Ownership = "instance" // every target of this instance
)

// Group is one target group of the configuration.
type Group struct {
	// Key is the name that labels, logs and metrics use.
	Key string
	// Name is the group's name in AWS; empty where ARN is set.
	Name string
	// ARN is the group's ARN as written; empty: it is found by Name.
	ARN string
	// Containers takes containers without a label; nil: labels alone bring containers in.
	Containers *Containers
	// ContainerPort is the port to serve; zero: the only one that the container publishes.
	ContainerPort target.PortProto
	RegisterWhen  RegisterWhen
	// DeregisterWhenUnhealthy takes out a container whose HEALTHCHECK fails, although the load balancer judges health
	// itself. It ends the load balancer's fail-open.
	DeregisterWhenUnhealthy bool
	// StopSignals tell a container of the group to stop, besides SIGTERM, SIGKILL and its own StopSignal.
	StopSignals target.Signals
	Ownership   Ownership
	// Labels lets container labels name the group; false: only Containers decides.
	Labels bool
	// Required has the launch hook wait for a healthy target of this host in the group.
	Required bool
	// Source is the place that names the group: "/etc/berth/berth.yaml:12", or the flag or variable.
	Source string
}

// Containers is a condition on containers. Every part that is set must match. The values are patterns, in which *
// stands for any characters, slashes too.
type Containers struct {
	Labels map[string]string
	Image  string
	Name   string
}

// Default returns the configuration of an agent that was told nothing: the one place of every scalar default. It has
// no groups.
func Default() *Config {
	return &Config{
		Listen:        ":9797",
		StatusListen:  "127.0.0.1:9798",
		ControlSocket: "/run/berth/berth.sock",
		StateDir:      "/var/lib/berth",
		Docker:        Docker{Socket: "/var/run/docker.sock"},
		Log:           Log{Level: "info", Format: "auto"},
		Drain: Drain{
			MaxWait:           120 * time.Second,
			ShutdownMaxWait:   60 * time.Second,
			StopSurvivorAfter: 10 * time.Minute,
		},
		Lifecycle: Lifecycle{Group: Auto, Heartbeat: 20 * time.Second},
		AWS:       AWS{WriteTimeout: 3 * time.Second, ReadTimeout: 5 * time.Second},
	}
}

// defaultGroup is the one place of every default of a target group. Its name is the key.
func defaultGroup(key string) Group {
	return Group{Key: key, RegisterWhen: WhenRunning, Ownership: OwnLedger, Labels: true}
}

// Group returns the group of that key.
func (c *Config) Group(key string) (Group, bool) {
	for _, g := range c.Groups {
		if g.Key == key {
			return g, true
		}
	}
	return Group{}, false
}

// Origin says where the value of a key ("log.level") comes from: "/etc/berth/berth.yaml:3", "--log-level",
// "BERTH_LOG_LEVEL", or "default".
func (c *Config) Origin(key string) string {
	if o, ok := c.origins[key]; ok {
		return o.String()
	}
	return "default"
}
