// Package model drives the agent's two halves together, the watcher and the registrar with the real SDK client, through
// random lives of containers on an engine and an AWS that misbehave, all in fake time, and checks every call that is made
// and every moment between.
package model

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

const (
	instance = "i-0123456789abcdef0"
	stranger = "i-0fedcba9876543210"
	// ephemeral is where Docker's ports begin: what is registered below is somebody else's.
	ephemeral = 32768
	// patience is how long something wrong may stay that the agent could have known of.
	patience = 2 * time.Minute
	survive  = 10 * time.Minute
)

var services = []string{"web", "api"}

// place is a port in the target group of a service.
type place struct {
	service string
	port    uint16
}

// world is one host and its account.
type world struct {
	engine *enginetest.Engine
	sim    *elbsim.Sim
	ledger *registrar.Ledger
	drains *store
	rand   *rand.Rand
	stop   func()
	watch  *discovery.Watcher

	mu        sync.Mutex // guards all below: calls come from the registrar's goroutines
	log       []string
	problems  []string
	served    map[place]time.Time  // when a container that was to be served had it last
	wanted    map[string]wanted    // since nothing happened to the container
	leaving   map[string]time.Time // containers that were told to stop, since when
	tampered  bool
	throttled bool
	askew     time.Time // until when events may be missing or late
	calm      time.Time // since when nothing keeps the agent from knowing and acting
	hearing   time.Time // since when nothing keeps it from hearing events
	withhold  string    // a group whose wants are left out of what is published
	heldBack  []discovery.Event
}

// wanted is a port that the watcher has said is wanted.
type wanted struct {
	port  uint16
	since time.Time
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
		engine: enginetest.New(), ledger: registrar.NewMemoryLedger(), drains: &store{}, rand: rand.New(rand.NewPCG(seed, 2)),
		served: map[place]time.Time{}, wanted: map[string]wanted{}, leaving: map[string]time.Time{}, calm: time.Now(),
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
	var groups []registrar.Group
	var rules []discovery.Rule
	for _, s := range services {
		groups = append(groups, registrar.Group{Key: s, Name: s})
		rules = append(rules, discovery.Rule{Group: s})
	}
	api := registrar.NewAPI(aws.Config{
		Region: w.sim.Region(), HTTPClient: w.sim.HTTPClient(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDMODEL", "secret", ""),
	})
	reg := registrar.New(func(context.Context) (registrar.API, registrar.Self, error) {
		return api, registrar.Self{InstanceID: instance, Region: w.sim.Region()}, nil
	}, w.ledger, registrar.Options{BootID: "boot"})
	admitted := map[string][]target.Run{}
	for _, e := range w.ledger.Entries() {
		if e.Phase == registrar.Registered {
			admitted[e.Group.Key] = append(admitted[e.Group.Key], e.Run)
		}
	}
	publish := func(s *discovery.Snapshot) {
		wants := maps.Clone(s.Wants)
		w.mu.Lock()
		delete(wants, w.withhold)
		w.mu.Unlock()
		reg.Apply(registrar.Desired{
			Seq: s.Seq, Generation: s.Generation, Groups: groups, Wants: wants, Allotted: s.Allotted, Unknown: s.Unknown,
		})
	}
	watch, err := discovery.New(w.engine, w.drains, publish, discovery.Options{Rules: rules, Admitted: admitted, BootID: "boot"})
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

// problem writes down what must not be.
func (w *world) problem(format string, args ...any) {
	if len(w.problems) < 5 {
		w.problems = append(w.problems, fmt.Sprintf("%s: ", time.Now().Format("15:04:05.000"))+fmt.Sprintf(format, args...))
	}
}

// truth is which container has which place now, for those that may be served. A container that was told to stop may be
// again when it has outlived that by so much.
func (w *world) truth(outlived time.Duration) map[place]string {
	out := map[place]string{}
	for _, id := range w.engine.IDs() {
		f, ok := w.engine.Facts(id)
		service := f.Labels[discovery.TargetsLabel]
		since, told := w.leaving[id]
		if !ok || f.State != "running" && f.State != "paused" || len(f.Published) == 0 || told && time.Since(since) < outlived {
			continue
		}
		out[place{service, f.Published[0].HostPort}] = id
	}
	return out
}

// note remembers who is served at this moment: before and after whatever happens.
func (w *world) note() {
	now := time.Now()
	for p := range w.truth(survive - time.Second) {
		w.served[p] = now
	}
}

// called judges every call as it is made.
func (w *world) called(c elbsim.Call) {
	if c.Action != "RegisterTargets" && c.Action != "DeregisterTargets" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	service := ""
	for _, s := range services {
		if len(c.Groups) == 1 && strings.Contains(c.Groups[0], "/"+s+"/") {
			service = s
		}
	}
	may, must := w.truth(survive-time.Second), w.truth(survive+patience)
	for _, x := range c.Targets {
		p := place{service, x.Port}
		_, allowed := may[p]
		id, needed := must[p]
		switch {
		case x.ID != instance || x.Port < ephemeral || service == "":
			w.problem("%s of %v in %q, which is not ours", c.Action, x, service)
		case time.Now().Before(w.askew):
		case c.Action == "RegisterTargets" && !allowed && time.Since(w.served[p]) > 5*time.Second && w.hears():
			w.problem("registered %v, which nobody has served since %s", p, w.served[p].Format("15:04:05.000"))
		case c.Action == "DeregisterTargets" && needed && w.steady(id, x.Port):
			w.problem("deregistered %v though %s serves it and nothing has happened to it", p, id[56:])
		}
	}
}

// hears reports whether the agent has heard for a while of all that happens.
func (w *world) hears() bool {
	return w.watch.Stream().Up && time.Since(w.hearing) > 5*time.Second
}

// steady reports whether a container runs, unpaused, the agent has known it with this port, and nothing has happened to
// it since.
func (w *world) steady(id string, port uint16) bool {
	f, _ := w.engine.Facts(id)
	known, ok := w.wanted[id]
	return ok && f.State == "running" && known.port == port && time.Since(known.since) > 30*time.Second
}

// check looks at what is registered now: nothing may be for long that nobody serves, where the agent could know.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note()
	if snapshot := w.watch.Snapshot(); snapshot != nil {
		for _, wants := range snapshot.Wants {
			for _, x := range wants {
				if f, _ := w.engine.Facts(x.Run.ID); f.StartedAt.Equal(x.Run.StartedAt) && w.wanted[x.Run.ID].port != x.HostPort4 {
					w.wanted[x.Run.ID] = wanted{x.HostPort4, time.Now()}
				}
			}
		}
	}
	if w.tampered || !w.watch.Stream().Up || w.watch.Snapshot() == nil { // nothing is published before the first full list
		w.calm = laterOf(w.calm, time.Now())
		w.hearing = laterOf(w.hearing, time.Now())
	}
	for _, s := range services {
		foreign := 0
		for _, x := range w.sim.Registered(s) {
			p := place{s, x.Port}
			if x.ID != instance || x.Port < ephemeral {
				foreign++
				continue
			}
			since := w.served[p]
			if since.Before(w.calm) {
				since = w.calm
			}
			if _, there := w.truth(survive - time.Second)[p]; !there && time.Since(since) > patience {
				w.problem("%v is registered, and nobody has served it since %s", p, w.served[p].Format("15:04:05.000"))
			}
		}
		if foreign != 2 {
			w.problem("%d targets of others are left in %s; want 2", foreign, s)
		}
	}
}

// quiesce ends all that is wrong, lets time pass, and compares what is registered with what runs.
func (w *world) quiesce() {
	w.engine.Heal()
	w.engine.Up()
	w.straighten()
	w.sim.ClearFaults()
	w.mu.Lock()
	w.withhold = ""
	w.mu.Unlock()
	w.engine.Cut() // what was left out is published again with the next change; this makes one
	calm := 45 * time.Minute
	if w.throttled {
		calm = 9 * time.Hour // a host whose looks were throttled verifies less often, at worst every six hours and a third
	}
	time.Sleep(calm)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.leaving) // who runs now is a survivor
	for _, s := range services {
		want := []uint16{}
		for p, id := range w.truth(0) {
			if f, _ := w.engine.Facts(id); p.service == s && f.State == "running" {
				want = append(want, p.port)
			}
		}
		got := []uint16{}
		for _, x := range w.sim.Registered(s) {
			if x.ID == instance && x.Port >= ephemeral {
				got = append(got, x.Port)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			w.problem("when all is quiet: %v registered in %s; want %v", got, s, want)
		}
	}
}
