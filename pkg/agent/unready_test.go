package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"go.uber.org/zap"

	"berth/pkg/config"
	"berth/pkg/host"
	"berth/test/agenttest"
)

// waitingAgent runs an agent that cannot get ready, and returns what /readyz says once it is what is wanted.
func waitingAgent(t *testing.T, dockerSocket, want string) string {
	t.Helper()
	dir := agenttest.ShortDir(t)
	yaml := fmt.Sprintf("target_groups: {web: {}}\nlisten: 127.0.0.1:0\nstatus_listen: 127.0.0.1:0\ncontrol_socket: %[1]s/c.sock\nstate_dir: %[1]s/state\ndocker: {socket: %[2]s}\n", dir, dockerSocket)
	file := filepath.Join(dir, "berth.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Options{ConfigPath: file, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), Options{Config: cfg, Log: zap.NewNop(), BootID: host.BootID()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ended, a.Close()); err != nil {
			t.Errorf("agent: %v", err)
		}
	}()
	text := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		r := a.Readiness()
		if text = r.Text(); r.Ready {
			t.Fatalf("it is ready:\n%s", text)
		}
		if regexp.MustCompile(want).MatchString(text) {
			return text
		}
	}
	t.Fatalf("/readyz says:\n%s\nwant %s", text, want)
	return ""
}

// Before Docker has answered for the first time /readyz names the socket, and what to change.
func TestReadiness_dockerNeverReached(t *testing.T) {
	agenttest.Account(t, "web")
	dir := agenttest.ShortDir(t)
	none := filepath.Join(dir, "none.sock")
	waitingAgent(t, none, `\[wait\] docker: not reached yet: .*unix://`+none+`: there is no such socket \(install and start Docker`)

	left := filepath.Join(dir, "left.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	waitingAgent(t, left, `docker: not reached yet: .*`+left+`: the socket is there, but nobody listens \(start Docker`)
}

// A metadata service that does not answer is one short line: what failed, for how long, and what to change.
func TestReadiness_metadataSilent(t *testing.T) {
	agenttest.Account(t, "web")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+nobody)
	text := waitingAgent(t, filepath.Join(agenttest.ShortDir(t), "none.sock"), `identity: .*, for [1-9]\d*s `)
	want := regexp.MustCompile(`(?m)^\[wait\] identity: the instance metadata service does not answer: dial tcp ` + regexp.QuoteMeta(nobody) +
		`: connect: connection refused, for \d+s \(see that 169\.254\.169\.254 can be reached.*\)$`)
	if !want.MatchString(text) {
		t.Errorf("/readyz says:\n%s", text)
	}
}

// A metadata service that falls silent later is shown once that lasts, and does not make the agent unready: only notices
// are missed.
func TestSilent(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for name, tt := range map[string]struct {
		s    host.Snapshot
		want bool
	}{
		"answers":             {host.Snapshot{Identity: &host.Identity{}, Since: ago(time.Hour)}, false},
		"just missed":         {host.Snapshot{Identity: &host.Identity{}, Waiting: "HTTP 500", Since: ago(time.Second)}, false},
		"for a while":         {host.Snapshot{Identity: &host.Identity{}, Waiting: "HTTP 500", Since: ago(time.Minute)}, true},
		"before the identity": {host.Snapshot{Waiting: "HTTP 500", Since: ago(time.Minute)}, false},
	} {
		if got := silent(&tt.s); got != tt.want {
			t.Errorf("%s: got %v; want %v", name, got, tt.want)
		}
	}
	if got := lasting(ago(61 * time.Second)); got != ", for 1m1s" {
		t.Errorf("got %q", got)
	}
	if got := lasting(time.Now()); got != "" {
		t.Errorf("got %q; want nothing of what has just begun", got)
	}
}
