package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// enginesDir holds a numbered directory for each private engine of the machine.
var enginesDir = filepath.Join(os.TempDir(), "berth-test-engines")

// EngineOptions says how a private engine runs.
type EngineOptions struct {
	// LiveRestore keeps containers running while the engine is down.
	LiveRestore bool
	// Args are further arguments of dockerd.
	Args []string
}

// PrivateEngine is a Docker engine of the test's own, beside the host's, to be stopped and started at will. It has
// its own bridge and host ports and leaves the firewall alone: published ports work on the loopback address, through Docker's
// userland proxy, which ends with the engine (also with LiveRestore).
type PrivateEngine struct {
	Engine

	options EngineOptions
	plot    plot
	view    *view
	daemon  *exec.Cmd
	ended   chan struct{} // closed when daemon has ended
}

// plot is what one private engine occupies of the machine, all of it named after one number.
type plot struct {
	number int
	dir    string // data root, exec root, socket, log
	bridge string // network interface
}

func plotOf(number int) plot {
	return plot{number: number, dir: filepath.Join(enginesDir, strconv.Itoa(number)), bridge: fmt.Sprintf("berth%d", number)}
}

func (p plot) path(name string) string { return filepath.Join(p.dir, name) }

// StartEngine starts an engine of the test's own and returns when it answers. At the end of the test it, its
// containers and all that it made are removed. It needs root and dockerd: where they are missing the test is skipped,
// or fails if CI is set.
func StartEngine(t testing.TB, options EngineOptions) *PrivateEngine {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker engine: not with -short")
	}
	if os.Getuid() != 0 {
		unavailable(t, "needs root, for a Docker engine of its own")
	}
	for _, program := range []string{"dockerd", "ip"} {
		if _, err := lookPath(program); err != nil {
			unavailable(t, "needs %s (scripts/need.sh %s): %v", program, program, err)
		}
	}
	sweepEngines()
	p, err := claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := &PrivateEngine{options: options, plot: p, Engine: Engine{Socket: p.path("docker.sock"), bridges: p.bridge + "n"}}
	t.Cleanup(func() { e.demolish(t) })
	if e.view, err = p.newView(); err != nil {
		t.Fatal(err)
	}
	e.Start(t)
	return e
}

// lookPath is exec.LookPath that also looks where daemons lie.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, sbinErr := exec.LookPath(filepath.Join(dir, program)); sbinErr == nil {
			return path, nil
		}
	}
	return "", err
}

// claim takes the first free number. Making the directory decides between processes; a bridge that is there already
// belongs to somebody else.
func claim(ctx context.Context) (plot, error) {
	if err := os.MkdirAll(enginesDir, 0o700); err != nil {
		return plot{}, fmt.Errorf("claim a place for an engine: %w", err)
	}
	for number := 1; number < 250; number++ {
		p := plotOf(number)
		if err := os.Mkdir(p.dir, 0o700); err != nil {
			continue
		}
		if err := errors.Join(
			os.WriteFile(p.path("owner"), []byte(Owner()), 0o600),
			// The host's own /etc/docker/daemon.json is not meant for this engine.
			os.WriteFile(p.path("daemon.json"), []byte("{}"), 0o600),
		); err != nil {
			return plot{}, fmt.Errorf("claim a place for an engine: %w", err)
		}
		if err := ip(ctx, "link", "add", p.bridge, "type", "bridge"); err != nil {
			if err := os.RemoveAll(p.dir); err != nil {
				return plot{}, fmt.Errorf("claim a place for an engine: %w", err)
			}
			continue
		}
		// 198.18.0.0/15 is for tests of network devices (RFC 2544): no host has it for anything else.
		if err := errors.Join(
			ip(ctx, "addr", "add", fmt.Sprintf("198.18.%d.1/24", number), "dev", p.bridge),
			ip(ctx, "link", "set", p.bridge, "up"),
		); err != nil {
			return plot{}, errors.Join(err, p.clear())
		}
		return p, nil
	}
	return plot{}, fmt.Errorf("claim a place for an engine: none free in %s", enginesDir)
}

func ip(ctx context.Context, args ...string) error {
	program, err := lookPath("ip")
	if err != nil {
		return err
	}
	if output, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, output)
	}
	return nil
}

// Start starts the engine, with the containers that it had, and returns when it answers.
func (e *PrivateEngine) Start(t testing.TB) {
	t.Helper()
	if err := e.launch(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, Patience, "the private engine's answer", func() error {
		select {
		case <-e.ended:
			t.Fatalf("the private engine ended at once:\n%s", e.logTail())
		default:
		}
		if e.Client != nil {
			_, err := e.Client.Ping(t.Context())
			return err
		}
		connected, err := Connect(t.Context(), e.Socket)
		if err == nil {
			e.Client = connected.Client
		}
		return err
	})
}

// launch starts the process.
func (e *PrivateEngine) launch() error {
	program, err := lookPath("dockerd")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(e.plot.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start a private engine: %w", err)
	}
	defer log.Close()
	namespace := fmt.Sprintf("berth-test-%d", e.plot.number)
	args := []string{
		"--host", e.Host(),
		"--config-file", e.plot.path("daemon.json"),
		"--data-root", e.plot.path("data"), "--exec-root", e.plot.path("exec"), "--pidfile", e.plot.path("pid"),
		// A containerd that serves the host's engine may be used: under names of our own.
		"--containerd-namespace", namespace, "--containerd-plugins-namespace", namespace + "-plugins",
		// No --default-address-pool beside --bridge: an engine that restarts with both deletes docker0, whose ever it is.
		"--bridge", e.plot.bridge,
		"--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false",
	}
	if e.options.LiveRestore {
		args = append(args, "--live-restore")
	}
	e.daemon = e.view.command(program, append(args, e.options.Args...)...)
	e.daemon.Stdout, e.daemon.Stderr = log, log
	// A session of its own: Ctrl-C is for the tests, which need the engine to clean up. If they die, it ends by itself.
	e.daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err := e.daemon.Start(); err != nil {
		return fmt.Errorf("start a private engine: %w", err)
	}
	daemon, ended := e.daemon, make(chan struct{})
	e.ended = ended
	go func() {
		_ = daemon.Wait() // how it ended is for its log to say
		close(ended)
	}()
	return nil
}

// Stop ends the engine as a service manager does (SIGTERM) and returns when it is gone. Without LiveRestore its
// containers are stopped first.
func (e *PrivateEngine) Stop(t testing.TB) {
	t.Helper()
	e.BeginStop(t)()
}

// BeginStop asks the engine to end and returns at once: the function it returns waits until it is gone. Meanwhile its
// API is closed already while its containers still stop.
func (e *PrivateEngine) BeginStop(t testing.TB) (wait func()) {
	t.Helper()
	if err := e.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		select {
		case <-e.ended:
		case <-time.After(Patience):
			t.Fatalf("the private engine did not end:\n%s", e.logTail())
		}
	}
}

// Kill ends the engine with SIGKILL. Its containers run on, their published ports do not.
func (e *PrivateEngine) Kill(t testing.TB) {
	t.Helper()
	if err := e.end(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-e.ended
	// Its containerd is killed by the kernel a little later. If whoever inherits it is slow to take note, it stays a
	// zombie, which the next engine would take for a running containerd because of its pid file.
	Eventually(t, Patience, "the end of the private engine's containerd", func() error {
		pids, err := e.plot.processes("containerd")
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("%v still run", pids)
		}
		return err
	})
	if err := os.Remove(e.plot.path("exec/containerd/containerd.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// Freeze stops the engine in its tracks (SIGSTOP): connections stay open and silent. Thaw lets it go on.
func (e *PrivateEngine) Freeze(t testing.TB) {
	t.Helper()
	if err := e.end(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The signal reaches one thread after the other.
	Eventually(t, Patience, "the private engine frozen", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", e.daemon.Process.Pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			if stat, err := os.ReadFile(thread); err == nil && !strings.Contains(string(stat), ") T ") {
				return fmt.Errorf("a thread still runs: %s", stat)
			}
		}
		return nil
	})
}

// Thaw ends a Freeze.
func (e *PrivateEngine) Thaw(t testing.TB) {
	t.Helper()
	if err := e.end(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Restart stops and starts the engine.
func (e *PrivateEngine) Restart(t testing.TB) {
	t.Helper()
	e.Stop(t)
	e.Start(t)
}

// end sends the engine's own process a signal.
func (e *PrivateEngine) end(s syscall.Signal) error {
	if err := e.daemon.Process.Signal(s); err != nil {
		return fmt.Errorf("send %v to the private engine: %w", s, err)
	}
	return nil
}

func (e *PrivateEngine) logTail() string {
	log, err := os.ReadFile(e.plot.path("log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-8000):])
}

// demolish removes the engine and all that it made.
func (e *PrivateEngine) demolish(t testing.TB) {
	t.Helper()
	if t.Failed() {
		t.Logf("the private engine's log ends so:\n%s", e.logTail())
	}
	if e.daemon != nil && e.daemon.Process != nil {
		_ = e.daemon.Process.Signal(syscall.SIGCONT)
	}
	// The place of one that was swept may be another process's by now, socket and all.
	owner, err := os.ReadFile(e.plot.path("owner"))
	ours := err == nil && string(owner) == Owner()
	if e.Client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if ours { // while it still answers it removes containers and networks better than we can
			_ = e.empty(ctx)
		}
		e.Close()
	}
	if ours {
		if err := e.plot.clear(); err != nil {
			t.Errorf("remove the private engine: %v", err)
		}
	} else if e.daemon != nil && e.daemon.Process != nil {
		_ = e.daemon.Process.Kill()
	}
	if e.ended != nil {
		<-e.ended
	}
	if e.view != nil {
		if err := e.view.close(); err != nil {
			t.Errorf("remove the private engine's mounts: %v", err)
		}
	}
}
