package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/agent"
	"berth/pkg/client"
	"berth/pkg/registrar"
	"berth/pkg/status"
)

// explainCommand is `berth explain`.
type explainCommand struct {
	env     *environment
	asJSON  bool
	timeout time.Duration
}

func newExplainCommand(env *environment) *cobra.Command {
	c := &explainCommand{env: env}
	cmd := &cobra.Command{
		Use:   "explain CONTAINER",
		Short: "Say step by step what becomes of a container, and why",
		Long: `Goes the way of the decision: what Docker says of the container, which target groups ask for it and why the others do
not, for each port and group what stands against it, how the target group does, and what the load balancer says. Where
something can be changed it says what.

It asks the running agent. Without one it runs the agent's own parts, changing nothing, and needs what the agent needs:
the configuration, Docker's socket, the state directory and AWS credentials.

Exit codes: 0; 1 there is no such container, or nothing could be found out; 2 bad usage or configuration.`,
		Args:              needArgs("a container", 1),
		ValidArgsFunction: completeContainers(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd, args[0]))
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON (docs/http.md describes it)")
	cmd.Flags().DurationVar(&c.timeout, "timeout", 30*time.Second, "without an agent: how long to wait for Docker and AWS")
	return cmd
}

func (c *explainCommand) run(cmd *cobra.Command, ref string) error {
	v, err := c.ask(cmd, ref)
	if errors.Is(err, client.ErrNotRunning) || errors.Is(err, client.ErrSocketDenied) {
		v, err = c.alone(cmd, ref, err)
	}
	if err != nil {
		return err
	}
	if c.asJSON {
		enc := json.NewEncoder(c.env.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return printExplained(c.env.stdout, displayOf(c.env.stdout, c.env.getenv), &v)
}

// ask asks the running agent.
func (c *explainCommand) ask(cmd *cobra.Command, ref string) (status.ExplainedV1, error) {
	var flags agentFlags
	for name, to := range map[string]*string{"config": &flags.config, "control-socket": &flags.socket, "status-listen": &flags.statusListen} {
		var err error
		if *to, err = cmd.Flags().GetString(name); err != nil {
			return status.ExplainedV1{}, fmt.Errorf("read --%s: %w", name, err)
		}
	}
	client := flags.client(c.env.getenv)
	defer client.Close()
	v, err := client.Explain(cmd.Context(), ref)
	if err != nil {
		return v, aboutContainer(ref, err)
	}
	return v, nil
}

// alone runs the agent's own parts dry: noAgent says why there is nobody to ask.
func (c *explainCommand) alone(cmd *cobra.Command, ref string, noAgent error) (status.ExplainedV1, error) {
	var v status.ExplainedV1
	cfg, err := loadConfig(cmd.Flags(), c.env)
	if err != nil {
		return v, exit(exitUsage, fmt.Errorf("%w\n%w", noAgent, err))
	}
	fmt.Fprintf(c.env.stderr, "berth: %v; looking without it\n", noAgent)
	log, err := quietLogger(cfg, c.env)
	if err != nil {
		return v, err
	}
	err = dryly(cmd.Context(), cfg, c.env, log, c.timeout, func(ctx context.Context, a *agent.Core, _ *registrar.Snapshot, _ bool) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var err error
		if v, err = a.Explain(ctx, ref); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
		return nil
	})
	return v, err
}

// marks are what an outcome looks like.
var marks = map[string]string{status.StepOK: "ok  ", status.StepWait: "wait", status.StepStop: "stop"}

// printExplained writes the steps for people, and under those that lead no further what to change.
func printExplained(w io.Writer, show display, v *status.ExplainedV1) error {
	t := &table{w: w, show: show}
	t.printf("%s (%s)\n", status.Plain(v.Run.String()), v.Run.Short())
	for _, s := range v.Steps {
		where := s.About
		if s.Group != "" {
			where += " " + s.Group
			if s.ContainerPort.Port != 0 {
				where += ":" + s.ContainerPort.String()
			}
		}
		state := map[string]string{status.StepOK: string(status.Healthy), status.StepWait: string(status.Initial), status.StepStop: string(status.Refused)}[s.Outcome]
		t.printf("[%s] ", t.paint(state, marks[s.Outcome]))
		t.hanging(status.Plain(where+": "+s.Why), "       ")
		if s.Change != "" {
			t.printf("       ")
			t.hanging("→ "+status.Plain(s.Change), "         ")
		}
	}
	return t.err
}

// hanging writes text whose first line has begun already at the width of the indentation of the others.
func (t *table) hanging(text, indent string) {
	width := 0
	if t.show.width > 0 {
		width = max(minWhy, t.show.width-len(indent))
	}
	for i, line := range wrap(text, width) {
		if i > 0 {
			t.printf("%s", indent)
		}
		t.printf("%s\n", line)
	}
}
