package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"berth/internal/logs"
	"berth/pkg/agent"
	"berth/pkg/config"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/status"
	"berth/pkg/target"
)

const (
	detailedFlag = "detailed-exitcode"
	// exitChanges is the exit code of `berth plan --detailed-exitcode` where something would be changed, and of nothing else.
	exitChanges = 2
)

// planV1 is what `berth plan --json` prints.
type planV1 struct {
	Complete bool       `json:"complete"` // false: a group could not be looked at
	Changes  []changeV1 `json:"changes"`
	Groups   []groupV1  `json:"target_groups"`
}

type changeV1 struct {
	TargetGroup string `json:"target_group"`
	registrar.Pending
}

type groupV1 struct {
	Keys []string `json:"keys"` // none: it has left the configuration
	// Held are keys that name another group by now: what the group has of them is deregistered when that one has accepted it.
	Held []registrar.Held `json:"held,omitempty"`
	// Emptied reports that all that this host has in the group is deregistered: at once, or, where Held names keys, later.
	Emptied   bool            `json:"emptied,omitempty"`
	Name      string          `json:"name,omitempty"`
	ARN       string          `json:"arn,omitempty"`
	State     string          `json:"state"`
	Err       string          `json:"error,omitempty"`
	Change    string          `json:"change,omitempty"`
	Unclaimed []target.Target `json:"unclaimed,omitempty"`
	called    string
}

func newPlanCommand(env *environment) *cobra.Command {
	var asJSON, detailed bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what the agent would change now, without changing it",
		Long: `Looks at Docker, at the target groups and at the ledger as the agent does, and shows what it would register and
deregister, and why. It changes nothing, neither in AWS nor on disk, and works with and without a running agent. Where an
agent runs, what is shown is what it has still to do: nothing, unless its calls fail.

Exit codes: 0; 1 if a group or Docker could not be looked at; 2 if the configuration is wrong. With --detailed-exitcode:
0 nothing would be changed, 2 something would, 1 any error.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Flags(), env)
			if err != nil {
				code := exitUsage
				if detailed {
					code = exitFailure
				}
				return exit(code, err)
			}
			p, err := plan(cmd.Context(), cfg, env, timeout)
			if err != nil {
				return exit(exitFailure, err)
			}
			if asJSON {
				enc := json.NewEncoder(env.stdout)
				enc.SetIndent("", "  ")
				err = enc.Encode(p)
			} else {
				err = p.print(env.stdout)
			}
			switch {
			case err != nil:
				return exit(exitFailure, fmt.Errorf("print the plan: %w", err))
			case !p.Complete:
				return exit(exitFailure, errors.New("the plan is not complete"))
			case detailed && len(p.Changes) > 0:
				return &exitError{code: exitChanges}
			}
			return nil
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&detailed, detailedFlag, false, "exit with 2 if something would be changed, 1 on any error")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for Docker and AWS")
	return cmd
}

// plan runs the agent's own parts dry until every group has been looked at.
func plan(ctx context.Context, cfg *config.Config, env *environment, timeout time.Duration) (*planV1, error) {
	log, err := quietLogger(cfg, env)
	if err != nil {
		return nil, err
	}
	var p *planV1
	err = dryly(ctx, cfg, env, log, timeout, func(_ context.Context, a *agent.Core, s *registrar.Snapshot, complete bool) error {
		if stream := a.Stream(); !complete && !stream.Up {
			return fmt.Errorf("look at Docker: %s", stream.Err)
		}
		h := a.Host()
		if !complete && !s.Connected {
			return fmt.Errorf("learn this host's identity: %s; %s", h.IdentityErr, h.IdentityChange)
		}
		if h.CredentialsErr != "" {
			log.Error("no call could be made", zap.String("error", h.CredentialsErr), zap.String("change", h.CredentialsChange))
		}
		if d := a.Seen(); d != nil && len(d.Unknown) > 0 {
			log.Error("docker has not answered for containers: nothing is planned for them", zap.Strings("container_ids", d.Unknown))
		}
		p = planOf(s, complete)
		return nil
	})
	return p, err
}

// quietLogger says only what goes wrong, unless more was asked for: what is shown says it all.
func quietLogger(cfg *config.Config, env *environment) (*zap.Logger, error) {
	level := cfg.Log.Level
	if level == config.Default().Log.Level {
		level = "error"
	}
	log, _, err := logs.New(env.stderr, level, cfg.Log.Format)
	return log, err
}

// dryly runs the agent's own parts dry.
func dryly(
	ctx context.Context, cfg *config.Config, env *environment, log *zap.Logger, timeout time.Duration,
	use func(ctx context.Context, a *agent.Core, s *registrar.Snapshot, complete bool) error,
) error {
	defer func() { _ = log.Sync() }() // before anything else is printed
	a, err := agent.NewCore(ctx, agent.Options{Config: cfg, Log: log, BootID: host.BootID(), Engine: env.engine, DryRun: true})
	if err != nil {
		return exit(exitOf(err), err)
	}
	return a.Try(ctx, timeout, func(ctx context.Context, s *registrar.Snapshot, complete bool) error { return use(ctx, a, s, complete) })
}

// usageCode is the exit code of a wrong command line of cmd, given args: exitUsage, unless that was asked to mean that
// something would be changed. What is wrong may come first, so that the flag was not parsed.
func usageCode(cmd *cobra.Command, args []string) int {
	code := exitUsage
	if cmd.Name() != "plan" {
		return code
	}
	for _, arg := range args {
		name, value, given := strings.Cut(arg, "=")
		switch {
		case arg == "--":
			return code
		case name != "--"+detailedFlag:
			continue
		}
		code = exitFailure
		if on, err := strconv.ParseBool(value); given && err == nil && !on {
			code = exitUsage
		}
	}
	return code
}

func planOf(s *registrar.Snapshot, complete bool) *planV1 {
	p := &planV1{Complete: complete, Changes: []changeV1{}, Groups: []groupV1{}}
	for _, g := range s.Groups {
		name := g.Name
		if len(g.Keys) > 0 {
			name = g.Keys[0]
		}
		for _, change := range g.Pending {
			p.Changes = append(p.Changes, changeV1{TargetGroup: name, Pending: change})
		}
		if g.State != registrar.StateOK {
			p.Complete = false
		}
		p.Groups = append(p.Groups, groupV1{
			Keys: g.Keys, Held: g.Held, Emptied: len(g.Keys) == 0 && len(g.Targets) > 0, Name: g.Name, ARN: g.ARN, State: g.State, Err: g.Err, Change: g.Change, Unclaimed: g.Unclaimed,
			called: status.GroupLabel(&g),
		})
	}
	return p
}

// label is what people call the group: its keys, or its name in AWS once it has left the configuration.
func (g *groupV1) label() string { return cmp.Or(strings.Join(g.Keys, ", "), g.called, g.Name, g.ARN) }

// print writes the plan for people: one line a change, + to register, - to deregister.
func (p *planV1) print(w io.Writer) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	add, remove := 0, 0
	for _, c := range p.Changes {
		sign := "+"
		if c.Operation == registrar.PendingDeregister {
			sign = "-"
			remove++
		} else {
			add++
		}
		line("%s %s %s in %s: %s", sign, c.Operation, c.Target, c.TargetGroup, status.Plain(c.Why))
	}
	for _, g := range p.Groups {
		if g.Emptied && len(g.Held) == 0 {
			line("  %s is emptied: the configuration does not name it any more", g.label())
		}
		for _, h := range g.Held {
			line("  %s is emptied of what is of %s, but not before another group has accepted it: %s", g.label(), h.Key, status.Plain(h.Why))
		}
		for _, t := range g.Unclaimed {
			line("  %s in %s is unclaimed: nobody here knows who registered it; berth prune removes it", t, g.label())
		}
		if g.State != registrar.StateOK {
			line("! %s: %s: %s", g.label(), g.State, status.Plain(g.Err))
			if g.Change != "" {
				line("  → %s", status.Plain(g.Change))
			}
		}
	}
	line("%d to register, %d to deregister", add, remove)
	return err
}
