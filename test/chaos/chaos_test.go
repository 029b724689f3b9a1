package chaos

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/exact"
	"berth/test/harness"
	"berth/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

var (
	lasts = flag.Duration("chaos.for", 15*time.Second, "how long things happen, besides what it takes to begin and to end")
	seed  = flag.Uint64("chaos.seed", 0, "what happens; 0: something else each time")
)

// lag is how long the load balancers go on sending to a target that was deregistered.
const lag = 500 * time.Millisecond

// window is a time in which berth could not have known where ports are: from the beginning of an engine's end until
// berth's stream is there again. What berth does at once is slack later in effect, and lag later in the load balancer.
type window struct{ from, to time.Time }

// slack is what inspecting twenty containers and a call may take on a machine with more to do than it can.
const slack = 2 * time.Second

// world is all that takes part.
type world struct {
	*testing.T
	engine  *harness.PrivateEngine
	proxy   *proxy
	rig     *rig.Rig
	agent   *rig.Agent
	windows []window
	steady  []*harness.Container // to which nothing happens
	leaving *harness.Container   // told to stop, and deaf
	cuts    int
	killed  int
	stopped int
	again   int // registrations of what was registered, by an agent that found a port's removal in doubt: without effect
}

// epoch is the time between two ends of the engine: in it, ports of containers to which nothing happens stay theirs.
type epoch struct {
	began   time.Time
	stay    map[string]target.Target // of the steady ones, by service
	leaving target.Target
}

func TestChaos(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-chaos.seed=%d", *seed)
	w := begin(t)
	clients := startClients(t, w.rig)
	lives := startLives(t, &w.engine.Engine, w.rig, 16, *seed)
	third := *lasts / 3
	for i, cuts := range []int{2, 2, 1} {
		e := w.settle()
		w.play(third, cuts)
		w.check(e)
		if i < 2 {
			w.restartEngine()
		}
	}
	lives.end()
	want := w.wanted()
	harness.Eventually(t, harness.Patience, "exact targets in the end", func() error {
		return exact.Compare(w.rig.Registered(services...), want, nil).Err()
	})
	clients.end()
	w.explain(clients)
	t.Logf("happened: %v; refused by the engine: %v (the last: %v)", lives.done, lives.failed, lives.last)
	t.Logf("the engine restarted twice, %d connections cut in five cuts, the agent killed %d times and stopped %d times; %d steady targets were registered again",
		w.cuts, w.killed, w.stopped, w.again)
	for _, what := range []string{"run", "stop", "kill", "restart", "pause"} {
		if lives.done[what] == 0 {
			t.Logf("no %s this time", what)
		}
	}
	if len(lives.done) < 5 {
		t.Errorf("too little happened to show anything: %v", lives.done)
	}
}

func begin(t *testing.T) *world {
	engine := harness.StartEngine(t, harness.EngineOptions{})
	w := &world{T: t, engine: engine, proxy: startProxy(t, engine.Socket)}
	front := engine.Engine
	front.Socket = w.proxy.path
	var groups []elbsim.Group
	for _, service := range services {
		groups = append(groups, elbsim.Group{Name: service, DeregistrationDelay: 5 * time.Second})
	}
	w.rig = rig.New(t, rig.Options{Engine: &front, Groups: groups, Sim: elbsim.Config{
		Lags: &elbsim.Lags{Register: 200 * time.Millisecond, Deregister: lag, Describe: 100 * time.Millisecond},
	}})
	w.agent = w.rig.StartReady(t)
	for _, service := range services {
		w.steady = append(w.steady, w.made(service, harness.Spec{Name: service + "-steady", Restart: "always"}))
	}
	w.leaving = w.made(services[0], harness.Spec{Name: "deaf", Args: []string{"--stop=ignore"}, StopTimeout: time.Second})
	return w
}

func (w *world) made(service string, spec harness.Spec) *harness.Container {
	spec.Labels = w.rig.In(service)
	spec.Env = []string{"WEB_SERVICE=" + service}
	return w.engine.Create(w, spec)
}

// registered waits until a target is, or is not, in its group.
func (w *world) registered(service string, which target.Target, want bool) {
	w.Helper()
	harness.Eventually(w, harness.Patience, fmt.Sprintf("%v registered in %s: %v", which, service, want), func() error {
		if got := slices.Contains(w.rig.Sim.Registered(w.rig.Group(service)), which); got != want {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// settle begins an epoch: the steady containers are registered, and the deaf one has just been told to stop.
func (w *world) settle() epoch {
	w.Helper()
	e := epoch{stay: map[string]target.Target{}}
	for _, c := range append(w.steady, w.leaving) {
		if !c.Inspect(w).State.Running {
			c.Start(w)
		}
		c.Ask(w)
	}
	for i, c := range w.steady {
		e.stay[services[i]] = rig.TargetsOf(w, c)[0]
		w.registered(services[i], e.stay[services[i]], true)
	}
	e.leaving = rig.TargetsOf(w, w.leaving)[0]
	w.registered(services[0], e.leaving, true)
	w.leaving.Signal(w, "TERM")
	w.registered(services[0], e.leaving, false)
	e.began = time.Now()
	return e
}

// play cuts the stream, kills the agent, and stops it as a service manager does, while the rest goes on.
func (w *world) play(lasts time.Duration, cuts int) {
	part := lasts / time.Duration(cuts+2)
	for range cuts {
		pause(w.Context(), part)
		w.cuts += w.proxy.cut()
	}
	pause(w.Context(), part)
	for _, end := range []func(*rig.Agent, testing.TB){(*rig.Agent).Kill, (*rig.Agent).Stop} {
		end(w.agent, w)
		pause(w.Context(), part/4)
		w.agent = w.rig.StartReady(w)
		pause(w.Context(), part/4)
	}
	w.killed++
	w.stopped++
}

// check fails the test if a steady target was touched in the epoch, or the leaving one came back.
func (w *world) check(e epoch) {
	w.Helper()
	if state := w.leaving.Inspect(w).State; !state.Running {
		w.Errorf("the deaf container is dead: %+v", state)
	}
	steady := exact.Targets{}
	for _, service := range services {
		stay := e.stay[service]
		for _, action := range []string{"RegisterTargets", "DeregisterTargets"} {
			for _, call := range w.rig.Calls(service, action) {
				if call.Time.After(e.began) && slices.Contains(call.Targets, stay) {
					if action == "DeregisterTargets" {
						w.Errorf("%v was deregistered from %s, and nothing has happened to it", stay, service)
					}
					w.again++
				}
				if call.Time.After(e.began) && action == "RegisterTargets" && slices.Contains(call.Targets, e.leaving) {
					w.Errorf("%v was registered again in %s, after its container was told to stop", e.leaving, service)
				}
			}
		}
		steady[service] = []target.Target{stay}
	}
	if missing := exact.Compare(w.rig.Registered(services...), steady, nil).Missing; len(missing) > 0 {
		w.Errorf("not registered any more: %v", missing)
	}
}

// restartEngine restarts it and waits until the agent hears it again.
func (w *world) restartEngine() {
	w.Helper()
	from := time.Now()
	w.engine.Stop(w)
	down := time.Now()
	w.engine.Start(w)
	harness.Eventually(w, harness.Patience, "the agent's new stream", func() error {
		status, err := w.agent.TryStatus(w)
		switch {
		case err != nil:
			return err
		case !status.Docker.Up || status.Docker.Since.Before(down):
			return errors.New("not yet")
		}
		w.windows = append(w.windows, window{from, status.Docker.Since})
		return nil
	})
	heard := w.windows[len(w.windows)-1].to
	w.Logf("the engine took %v to end, and was heard again %v later", down.Sub(from).Round(time.Millisecond), heard.Sub(down).Round(time.Millisecond))
}

// wanted returns what should be registered now, by service, from the engine's own list.
func (w *world) wanted() exact.Targets {
	w.Helper()
	docker := w.engine.Client
	paused, err := docker.ContainerList(w.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("status", "paused"))})
	if err != nil {
		w.Fatal(err)
	}
	for _, c := range paused {
		if err := docker.ContainerUnpause(w.Context(), c.ID); err != nil {
			w.Fatal(err)
		}
	}
	running, err := docker.ContainerList(w.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("status", "running"))})
	if err != nil {
		w.Fatal(err)
	}
	want := exact.Targets{}
	for _, c := range running {
		if c.ID == w.leaving.ID {
			continue
		}
		answer, err := docker.ContainerInspect(w.Context(), c.ID)
		if err != nil {
			w.Fatal(err)
		}
		port, err := strconv.ParseUint(answer.NetworkSettings.Ports["8080/tcp"][0].HostPort, 10, 16)
		if err != nil {
			w.Fatal(err)
		}
		for _, service := range services {
			if c.Labels[rig.Label] == w.rig.Group(service) {
				want[service] = append(want[service], target.Target{ID: rig.Instance, Port: uint16(port)})
			}
		}
	}
	for _, service := range services {
		w.Logf("%s: %d targets in the end", service, len(want[service]))
	}
	return want
}

// explain fails the test for each answer from another service's container outside the windows. Another engine on this host,
// on which other tests run, may give a port to a container of its own while no agent runs here to take its target out.
func (w *world) explain(c *clients) {
	w.Helper()
	explained, strangers := 0, 0
	for _, a := range c.foreign {
		if !slices.Contains(services, a.identity.Service) {
			strangers++
			continue
		}
		inside := slices.ContainsFunc(w.windows, func(o window) bool {
			return a.to.After(o.from) && a.from.Before(o.to.Add(slack+lag))
		})
		if inside {
			explained++
			continue
		}
		w.Errorf("%s was answered by %+v at %v; the windows are %v", a.group, a.identity, a.from, w.windows)
	}
	w.Logf("%d requests answered, %d of them by another service's container, %d explained by an engine's restart; %d by containers of another engine; %d without an answer",
		c.answered, len(c.foreign)-strangers, explained, strangers, c.failed)
	if c.answered == 0 {
		w.Error("nobody answered anything: this shows nothing")
	}
}
