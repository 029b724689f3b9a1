package rig

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"berth/test/harness"
)

// ConfigFlags are the flags with which a berth command that needs no agent finds this rig.
func (r *Rig) ConfigFlags() []string {
	return []string{"--config", r.config, "--state-dir", r.StateDir(), "--docker-socket", r.Engine.Socket}
}

// ConfigPath returns the path of the configuration file.
func (r *Rig) ConfigPath() string { return r.config }

var listening = regexp.MustCompile(`"listener":"--listen","address":"([^"]+)"`)

// Metrics returns what the agent's /metrics answers.
func (a *Agent) Metrics(t testing.TB) string {
	t.Helper()
	status, body := a.Get(t, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", status, body)
	}
	return body
}

// Running is a berth command under way.
type Running struct {
	cmd   *exec.Cmd
	out   output
	err   output
	ended chan struct{}
}

// Begin starts a berth command that speaks to the rig's agent, and returns at once. It is ended with the test.
func (r *Rig) Begin(t testing.TB, command string, args ...string) *Running {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	b := &Running{ended: make(chan struct{})}
	b.cmd = exec.Command(path, append([]string{command, "--control-socket", r.Socket()}, args...)...)
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.err
	b.cmd.Env = append(r.Server.Env(), "PATH="+os.Getenv("PATH"), "HOME="+r.dir)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("start berth %s: %v", command, err)
	}
	go func() {
		_ = b.cmd.Wait() // how it ended is in its state
		close(b.ended)
	}()
	t.Cleanup(func() {
		b.Signal(syscall.SIGKILL)
		<-b.ended
		if bytes.Contains([]byte(b.err.String()), []byte("WARNING: DATA RACE")) {
			t.Errorf("berth %s has a data race:\n%s", command, b.err.String())
		}
	})
	return b
}

// Signal sends the command a signal; one that has ended gets none.
func (b *Running) Signal(s os.Signal) { _ = b.cmd.Process.Signal(s) }

// End waits for the command and returns its exit code and what it wrote.
func (b *Running) End(t testing.TB) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := within(t, harness.Patience)
	defer cancel()
	select {
	case <-b.ended:
	case <-ctx.Done():
		t.Fatalf("berth %v does not end:\n%s", b.cmd.Args[1:], b.err.String())
	}
	return b.cmd.ProcessState.ExitCode(), b.out.String(), b.err.String()
}

// Script runs a shell script as an operator of this rig's host would: with its docker and its berth. It returns the exit
// code and all that was written.
func (r *Rig) Script(t testing.TB, path string, env []string, args ...string) (code int, output string) {
	t.Helper()
	berth, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := within(t, 2*harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(append(r.Server.Env(), env...), "PATH="+filepath.Dir(berth)+":"+os.Getenv("PATH"), "HOME="+r.dir,
		"DOCKER_HOST="+r.Engine.Host(), "BERTH_DOCKER_SOCKET="+r.Engine.Socket, "BERTH_CONTROL_SOCKET="+r.Socket())
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("run %s: %v", path, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
