package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"berth/internal/latest"
	"berth/internal/statedir"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/discovery/docker"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/server"
	"berth/pkg/status"
	"berth/pkg/target"
)

func newRunCommand(env *environment) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent",
		Long: `Run the agent in the foreground: watch Docker, and keep the configured target groups exact. It is what
berth.service starts.

It ends with 0 when it was told to stop (its targets stay registered), 1 when it cannot go on, 2 when the configuration
is wrong, 3 when another agent holds the state directory.`,
		Example: `  berth run
  berth run --target-group web-prod
  berth run --config ./berth.yaml --log-level debug`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			read := func() (*config.Config, error) { return loadConfig(cmd.Flags(), env) }
			return runAgent(cmd.Context(), read, dry, env)
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing: say in the log, and as status, what would be done")
	return cmd
}

// addConfigFlags adds one flag for each setting that has one. Their defaults are shown, not set: what the user did not
// give is for the environment and the files to say.
func addConfigFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "configuration file, read with conf.d/*.yaml beside it (default /etc/berth/berth.yaml, $BERTH_CONFIG)")
	flags.StringArray(config.TargetGroupFlag, nil, "name or ARN of a target group, where no file names one (repeatable, $BERTH_TARGET_GROUP)")
	for _, s := range config.Settings() {
		if s.Flag == "" {
			continue
		}
		usage := s.Usage + " ("
		if s.Default != "" {
			usage += "default " + s.Default + ", "
		}
		flags.String(s.Flag, "", usage+"$"+s.Env+")")
	}
}

func loadConfig(flags *pflag.FlagSet, env *environment) (*config.Config, error) {
	given := map[string][]string{}
	flags.Visit(func(f *pflag.Flag) {
		if s, ok := f.Value.(pflag.SliceValue); ok {
			given[f.Name] = s.GetSlice()
			return
		}
		given[f.Name] = []string{f.Value.String()}
	})
	path, err := flags.GetString("config")
	if err != nil {
		return nil, fmt.Errorf("read --config: %w", err)
	}
	return config.Load(config.Options{ConfigPath: path, Flags: given, Getenv: env.getenv})
}

// agent is the daemon: its parts, as run.go puts them together.
type agent struct {
	cfg       *config.Config // as it was at the start; reloads change what settings holds
	settings  atomic.Pointer[settings]
	reloading sync.Mutex                     // one reload at a time
	reloadErr atomic.Pointer[error]          // why the last reload was refused
	read      func() (*config.Config, error) // reads the configuration again, as it was read at the start
	level     zap.AtomicLevel
	log       *zap.Logger
	dry       bool // changes nothing: neither AWS nor the state directory
	registry  *prometheus.Registry
	ledger    *ledger.Ledger
	notices   *host.Notices
	engine    discovery.Engine
	pacer     *pacer.Pacer
	life      *life
	watcher   *discovery.Watcher
	registrar *registrar.Registrar
	server    *server.Server
	seen      latest.Value[discovery.Snapshot]
}

// settings is one generation of the configuration: what its groups are to discovery and to the registrar.
type settings struct {
	*config.Config
	generation uint64
	before     *settings // the one that it replaces: the watcher may still publish what that one wants
}

// of returns the settings of a generation, nil where that is long gone.
func (s *settings) of(generation uint64) *settings {
	if s.generation != generation && s.before != nil {
		s = s.before
	}
	if s.generation != generation {
		return nil
	}
	return s
}

func newAgent(cfg *config.Config, log *zap.Logger, dry bool) *agent {
	a := &agent{cfg: cfg, log: log, dry: dry}
	a.settings.Store(&settings{Config: cfg, generation: 1})
	return a
}

// runAgent runs the daemon until ctx ends, and returns an error that carries the exit code.
func runAgent(ctx context.Context, read func() (*config.Config, error), dry bool, env *environment) error {
	cfg, err := read()
	if err != nil {
		return exit(exitUsage, err)
	}
	log, level, err := newLogger(env.stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return exit(exitUsage, err)
	}
	defer func() { _ = log.Sync() }() // a terminal cannot be synced
	a := newAgent(cfg, log, dry)
	a.level, a.read, a.engine = level, read, env.engine
	if err := a.build(ctx); err != nil {
		return err
	}
	if a.server, err = a.listen(ctx); err != nil {
		_ = a.ledger.Close() // nothing was written; the first error is what matters
		return exit(exitFailure, err)
	}
	log.Info("agent started", zap.String("version", version), zap.Int("target_groups", len(cfg.Groups)),
		zap.Strings("files", cfg.Files), zap.Bool("dry_run", dry))
	err = a.run(ctx)
	if closing := a.ledger.Close(); closing != nil {
		log.Warn("ledger is not complete on disk", zap.Error(closing))
	}
	switch {
	case errors.Is(err, host.ErrContradiction), errors.Is(err, host.ErrDisabled):
		return exit(exitUsage, err)
	case err != nil:
		return exit(exitFailure, err)
	}
	log.Info("agent stopped; its targets stay registered")
	return nil
}

// build opens the ledger and makes the parts. Nothing runs yet but the ledger's writer. Its errors carry exit codes.
func (a *agent) build(ctx context.Context) error {
	bootID := readBootID()
	a.registry = prometheus.NewRegistry()
	metadata, err := metadataSettings(ctx)
	if err != nil {
		return exit(exitUsage, err)
	}
	a.ledger, err = a.openLedger(bootID)
	if errors.Is(err, statedir.ErrLocked) {
		return exit(exitLocked, err)
	} else if err != nil {
		return exit(exitFailure, err)
	}
	a.notices = host.New(a.log, host.Options{
		Override: host.Override{InstanceID: a.cfg.InstanceID, Region: a.cfg.Region}, AWS: metadata,
	})
	metrics := registrar.NewMetrics(a.registry)
	a.pacer = pacer.New(metrics.PacerInterval)
	a.registrar = registrar.New(a.connect, a.ledger, registrar.Options{
		Log: a.log, Metrics: metrics, Pacer: a.pacer, BootID: bootID, DryRun: a.dry,
		WriteTimeout: a.cfg.AWS.WriteTimeout, ReadTimeout: a.cfg.AWS.ReadTimeout, Peers: a.cfg.AWS.Peers,
	})
	if a.watcher, err = a.newWatcher(bootID); err != nil {
		_ = a.ledger.Close() // nothing was written; the first error is what matters
		return exit(exitFailure, err)
	}
	a.life = a.newLife(bootID)
	return nil
}

// openLedger takes the state directory; a dry run reads it and leaves it alone.
func (a *agent) openLedger(bootID string) (*ledger.Ledger, error) {
	if a.dry {
		ledger, err := ledger.Peek(a.cfg.StateDir)
		return ledger, stateError(a.cfg.StateDir, err)
	}
	ledger, err := ledger.Open(a.cfg.StateDir, bootID, ledger.Options{Log: a.log, Metrics: ledger.NewMetrics(a.registry)})
	return ledger, stateError(a.cfg.StateDir, err)
}

func (a *agent) listen(ctx context.Context) (*server.Server, error) {
	return server.Listen(ctx, server.Config{
		Listen: a.cfg.Listen, StatusListen: a.cfg.StatusListen, Socket: a.cfg.ControlSocket, SocketGroup: "berth",
		Build:     buildInfo(),
		Registry:  a.registry,
		Discovery: a.seen.Get,
		Stream:    a.watcher.Stream,
		Registrar: a.registrar.Snapshot,
		Follow:    a.registrar.Follow,
		Host:      a.hostStatus,
		ReloadErr: a.refusedReload,
		Checks:    a.checks,
		Control:   a.controlHandler(),
		Loops:     []server.Loop{{Name: "watcher", Beat: a.watcher.Turned}, {Name: "registrar", Beat: a.registrar.Turned}},
		Log:       a.log,
	})
}

// checks are the lines of /readyz that nobody else has.
func (a *agent) checks() []status.Check {
	ledger := status.Check{Name: "ledger", OK: true, Detail: "on disk"}
	if err := a.ledger.Err(); err != nil {
		ledger = status.Check{
			Name: "ledger", Detail: err.Error(), Change: "make room on the disk of " + a.cfg.StateDir + ", and let user berth write there",
		}
	}
	checks := []status.Check{ledger}
	if s, _ := a.notices.Snapshot(); silent(s) {
		checks = append(checks, status.Check{Name: "metadata", Detail: s.Waiting + lasting(s.Since), Change: s.Change})
	}
	if refused := a.refusedReload(); refused != nil {
		checks = append(checks, status.Check{
			Name: "configuration", Detail: "the last reload was refused, the configuration before it is in force: " + refused.Error(),
			Change: "correct the configuration and reload",
		})
	}
	return checks
}

// refusedReload is why the last reload was refused; nil: it was not.
func (a *agent) refusedReload() error {
	if err := a.reloadErr.Load(); err != nil {
		return *err
	}
	return nil
}

// silenceShown is how long the metadata service may leave a question unanswered before the status shows it: a read that
// fails now and then is nobody's concern.
const silenceShown = 10 * time.Second

// silent reports whether the metadata service leaves questions unanswered. As long as the identity is not known that is
// what blocks, and says the same.
func silent(s *host.Snapshot) bool {
	return s.Identity != nil && s.Waiting != "" && time.Since(s.Since) >= silenceShown
}

// lasting says since when something has been so; nothing of what has only just begun.
func lasting(since time.Time) string {
	d := time.Since(since)
	if d < time.Second {
		return ""
	}
	return ", for " + d.Round(time.Second).String()
}

// publish takes what the watcher wants straight to the registrar: no hop in between, and it never blocks. Wants and
// groups are of one generation of the configuration. Everybody else hears of it when it is on its way.
func (a *agent) publish(s *discovery.Snapshot) {
	defer a.seen.Set(s)
	now := a.settings.Load().of(s.Generation)
	if now == nil {
		return
	}
	a.registrar.Apply(registrar.Desired{
		Seq: s.Seq, Generation: s.Generation, Groups: registrarGroups(now.Config), Wants: s.Wants, Allotted: s.Allotted, Unknown: s.Unknown,
	})
}

func (a *agent) newWatcher(bootID string) (*discovery.Watcher, error) {
	if a.engine == nil {
		engine, err := docker.New("unix://" + a.cfg.Docker.Socket)
		if err != nil {
			return nil, err
		}
		a.engine = engine
	}
	admitted := admittedOf(a.ledger.Entries(), a.cfg.Groups, bootID)
	file := discovery.NewDrainFile(a.cfg.StateDir)
	var drains discovery.DrainStore = file
	if a.dry {
		drains = readOnly{file}
	}
	return discovery.New(a.engine, drains, a.publish, discovery.Options{
		Log: a.log, Metrics: discovery.NewMetrics(a.registry), Rules: discoveryRules(a.cfg), Generation: 1,
		Seq: sinceBoot(), Admitted: admitted, BootID: bootID, Timing: discovery.Timing{StopSurvivor: a.cfg.Drain.StopSurvivorAfter},
	})
}

// admittedOf returns which runs have been registered in this boot, by the keys of the configuration that mean their groups:
// the ledger's own key may have been renamed since, or be one of two. A boot that is not known counts as this one: the run
// itself says whether it is over.
func admittedOf(entries []ledger.Entry, groups []config.Group, bootID string) map[string][]target.Run {
	admitted := map[string][]target.Run{}
	for i := range entries {
		e := &entries[i]
		if e.BootID != bootID || e.Phase != ledger.Registered {
			continue
		}
		for _, g := range groups {
			if g.Key == e.Group.Key || g.ARN == e.Facts.ARN || g.ARN == "" && g.Name == e.Facts.Name {
				admitted[g.Key] = append(admitted[g.Key], e.Run)
			}
		}
	}
	return admitted
}

// run starts the parts and waits until all have ended. The first to end ends the others; the registrar takes longest,
// because it waits for the reply to a call in flight.
func (a *agent) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group run.Group
	group.Add(func() error { return a.hangups(ctx) }, func(error) { cancel() })
	parts := []func(context.Context) error{a.notices.Run, a.learn, a.life.run, a.watcher.Run, a.registrar.Run}
	if a.server != nil {
		parts = append(parts, a.server.Run, a.notify, a.hooks)
	}
	for _, part := range parts {
		group.Add(func() error { return part(ctx) }, func(error) { cancel() })
	}
	return group.Run()
}

// readOnly is a store of drains that forgets what it is told, and leaves the file as it is.
type readOnly struct{ file *discovery.DrainFile }

// Load reads the file.
func (r readOnly) Load() ([]discovery.Drain, error) { return r.file.Peek() }

// Save does nothing.
func (readOnly) Save([]discovery.Drain) error { return nil }

// hostStatus is what the status shows of this host.
func (a *agent) hostStatus() status.Host {
	s, _ := a.notices.Snapshot()
	h := status.Host{}
	h.CredentialsErr, h.CredentialsChange = a.registrar.CredentialsErr()
	h.Notices = s.Notices
	if s.Identity == nil {
		if h.IdentityErr, h.IdentityChange = s.Waiting, s.Change; s.Waiting != "" {
			h.IdentityErr += lasting(s.Since)
		}
		return h
	}
	h.InstanceID, h.Region, h.AvailabilityZone, h.Account = s.Identity.InstanceID, s.Identity.Region, s.Identity.AvailabilityZone, s.Identity.AccountID
	if s.Identity.PrivateIP.IsValid() {
		h.Address = s.Identity.PrivateIP.String()
	}
	return h
}

// registrarGroups is the registrar's half of the configured groups.
func registrarGroups(cfg *config.Config) []elb.Group {
	out := make([]elb.Group, len(cfg.Groups))
	for i, g := range cfg.Groups {
		out[i] = elb.Group{Key: g.Key, Name: g.Name, ARN: g.ARN, Ownership: elb.Ownership(g.Ownership), Source: g.Source}
	}
	return out
}

// discoveryRules is discovery's half of the configured groups.
func discoveryRules(cfg *config.Config) []discovery.Rule {
	out := make([]discovery.Rule, len(cfg.Groups))
	for i, g := range cfg.Groups {
		out[i] = discovery.Rule{
			Group: g.Key, Name: cmp.Or(g.ARN, g.Name), Port: g.ContainerPort, Healthy: g.RegisterWhen == config.WhenHealthy,
			DeregisterUnhealthy: g.DeregisterWhenUnhealthy, NoLabels: !g.Labels,
		}
		if c := g.Containers; c != nil {
			out[i].Match = &discovery.Match{Labels: c.Labels, Image: c.Image, Name: c.Name}
		}
	}
	return out
}
