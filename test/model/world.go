// Package model drives the agent's two halves together, the watcher and the registrar with the real SDK client, through
// random lives of containers on an engine and an AWS that misbehave, all in fake time, and checks every call that is made
// and every moment between.
//
//	world.go         the host, its account, and the agent put together
//	actions.go       what happens, at random
//	troubles.go      what goes wrong in the engine, the agent and AWS
//	dangers.go       what is dangerous together and seldom meets
//	judge.go         what must be true, of every call and at every moment
//	mutants_test.go  bugs seeded on purpose, which have to be found
//	seed_test.go     how they get into the source, at the lines that //mutant: comments mark
package model

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

const (
	instance = "i-0123456789abcdef0"
	stranger = "i-0fedcba9876543210"
	// ephemeral is where Docker's ports begin: what is registered below is somebody else's.
	ephemeral = 32768
	survive   = 10 * time.Minute
)

// services have a group each. Who is for the careful one has to be healthy first.
var services = []string{"web", "api", careful}

const careful = "careful"

// place is a port in the target group of a service.
type place struct {
	service string
	port    uint16
}

// world is one host and its account.
type world struct {
	engine *enginetest.Engine
	sim    *elbsim.Sim
	ledger *ledger.Ledger
	drains *store
	rand   *rand.Rand
	stop   func()
	watch  *discovery.Watcher

	mu       sync.Mutex // guards all below: calls come from the registrar's goroutines
	log      []string
	problems []string
	served   map[place]time.Time  // when a container that was to be served had it last
	wanted   map[string]wanted    // since nothing happened to the container
	leaving  map[string]time.Time // containers that were told to stop, since when
	tampered bool
	askew    time.Time // until when events may be missing or late
	calm     time.Time // since when nothing keeps the agent from knowing and acting
	hearing  time.Time // since when nothing keeps it from hearing events
	withhold string    // a group whose wants are left out of what is published
	heldBack []discovery.Event

	told      map[runKey]told // runs that the agent was told not to serve
	asked     map[place]asked // what was published last
	drained   map[string]bool // containers that the operator has drained; "" is the host
	healthy   map[runKey]bool // runs whose HEALTHCHECK has passed
	joined    map[string]bool // containers that have been in a second network
	withheld  map[string]bool // groups that the registrar has older wants of than the watcher
	unknown   bool            // a container is there of which nothing is known: what is registered for it stays
	knownAt   time.Time       // when that was over
	failed    time.Time       // the last call that was not answered well, or the last agent's start
	throttled time.Time       // the last call that was throttled
	seldom    bool            // looks were throttled: it looks less often
	byHand    time.Time       // when somebody deregistered what is ours
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

// store keeps drains across restarts of the agent.
type store struct {
	mu     sync.Mutex
	drains []discovery.Drain
}

func (s *store) Load() ([]discovery.Drain, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.drains), nil
}

func (s *store) Save(drains []discovery.Drain) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drains = slices.Clone(drains)
	return nil
}

func newWorld(seed uint64) *world {
	w := &world{
		engine: enginetest.New(), ledger: ledger.NewMemory(), drains: &store{}, rand: rand.New(rand.NewPCG(seed, 2)),
		served: map[place]time.Time{}, wanted: map[string]wanted{}, leaving: map[string]time.Time{}, calm: time.Now(),
		told: map[runKey]told{}, asked: map[place]asked{}, joined: map[string]bool{}, withheld: map[string]bool{},
		drained: map[string]bool{}, healthy: map[runKey]bool{},
	}
	w.sim = elbsim.New(elbsim.Config{
		Instance: elbsim.Instance{ID: instance}, OnCall: w.called, RecordLimit: -1, Latency: 30 * time.Millisecond, Seed: seed,
	})
	if err := w.sim.AddInstance(elbsim.Instance{ID: stranger, PrivateIP: "10.0.0.11"}); err != nil {
		w.problem("add the other instance: %v", err)
	}
	for _, s := range services {
		// Longer than any run of the model: a target that drains is never simply gone in the end.
		if _, err := w.sim.AddGroup(elbsim.Group{Name: s, DeregistrationDelay: time.Hour}); err != nil {
			w.problem("add a group: %v", err)
		}
		if err := w.sim.Register(s, target.Target{ID: stranger, Port: 40000}, target.Target{ID: instance, Port: 9}); err != nil {
			w.problem("register what is not ours: %v", err)
		}
	}
	w.start()
	return w
}

// start starts an agent, put together as cmd/agent does it.
func (w *world) start() {
	var groups []elb.Group
	var rules []discovery.Rule
	for _, s := range services {
		groups = append(groups, elb.Group{Key: s, Name: s})
		rules = append(rules, discovery.Rule{Group: s, Healthy: s == careful})
	}
	api := elb.NewAPI(aws.Config{
		Region: w.sim.Region(), HTTPClient: w.sim.HTTPClient(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDMODEL", "secret", ""),
	})
	reg := registrar.New(func(context.Context) (elb.API, elb.Self, error) {
		return api, elb.Self{InstanceID: instance, Region: w.sim.Region()}, nil
	}, w.ledger, registrar.Options{BootID: "boot"})
	admitted := map[string][]target.Run{}
	for _, e := range w.ledger.Entries() {
		if e.Phase == ledger.Registered {
			admitted[e.Group.Key] = append(admitted[e.Group.Key], e.Run)
		}
	}
	publish := func(s *discovery.Snapshot) {
		wants := maps.Clone(s.Wants)
		w.mu.Lock()
		delete(wants, w.withhold)
		w.published(wants, s.Unknown)
		w.mu.Unlock()
		reg.Apply(registrar.Desired{
			Seq: s.Seq, Generation: s.Generation, Groups: groups, Wants: wants, Allotted: s.Allotted, Unknown: s.Unknown,
		})
	}
	var engine discovery.Engine = w.engine
	if w.rand.IntN(2) == 0 {
		engine = historian{w.engine}
	}
	watch, err := discovery.New(engine, w.drains, publish, discovery.Options{Rules: rules, Admitted: admitted, BootID: "boot"})
	if err != nil {
		w.problem("make the watcher: %v", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = watch.Run(ctx) }) // ends with ctx alone
	parts.Go(func() { _ = reg.Run(ctx) })
	w.watch, w.stop = watch, func() { cancel(); parts.Wait() }
}
