package cli

import (
	"cmp"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
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
	var ambiguous *status.AmbiguousError
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
	status := cmp.Or(f.statusListen, cfg.StatusListen)
	if status == config.Off {
		status = ""
	}
	return client.New(cmp.Or(f.socket, cfg.ControlSocket), status)
}

// sayUnfollowed says once that load balancers are not looked at oftener for this command, where that is so.
func (env *environment) sayUnfollowed(api *client.Client, said *bool) {
	if api.Unfollowed() && !*said {
		*said = true
		env.say(zapcore.InfoLevel, "berth: the control socket cannot be used: load balancers are looked at on the agent's ordinary schedule alone")
	}
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
