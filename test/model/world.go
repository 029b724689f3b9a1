// Package model drives agent.Core, with the real SDK client, through random lives of containers on an engine and an AWS
// that misbehave, all in fake time, and checks every call that is made and every moment between.
//
//	world.go         the host, its account, and the agent between them
//	actions.go       what happens, at random
//	troubles.go      what goes wrong in the engine, the agent and AWS
//	dangers.go       what is dangerous together and seldom meets
//	judge.go         what must be true, of every call and at every moment
//	removals.go      what must be true of the order of calls: a removal is the next one
//	mutants_test.go  bugs seeded on purpose, which have to be found
//	seed_test.go     how they get into the source, at the lines that //mutant: comments mark
package model

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"berth/internal/elbsim"
	"berth/internal/logs"
	"berth/pkg/agent"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/target"
	"berth/test/agenttest"
	"berth/test/exact"
)

const (
	instance = agenttest.Instance
	stranger = "i-0fedcba9876543210"
	// ephemeral is where Docker's ports begin: what is registered below is somebody else's.
	ephemeral = 32768
	survive   = 10 * time.Minute
	latency   = 30 * time.Millisecond // of a call
)

// services have a group each. Who is for the careful one has to be healthy first.
var services = []string{"web", "api", careful}

const careful = "careful"

// place is a port in the target group of a service.
type place struct {
	service string
	port    uint16
}

func (p place) target() target.Target { return target.Target{ID: instance, Port: p.port} }

// ours reports whether a target may be the agent's.
func ours(t target.Target) bool { return t.ID == instance && t.Port >= ephemeral }

// others is what is registered in a group from the beginning and is not ours.
func others(service string) exact.Targets {
	return exact.Targets{service: {{ID: stranger, Port: 40000}, {ID: instance, Port: 9}}}
}

// world is one host and its account.
type world struct {
	engine  *enginetest.Engine
	sim     *elbsim.Sim
	options agent.Options // of every agent: its ledger and its drains outlive it
	store   *store        // the drains of options
	rand    *rand.Rand
	stop    func()
	agent   *agent.Core
	stderr  stderr

	mu       sync.Mutex          // guards all below: calls come from the registrar's goroutines
	snapshot *discovery.Snapshot // what the agent's watcher published last; nil: nothing yet
	log      []string
	problems []string
	served   map[place]time.Time  // when a container that was to be served had it last
	wanted   map[string]wanted    // since nothing happened to the container
	leaving  map[string]time.Time // containers that were told to stop, since when
	tampered bool
	askew    time.Time   // until when events may be missing or late
	calm     time.Time   // since when nothing keeps the agent from knowing and acting
	engineUp time.Time   // since when the engine answers; zero: it does not
	clockSet []time.Time // when the host's clock was set
	lost     time.Time   // when an agent began last that could not read the drains at once
	began    time.Time   // when the agent that runs was started
	hearing  time.Time   // since when nothing keeps it from hearing events
	withhold string      // a group whose wants are left out of what is published
	heldBack []discovery.Event

	told      map[runKey]told      // runs that the agent was told not to serve
	asked     map[place]asked      // what was published last
	drained   map[string]bool      // containers that the operator has drained; "" is the host
	names     map[string]bool      // names that the operator has drained
	ends      []func()             // of drains that end with the agent, if that ends before it can save them
	healthy   map[runKey]bool      // runs whose HEALTHCHECK has passed
	joined    map[string]bool      // containers that have been in a second network
	withheld  map[string]bool      // groups that the registrar has older wants of than the watcher
	shown     map[string]time.Time // since when it has the watcher's again
	unknown   bool                 // a container is there of which nothing is known: what is registered for it stays
	knownAt   time.Time            // when that was over
	failed    time.Time            // the last call that was not answered well, or the last agent's start
	throttled time.Time            // the last call that was throttled or refused
	seldom    bool                 // looks were throttled: it looks less often
	byHand    time.Time            // when somebody deregistered what is ours
	misnamed  map[string]int       // services for which the configuration names a group that does not exist, and which
	unserved  map[string]bool      // of those: the agent has no way to know which group it was
	removals  removals
}

// wanted is a port that the watcher has said is wanted.
type wanted struct {
	port  uint16
	since time.Time
}

// runKey is one run of one container.
type runKey struct {
	id      string
	started int64 // Unix nanoseconds
}

func keyOf(id string, started time.Time) runKey { return runKey{id, started.UnixNano()} }

// told is a time in which a run must not be wanted, since the agent has heard why.
type told struct {
	from, to time.Time // to is zero: for ever
	why      string
}

// asked is what the watcher asks the registrar for.
type asked struct {
	wanted bool
	since  time.Time
}

// historian is an engine that tells its past apart from its stream, as Docker does.
type historian struct{ *enginetest.Engine }

// Past implements discovery.Historian.
func (h historian) Past(ctx context.Context, since time.Time) ([]discovery.Event, error) {
	_, err := h.Ping(ctx)
	return h.Remembered(since), err
}

func newWorld(seed uint64) *world {
	w := &world{
		engine: enginetest.New(), rand: rand.New(rand.NewPCG(seed, 2)),
		served: map[place]time.Time{}, wanted: map[string]wanted{}, leaving: map[string]time.Time{}, calm: time.Now(), engineUp: time.Now(),
		told: map[runKey]told{}, asked: map[place]asked{}, joined: map[string]bool{}, withheld: map[string]bool{}, shown: map[string]time.Time{},
		drained: map[string]bool{}, names: map[string]bool{}, healthy: map[runKey]bool{}, misnamed: map[string]int{}, unserved: map[string]bool{},
	}
	w.sim = elbsim.New(elbsim.Config{
		Instance: elbsim.Instance{ID: instance}, OnCall: w.called, RecordLimit: -1, Latency: latency, Seed: seed,
	})
	if err := w.sim.AddInstance(elbsim.Instance{ID: stranger, PrivateIP: "10.0.0.11"}); err != nil {
		w.problem("add the other instance: %v", err)
	}
	for _, s := range services {
		// Longer than any run of the model: a target that drains is never simply gone in the end.
		if _, err := w.sim.AddGroup(elbsim.Group{Name: s, DeregistrationDelay: time.Hour}); err != nil {
			w.problem("add a group: %v", err)
		}
		if err := w.sim.Register(s, others(s)[s]...); err != nil {
			w.problem("register what is not ours: %v", err)
		}
	}
	w.options = w.agentOptions()
	w.store = &store{DrainStore: w.options.Drains}
	w.options.Drains = w.store
	w.start()
	return w
}

// agentOptions are those of every agent of this host.
func (w *world) agentOptions() agent.Options {
	o := agenttest.Disconnected(w.engine, w.sim)
	o.Wrap = w.observe
	base := *o.Config
	o.Read = func() (*config.Config, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		cfg := base
		cfg.Groups = w.groups()
		return &cfg, nil
	}
	log, level, err := logs.New(&w.stderr, "info", "json")
	if err != nil {
		panic(err) //nolint:forbidigo // nothing of it depends on the life
	}
	o.Log, o.Level = log, level
	return o
}

// groups are those of the configuration as it is now.
func (w *world) groups() []config.Group {
	var groups []config.Group
	for _, s := range slices.Sorted(slices.Values(services)) {
		g := agenttest.Group(s)
		if s == careful {
			g.RegisterWhen, g.StopSignals = config.WhenHealthy, target.Signals(0).With(12)
		}
		if n := w.misnamed[s]; n > 0 {
			g.Name = fmt.Sprintf("none-%d", n)
		}
		groups = append(groups, g)
	}
	return groups
}

// observe notes what a watcher publishes, and leaves out the group that is withheld.
func (w *world) observe(publish func(*discovery.Snapshot)) func(*discovery.Snapshot) {
	return func(s *discovery.Snapshot) {
		shown := *s
		shown.Wants = maps.Clone(s.Wants)
		w.mu.Lock()
		w.snapshot = s
		delete(shown.Wants, w.withhold)
		w.published(shown.Wants, s.Unknown)
		w.mu.Unlock()
		publish(&shown)
	}
}

// start starts an agent.
func (w *world) start() {
	o := w.options
	o.Config, _ = o.Read() // which never fails
	if w.rand.IntN(2) == 0 {
		o.Engine = historian{w.engine}
	}
	w.mu.Lock()
	w.snapshot, w.began = nil, time.Now()
	w.removals = removals{accepted: map[place]bool{}, troubled: map[string]time.Time{}, waiting: map[place]overdue{}}
	w.mu.Unlock()
	core, stop, err := agenttest.RunCore(o)
	if err != nil {
		panic(err) //nolint:forbidigo // nothing of the options depends on the life
	}
	w.agent, w.stop = core, func() {
		w.stderr.goOn() // the next process has another
		if err := stop(); err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.problem("the agent ended: %v", err)
		}
	}
}
