package main

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
	"berth/pkg/status"
)

// absentGrace is how long a container may be unknown to the agent: `docker run -d` returns before its events are
// read, and a container that is replaced is gone for a moment.
const absentGrace = 5 * time.Second

const (
	// pollPause is the least time between two questions.
	pollPause = 200 * time.Millisecond
	// pollWait is how long one question waits for a change. It is short enough for the time left to be right.
	pollWait = 2 * time.Second
)

// goal is what `berth wait` waits for.
type goal string

const (
	goalRegistered goal = "registered"
	goalHealthy    goal = "healthy"
	goalDrained    goal = "drained"
)

// waitResult is what `berth wait --json` prints.
type waitResult struct {
	For        goal        `json:"for"`
	Reached    bool        `json:"reached"`
	Containers []*progress `json:"containers"`
}

// waitCommand is `berth wait`.
type waitCommand struct {
	env     *environment
	agent   agentFlags
	goal    string
	group   string
	timeout time.Duration
	asJSON  bool

	containers []*progress
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
	cmd.Flags().StringVar(&c.goal, "for", string(goalHealthy), "registered, healthy or drained")
	cmd.Flags().StringVar(&c.group, "group", "", "look at this target group alone")
	cmd.Flags().DurationVar(&c.timeout, "timeout", 5*time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print the result as JSON")
	_ = cmd.RegisterFlagCompletionFunc("group", completeGroups(env))  // as below
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions( // fails only for a flag that does not exist
		[]string{string(goalRegistered), string(goalHealthy), string(goalDrained)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *waitCommand) run(ctx context.Context, refs []string) error {
	if !slices.Contains([]goal{goalRegistered, goalHealthy, goalDrained}, goal(c.goal)) {
		return &exitError{exitUsage, fmt.Errorf("--for %q: must be registered, healthy or drained", c.goal)}
	}
	if c.timeout <= 0 {
		return &exitError{exitUsage, fmt.Errorf("--timeout %s: must be more than 0", c.timeout)}
	}
	for _, ref := range slices.Compact(slices.Sorted(slices.Values(refs))) {
		c.containers = append(c.containers, &progress{Container: ref, Outcome: pending, Rows: []status.Row{}, ports: portRange()})
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
		if err := p.judge(s, goal(c.goal), c.group); err != nil {
			return false, err
		}
		c.report.say(p.label(), p.Why, deadline)
		switch p.Outcome {
		case pending:
			done = false
		case never:
			return false, &exitError{exitNever, fmt.Errorf("%s can never be %s: %s", p.label(), c.goal, p.sentence())}
		case reached:
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
		if p.Outcome != reached {
			late = append(late, fmt.Sprintf("%s: %s", p.label(), cmp.Or(p.sentence(), "the agent has not answered")))
		}
	}
	return fmt.Errorf("not %s after %s: %s", c.goal, c.timeout, strings.Join(late, "\n"))
}

// result prints where every container stands in the end.
func (c *waitCommand) result() error {
	all := !slices.ContainsFunc(c.containers, func(p *progress) bool { return p.Outcome != reached })
	if c.asJSON {
		return json.NewEncoder(c.env.stdout).Encode(waitResult{For: goal(c.goal), Reached: all, Containers: c.containers})
	}
	for _, p := range c.containers {
		if p.Outcome != reached {
			continue
		}
		if _, err := fmt.Fprintf(c.env.stdout, "%s: %s\n", p.label(), p.Why); err != nil {
			return err
		}
	}
	return nil
}
