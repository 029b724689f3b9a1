package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"berth/internal/logs"
	"berth/internal/statedir"
	"berth/pkg/agent"
	"berth/pkg/config"
	"berth/pkg/host"
	"berth/pkg/registrar/ledger"
)

// bootTime is how long `berth boot` tries at most. berth-boot.service holds Docker's start up for that long, and ends
// the command after 15 s: a call that was begun has its 3 s.
const bootTime = 11 * time.Second

func newBootCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "boot",
		Short: "Deregister what an earlier boot had registered, before Docker starts",
		Long: `Deregisters every target that the ledger holds of an earlier boot, from the ledger alone, and says what it did.

After a reboot Docker gives the same host ports to other containers. A target that is still registered from before would
send them one another's traffic, and its health checks may pass. berth-boot.service runs this before docker.service; with
nothing to do it ends at once, without asking anybody. What cannot be removed in time is left to the agent. Targets of
another region are named and left alone: the agent does not remove them either. Where the kernel's boot id cannot be read,
all that is registered counts as of an earlier boot: do not run it there while containers serve.

Exit codes: 0 nothing of this region is left of an earlier boot; 1 something is; 2 the configuration is wrong; 3 the agent runs.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			env.unattended()
			cfg, wrong := loadConfig(cmd.Flags(), env)
			if wrong != nil {
				// What is registered goes, whatever is configured by now: Docker does not wait for a typo to be mended.
				cfg = config.Default()
				cfg.StateDir = unconfiguredStateDir(env)
				if f := cmd.Flags().Lookup("state-dir"); f != nil && f.Changed {
					cfg.StateDir = f.Value.String()
				}
				what := "the configuration is wrong"
				if errors.Is(wrong, config.ErrNoGroups) {
					what = "no target group is configured"
				}
				env.say(zapcore.WarnLevel, "berth: %s, working from the ledger in %s alone", what, cfg.StateDir)
			}
			err := boot(cmd.Context(), cfg, env, host.BootID())
			if wrong != nil && !errors.Is(wrong, config.ErrNoGroups) {
				return exit(exitUsage, errors.Join(wrong, err))
			}
			return err
		},
	}
	addConfigFlags(cmd.Flags())
	return cmd
}

func boot(ctx context.Context, cfg *config.Config, env *environment, bootID string) error {
	log, _, err := logs.New(env.stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return exit(exitUsage, err)
	}
	defer logs.TakeStandard(log)()
	defer func() { _ = log.Sync() }() // before the last words
	if kept, err := ledger.Peek(cfg.StateDir); err == nil && len(ledger.Stale(kept.Entries(), bootID)) == 0 {
		fmt.Fprintln(env.stdout, "nothing is registered from an earlier boot")
		return nil
	}
	if bootID == "" {
		log.Warn("kernel does not tell its boot id: all that is registered counts as an earlier boot's")
	}
	ledger, err := ledger.Open(cfg.StateDir, bootID, ledger.Options{Log: log})
	if errors.Is(err, statedir.ErrLocked) {
		return exit(exitLocked, err)
	} else if err != nil {
		return exit(exitFailure, statedir.Advise(cfg.StateDir, err))
	}
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	removed, _, err := agent.RemoveStale(ctx, cfg, ledger, log, bootID)
	if closing := ledger.Close(); closing != nil {
		log.Warn("ledger is not complete on disk", zap.Error(closing))
	}
	fmt.Fprintf(env.stdout, "deregistered %d targets of an earlier boot\n", removed)
	switch {
	case errors.Is(err, host.ErrContradiction):
		return exit(exitUsage, err)
	case err != nil:
		return exit(exitFailure, fmt.Errorf("%w; the agent removes what is left", err))
	}
	return nil
}
