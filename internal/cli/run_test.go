package cli

import (
	"net"
	"path/filepath"
	"strings"
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

	agent := startRun(t, dir, nil)

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
	agent.stop()
	for state := ""; !strings.HasPrefix(state, "STOPPING=1"); {
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatalf("read what systemd is told at the end: %v", err)
		}
		state = string(buf[:n])
	}
	agent.end(t)
}
