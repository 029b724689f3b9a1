package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/client"
	"berth/pkg/status"
)

const (
	// watchRefresh is how often a watched table is drawn again when nothing changes, for its ages.
	watchRefresh = 5 * time.Second
	// watchPause is the least time between two answers: a deploy of many containers changes the state many times a
	// second.
	watchPause = 250 * time.Millisecond
)

// statusCommand is `berth status`.
type statusCommand struct {
	env    *environment
	agent  agentFlags
	asJSON bool
	watch  bool
	all    bool
}

func newStatusCommand(env *environment) *cobra.Command {
	c := &statusCommand{env: env}
	cmd := &cobra.Command{
		Use:   "status [CONTAINER...]",
		Short: "Show every target of this host, its state, and why",
		Long: `Shows one line for each port of each container in each target group: its target, what the load balancer says of it,
since when, and why it is not registered if it is not. Above it stands what is wrong with the host as a whole.

Containers are named by name, id, or the beginning of an id. Without --all, containers that are left alone, because
they ask for no target group or do not run, are only counted. Exit codes: 0 the agent answered; 1 a named container is
unknown; 5 the agent does not answer.`,
		ValidArgsFunction: completeContainers(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd.Context(), args))
		},
	}
	c.agent.add(cmd)
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON (docs/http.md describes it); with --watch one line a change")
	cmd.Flags().BoolVarP(&c.watch, "watch", "w", false, "keep showing it as it changes; over the control socket, the load balancer is looked at often meanwhile")
	cmd.Flags().BoolVarP(&c.all, "all", "a", false, "also show containers that are left alone")
	return cmd
}

func (c *statusCommand) run(ctx context.Context, refs []string) error {
	api := c.agent.client(c.env.getenv)
	defer api.Close()
	if c.watch {
		return c.follow(ctx, api, refs)
	}
	s, err := api.Status(ctx, client.StatusQuery{})
	if err != nil {
		return err
	}
	if s.Rows, err = selectRows(s.Rows, refs); err != nil {
		return err
	}
	return c.print(c.env.stdout, &s)
}

// follow prints the status at each change until the context ends. Once it has been answered it outlives the agent:
// during an upgrade is when one watches.
func (c *statusCommand) follow(ctx context.Context, api *client.Client, refs []string) error {
	show := displayOf(c.env.stdout, c.env.getenv)
	query := client.StatusQuery{Follow: []string{"*"}}
	answered, lost, unfollowed := false, false, false
	for {
		s, err := api.Status(ctx, query)
		switch {
		case ended(ctx):
			return nil
		case err != nil && !answered:
			return err
		case err != nil:
			if !lost {
				_, _ = fmt.Fprintf(c.env.stderr, "berth: %v; trying again\n", err) // what is shown is what matters
			}
			lost, query.After = true, ""
		default:
			c.env.sayUnfollowed(api, &unfollowed)
			if err := c.redraw(show, s, refs, !answered || s.Revision != query.After); err != nil {
				return err
			}
			answered, lost = true, false
			query.After, query.Timeout = s.Revision, watchRefresh
		}
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// ended reports whether whoever watches has had enough.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

// redraw shows a status that has changed; on a terminal one that has not, too, for its ages.
func (c *statusCommand) redraw(show display, s status.V1, refs []string, changed bool) error {
	if !changed && (!show.tty || c.asJSON) {
		return nil
	}
	// A container that is named and not there (any more) leaves an empty table, and does not end the watching.
	rows, err := selectRows(s.Rows, refs)
	if err != nil && !errors.Is(err, errUnknown) {
		return err
	}
	s.Rows = rows
	return c.draw(show, &s)
}

// draw replaces what a terminal shows, in one write so that it does not flicker; elsewhere it appends.
func (c *statusCommand) draw(show display, s *status.V1) error {
	var frame bytes.Buffer
	if show.tty && !c.asJSON {
		frame.WriteString("\x1b[H\x1b[2J")
	}
	if err := c.printTo(&frame, show, s); err != nil {
		return err
	}
	if !show.tty && !c.asJSON {
		frame.WriteByte('\n')
	}
	_, err := c.env.stdout.Write(frame.Bytes())
	return err
}

func (c *statusCommand) print(w io.Writer, s *status.V1) error {
	return c.printTo(w, displayOf(w, c.env.getenv), s)
}

func (c *statusCommand) printTo(w io.Writer, show display, s *status.V1) error {
	if c.asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	t := &table{w: w, show: show, now: s.At}
	t.header(s)
	rows, hidden := visible(s.Rows, c.all)
	if len(rows) > 0 {
		t.rows(rows, s.Host.InstanceID)
	} else {
		t.printf("no container asks for a target group; label one (docker run -P -l berth.targets=GROUP ...), or write a rule\n")
	}
	t.footer(hidden)
	return t.err
}

// errUnknown says that the agent knows no container of a name.
var errUnknown = errors.New("see berth status --all, docker ps")

// selectRows returns the rows of the named containers, all where none is named. With an error that wraps errUnknown it
// returns those that it has found.
func selectRows(all []status.Row, refs []string) ([]status.Row, error) {
	if len(refs) == 0 {
		return all, nil
	}
	kept := []status.Row{}
	var unknown error
	for _, ref := range refs {
		rows, err := status.RowsOf(all, ref)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			unknown = errors.Join(unknown, fmt.Errorf("the agent knows no container %q: %w", ref, errUnknown))
		}
		kept = append(kept, rows...)
	}
	slices.SortFunc(kept, status.Row.Compare)
	return slices.CompactFunc(kept, func(a, b status.Row) bool { return a.Compare(b) == 0 }), unknown
}
