// Package rig is the whole way in one piece, for tests: a Docker engine, the load balancers that elbsim plays, and the
// berth program between them, as a process of its own, built with the race detector.
//
// A rig's target groups have names of their own, so that rigs of several tests can share the host's engine: a container
// is for the rig whose groups its labels name.
package rig

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/target"
	"berth/test/agenttest"
	"berth/test/exact"
	"berth/test/harness"
)

// Label is the label that brings a container into target groups.
const Label = discovery.TargetsLabel

// Options say what a rig is made of.
type Options struct {
	// Engine is the Docker engine that berth watches. Nil: the host's own.
	Engine *harness.Engine
	// Groups are the target groups; their Name is a key by which the test calls them. Nil: one, "web". Health checks
	// ask /healthz every 100 ms where nothing else is said, and a group has a listener that forwards to it.
	Groups []elbsim.Group
	// Sim is the rest of the account.
	Sim elbsim.Config
	// Rules is YAML under each group's key: "register_when: healthy". A group without an entry takes labelled
	// containers alone.
	Rules map[string]string
	// Config is more of the configuration, as YAML.
	Config string
	// Env are variables of the agent's, after those that lead it to elbsim: "AWS_ACCESS_KEY_ID=" takes its key away.
	Env []string
}

// Rig is one rig. Sim and Server are ready; the agent is not started.
type Rig struct {
	Engine *harness.Engine
	Sim    *elbsim.Sim
	Server *elbsim.Server

	names  map[string]string // of the groups, by the test's keys
	dir    string            // configuration, state, control socket
	config string            // path of the file
	env    []string          // Options.Env
}

// Instance is the instance that every rig's host is.
const Instance = agenttest.Instance

// New sets a rig up. All of it ends with the test.
func New(t testing.TB, o Options) *Rig {
	t.Helper()
	if o.Engine == nil {
		o.Engine = harness.RequireDocker(t)
	}
	if o.Groups == nil {
		o.Groups = []elbsim.Group{{Name: "web"}}
	}
	o.Sim.Instance.ID = Instance
	o.Sim.Probe = elbsim.NetProbe
	if o.Sim.Lags == nil {
		// Never 0: AWS's answers trail behind its deeds.
		o.Sim.Lags = &elbsim.Lags{Register: 200 * time.Millisecond, Deregister: 500 * time.Millisecond, Describe: 100 * time.Millisecond}
	}
	dir := agenttest.ShortDir(t)
	r := &Rig{Engine: o.Engine, Sim: elbsim.New(o.Sim), names: map[string]string{}, dir: dir, config: agenttest.ConfigFile(dir), env: o.Env}
	for _, group := range o.Groups {
		r.addGroup(t, group)
	}
	r.Server = agenttest.Serve(t, r.Sim)
	r.Configure(t, r.YAML(o.Rules, o.Config))
	return r
}

// addGroup adds a group under a name of this rig's own, with a listener.
func (r *Rig) addGroup(t testing.TB, group elbsim.Group) {
	t.Helper()
	key := group.Name
	group.Name = harness.Unique(key)
	group.Detached = true // its listener comes next
	if group.HealthCheck == (elbsim.HealthCheck{}) {
		group.HealthCheck = elbsim.HealthCheck{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Healthy: 2}
		switch group.Protocol {
		case "", "HTTP", "HTTPS":
			group.HealthCheck.Path = "/healthz"
		}
	}
	if group.DeregistrationDelay == 0 {
		group.DeregistrationDelay = time.Second
	}
	if _, err := r.Sim.AddGroup(group); err != nil {
		t.Fatal(err)
	}
	if err := r.Sim.Forward(group.Name, group.Name, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.names[key] = group.Name
}

// YAML returns a configuration that names all groups of the rig, with rules by the test's keys, and more settings.
func (r *Rig) YAML(rules map[string]string, more string) string {
	named := map[string]string{}
	for key, rule := range rules {
		named[r.Group(key)] = rule
	}
	return agenttest.Groups(slices.Sorted(maps.Values(r.names)), named) + more
}

// Configure writes the configuration file. A running agent does not see it before it reloads.
func (r *Rig) Configure(t testing.TB, yaml string) {
	t.Helper()
	if err := os.WriteFile(r.config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Group returns the real name of the group that the test calls key: for labels, and for the Sim's methods.
func (r *Rig) Group(key string) string {
	if name, ok := r.names[key]; ok {
		return name
	}
	return "unknown-group-" + key // the Sim and the agent say so
}

// URL returns the address of the listener that forwards to the group.
func (r *Rig) URL(key string) string { return "http://" + r.Server.ListenerAddr(r.Group(key)) + "/" }

// In returns the labels that bring a container's only port into the groups.
func (r *Rig) In(keys ...string) map[string]string {
	var names []string
	for _, key := range keys {
		names = append(names, r.Group(key))
	}
	return map[string]string{Label: strings.Join(names, ",")}
}

// Env returns the variables with which a berth of this rig runs, and none of the caller's own: keys, proxies, BERTH_….
func (r *Rig) Env() []string {
	return slices.Concat(r.Server.Env(), []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir}, r.env)
}

// TargetsOf returns what should be registered in a group that serves port 8080/tcp of these containers, which run.
func TargetsOf(t testing.TB, containers ...*harness.Container) []target.Target {
	t.Helper()
	out := make([]target.Target, 0, len(containers))
	for _, c := range containers {
		out = append(out, target.Target{ID: Instance, Port: c.Port(t, "8080/tcp")})
	}
	slices.SortFunc(out, target.Target.Compare)
	return out
}

// Registered returns what is registered in groups, by the test's keys.
func (r *Rig) Registered(keys ...string) exact.Targets {
	out := exact.Targets{}
	for _, key := range keys {
		out[key] = r.Sim.Registered(r.Group(key))
	}
	return out
}

// Exact returns nil if exactly these targets are registered in the group.
func (r *Rig) Exact(key string, want ...target.Target) error {
	return exact.Compare(r.Registered(key), exact.Targets{key: want}, nil).Err()
}

// WaitExact waits until exactly these targets are registered in the group.
func (r *Rig) WaitExact(t testing.TB, key string, want ...target.Target) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "exact targets", func() error { return r.Exact(key, want...) })
}

// WaitHealthy waits until exactly these targets are registered in the group and all of them are healthy.
func (r *Rig) WaitHealthy(t testing.TB, key string, want ...target.Target) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "healthy targets", func() error {
		if err := r.Exact(key, want...); err != nil {
			return err
		}
		for _, got := range r.Sim.Targets(r.Group(key)) {
			if got.Deregistered.IsZero() && got.State != elbsim.StateHealthy {
				return fmt.Errorf("target %v is %+v", got.Target, got.Health)
			}
		}
		return nil
	})
}

// Calls returns the calls of that action for the group which had an effect, oldest first.
func (r *Rig) Calls(key, action string) []elbsim.Call {
	name := r.Group(key)
	arn := r.Sim.GroupARN(name)
	var out []elbsim.Call
	for _, call := range r.Sim.CallsOf(action) {
		if slices.Contains(call.Groups, name) || slices.Contains(call.Groups, arn) {
			out = append(out, call)
		}
	}
	return out
}

// program builds berth, with the race detector, once in a process, and returns its path. Main removes it.
var program = sync.OnceValues(func() (string, error) {
	var err error
	if programDir, err = os.MkdirTemp("", "berth-rig-bin-"); err != nil {
		return "", err
	}
	path := filepath.Join(programDir, "berth")
	return path, harness.BuildTo(path, "./cmd/agent", []string{"-race"}, nil)
})

// programDir is the directory that program has made; empty: no rig has started an agent.
var programDir string

// Abreast is how many parallel tests of a package with rigs run at once at least, where -parallel does not say. They wait
// most of the time, for Docker and for times of berth's and the load balancers', so that there are more of them than
// processors.
const Abreast = 4

// Main is a test package's TestMain: it runs the tests, looks for goroutines left running, and removes the program
// that the rigs used.
func Main(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", strconv.Itoa(max(Abreast, runtime.GOMAXPROCS(0)))); err != nil {
			fmt.Fprintf(os.Stderr, "set how many tests run at once: %v\n", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines left running: %v\n", err)
			code = 1
		}
	}
	if programDir != "" {
		if err := os.RemoveAll(programDir); err != nil {
			fmt.Fprintf(os.Stderr, "remove the agent's program: %v\n", err)
		}
	}
	os.Exit(code)
}

// within returns a context that ends with the test or after d.
func within(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
