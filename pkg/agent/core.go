// Package agent is the daemon as a library: it puts discovery, which knows Docker, and the registrar, which knows AWS,
// together. Core keeps target groups exact and opens no socket; Agent adds what it shows, the host's lifecycle hooks, and
// systemd.
//
//	core.go          Core: its parts, their options, and how they run together
//	agent.go         Agent: Core behind listeners
//	connect.go       who this host is, and the client for its region
//	groups.go        what the configuration means to discovery and to the registrar
//	reload.go        another configuration
//	life.go          spot, autoscaling and rebalance as drains of the host
//	lifehooks.go     the lifecycle hooks of Auto Scaling
//	notify.go        what the service manager is told
//	control.go       the control socket: requests, who asks, reload
//	controldrain.go  the control socket: drains
//	controlprune.go  the control socket: prune
//	explained.go     what becomes of a container, and why
//	try.go           running a Core until every group was looked at, for a look alone
//	cleanup.go       removing from the ledger alone, at boot and at shutdown
package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"berth/internal/latest"
	"berth/internal/statedir"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/discovery/docker"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/status"
)

// Options are what an agent is made of.
type Options struct {
	Config *config.Config // as it is at the start
	// Read reads the configuration again, as it was read at the start. nil: it cannot be reloaded.
	Read  func() (*config.Config, error)
	Log   *zap.Logger
	Level zap.AtomicLevel // of Log; a reload sets it
	Build status.Build
	// LogDropped returns how many lines of Log were dropped; nil: that is not known.
	LogDropped func() uint64
	// DryRun changes nothing: neither AWS nor the state directory.
	DryRun bool
	// BootID is the kernel's id of this boot; empty: it is not known.
	BootID string
	// Engine is what containers run on; nil: the Docker of Config.
	Engine discovery.Engine
	AWS    AWS
	// Listeners opens what an Agent serves on, as server.Config's Listener does; nil: sockets of this host.
	Listeners func(ctx context.Context, name, network, address string) (net.Listener, error)
	// Ledger and Drains keep what outlives the agent; nil: in the state directory of Config. A ledger that is given is not
	// closed.
	Ledger *ledger.Ledger
	Drains discovery.DrainStore
	// Wrap stands between the watcher and what it publishes to; nil: nothing does. What it returns must not block.
	Wrap func(publish func(*discovery.Snapshot)) func(*discovery.Snapshot)
}

// AWS is how AWS is reached. The zero value is the SDK's ordinary configuration.
type AWS struct {
	// Metadata returns the settings of the instance metadata service; nil: host.MetadataConfig.
	Metadata func(context.Context) (aws.Config, error)
	// Transport carries requests to the instance metadata service; nil: a direct one.
	Transport http.RoundTripper
	// Client returns the settings of all other clients; nil: host.AWSConfig.
	Client func(ctx context.Context, region string) (aws.Config, error)
}

func (a AWS) metadata(ctx context.Context) (aws.Config, error) {
	if a.Metadata != nil {
		return a.Metadata(ctx)
	}
	return host.MetadataConfig(ctx)
}

func (a AWS) client(ctx context.Context, region string) (aws.Config, error) {
	if a.Client != nil {
		return a.Client(ctx, region)
	}
	return host.AWSConfig(ctx, region)
}

// notices returns who the host is and what is about to happen to it.
func (a AWS) notices(ctx context.Context, cfg *config.Config, log *zap.Logger) (*host.Notices, error) {
	metadata, err := a.metadata(ctx)
	if err != nil {
		return nil, &ConfigError{err}
	}
	return host.New(log, host.Options{
		Override: host.Override{InstanceID: cfg.InstanceID, Region: cfg.Region}, AWS: metadata, Transport: a.Transport,
	}), nil
}

// ConfigError says that the configuration is wrong: waiting cures nothing.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// Core is what keeps target groups exact: the watcher of Docker, the registrar, the host's own drains, and what ties them
// together. It opens no socket, and knows no service manager.
type Core struct {
	o         Options
	cfg       *config.Config // as it was at the start; reloads change what settings holds
	settings  atomic.Pointer[settings]
	reloading sync.Mutex            // one reload at a time
	reloadErr atomic.Pointer[error] // why the last reload was refused
	log       *zap.Logger
	registry  *prometheus.Registry
	ledger    *ledger.Ledger
	notices   *host.Notices
	engine    discovery.Engine
	pacer     *pacer.Pacer
	life      *life
	watcher   *discovery.Watcher
	registrar *registrar.Registrar
	seen      latest.Value[discovery.Snapshot]
}

// NewCore opens the ledger and makes the parts. Nothing runs yet but the ledger's writer: the caller must call Close, after
// Run has returned.
//
// Its error wraps statedir.ErrLocked where another agent holds the state directory, and is a *ConfigError where the
// configuration is wrong.
func NewCore(ctx context.Context, o Options) (*Core, error) {
	a := &Core{o: o, cfg: o.Config, log: o.Log, engine: o.Engine, registry: prometheus.NewRegistry()}
	a.settings.Store(&settings{Config: o.Config, generation: 1})
	notices, err := o.AWS.notices(ctx, o.Config, o.Log)
	if err != nil {
		return nil, err
	}
	a.notices = notices
	if a.ledger, err = a.openLedger(); err != nil {
		return nil, err
	}
	metrics := registrar.NewMetrics(a.registry)
	a.pacer = pacer.New(metrics.PacerInterval)
	a.registrar = registrar.New(a.connect, a.ledger, registrar.Options{
		Log: a.log, Metrics: metrics, Pacer: a.pacer, BootID: o.BootID, DryRun: o.DryRun,
		WriteTimeout: a.cfg.AWS.WriteTimeout, ReadTimeout: a.cfg.AWS.ReadTimeout, Peers: a.cfg.AWS.Peers,
	})
	if a.watcher, err = a.newWatcher(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.life = a.newLife()
	return a, nil
}

// Close closes the ledger that NewCore has opened. Its error says what of it is not on disk.
func (a *Core) Close() error {
	if a.o.Ledger != nil {
		return nil
	}
	return a.ledger.Close()
}

// openLedger takes the state directory; a dry run reads it and leaves it alone.
func (a *Core) openLedger() (*ledger.Ledger, error) {
	switch {
	case a.o.Ledger != nil:
		return a.o.Ledger, nil
	case a.o.DryRun:
		kept, err := ledger.Peek(a.cfg.StateDir)
		return kept, statedir.Advise(a.cfg.StateDir, err)
	}
	kept, err := ledger.Open(a.cfg.StateDir, a.o.BootID, ledger.Options{Log: a.log, Metrics: ledger.NewMetrics(a.registry)})
	return kept, statedir.Advise(a.cfg.StateDir, err)
}

// publish takes what the watcher wants straight to the registrar: no hop in between, and it never blocks. Wants and
// groups are of one generation of the configuration. Everybody else hears of it when it is on its way.
func (a *Core) publish(s *discovery.Snapshot) {
	defer a.seen.Set(s)
	now := a.settings.Load().of(s.Generation)
	if now == nil {
		return
	}
	a.registrar.Apply(registrar.Desired{
		Seq: s.Seq, Generation: s.Generation, Groups: registrarGroups(now.Config), Wants: s.Wants, Allotted: s.Allotted, Unknown: s.Unknown,
	})
}

func (a *Core) newWatcher() (*discovery.Watcher, error) {
	if a.engine == nil {
		engine, err := docker.New("unix://" + a.cfg.Docker.Socket)
		if err != nil {
			return nil, err
		}
		a.engine = engine
	}
	drains := a.o.Drains
	if drains == nil {
		drains = discovery.NewDrainFile(a.cfg.StateDir)
	}
	if a.o.DryRun {
		drains = readOnly{drains}
	}
	publish := a.publish
	if a.o.Wrap != nil {
		publish = a.o.Wrap(publish)
	}
	w, err := discovery.New(a.engine, drains, publish, discovery.Options{
		Log: a.log, Metrics: discovery.NewMetrics(a.registry), Rules: discoveryRules(a.cfg), Generation: 1, Seq: host.SinceBoot(),
		Admitted: admittedOf(a.ledger.Entries(), a.cfg.Groups, a.o.BootID), BootID: a.o.BootID,
		Timing: discovery.Timing{StopSurvivor: a.cfg.Drain.StopSurvivorAfter},
	})
	return w, statedir.Advise(a.cfg.StateDir, err)
}

// Run runs the parts until ctx ends, and waits until all have ended. The first to end ends the others; the registrar takes
// longest, because it waits for the reply to a call in flight. Its error wraps host.ErrContradiction or host.ErrDisabled
// where the host's identity can never be known.
func (a *Core) Run(ctx context.Context) error { return together(ctx, a.parts()) }

func (a *Core) parts() []part {
	return []part{a.notices.Run, a.learn, a.life.run, a.watcher.Run, a.registrar.Run}
}

// part is one of what runs side by side: it returns when ctx ends, or when it cannot go on.
type part func(ctx context.Context) error

// together runs parts until ctx ends or one of them does, and waits for all. It returns the error of the first.
func together(ctx context.Context, parts []part) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group run.Group
	for _, p := range parts {
		group.Add(func() error { return p(ctx) }, func(error) { cancel() })
	}
	return group.Run()
}

// Host is what the status shows of this host.
func (a *Core) Host() status.Host {
	s, _ := a.notices.Snapshot()
	h := status.Host{}
	h.CredentialsErr, h.CredentialsChange = a.registrar.CredentialsErr()
	h.Notices = s.Notices
	if s.Identity == nil {
		if h.IdentityErr, h.IdentityChange = s.Waiting, s.Change; s.Waiting != "" {
			h.IdentityErr += status.Lasting(s.Since)
		}
		return h
	}
	h.InstanceID, h.Region, h.AvailabilityZone, h.Account = s.Identity.InstanceID, s.Identity.Region, s.Identity.AvailabilityZone, s.Identity.AccountID
	if s.Identity.PrivateIP.IsValid() {
		h.Address = s.Identity.PrivateIP.String()
	}
	return h
}

// Groups is what the registrar knows of the target groups, and a channel that closes when that changes.
func (a *Core) Groups() (*registrar.Snapshot, <-chan struct{}) { return a.registrar.Snapshot() }

// Stream is the state of the connection to Docker.
func (a *Core) Stream() discovery.Stream { return a.watcher.Stream() }

// Seen returns what discovery has published last; nil before it has.
func (a *Core) Seen() *discovery.Snapshot {
	s, _ := a.seen.Get()
	return s
}

// Drain takes a container or the host out, as discovery.Watcher's does.
func (a *Core) Drain(ctx context.Context, d discovery.Drain) (uint64, error) {
	return a.watcher.Drain(ctx, d)
}

// Undrain ends a drain, as discovery.Watcher's does.
func (a *Core) Undrain(ctx context.Context, id string) (uint64, error) {
	return a.watcher.Undrain(ctx, id)
}

// view is what the agent knows at one moment, as it is shown, and how one hears of more.
type view struct {
	status.V1
	docker, aws <-chan struct{} // each closes when its half has published something newer
}

// view returns what the agent knows now. Nothing is asked for it.
func (a *Core) view() view {
	d, docker := a.seen.Get()
	r, aws := a.registrar.Snapshot()
	return view{status.Of(time.Now(), status.AgentV1{}, a.Host(), d, r), docker, aws}
}

// changed waits until the agent knows more, something else is closed, or it is next; a zero next never comes. It reports
// false when ctx has ended.
func (v *view) changed(ctx context.Context, next time.Time, other <-chan struct{}) bool {
	var timer <-chan time.Time
	if !next.IsZero() {
		timer = time.After(time.Until(next))
	}
	select {
	case <-v.docker:
	case <-v.aws:
	case <-other:
	case <-timer:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// readOnly is a store of drains that forgets what it is told, and leaves the file as it is.
type readOnly struct{ store discovery.DrainStore }

// Load reads the drains, and sets no file aside that cannot be read.
func (r readOnly) Load() ([]discovery.Drain, error) {
	if file, ok := r.store.(*discovery.DrainFile); ok {
		return file.Peek()
	}
	return r.store.Load()
}

// SetAside does nothing.
func (readOnly) SetAside() (string, error) { return "", nil }

// Save does nothing.
func (readOnly) Save([]discovery.Drain) error { return nil }
