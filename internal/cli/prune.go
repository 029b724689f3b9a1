package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/pkg/client"
	"berth/pkg/status"
)

// pruneCommand is `berth prune`.
type pruneCommand struct {
	env    *environment
	agent  agentFlags
	yes    bool
	asJSON bool
}

func newPruneCommand(env *environment) *cobra.Command {
	c := &pruneCommand{env: env}
	cmd := &cobra.Command{
		Use:   "prune [GROUP...]",
		Short: "Deregister targets of this host that nobody here has registered",
		Long: `Shows the targets that are registered for this host and that the agent neither registered nor adopted (berth status
lists them as unclaimed), asks, and has the agent deregister them. With groups only those of these groups. What has been
taken up by somebody meanwhile is left alone.

An autoscaling group that is attached to a target group registers the instance at the group's default port: such a
target comes back. Exit codes: 0; 1 something was left, or nobody agreed; 2 bad usage; 5 the agent does not answer.`,
		ValidArgsFunction: completeGroups(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd.Context(), args))
		},
	}
	c.agent.add(cmd)
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print the result as JSON; needs --yes")
	return cmd
}

func (c *pruneCommand) run(ctx context.Context, groups []string) error {
	if c.asJSON && !c.yes {
		return exit(exitUsage, errors.New("--json: needs --yes, because nobody is asked"))
	}
	api := c.agent.client(c.env.getenv)
	defer api.Close()
	s, err := api.Status(ctx, client.StatusQuery{})
	if err != nil {
		return err
	}
	plan, err := unclaimedIn(&s, groups)
	if err != nil {
		return err
	}
	result := status.PrunedV1{Removed: []status.GroupTargetV1{}, Left: []status.LeftV1{}}
	if len(plan) > 0 {
		if !c.asJSON {
			for _, t := range plan {
				fmt.Fprintf(c.env.stdout, "- deregister %s in %s\n", t.Target, status.Plain(t.Group))
			}
		}
		if err := c.agree(ctx, len(plan)); err != nil {
			return err
		}
		if result, err = api.Prune(ctx, status.PruneV1{Targets: plan}); err != nil {
			return err
		}
	}
	return c.conclude(&result)
}

// unclaimedIn returns the unclaimed targets of these groups, of all where none is named.
func unclaimedIn(s *status.V1, groups []string) ([]status.GroupTargetV1, error) {
	wanted := map[string]bool{}
	for _, key := range groups {
		g := status.GroupNamed(s, key)
		if g == nil {
			return nil, exit(exitUsage, fmt.Errorf("%q: the agent serves no target group of that key", key))
		}
		wanted[g.Label()] = true
	}
	var plan []status.GroupTargetV1
	for i := range s.Rows {
		if r := &s.Rows[i]; r.State == status.Unclaimed && (len(groups) == 0 || wanted[r.Group]) {
			plan = append(plan, status.GroupTargetV1{Group: r.Group, Target: r.Target})
		}
	}
	return plan, nil
}

// agree asks, unless --yes has answered already.
func (c *pruneCommand) agree(ctx context.Context, n int) error {
	if c.yes {
		return nil
	}
	if f, ok := c.env.stdin.(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
		return exit(exitUsage, errors.New("there is nobody to ask: --yes deregisters them"))
	}
	fmt.Fprintf(c.env.stdout, "Deregister %d? Whoever registered them may still need them. [y/N] ", n)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(c.env.stdin).ReadString('\n') // no answer is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(c.env.stdout)
	}
	return exit(exitFailure, errors.New("nothing was deregistered"))
}

func (c *pruneCommand) conclude(v *status.PrunedV1) error {
	if c.asJSON {
		if err := json.NewEncoder(c.env.stdout).Encode(v); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
	} else if len(v.Removed)+len(v.Left) == 0 {
		fmt.Fprintln(c.env.stdout, "nothing is unclaimed")
	} else {
		fmt.Fprintf(c.env.stdout, "%d deregistered\n", len(v.Removed))
	}
	if len(v.Left) == 0 {
		return nil
	}
	var left []string
	for _, l := range v.Left {
		left = append(left, fmt.Sprintf("%s in %s is left: %s", l.Target, l.Group, status.Plain(l.Why)))
	}
	return exit(exitFailure, errors.New(strings.Join(left, "\n")))
}
