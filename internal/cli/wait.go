package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/client"
	"berth/pkg/host"
	"berth/pkg/status"
)

const (
	// pollPause is the least time between two questions.
	pollPause = 200 * time.Millisecond
	// pollWait is how long one question waits for a change. It is short enough for the time left to be right.
	pollWait = 2 * time.Second
)

// waitResult is what `berth wait --json` prints.
type waitResult struct {
	For        status.Goal        `json:"for"`
	Reached    bool               `json:"reached"`
	Containers []*status.Progress `json:"containers"`
}

// waitCommand is `berth wait`.
type waitCommand struct {
	env     *environment
	agent   agentFlags
	goal    string
	group   string
	timeout time.Duration
	asJSON  bool

	containers []*status.Progress
	report     *reporter
}

func newWaitCommand(env *environment) *cobra.Command {
	c := &waitCommand{env: env, report: newReporter(env)}
	cmd := &cobra.Command{
		Use:   "wait CONTAINER...",
		Short: "Wait until containers are registered, healthy, or drained",
		Long: `Waits until every port of every named container has reached the goal:

  registered  the load balancer has it
  healthy     it passes the load balancer's health checks
  drained     the load balancer has let go of it: nothing is registered and its open requests have ended

The load balancer is asked often meanwhile. Exit codes: 0 reached; 1 the time is over (the last reason is printed);
2 bad usage; 4 it can never be reached: the container asks for no target group, asks for what cannot be done, or does
not exist; 5 the agent does not answer.`,
		Args:              needArgs("at least one container", 0),
		ValidArgsFunction: completeContainers(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd.Context(), args))
		},
	}
	c.agent.add(cmd)
	cmd.Flags().StringVar(&c.goal, "for", string(status.GoalHealthy), "registered, healthy or drained")
	cmd.Flags().StringVar(&c.group, "group", "", "look at this target group alone")
	cmd.Flags().DurationVar(&c.timeout, "timeout", 5*time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print the result as JSON")
	_ = cmd.RegisterFlagCompletionFunc("group", completeGroups(env))  // as below
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions( // fails only for a flag that does not exist
		[]string{string(status.GoalRegistered), string(status.GoalHealthy), string(status.GoalDrained)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *waitCommand) run(ctx context.Context, refs []string) error {
	if !slices.Contains([]status.Goal{status.GoalRegistered, status.GoalHealthy, status.GoalDrained}, status.Goal(c.goal)) {
		return &exitError{exitUsage, fmt.Errorf("--for %q: must be registered, healthy or drained", c.goal)}
	}
	if c.timeout <= 0 {
		return &exitError{exitUsage, fmt.Errorf("--timeout %s: must be more than 0", c.timeout)}
	}
	for _, ref := range slices.Compact(slices.Sorted(slices.Values(refs))) {
		c.containers = append(c.containers, &status.Progress{Container: ref, Outcome: status.Pending, Rows: []status.Row{}, Ports: host.PortRange()})
	}
	client := c.agent.client(c.env.getenv)
	defer client.Close()
	timed, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err := c.poll(timed, client)
	c.report.clear()
	switch {
	case ctx.Err() != nil:
		return &exitError{exitFailure, errors.New("interrupted before the goal was reached")}
	case errors.Is(err, context.DeadlineExceeded):
		err = &exitError{exitFailure, c.overdue()}
	}
	return errors.Join(err, c.result())
}

// poll asks until every container has reached the goal (nil), one never will (an exitError), the agent cannot be asked
// from the start, or ctx ends.
func (c *waitCommand) poll(ctx context.Context, api *client.Client) error {
	var query client.StatusQuery
	deadline, _ := ctx.Deadline()
	answered := false
	for {
		s, err := api.Status(ctx, query)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !answered && !busy(err):
			return err
		case err != nil:
			// The agent is being restarted or has too many clients: what was asked still holds.
			query.After = ""
			c.report.say("agent", "the agent does not answer; trying again: "+err.Error(), deadline)
		default:
			answered = true
			c.report.forget("agent")
			done, err := c.judgeAll(&s, deadline)
			if done || err != nil {
				return err
			}
			query = client.StatusQuery{Follow: c.groups(), After: s.Revision, Timeout: pollWait}
		}
		select {
		case <-time.After(pollPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// busy reports whether the agent answered that it has too many clients.
func busy(err error) bool {
	var api *client.APIError
	return errors.As(err, &api) && api.Status == http.StatusServiceUnavailable
}

// judgeAll brings every container's progress up to date, and reports whether all have reached the goal.
func (c *waitCommand) judgeAll(s *status.V1, deadline time.Time) (bool, error) {
	done := true
	for _, p := range c.containers {
		if err := p.Judge(s, status.Goal(c.goal), c.group); err != nil {
			return false, err
		}
		c.report.say(p.Label(), p.Why, deadline)
		switch p.Outcome {
		case status.Pending:
			done = false
		case status.Never:
			return false, &exitError{exitNever, fmt.Errorf("%s can never be %s: %s", p.Label(), c.goal, p.Sentence())}
		case status.Reached:
		}
	}
	return done, nil
}

// groups are the groups that the containers are in, to be followed.
func (c *waitCommand) groups() []string {
	var groups []string
	for _, p := range c.containers {
		for i := range p.Rows {
			if g := p.Rows[i].Group; g != "" {
				groups = append(groups, g)
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(groups)))
}

// overdue says what had not been reached when the time was over.
func (c *waitCommand) overdue() error {
	var late []string
	for _, p := range c.containers {
		if p.Outcome != status.Reached {
			late = append(late, fmt.Sprintf("%s: %s", p.Label(), cmp.Or(p.Sentence(), "the agent has not answered")))
		}
	}
	return fmt.Errorf("not %s after %s: %s", c.goal, c.timeout, strings.Join(late, "\n"))
}

// result prints where every container stands in the end.
func (c *waitCommand) result() error {
	all := !slices.ContainsFunc(c.containers, func(p *status.Progress) bool { return p.Outcome != status.Reached })
	if c.asJSON {
		return json.NewEncoder(c.env.stdout).Encode(waitResult{For: status.Goal(c.goal), Reached: all, Containers: c.containers})
	}
	for _, p := range c.containers {
		if p.Outcome != status.Reached {
			continue
		}
		if _, err := fmt.Fprintf(c.env.stdout, "%s: %s\n", p.Label(), p.Why); err != nil {
			return err
		}
	}
	return nil
}
