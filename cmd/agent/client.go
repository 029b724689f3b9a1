package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"berth/pkg/client"
	"berth/pkg/config"
	"berth/pkg/status"
)

// exitNoAgent is the exit code of commands that ask the agent where none answers, or the control socket is forbidden.
const exitNoAgent = 5

// coded gives an error of a command that asks the agent its exit code, where it has none yet.
func coded(err error) error {
	var has *exitError
	var ambiguous *AmbiguousError
	switch {
	case err == nil, errors.As(err, &has):
		return err
	case errors.As(err, &ambiguous):
		return exit(exitUsage, err)
	case errors.Is(err, client.ErrNotRunning), errors.Is(err, client.ErrSocketDenied):
		return exit(exitNoAgent, err)
	default:
		return exit(exitFailure, err)
	}
}

// agentFlags say where the agent is.
type agentFlags struct {
	config, socket, statusListen string
}

func (f *agentFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", "", "configuration file that says where the agent listens")
	cmd.Flags().StringVar(&f.socket, "control-socket", "", "control socket of the agent (default: as configured)")
	cmd.Flags().StringVar(&f.statusListen, "status-listen", "", "status address of the agent, used where the socket cannot be (default: as configured)")
}

// client returns a client of the agent: where flags, then the environment, then the configuration say that it is. A
// configuration that cannot be read or is wrong is the agent's trouble and not that of whoever asks how it does.
func (f *agentFlags) client(getenv func(string) string) *client.Client {
	cfg, err := config.Load(config.Options{ConfigPath: f.config, Getenv: getenv})
	if err != nil {
		cfg = config.Default()
		cfg.ControlSocket = cmp.Or(getenv("BERTH_CONTROL_SOCKET"), cfg.ControlSocket)
		cfg.StatusListen = cmp.Or(getenv("BERTH_STATUS_LISTEN"), cfg.StatusListen)
	}
	return client.New(cmp.Or(f.socket, cfg.ControlSocket), cmp.Or(f.statusListen, cfg.StatusListen))
}

// display is what is known of where output goes.
type display struct {
	width  int // in columns; 0: no limit
	colour bool
	tty    bool
}

// displayOf looks at a writer. Only a terminal has a width and colours, and NO_COLOR (https://no-color.org) forbids
// colours on it; TERM=dumb does as well.
func displayOf(w io.Writer, getenv func(string) string) display {
	f, ok := w.(*os.File)
	if !ok {
		return display{}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return display{}
	}
	return display{
		width:  int(size.Col),
		colour: getenv("NO_COLOR") == "" && getenv("TERM") != "dumb",
		tty:    true,
	}
}

// plain makes text safe to show: what comes from labels may hold escape sequences that a terminal would obey.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// minIDPrefix is the shortest beginning of an id that is taken for one; what is shorter is a name.
const minIDPrefix = 4

// shownAs is what a container is called in messages: as it was named, but by its name where an id was given.
func shownAs(ref, id, name string) string {
	if name != "" && len(ref) >= minIDPrefix && strings.HasPrefix(id, ref) {
		return name
	}
	return ref
}

// AmbiguousError says that what was given for a container's id is the beginning of several.
type AmbiguousError struct {
	Ref        string
	Containers int
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q is the beginning of %d containers' ids; write more of it", e.Ref, e.Containers)
}

// rowsOf returns the rows of the container that ref names: by name, else by id or the beginning of one. A name may be
// that of several containers, when one has replaced another whose targets are still draining; a beginning that fits
// several containers is an *AmbiguousError.
func rowsOf(rows []status.Row, ref string) ([]status.Row, error) {
	var byName, byID []status.Row
	ids := map[string]struct{}{}
	for i := range rows {
		id, name := rows[i].Run.ID, rows[i].Run.Name
		if name != "" && name == strings.TrimPrefix(ref, "/") {
			byName = append(byName, rows[i])
		}
		if len(ref) >= minIDPrefix && strings.HasPrefix(id, ref) {
			byID = append(byID, rows[i])
			ids[id] = struct{}{}
		}
	}
	switch {
	case len(byName) > 0:
		return byName, nil
	case len(ids) > 1:
		return nil, &AmbiguousError{Ref: ref, Containers: len(ids)}
	default:
		return byID, nil
	}
}
