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
	For        status.Goal `json:"for"`
	Reached    bool        `json:"reached"`
	Containers []*awaited  `json:"containers"`
}

// goalDrained is the goal of a departure; the others are those of an arrival.
const goalDrained status.Goal = "drained"

// awaited is what is known of one container while it is waited for.
type awaited struct {
	Container string         `json:"container"` // as it was named on the command line
	Outcome   status.Outcome `json:"outcome"`
	Why       string         `json:"why"`
	Change    string         `json:"change,omitempty"`
	Rows      []status.Row   `json:"rows"`

	group     string            // alone of which it is asked; empty: all
	arrival   *status.Arrival   // nil where it is to be drained
	departure *status.Departure // nil where it is not
}

func newAwaited(ref, group string, goal status.Goal) *awaited {
	w := &awaited{Container: ref, Outcome: status.Pending, Rows: []status.Row{}, group: group}
	if goal == goalDrained {
		w.departure = status.NamedDeparture(ref, group)
	} else {
		w.arrival = status.NamedArrival(ref, group, goal, host.PortRange())
	}
	return w
}

// label is what messages call it.
func (w *awaited) label() string {
	if w.departure != nil {
		return w.departure.Label()
	}
	return w.arrival.Label()
}

func (w *awaited) sentence() string { return status.Joined(w.Why, w.Change) }

// judge brings it up to date, and returns when it may change by time alone. Its error is about the name.
func (w *awaited) judge(s *status.V1, now time.Time) (next time.Time, err error) {
	rows, err := status.RowsIn(s.Rows, w.Container, w.group)
	if err != nil {
		return time.Time{}, err
	}
	w.Rows = nonNil(rows)
	var why status.Reason
	if w.departure != nil {
		var phase status.DeparturePhase
		phase, next = w.departure.Judge(s, now)
		why, w.Outcome = w.departure.Reason(), outcomeOf(phase)
	} else {
		w.Outcome, next = w.arrival.Judge(s, now)
		why = w.arrival.Reason()
	}
	w.Why, w.Change = why.Why, why.Change
	return next, nil
}

func outcomeOf(phase status.DeparturePhase) status.Outcome {
	switch phase {
	case status.GonePhase:
		return status.Reached
	case status.UnknownPhase:
		return status.Never
	default:
		return status.Pending
	}
}

// waitCommand is `berth wait`.
type waitCommand struct {
	env     *environment
	agent   agentFlags
	goal    string
	group   string
	timeout time.Duration
	asJSON  bool

	containers []*awaited
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

The load balancer is asked often meanwhile, if the control socket can be used. Exit codes: 0 reached; 1 the time is over
(the last reason is printed); 2 bad usage; 4 it can never be reached: the container asks for no target group, asks for
what cannot be done, or does not exist; 5 the agent does not answer.`,
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
		[]string{string(status.GoalRegistered), string(status.GoalHealthy), string(goalDrained)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *waitCommand) run(ctx context.Context, refs []string) error {
	if !slices.Contains([]status.Goal{status.GoalRegistered, status.GoalHealthy, goalDrained}, status.Goal(c.goal)) {
		return &exitError{exitUsage, fmt.Errorf("--for %q: must be registered, healthy or drained", c.goal)}
	}
	if c.timeout <= 0 {
		return &exitError{exitUsage, fmt.Errorf("--timeout %s: must be more than 0", c.timeout)}
	}
	for _, ref := range slices.Compact(slices.Sorted(slices.Values(refs))) {
		c.containers = append(c.containers, newAwaited(ref, c.group, status.Goal(c.goal)))
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
	answered, unfollowed := false, false
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
			c.report.clear()
			c.env.sayUnfollowed(api, &unfollowed)
			c.report.forget("agent")
			done, next, err := c.judgeAll(&s, deadline)
			if done || err != nil {
				return err
			}
			query = client.StatusQuery{Follow: c.groups(), After: s.Revision, Timeout: waitUntil(next)}
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

// judgeAll brings every container up to date, and reports whether all have reached the goal, or else when one may by time
// alone; zero: never.
func (c *waitCommand) judgeAll(s *status.V1, deadline time.Time) (done bool, next time.Time, err error) {
	done = true
	now := time.Now()
	for _, p := range c.containers {
		change, err := p.judge(s, now)
		if err != nil {
			return false, next, err
		}
		next = status.Sooner(next, change)
		c.report.say(p.label(), p.Why, deadline)
		switch p.Outcome {
		case status.Pending:
			done = false
		case status.Never:
			return false, next, &exitError{exitNever, fmt.Errorf("%s can never be %s: %s", p.label(), c.goal, p.sentence())}
		case status.Reached:
		}
	}
	return done, next, nil
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
			late = append(late, fmt.Sprintf("%s: %s", p.label(), cmp.Or(p.sentence(), "the agent has not answered")))
		}
	}
	return fmt.Errorf("not %s after %s: %s", c.goal, c.timeout, strings.Join(late, "\n"))
}

// result prints where every container stands in the end.
func (c *waitCommand) result() error {
	all := !slices.ContainsFunc(c.containers, func(p *awaited) bool { return p.Outcome != status.Reached })
	if c.asJSON {
		return json.NewEncoder(c.env.stdout).Encode(waitResult{For: status.Goal(c.goal), Reached: all, Containers: c.containers})
	}
	for _, p := range c.containers {
		if p.Outcome != status.Reached {
			continue
		}
		if _, err := fmt.Fprintf(c.env.stdout, "%s: %s\n", p.label(), p.Why); err != nil {
			return err
		}
	}
	return nil
}
