package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/server"
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
		RunE: func(cmd *cobra.Command, args []string) error {
			return coded(c.run(cmd.Context(), args))
		},
	}
	c.agent.add(cmd)
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON (docs/http.md describes it); with --watch one line a change")
	cmd.Flags().BoolVarP(&c.watch, "watch", "w", false, "keep showing it as it changes; the load balancer is looked at often meanwhile")
	cmd.Flags().BoolVarP(&c.all, "all", "a", false, "also show containers that are left alone")
	return cmd
}

func (c *statusCommand) run(ctx context.Context, refs []string) error {
	client := c.agent.client(c.env.getenv)
	defer client.Close()
	if c.watch {
		return c.follow(ctx, client, refs)
	}
	s, err := client.Status(ctx, server.StatusQuery{})
	if err != nil {
		return err
	}
	if err := selectRows(&s, refs); err != nil {
		return err
	}
	return c.print(c.env.stdout, &s)
}

// follow prints the status at each change until the context ends.
func (c *statusCommand) follow(ctx context.Context, client *server.Client, refs []string) error {
	show := displayOf(c.env.stdout, c.env.getenv)
	query := server.StatusQuery{Follow: []string{"*"}}
	for {
		s, err := client.Status(ctx, query)
		if err != nil {
			return interrupted(ctx, err)
		}
		changed := s.Revision != query.After
		query.After, query.Timeout = s.Revision, watchRefresh
		if err := selectRows(&s, refs); err != nil {
			return err
		}
		if changed || (show.tty && !c.asJSON) {
			if err := c.draw(show, &s); err != nil {
				return err
			}
		}
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// draw replaces what a terminal shows, in one write so that it does not flicker; elsewhere it appends.
func (c *statusCommand) draw(show display, s *server.StatusV1) error {
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

func (c *statusCommand) print(w io.Writer, s *server.StatusV1) error {
	return c.printTo(w, displayOf(w, c.env.getenv), s)
}

func (c *statusCommand) printTo(w io.Writer, show display, s *server.StatusV1) error {
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

// selectRows keeps the rows of the named containers, all where none is named.
func selectRows(s *server.StatusV1, refs []string) error {
	if len(refs) == 0 {
		return nil
	}
	kept := []server.Row{}
	for _, ref := range refs {
		rows, err := rowsOf(s.Rows, ref)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return fmt.Errorf("the agent knows no container %q: see berth status --all, docker ps", ref)
		}
		kept = append(kept, rows...)
	}
	slices.SortFunc(kept, server.Row.Compare)
	s.Rows = slices.CompactFunc(kept, func(a, b server.Row) bool { return a.Compare(b) == 0 })
	return nil
}
