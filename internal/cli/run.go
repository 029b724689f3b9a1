package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/oklog/run"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"berth/internal/logs"
	"berth/internal/statedir"
	"berth/pkg/agent"
	"berth/pkg/config"
	"berth/pkg/host"
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

// runAgent runs the daemon until ctx ends, and returns an error that carries the exit code.
func runAgent(ctx context.Context, read func() (*config.Config, error), dry bool, env *environment) error {
	out := env.unattended()
	cfg, err := read()
	if err != nil {
		return exit(exitUsage, err)
	}
	log, level, err := logs.New(out, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return exit(exitUsage, err)
	}
	defer logs.TakeStandard(log)()
	a, err := agent.New(ctx, agent.Options{
		Config: cfg, Read: read, Log: log, Level: level, Build: env.build.info(), DryRun: dry, BootID: host.BootID(), Engine: env.engine,
		LogDropped: out.Dropped,
	})
	if err != nil {
		return exit(exitOf(err), err)
	}
	log.Info("agent started", zap.String("version", env.build.Version), zap.Int("target_groups", len(cfg.Groups)),
		zap.Strings("files", cfg.Files), zap.Bool("dry_run", dry))
	err = reloading(ctx, a)
	if closing := a.Close(); closing != nil {
		log.Warn("ledger is not complete on disk", zap.Error(closing))
	}
	if err != nil {
		return exit(exitOf(err), err)
	}
	log.Info("agent stopped; its targets stay registered")
	return nil
}

// reloading runs the agent until ctx ends, and has it reload with each SIGHUP meanwhile. Whoever wants an answer asks with
// `berth reload`.
func reloading(ctx context.Context, a *agent.Agent) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group run.Group
	group.Add(func() error { return a.Run(ctx) }, func(error) { cancel() })
	group.Add(func() error {
		for {
			select {
			case <-signals:
				_ = a.Reload(ctx) // it has said so
			case <-ctx.Done():
				return nil
			}
		}
	}, func(error) { cancel() })
	return group.Run()
}

// exitOf is the exit code of an error of the agent.
func exitOf(err error) int {
	var wrong *agent.ConfigError
	switch {
	case errors.Is(err, statedir.ErrLocked):
		return exitLocked
	case errors.As(err, &wrong), errors.Is(err, host.ErrContradiction), errors.Is(err, host.ErrDisabled):
		return exitUsage
	default:
		return exitFailure
	}
}
