package agenttest

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/elbsim"
	"berth/pkg/agent"
	"berth/pkg/client"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/host"
	"berth/pkg/registrar/ledger"
)

// Host returns the options of an agent on the files and sockets of this machine, below a directory of the test's own. AWS
// is where the environment says; see Account.
func Host(t testing.TB, engine discovery.Engine, groups ...string) agent.Options {
	t.Helper()
	dir := ShortDir(t)
	return Options(t, WriteConfig(t, dir, YAML(dir, groups, "")), engine)
}

// Options returns the options of an agent with the configuration that read returns. A nil engine is the Docker of that
// configuration.
func Options(t testing.TB, read func() (*config.Config, error), engine discovery.Engine) agent.Options {
	t.Helper()
	cfg, err := read()
	if err != nil {
		t.Fatal(err)
	}
	return agent.Options{Config: cfg, Read: read, Engine: engine, BootID: host.BootID()}
}

// Memory returns the options of an agent that touches nothing of this machine: no socket, no file, no variable. Each agent
// that is started with them goes on with the ledger and the drains of the one before.
func Memory(engine discovery.Engine, sim *elbsim.Sim, groups ...config.Group) agent.Options {
	cfg := config.Default()
	cfg.Groups = groups
	return agent.Options{
		Config: cfg, Engine: engine, AWS: AWS(sim), BootID: "boot",
		Ledger: ledger.NewMemory(), Drains: &Drains{}, Listeners: NewNetwork().Listen,
	}
}

// Disconnected returns the options of Memory on a host whose metadata service is disabled; its configuration says which
// instance it is. To poll that service every few seconds would take longer than all else in fake time.
func Disconnected(engine discovery.Engine, sim *elbsim.Sim, groups ...config.Group) agent.Options {
	o := Memory(engine, sim, groups...)
	o.Config.InstanceID, o.Config.Region, o.AWS = Instance, sim.Region(), awsOf(sim, imds.ClientDisabled)
	return o
}

// Group is a group of the configuration that is called like its target group and takes labelled containers.
func Group(name string) config.Group {
	return config.Group{Key: name, Name: name, Labels: true, RegisterWhen: config.WhenRunning, Ownership: config.OwnLedger}
}

// Drains is a discovery.DrainStore in memory.
type Drains struct {
	mu     sync.Mutex
	drains []discovery.Drain
}

// Load returns what was saved last.
func (d *Drains) Load() ([]discovery.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.drains), nil
}

// SetAside forgets what was saved.
func (d *Drains) SetAside() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drains = nil
	return "aside", nil
}

// Save keeps drains.
func (d *Drains) Save(drains []discovery.Drain) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drains = slices.Clone(drains)
	return nil
}

// Agent is an agent that runs in this process.
type Agent struct {
	*agent.Agent
	Config *config.Config         // as it was at the start
	Client *client.Client         // of its control socket
	Log    *observer.ObservedLogs // from level info; nil if the test has a log of its own

	stop func() error
}

// Dial connects to an agent: net.Dialer's or Network's.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Run starts an agent. dial leads to its control socket; nil: this host's sockets. The caller must call Stop.
func Run(o agent.Options, dial Dial) (*Agent, error) {
	a := &Agent{Config: o.Config}
	if o.Log == nil {
		var core zapcore.Core
		core, a.Log = observer.New(zapcore.InfoLevel)
		o.Log = zap.New(core)
	}
	if o.Level == (zap.AtomicLevel{}) {
		o.Level = zap.NewAtomicLevel()
	}
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	var err error
	if a.Agent, err = agent.New(context.Background(), o); err != nil {
		return nil, err
	}
	a.Client = client.NewDial(dial, o.Config.ControlSocket, "")
	end := background(a.Agent.Run)
	a.stop = sync.OnceValue(func() error {
		a.Client.Close()
		return errors.Join(end(), a.Close())
	})
	return a, nil
}

// RunCore starts a Core. The caller must call stop, once.
func RunCore(o agent.Options) (core *agent.Core, stop func() error, err error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if core, err = agent.NewCore(context.Background(), o); err != nil {
		return nil, nil, err
	}
	end := background(core.Run)
	return core, func() error { return errors.Join(end(), core.Close()) }, nil
}

// background runs something until end is called, which waits for it.
func background(run func(context.Context) error) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// Stop ends the agent and waits for that. It may be called more than once.
func (a *Agent) Stop() error { return a.stop() }

// Start starts an agent on the sockets of this host, which ends with the test, and must end well.
func Start(t testing.TB, o agent.Options) *Agent {
	t.Helper()
	return StartOn(t, nil, o)
}

// StartOn is Start where dial leads to the agent's listeners.
func StartOn(t testing.TB, dial Dial, o agent.Options) *Agent {
	t.Helper()
	a, err := Run(o, dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	return a
}

// StartReady is Start that waits until every group was tried once.
func StartReady(t testing.TB, o agent.Options) *Agent {
	t.Helper()
	a := Start(t, o)
	Eventually(t, "the agent ready", func() bool { return a.Readiness().Ready })
	return a
}
