package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/agent"
	"berth/pkg/host"
	"berth/pkg/registrar/ledger"
	"berth/test/agenttest"
)

// shutdown runs `berth shutdown-drain` on a system in that state, whose state and configuration are in dir. It has time
// enough for a machine that is busy, and no load balancer to settle.
func shutdown(t *testing.T, state, dir string) (code int, stdout, stderr string) {
	t.Helper()
	return shutdownWithin(t, "1m", state, dir)
}

// shutdownWithin is shutdown with that longest wait.
func shutdownWithin(t *testing.T, longest, state, dir string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("BERTH_STATE_DIR", dir)
	t.Setenv("BERTH_TARGET_GROUP", "web")
	t.Setenv("BERTH_CONTROL_SOCKET", filepath.Join(dir, "b.sock"))
	t.Setenv("BERTH_STATUS_LISTEN", "127.0.0.1:1") // where nobody listens
	t.Setenv("BERTH_DRAIN_SHUTDOWN_MAX_WAIT", longest)
	var out, errs strings.Builder
	env := &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: os.Getenv}
	c := &shutdownDrain{env: env, state: func(context.Context) string { return state }}
	c.settle = func(_ context.Context, d time.Duration) { fmt.Fprintf(&out, "settling for %s\n", d) }
	err := coded(c.run(t.Context()))
	var e *exitError
	if errors.As(err, &e) {
		code = e.code
		errs.WriteString(err.Error())
	}
	return code, out.String(), errs.String()
}

func TestShutdownDrain_ofASystemThatStaysDoesNothing(t *testing.T) {
	for _, state := range []string{"initializing", "starting", "running", "degraded", "maintenance"} {
		sim := agenttest.Account(t, "web")
		dir := t.TempDir()
		registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
		if code, stdout, stderr := shutdown(t, state, dir); code != 0 || !strings.Contains(stdout, state+", not stopping") {
			t.Errorf("system %s: %d, %q, %s; want 0 and that it does not stop", state, code, stdout, stderr)
		}
		if len(sim.Calls()) != 0 || len(sim.Registered("web")) != 1 {
			t.Errorf("system %s: calls %v, registered %v; want none and one", state, sim.Calls(), sim.Registered("web"))
		}
	}
}

func TestShutdownDrain_withoutAnAgent(t *testing.T) {
	const other = "i-0fedcba9876543210"
	cases := map[string]struct {
		state, instance, boot string
		left                  int
		stdout                string
	}{
		"of this boot":             {"stopping", agenttest.Instance, host.BootID(), 0, "deregistered 2 targets\nsettling for 10s\n"},
		"of another boot":          {"stopping", agenttest.Instance, "before", 0, "deregistered 2 targets\nsettling for 10s\n"},
		"the state cannot be told": {"", agenttest.Instance, host.BootID(), 0, "deregistered 2 targets\nsettling for 10s\n"},
		"of another instance":      {"stopping", other, host.BootID(), 2, "deregistered 0 targets"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sim := agenttest.Account(t, "web")
			if err := sim.AddInstance(elbsim.Instance{ID: other}); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			registeredBy(t, dir, sim, c.instance, c.boot, "web", 32768, 32769)
			code, stdout, stderr := shutdown(t, c.state, dir)
			if code != 0 || !strings.Contains(stdout, c.stdout) {
				t.Errorf("%d, %q, %s; want 0, %q", code, stdout, stderr, c.stdout)
			}
			if got := len(sim.Registered("web")); got != c.left {
				t.Errorf("%d targets left; want %d", got, c.left)
			}
			kept, err := ledger.Peek(dir)
			if err != nil {
				t.Fatal(err)
			}
			if c.left == 0 && len(ledger.Stale(kept.Entries(), agent.AnyBoot)) != 0 {
				t.Errorf("the ledger still has %v", kept.Entries())
			}
		})
	}
}

// What is registered in another region is nobody's to remove from here, and no reason to fail.
func TestShutdownDrain_outOfReach(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
	for _, groupARN := range outOfReach {
		entered(t, dir, agenttest.Instance, host.BootID(), groupARN, 32769)
	}
	code, stdout, stderr := shutdown(t, "stopping", dir)
	if code != 0 || !strings.Contains(stdout, "deregistered 1 targets") {
		t.Errorf("%d, %q, %s; want 0 and one removed", code, stdout, stderr)
	}
	for _, groupARN := range outOfReach {
		if !strings.Contains(stderr, groupARN) {
			t.Errorf("said %s; want %s named as left alone", stderr, groupARN)
		}
	}
	if calls := asked(sim); !slices.Equal(calls, []string{"DeregisterTargets"}) {
		t.Errorf("called %v; want one DeregisterTargets, for web", calls)
	}
}

// An agent that hangs holds the ledger and answers nobody: what it registered goes all the same.
func TestShutdownDrain_ledgerInUse(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
	held, err := ledger.Open(dir, host.BootID(), ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	code, stdout, stderr := shutdown(t, "stopping", dir)
	if code != 0 || len(sim.Registered("web")) != 0 || !strings.Contains(stderr, "ledger is only read") {
		t.Errorf("%d, %q, %s, registered %v; want 0 and nothing registered", code, stdout, stderr, sim.Registered("web"))
	}
}

func TestShutdownDrain_saysWhatItCannotRemove(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
	if _, err := sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "DeregisterTargets", Code: "AccessDenied"}); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := shutdown(t, "stopping", dir)
	if code != exitFailure || !strings.Contains(stderr, "AccessDenied") {
		t.Errorf("%d, %s; want %d and why", code, stderr, exitFailure)
	}
}

// TestShutdownDrain_byAgent has an agent without a Docker: its host is drained, for the rest of the boot.
func TestShutdownDrain_byAgent(t *testing.T) {
	agenttest.Account(t, "web")
	dir := t.TempDir()
	agent := startRun(t, dir, nil)
	// Without Docker no group can act on anything: that is said after the longest wait, and nothing is asked of the
	// ledger, which the agent holds.
	code, stdout, stderr := shutdownWithin(t, "3s", "stopping", dir)
	if strings.Contains(stderr, "working from the ledger") {
		t.Errorf("%d, %q, %s; want the agent to do it", code, stdout, stderr)
	}
	drains, err := os.ReadFile(filepath.Join(dir, "drains.json"))
	if err != nil || !strings.Contains(string(drains), `"shutdown"`) || !strings.Contains(string(drains), host.BootID()) {
		t.Errorf("drains on disk: %s (%v); want one for the shutdown, of this boot", drains, err)
	}
	// Should the boot go on, as with a restart of all but the kernel, the operator ends it.
	undrain := &environment{stdin: strings.NewReader(""), stdout: &strings.Builder{}, stderr: &strings.Builder{}, getenv: os.Getenv}
	brief, cancel := context.WithTimeout(t.Context(), 3*time.Second) // it waits for groups to act, which they cannot
	defer cancel()
	execute(brief, []string{"undrain", "--all"}, undrain)
	if drains, err = os.ReadFile(filepath.Join(dir, "drains.json")); err != nil || strings.Contains(string(drains), `"shutdown"`) {
		t.Errorf("drains on disk after undrain --all: %s (%v), %s; want none", drains, err, undrain.stderr)
	}
	agent.end(t)
}

// An agent to which the metadata service does not answer knows of nothing that is registered: its host is not drained, and
// the ledger says what is to go.
func TestShutdownDrain_agentNotConnected(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and answers none
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	const endpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
	answering := os.Getenv(endpoint)
	t.Setenv(endpoint, "http://"+silent.Addr().String())
	agent := startRun(t, dir, nil)
	t.Setenv(endpoint, answering)
	code, stdout, stderr := shutdownWithin(t, "15s", "stopping", dir) // a third of it is the agent's, to be connected
	if code != 0 || !strings.Contains(stderr, "does not know yet what is registered; working from the ledger") || !strings.Contains(stdout, "deregistered 1 targets") {
		t.Errorf("%d, %q, %s; want 0, and the ledger's target deregistered", code, stdout, stderr)
	}
	if left := sim.Registered("web"); len(left) != 0 {
		t.Errorf("%v is registered; want nothing", left)
	}
	agent.end(t)
}
