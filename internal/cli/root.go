// Package cli is the berth command: it reads command lines, prints for people and for machines, and alone knows what each
// outcome is as an exit code.
//
//	root.go         the command, its exit codes, and what it has of the world
//	run.go          run: the agent in the foreground; flags and the configuration
//	reload.go       reload
//	status.go       status, once and again (--watch)
//	table.go        how rows are laid out
//	explain.go      explain
//	plan.go         plan
//	ledger.go       ledger
//	check.go        check: this host
//	checkaws.go     check: credentials, clock and target groups
//	wait.go         wait
//	stop.go         stop: out of the load balancer first
//	dockerstop.go   docker stop, with the caller's rights
//	drain.go        drain and undrain
//	departure.go    waiting for what leaves
//	prune.go        prune
//	boot.go         boot, of berth-boot.service
//	shutdown.go     shutdown-drain, of berth-drain.service
//	client.go       where the agent is, and where output goes
//	reporter.go     progress while something takes long
//	complete.go     what the shell completes
//	version.go      version
//	man.go          man pages
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"

	"berth/internal/logs"
	"berth/pkg/config"
	"berth/pkg/discovery"
)

// The exit codes that all commands share. docs/commands.md lists them.
const (
	exitFailure = 1 // what was asked could not be done (now)
	exitUsage   = 2 // the command line or the configuration is wrong: waiting cures nothing
	exitLocked  = 3 // another agent holds the state directory
	exitNever   = 4 // what is waited for can never come
)

// environment is what a command has of the world outside: everything that a test replaces.
type environment struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
	engine discovery.Engine // nil: the one behind the configured socket
	build  Build
}

// unattended has what a command prints wait for nobody: what units run has its work to do, whoever reads their log, or
// does no longer. It returns where the log goes. What was printed is written when the command ends, if that takes no more
// than a second.
func (env *environment) unattended() *logs.Writer {
	signal.Ignore(syscall.SIGPIPE) // a reader that has gone ends nothing
	log := logs.NewWriter(env.stderr)
	env.stdout, env.stderr = logs.NewWriter(env.stdout), log
	return log
}

// flush waits until what was printed is written.
func (env *environment) flush() {
	for _, w := range []io.Writer{env.stdout, env.stderr} {
		if own, ok := w.(*logs.Writer); ok {
			_ = own.Sync() // there is nobody left to be told
		}
	}
}

// say prints a line about how it goes, at its level in systemd's journal.
func (env *environment) say(l zapcore.Level, format string, args ...any) {
	fmt.Fprintf(logs.Lines(env.stderr, l), format+"\n", args...)
}

// exitError ends the program with a code of its own. A nil err prints nothing more.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exit makes err end the program with code; nil stays nil.
func exit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: code, err: err}
}

// Build is what the linker says of the program; any of it may be empty.
type Build struct {
	Version  string
	Revision string // of the commit
	Date     string // of the commit, RFC 3339
}

// Main runs the command line of this process until it is done or ctx ends, and returns the exit code.
func Main(ctx context.Context, args []string, b Build) int {
	return execute(ctx, args, process(b))
}

// process is the environment of this process.
func process(b Build) *environment {
	return &environment{
		stdin: os.Stdin, stdout: logs.Lines(os.Stdout, zapcore.InfoLevel), stderr: os.Stderr, getenv: os.Getenv, build: b,
	}
}

// execute is Main without the process, for tests.
func execute(ctx context.Context, args []string, env *environment) int {
	defer env.flush()
	root := newRootCommand(env)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var coded *exitError
	if !errors.As(err, &coded) { // what cobra itself refuses is the command line
		env.say(zapcore.ErrorLevel, "berth: %s\nsee: %s --help", strings.TrimSpace(err.Error()), cmd.CommandPath())
		return usageCode(cmd, args)
	}
	if coded.err != nil {
		env.say(zapcore.ErrorLevel, "berth: %v", err)
	}
	return coded.code
}

// noArgs is for commands that take flags alone.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, got %.60q", cmd.Name(), strings.Join(args, " "))
	}
	return nil
}

// needArgs is for commands that act on something: what says in the plural what it is. most is how many are taken, 0: any
// number.
func needArgs(what string, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return fmt.Errorf("name %s: %s", what, cmd.UseLine())
		case most > 0 && len(args) > most:
			return fmt.Errorf("%s takes one argument, got %d: %.60q", cmd.Name(), len(args), strings.Join(args, " "))
		}
		return nil
	}
}

func newRootCommand(env *environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "berth",
		Short: "Keep load balancer target groups exact for the containers of this Docker host",
		Long: `Berth gives plain Docker on EC2 what ECS calls dynamic port mapping: it watches Docker, reads the host ports that
Docker picks, and keeps instance-id:port registered in the right target groups of a load balancer.

A container asks for it with a label:  docker run -P -l berth.targets=web my/web`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if !errors.As(err, &unknown) {
			return err
		}
		var flags []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
		return fmt.Errorf("%w%s", err, config.DidYouMean("--"+unknown.GetSpecifiedName(), flags))
	})
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	// Those of the agent, those that look, those that act, and those of the units and of packages.
	root.AddCommand(
		newRunCommand(env), newReloadCommand(env),
		newStatusCommand(env), newExplainCommand(env), newCheckCommand(env), newPlanCommand(env), newLedgerCommand(env),
		newWaitCommand(env), newStopCommand(env), newDrainCommand(env), newUndrainCommand(env), newPruneCommand(env),
		newBootCommand(env), newShutdownDrainCommand(env), newManCommand(env), newVersionCommand(env),
	)
	return root
}
