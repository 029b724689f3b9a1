package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"berth/pkg/client"
	"berth/pkg/status"
	"berth/test/harness"
)

// Agent is a running berth.
type Agent struct {
	process *exec.Cmd
	output  *output
	socket  string
	client  *client.Client
	ended   chan struct{} // closed when the process has ended
	err     error         // how it ended; read after ended
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex // guards buf: two pipes write
	buf bytes.Buffer
}

// Write is io.Writer's.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// String returns all that was written.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Socket returns the path of the agent's control socket.
func (r *Rig) Socket() string { return filepath.Join(r.dir, "berth.sock") }

// StateDir returns the agent's state directory.
func (r *Rig) StateDir() string { return filepath.Join(r.dir, "state") }

// Args returns the arguments with which an agent of this rig runs.
func (r *Rig) Args() []string {
	return []string{
		"run", "--config", r.config, "--state-dir", r.StateDir(), "--control-socket", r.Socket(),
		"--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0", "--docker-socket", r.Engine.Socket,
		"--log-format", "json", "--log-level", "debug",
	}
}

// Start starts berth and returns at once. It keeps the state of the rig's earlier agents. When the test ends it is
// stopped, and its log is shown if the test failed.
func (r *Rig) Start(t testing.TB, args ...string) *Agent {
	t.Helper()
	if err := os.MkdirAll(r.StateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{output: &output{}, socket: r.Socket(), ended: make(chan struct{})}
	a.process = exec.Command(path, append(r.Args(), args...)...)
	a.process.Stdout, a.process.Stderr = a.output, a.output
	a.process.Env = r.Env()
	a.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.process.Start(); err != nil {
		t.Fatalf("start berth: %v", err)
	}
	go func() {
		a.err = a.process.Wait()
		close(a.ended)
	}()
	a.client = client.New(r.Socket(), "")
	t.Cleanup(func() {
		a.end(t, syscall.SIGKILL) // if the test has not stopped it
		a.client.Close()
		if t.Failed() {
			t.Logf("berth's log:\n%s", a.output)
		}
		if bytes.Contains([]byte(a.output.String()), []byte("WARNING: DATA RACE")) {
			t.Error("berth has a data race: see its log")
		}
	})
	return a
}

// StartReady is Start that waits until the agent is ready: every group was tried once.
func (r *Rig) StartReady(t testing.TB, args ...string) *Agent {
	t.Helper()
	a := r.Start(t, args...)
	harness.Eventually(t, harness.Patience, "berth ready", func() error {
		select {
		case <-a.ended:
			t.Fatalf("berth ended: %v", a.err)
		default:
		}
		status, err := a.TryStatus(t)
		if err == nil && !status.Readiness.Ready {
			err = fmt.Errorf("it waits for: %s", status.Readiness.Waiting())
		}
		return err
	})
	return a
}

// TryStatus returns what the agent says about itself, or why it does not answer.
func (a *Agent) TryStatus(t testing.TB) (status.V1, error) {
	ctx, cancel := within(t, harness.Patience)
	defer cancel()
	return a.client.Status(ctx, client.StatusQuery{})
}

// Status returns what the agent says about itself.
func (a *Agent) Status(t testing.TB) status.V1 {
	t.Helper()
	status, err := a.TryStatus(t)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// Log returns what the agent has written so far.
func (a *Agent) Log() string { return a.output.String() }

// PID returns the agent's process id.
func (a *Agent) PID() int { return a.process.Process.Pid }

// Stop ends the agent as a service manager does and waits for its clean end.
func (a *Agent) Stop(t testing.TB) {
	t.Helper()
	a.end(t, syscall.SIGTERM)
	if a.err != nil {
		t.Errorf("berth ended with %v after SIGTERM; want exit status 0", a.err)
	}
}

// Kill ends the agent with SIGKILL.
func (a *Agent) Kill(t testing.TB) {
	t.Helper()
	a.end(t, syscall.SIGKILL)
}

// Signal sends the agent a signal.
func (a *Agent) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := a.process.Process.Signal(s); err != nil {
		t.Fatalf("send %v to berth: %v", s, err)
	}
}

// Wait waits for the agent's end and returns its exit status.
func (a *Agent) Wait() int {
	<-a.ended
	return a.process.ProcessState.ExitCode()
}

func (a *Agent) end(t testing.TB, s os.Signal) {
	t.Helper()
	if err := a.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("send %v to berth: %v", s, err)
	}
	<-a.ended
}
