package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/client"
	"berth/pkg/discovery"
	"berth/pkg/status"
	"berth/pkg/target"
)

// actPatience is how long `berth drain` and `berth undrain` wait for the target groups to act on it, where nobody asked
// for more: a call or two, and the host's pace.
const actPatience = 30 * time.Second

// drainResult is what `berth drain --json` prints of one container, or of the host.
type drainResult struct {
	Container string                `json:"container,omitempty"` // as it was named; empty: the host
	Run       target.Run            `json:"run,omitzero"`
	Drain     status.DrainV1        `json:"drain"`
	Seq       uint64                `json:"seq"`
	Phase     status.DeparturePhase `json:"phase"`
	Why       string                `json:"why"`
	Change    string                `json:"change,omitempty"`
}

// drainCommand is `berth drain`.
type drainCommand struct {
	env    *environment
	agent  agentFlags
	leave  leaveFlags
	all    bool
	wait   bool
	reason string
	asJSON bool
}

func newDrainCommand(env *environment) *cobra.Command {
	c := &drainCommand{env: env}
	cmd := &cobra.Command{
		Use:   "drain {--all | CONTAINER...}",
		Short: "Take containers, or the whole host, out of their target groups",
		Long: `Deregisters every port of the containers, or of the whole host with --all, and keeps them out until berth undrain. The
containers run on. The drain outlives restarts of the agent, of the containers and of the host; berth status shows who
drained, when and why.

A container that is given by its name is held with that name: one that takes its place under it stays out, too. Given by
its id, or the beginning of that, it is held alone.

It returns when the load balancers have been told; with --wait when they have let go, as berth stop does. Exit codes: 0;
1 something could not be deregistered (the drain holds, and the agent goes on trying); 2 bad usage; 5 the agent does
not answer.`,
		Example: `  berth drain web-1 --wait --reason "heap dump"
  berth drain --all`,
		ValidArgsFunction: completeContainers(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd.Context(), args))
		},
	}
	c.agent.add(cmd)
	c.leave.add(cmd)
	cmd.Flags().BoolVar(&c.all, "all", false, "the whole host: what runs, and what will be started")
	cmd.Flags().BoolVarP(&c.wait, "wait", "w", false, "wait until the load balancers have let go and have settled")
	cmd.Flags().StringVar(&c.reason, "reason", "", "what for: berth status shows it")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print the result as JSON")
	return cmd
}

// oneOf refuses a command line that names neither or both of the host and containers.
func oneOf(all bool, refs []string) error {
	if all == (len(refs) > 0) {
		return exit(exitUsage, errors.New("either containers or --all (the whole host) must be given"))
	}
	return nil
}

func (c *drainCommand) run(ctx context.Context, refs []string) error {
	if err := errors.Join(oneOf(c.all, refs), c.leave.check()); err != nil {
		return exit(exitUsage, err)
	}
	api := c.agent.client(c.env.getenv)
	defer api.Close()
	before, err := api.Status(ctx, client.StatusQuery{})
	if err != nil {
		return err
	}
	report := newReporter(c.env)
	ds := &departures{report: report}
	if !c.wait {
		ds.enough = func(d *status.Departure) bool { return d.Phase() == status.DrainingPhase }
	}
	requests := []status.DrainRequestV1{{Host: true, Reason: c.reason}}
	if !c.all {
		requests = nil
		for _, ref := range refs {
			requests = append(requests, status.DrainRequestV1{Container: ref, Reason: c.reason})
		}
	}
	var results []*drainResult
	var failed error
	for _, req := range requests {
		begun := time.Now()
		drained, err := api.Drain(ctx, req)
		if err != nil {
			failed = errors.Join(failed, aboutContainer(cmpHost(req.Container), err))
			continue
		}
		if drained.Warning != "" {
			fmt.Fprintf(c.env.stderr, "berth: %s: %s\n", cmpHost(req.Container), status.Plain(drained.Warning))
		}
		o := status.DepartureOptions{
			Before: &before, Seq: drained.Seq, Latest: begun.Add(actPatience), Settle: c.leave.settling(), Refusal: status.RefusalEndsActed,
		}
		if c.wait {
			o.Latest, o.Refusal = c.leave.latest(begun, drained), status.RefusalEndsLast
		}
		d := status.HostDeparture(o)
		if !req.Host {
			d = status.RunDeparture(req.Container, drained.Run, o)
		}
		ds.all = append(ds.all, d)
		results = append(results, &drainResult{Container: req.Container, Run: drained.Run, Drain: drained.Drain, Seq: drained.Seq})
	}
	followed := ds.follow(ctx, api)
	report.clear()
	if ctx.Err() != nil {
		followed = exit(exitFailure, errors.New("interrupted; what was drained stays drained: berth undrain ends it"))
	}
	return errors.Join(failed, followed, c.conclude(ds.all, results))
}

// cmpHost names what is drained: a container, or the host.
func cmpHost(container string) string {
	if container == "" {
		return "the host"
	}
	return container
}

func (c *drainCommand) conclude(all []*status.Departure, results []*drainResult) error {
	var stuck []string
	for i, d := range all {
		r := results[i]
		why := d.Reason()
		r.Phase, r.Why, r.Change = d.Phase(), status.Plain(why.Why), status.Plain(why.Change)
		if r.Phase == status.StuckPhase || r.Phase == status.LeavingPhase {
			stuck = append(stuck, d.Label()+": not deregistered yet: "+why.Sentence())
		} else if !c.asJSON {
			fmt.Fprintf(c.env.stdout, "%s: drained: %s\n", d.Label(), r.Why)
		}
	}
	if c.asJSON {
		if err := json.NewEncoder(c.env.stdout).Encode(map[string]any{"drains": nonNil(results)}); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
	}
	if len(stuck) > 0 {
		return exit(exitFailure, errors.New(strings.Join(stuck, "\n")))
	}
	return nil
}

// nonNil makes an empty list of none, for JSON.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// undrainCommand is `berth undrain`.
type undrainCommand struct {
	env    *environment
	agent  agentFlags
	all    bool
	asJSON bool
}

func newUndrainCommand(env *environment) *cobra.Command {
	c := &undrainCommand{env: env}
	cmd := &cobra.Command{
		Use:   "undrain {--all | CONTAINER...}",
		Short: "Let containers, or the host, back into their target groups",
		Long: `Ends what berth drain began: of the containers, or of the host with --all (containers that were drained themselves stay
out). A name that was drained is given as that name, whether or not a container bears it. It returns when the target groups
have acted on it; berth wait waits for health. What nothing drains is let in already, and no error. What is drained otherwise
(the host, a stop signal, berth stop, a spot notice) stays out: it says how that ends.

Exit codes: 0; 1 it could not be ended, stays drained otherwise though nothing was ended, or the target groups have not acted
on it; 2 bad usage; 5 the agent does not answer.`,
		Example:           "  berth undrain web-1 && berth wait web-1",
		ValidArgsFunction: completeContainers(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd.Context(), args))
		},
	}
	c.agent.add(cmd)
	cmd.Flags().BoolVar(&c.all, "all", false, "the whole host")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print the result as JSON")
	return cmd
}

func (c *undrainCommand) run(ctx context.Context, refs []string) error {
	if err := oneOf(c.all, refs); err != nil {
		return err
	}
	client := c.agent.client(c.env.getenv)
	defer client.Close()
	if c.all {
		refs = []string{""}
	}
	results := []status.UndrainedV1{}
	var failed error
	var seq uint64
	ended := false
	for _, ref := range refs {
		v, err := client.Undrain(ctx, ref)
		if err != nil {
			failed = errors.Join(failed, aboutContainer(cmpHost(ref), err))
			continue
		}
		seq = max(seq, v.Seq)
		results = append(results, v)
		ended = ended || len(v.Ended) > 0
		if v.Warning != "" {
			fmt.Fprintf(c.env.stderr, "berth: %s: %s\n", cmpHost(ref), status.Plain(v.Warning))
		}
		if !c.asJSON {
			c.say(ref, &v)
		}
		if len(v.Ended) == 0 {
			for i := range v.Left {
				failed = errors.Join(failed, exit(exitFailure, errors.New(cmpHost(ref)+": "+stillDrained(&v.Left[i]))))
			}
		}
	}
	if c.asJSON {
		if err := json.NewEncoder(c.env.stdout).Encode(map[string]any{"undrained": results}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("print the result: %w", err))
		}
	}
	if ended {
		failed = errors.Join(failed, c.acted(ctx, client, seq))
	}
	return failed
}

func (c *undrainCommand) say(ref string, v *status.UndrainedV1) {
	for _, d := range v.Ended {
		by := ""
		if d.By != "" {
			by = " by " + d.By
		}
		fmt.Fprintf(c.env.stdout, "%s: the drain%s of %s is ended\n", cmpHost(ref), status.Plain(by), d.Since.Local().Format(time.DateTime))
	}
	switch {
	case len(v.Ended) > 0:
		for i := range v.Left {
			fmt.Fprintf(c.env.stdout, "%s: %s\n", cmpHost(ref), stillDrained(&v.Left[i]))
		}
	case len(v.Left) == 0:
		fmt.Fprintf(c.env.stdout, "%s: nobody has drained it\n", cmpHost(ref))
	}
}

// stillDrained says what still drains what was asked about, and how that ends.
func stillDrained(d *status.DrainV1) string {
	cause := status.Plain(d.Cause)
	switch {
	case d.Name != "":
		return fmt.Sprintf("still drained under the name %s: berth undrain %s", d.Name, d.Name)
	case d.Hold == "connection":
		what := cmp.Or(status.Plain(d.Reason), "a command")
		return "still drained: " + what + " of " + cmp.Or(status.Plain(d.By), "somebody") + " holds it, and lets go when it ends"
	case d.Cause == discovery.CauseStopSignal:
		return "still drained: it was told to stop, and is let in when it is started anew or outlives that"
	case d.Cause == discovery.CauseOperator, d.Cause == discovery.CauseShutdown:
		return "still drained with the whole host (" + cause + "): berth undrain --all"
	default:
		return "still drained: " + cause + " holds the host, and ends by itself"
	}
}

// acted waits until every group that answers has acted on a Seq.
func (c *undrainCommand) acted(ctx context.Context, api *client.Client, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, actPatience)
	defer cancel()
	wanted := status.WantsArrival(seq)
	query := client.StatusQuery{}
	for {
		s, err := api.Status(ctx, query)
		if err != nil {
			return err
		}
		outcome, next := wanted.Judge(&s, time.Now())
		if outcome == status.Reached {
			return nil
		}
		query = client.StatusQuery{After: s.Revision, Timeout: waitUntil(next)}
		select {
		case <-time.After(pollPause / 4):
		case <-ctx.Done():
			return exit(exitFailure, errors.New("the target groups have not acted on it yet; see berth status"))
		}
	}
}
