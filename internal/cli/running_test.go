package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/pkg/discovery"
	"berth/test/agenttest"
)

// running is `berth run` in this process: for tests of the command line itself. All others start an agent by agenttest.
type running struct {
	stop   func()
	ended  chan int // gets the exit code
	stderr strings.Builder
}

// startRun begins `berth run` with group web and waits for its control socket, b.sock in dir, where its state is, too. A
// nil engine is a Docker that is not there.
func startRun(t *testing.T, dir string, engine discovery.Engine) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{stop: cancel, ended: make(chan int, 1)}
	socket := filepath.Join(dir, "b.sock")
	args := []string{
		"run", "--target-group", "web", "--state-dir", dir, "--docker-socket", filepath.Join(dir, "no-docker.sock"),
		"--control-socket", socket, "--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0",
	}
	env := &environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &r.stderr, getenv: func(string) string { return "" }, engine: engine}
	go func() { r.ended <- execute(ctx, args, env) }()
	r.until(t, "the control socket", func() bool { _, err := os.Stat(socket); return err == nil })
	return r
}

// until waits for something, and fails the test if the agent ends before.
func (r *running) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	agenttest.Eventually(t, what, func() bool {
		select {
		case code := <-r.ended:
			t.Fatalf("the agent ended with %d before: %s\n%s", code, what, &r.stderr)
		default:
		}
		return holds()
	})
}

// end stops the agent, which must end with 0.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if code := <-r.ended; code != 0 {
		t.Errorf("berth run = %d: %s", code, &r.stderr)
	}
}
