package cli

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/test/agenttest"
)

// TestRun_tellsSystemd runs the agent beside a socket that is systemd's.
func TestRun_tellsSystemd(t *testing.T) {
	agenttest.Account(t, "web")
	dir := t.TempDir()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	t.Setenv("WATCHDOG_USEC", "300000")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var code atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		var out strings.Builder
		code.Store(int32(execute(ctx, []string{
			"run", "--target-group", "web", "--state-dir", filepath.Join(dir, "state"), "--docker-socket", filepath.Join(dir, "no-docker.sock"),
			"--control-socket", filepath.Join(dir, "b.sock"), "--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0",
		}, &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &out, getenv: func(string) string { return "" }})))
	}()

	// Docker is not there: it says so, lives, and is not ready (that would take half a minute).
	seen := map[string]bool{}
	buf := make([]byte, 4096)
	_ = socket.SetReadDeadline(time.Now().Add(time.Minute)) // a guard, not a limit
	for !seen["WATCHDOG=1"] || !seen["waits for docker"] {
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatalf("read what systemd is told: %v (so far %v)", err, seen)
		}
		state := string(buf[:n])
		seen[state] = true
		if strings.HasPrefix(state, "STATUS=") && strings.Contains(state, "waiting for docker: ") {
			seen["waits for docker"] = true
		}
		if strings.Contains(state, "READY=1") {
			t.Errorf("told %q without Docker", state)
		}
	}
	stop()
	for state := ""; !strings.HasPrefix(state, "STOPPING=1"); {
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatalf("read what systemd is told at the end: %v", err)
		}
		state = string(buf[:n])
	}
	<-done
	if code.Load() != 0 {
		t.Errorf("berth run = %d; want 0", code.Load())
	}
}
