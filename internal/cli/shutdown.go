package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"berth/internal/logs"
	"berth/internal/statedir"
	"berth/pkg/agent"
	"berth/pkg/client"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/host"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
)

const (
	// answerPatience is how long the agent may take to say that it is there, or still there, before the ledger has to do.
	answerPatience = 5 * time.Second
	// removalShare is the part of the longest wait in which the ledger's targets are deregistered; the rest is for the
	// load balancers to settle.
	removalShare = 2
	// removalLeast is given to the removal in any case: an agent that dies in the last moment leaves no time, and a target
	// that is left behind is worse than a shutdown that takes some seconds longer.
	removalLeast = 5 * time.Second
	// sightShare is the part of the longest wait in which an agent that has just been started must be able to call AWS.
	sightShare = 3
)

// shutdownDrain is `berth shutdown-drain`.
type shutdownDrain struct {
	env   *environment
	agent agentFlags
	state func(context.Context) string // what systemd says of itself
	// settle waits until load balancers have settled, or ctx ends.
	settle func(ctx context.Context, d time.Duration)
}

func newShutdownDrainCommand(env *environment) *cobra.Command {
	c := &shutdownDrain{env: env, state: systemState, settle: sleep}
	cmd := &cobra.Command{
		Use:    "shutdown-drain",
		Short:  "Take the host out of its target groups while it shuts down",
		Hidden: true, // it is berth-drain.service's
		Long: `Drains the host for the rest of this boot and waits until the load balancers have let go, at most
drain.shutdown_max_wait, and not beyond 10 s before the time of a spot notice. Where no agent answers, or it falls silent
for 5 s, or it cannot call AWS in time, it deregisters what the ledger holds.

berth-drain.service runs it when that unit is stopped. It does nothing unless the system is stopping: no other end of the
unit is a reason to drain. Whoever wants to drain a host that stays up uses berth drain.

Exit codes: 0 the load balancers have let go, or the system is not stopping; 1 something is still registered.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			env.unattended()
			return coded(c.run(cmd.Context()))
		},
	}
	c.agent.add(cmd)
	return cmd
}

// systemState is what `systemctl is-system-running` prints; empty where it cannot be asked.
func systemState(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "systemctl", "is-system-running").Output() // anything but running is a failure to it
	return strings.TrimSpace(string(out))
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// stays reports whether a system in this state goes on. Where the state is not known it does not: the unit cannot be
// stopped by hand, so that its stop is the end of the host as good as always, and a drain too many ends with the boot.
func stays(state string) bool {
	return slices.Contains([]string{"initializing", "starting", "running", "degraded", "maintenance"}, state)
}

func (c *shutdownDrain) run(ctx context.Context) error {
	if state := c.state(ctx); stays(state) {
		fmt.Fprintf(c.env.stdout, "the system is %s, not stopping: nothing is drained\n", state)
		return nil
	}
	cfg, err := config.Load(config.Options{ConfigPath: c.agent.config, Getenv: c.env.getenv})
	if err != nil {
		cfg = config.Default() // what is registered goes, whatever is configured by now
		cfg.StateDir = unconfiguredStateDir(c.env)
	}
	latest, err := c.byAgent(ctx, time.Now().Add(cfg.Drain.ShutdownMaxWait))
	var done *exitError
	if err == nil || errors.As(err, &done) || ctx.Err() != nil {
		return err
	}
	c.env.say(zapcore.WarnLevel, "berth: %v; working from the ledger", err)
	return c.byLedger(ctx, cfg, latest)
}

// byAgent has the running agent drain the host, by latest or when the agent says. An *exitError is its last word; any other
// says that the agent could not be had, or that it has gone, and until when the host's targets may be waited for.
func (c *shutdownDrain) byAgent(ctx context.Context, latest time.Time) (time.Time, error) {
	api := c.agent.client(c.env.getenv)
	defer api.Close()
	asking, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	before, err := api.Status(asking, client.StatusQuery{})
	if err != nil {
		return latest, err
	}
	begun := time.Now()
	latest = before.WaitEnd(begun, latest)
	drained, err := api.Drain(asking, status.DrainRequestV1{Host: true, Cause: discovery.CauseShutdown, Reason: "the host shuts down"})
	if err != nil {
		return latest, err
	}
	if wait, ok := drained.Wait(); ok {
		latest = before.WaitEnd(begun, begun.Add(wait)) // it may have been reloaded since the file was changed
	}
	d := status.HostDeparture(status.DepartureOptions{
		Before: &before, Seq: drained.Seq, Latest: latest,
		Sight: begun.Add(latest.Sub(begun) / sightShare), // the ledger needs the rest of what is left for it
	})
	report := newReporter(c.env)
	following, cancel := context.WithDeadline(ctx, latest.Add(answerPatience))
	defer cancel()
	err = (&departures{report: report, all: []*status.Departure{d}, silence: answerPatience}).follow(following, api)
	report.clear()
	switch {
	case err != nil:
		return d.Latest(), err
	case d.Phase() == status.StuckPhase && d.Blind():
		return d.Latest(), errors.New(d.Reason().Why)
	case d.Phase() == status.StuckPhase:
		return d.Latest(), exit(exitFailure, errors.New("not deregistered: "+d.Reason().Sentence()))
	}
	fmt.Fprintf(c.env.stdout, "the host is drained: %s\n", status.Plain(d.Reason().Why))
	return d.Latest(), nil
}

// byLedger deregisters what the ledger holds, and waits until the load balancers have let go.
func (c *shutdownDrain) byLedger(ctx context.Context, cfg *config.Config, latest time.Time) error {
	log, _, err := logs.New(c.env.stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return exit(exitFailure, err)
	}
	defer logs.TakeStandard(log)()
	defer func() { _ = log.Sync() }() // before the last words
	kept, err := ledger.Open(cfg.StateDir, host.BootID(), ledger.Options{Log: log})
	if err != nil {
		// An agent that hangs holds it, or the disk does not let itself be written. What is on it can be read.
		log.Warn("ledger is only read", zap.Error(err))
		kept, err = ledger.Peek(cfg.StateDir)
	}
	if err != nil {
		return exit(exitFailure, statedir.Advise(cfg.StateDir, err))
	}
	removing, cancel := context.WithTimeout(ctx, max(time.Until(latest)/removalShare, removalLeast))
	defer cancel()
	removed, settle, err := agent.RemoveStale(removing, cfg, kept, log, agent.AnyBoot)
	if closing := kept.Close(); closing != nil {
		log.Warn("ledger is not complete on disk", zap.Error(closing))
	}
	fmt.Fprintf(c.env.stdout, "deregistered %d targets\n", removed)
	if removed > 0 {
		// Nobody looks at them any more; this is how long load balancers go on sending.
		c.settle(ctx, min(settle, max(0, time.Until(latest))))
	}
	return exit(exitFailure, err)
}
