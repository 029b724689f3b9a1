package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/client"
	"berth/pkg/config"
	"berth/pkg/status"
)

// stopResult is what `berth stop --json` prints of one container.
type stopResult struct {
	Container string  `json:"container"` // as it was named on the command line
	ID        string  `json:"id"`
	Outcome   string  `json:"outcome"` // stopped, kept (it runs on, as it was) or failed (Docker did not stop it)
	Why       string  `json:"why"`
	Change    string  `json:"change,omitempty"`
	Seconds   float64 `json:"seconds"`
}

// The outcomes of a stop.
const (
	outcomeStopped = "stopped"
	outcomeKept    = "kept"
	outcomeFailed  = "failed"
)

// stopCommand is `berth stop`.
type stopCommand struct {
	env     *environment
	agent   agentFlags
	leave   leaveFlags
	docker  string
	timeout int
	force   bool
	asJSON  bool

	client  *client.Client
	engine  *stopper
	report  *reporter
	stops   []*stop
	working sync.WaitGroup // stops under way at Docker
}

// stop is one container on its way.
type stop struct {
	*status.Departure
	ref   string // as it was named on the command line
	begun time.Time
	held  *client.Held
	once  sync.Once // who speaks first of the agent's going away and of the departure's end

	mu     sync.Mutex // guards result: Docker is waited for in a goroutine of its own
	result *stopResult
}

// leaveFlags are the flags of commands that wait for targets to go.
type leaveFlags struct {
	maxWait, settle time.Duration
	cmd             *cobra.Command
}

func (f *leaveFlags) add(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().DurationVar(&f.maxWait, "max-wait", 0, "the longest wait for the targets to be gone (default: drain.max_wait of the agent)")
	cmd.Flags().DurationVar(&f.settle, "settle", 0, "how long a load balancer goes on sending after it has let go (default: 10s, 180s for a Network Load Balancer)")
}

func (f *leaveFlags) check() error {
	if f.maxWait < 0 || f.settle < 0 {
		return exit(exitUsage, errors.New("--max-wait and --settle: must not be negative"))
	}
	return nil
}

// latest is when a departure is waited for no longer.
func (f *leaveFlags) latest(begun time.Time, d status.DrainedV1) time.Time {
	if f.cmd.Flags().Changed("max-wait") {
		return begun.Add(f.maxWait)
	}
	wait, ok := d.Wait()
	if !ok {
		wait = config.Default().Drain.MaxWait
	}
	return begun.Add(wait)
}

func (f *leaveFlags) settling() *time.Duration {
	if f.cmd.Flags().Changed("settle") {
		return &f.settle
	}
	return nil
}

func newStopCommand(env *environment) *cobra.Command {
	c := &stopCommand{env: env, report: newReporter(env)}
	cmd := &cobra.Command{
		Use:   "stop CONTAINER...",
		Short: "Take containers out of their target groups, then stop them",
		Long: `Deregisters every port of the containers, waits until the load balancers have let go of them and have settled (they go
on sending for a moment), and then stops them as docker stop does, with your rights: the agent only ever reads Docker.
Several containers go at the same time.

The wait ends after --max-wait in any case. A container that cannot be deregistered keeps running, and is served on,
unless --force is given. Interrupted, the command undoes what it began: containers that were not stopped yet are
registered again.

Exit codes: 0 all are stopped; 1 one is not (it is said which); 2 bad usage; 5 the agent does not answer.`,
		Example: `  berth stop web-1
  berth stop --max-wait 5m web-1 web-2`,
		Args:              needArgs("at least one container", 0),
		ValidArgsFunction: completeContainers(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd.Context(), args))
		},
	}
	c.agent.add(cmd)
	c.leave.add(cmd)
	cmd.Flags().StringVar(&c.docker, "docker-socket", "", "socket of the Docker engine (default: as configured)")
	cmd.Flags().IntVarP(&c.timeout, "time", "t", -1, "seconds that Docker gives the container after its stop signal (default: the container's own)")
	cmd.Flags().BoolVarP(&c.force, "force", "f", false, "stop also what cannot be deregistered")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print the result as JSON")
	return cmd
}

func (c *stopCommand) run(ctx context.Context, refs []string) error {
	if err := c.leave.check(); err != nil {
		return err
	}
	c.client = c.agent.client(c.env.getenv)
	defer c.client.Close()
	c.engine = newStopper(cmp.Or(c.docker, c.agent.dockerSocket(c.env.getenv)))
	defer c.engine.close()
	if err := c.engine.check(ctx); err != nil {
		return err
	}
	defer c.release()
	if err := c.takeOut(ctx, refs); err != nil {
		return err
	}
	lost := make(chan *status.Departure)
	all := &departures{report: c.report, more: lost, ended: func(d *status.Departure) { c.left(ctx, d) }}
	following, done := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	for _, s := range c.stops {
		all.all = append(all.all, s.Departure)
		watchers.Go(func() { c.watch(following, s, lost) })
	}
	err := all.follow(ctx, c.client)
	done()
	watchers.Wait()
	c.working.Wait()
	c.report.clear()
	return c.conclude(ctx, err)
}

// takeOut drains every container, or none: a name that is wrong among many stops nothing.
func (c *stopCommand) takeOut(ctx context.Context, refs []string) error {
	before, err := c.client.Status(ctx, client.StatusQuery{})
	if err != nil {
		return err
	}
	for _, ref := range refs {
		begun := time.Now()
		held, err := c.client.Hold(ctx, status.DrainRequestV1{Container: ref, Reason: "berth stop"})
		if err != nil {
			return aboutContainer(ref, err)
		}
		if slices.ContainsFunc(c.stops, func(s *stop) bool { return s.held.Run.ID == held.Run.ID }) {
			held.Release() // named twice
			continue
		}
		if held.Warning != "" {
			fmt.Fprintf(c.env.stderr, "berth: %s: %s\n", ref, status.Plain(held.Warning))
		}
		o := status.DepartureOptions{
			Before: &before, Seq: held.Seq, Latest: c.leave.latest(begun, held.DrainedV1), Settle: c.leave.settling(),
			Refusal: status.RefusalEndsAtOnce,
		}
		if c.force {
			o.Refusal = status.RefusalEndsLast
		}
		c.stops = append(c.stops, &stop{ref: ref, begun: begun, held: held, Departure: status.RunDeparture(ref, held.Run, o)})
	}
	return nil
}

// aboutContainer says of which container an answer is.
func aboutContainer(ref string, err error) error {
	var api *client.APIError
	if errors.As(err, &api) {
		return exit(exitFailure, fmt.Errorf("%s: %s", ref, status.Plain(api.Message)))
	}
	return err
}

// watch ends a departure whose drain ended with the agent: it is not being taken out any more.
func (c *stopCommand) watch(ctx context.Context, s *stop, lost chan<- *status.Departure) {
	select {
	case <-s.held.Lost:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return // the connection has ended because this command ends
	}
	s.once.Do(func() {
		s.finish(outcomeKept, "the agent went away, and the drain with it", "see: systemctl status berth; then run this again")
		select {
		case lost <- s.Departure:
		case <-ctx.Done():
		}
	})
}

// left goes on with a container that has left its groups, or will not. It does not block.
func (c *stopCommand) left(ctx context.Context, d *status.Departure) {
	i := slices.IndexFunc(c.stops, func(s *stop) bool { return s.Departure == d })
	s := c.stops[i]
	s.once.Do(func() {
		if why := d.Reason(); d.Phase() == status.StuckPhase && !c.force {
			s.finish(outcomeKept, "it cannot be deregistered: "+why.Why, status.Joined(why.Change, "it is served on; --force stops it all the same"))
			s.held.Release()
			return
		}
		c.working.Go(func() { c.halt(ctx, s) })
	})
}

// halt stops a container at Docker. Its drain outlives this process from here on, as long as that run lasts: once Docker
// has been asked, the container goes.
func (c *stopCommand) halt(ctx context.Context, s *stop) {
	why, run := s.Reason().Why, s.held.Run
	kept, err := c.client.Drain(ctx, status.DrainRequestV1{Container: run.ID, Hold: "run", Reason: "berth stop"})
	if err == nil && !kept.Run.Same(run) {
		err = errors.New("it was restarted meanwhile")
	}
	if err == nil {
		err = c.engine.stop(ctx, run.ID, c.timeout)
	}
	if err == nil {
		s.finish(outcomeStopped, why, "")
		return
	}
	if kept.Drain.ID != "" && ctx.Err() == nil {
		if _, undone := c.client.EndDrain(ctx, kept.Drain.ID); undone != nil {
			err = fmt.Errorf("%w (and its drain holds on: %w)", err, undone)
		}
	}
	s.finish(outcomeFailed, err.Error(), "it is served on if it still runs")
}

func (s *stop) finish(outcome, why, change string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result = &stopResult{
		Container: s.ref, ID: s.held.Run.ID, Outcome: outcome, Why: status.Plain(why), Change: status.Plain(change),
		Seconds: time.Since(s.begun).Round(100 * time.Millisecond).Seconds(),
	}
}

// release ends the drains that end with the command.
func (c *stopCommand) release() {
	for _, s := range c.stops {
		s.held.Release()
	}
}

// conclude prints what became of every container, and returns the command's error.
func (c *stopCommand) conclude(ctx context.Context, err error) error {
	results := make([]stopResult, 0, len(c.stops))
	var kept []string
	for _, s := range c.stops {
		if s.result == nil {
			why := "interrupted: its drain is undone"
			if ctx.Err() == nil && err != nil {
				why = err.Error()
			}
			s.finish(outcomeKept, why, "")
		}
		results = append(results, *s.result)
		if s.result.Outcome != outcomeStopped {
			kept = append(kept, s.Label()+": "+status.Joined(s.result.Why, s.result.Change))
		} else if !c.asJSON {
			fmt.Fprintf(c.env.stdout, "%s: stopped after %.0f s: %s\n", s.Label(), s.result.Seconds, s.result.Why)
		}
	}
	if c.asJSON {
		if err := json.NewEncoder(c.env.stdout).Encode(struct {
			Containers []stopResult `json:"containers"`
		}{results}); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
	}
	if len(kept) > 0 {
		return exit(exitFailure, errors.New("not stopped: "+strings.Join(kept, "\n")))
	}
	return nil
}
