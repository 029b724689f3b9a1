package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"berth/pkg/config"
	"berth/pkg/host"
)

// waitingAgent runs an agent that cannot get ready, and returns what /readyz says once it is what is wanted.
func waitingAgent(t *testing.T, dockerSocket, want string) string {
	t.Helper()
	dir := shortDir(t)
	yaml := fmt.Sprintf("target_groups: {web: {}}\nlisten: 127.0.0.1:0\nstatus_listen: 127.0.0.1:0\ncontrol_socket: %[1]s/c.sock\nstate_dir: %[1]s/state\ndocker: {socket: %[2]s}\n", dir, dockerSocket)
	file := filepath.Join(dir, "berth.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Options{ConfigPath: file, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), Options{Config: cfg, Log: zap.NewNop(), BootID: readBootID()})
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

// shortDir is a directory for sockets, whose path may have 107 bytes at most.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Before Docker has answered for the first time /readyz names the socket, and what to change.
func TestReadiness_dockerNeverReached(t *testing.T) {
	account(t, "web")
	dir := shortDir(t)
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
	account(t, "web")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+nobody)
	text := waitingAgent(t, filepath.Join(shortDir(t), "none.sock"), `identity: .*, for [1-9]\d*s `)
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

// Whoever starts the agent with a state directory that is not theirs is told what to change, by every command that uses it.
func TestStateDirectory_wrongOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a command as somebody else")
	}
	account(t, "web")
	dir := shortDir(t)
	program := strangersProgram(t, dir)
	for name, tt := range map[string]struct {
		prepare func(state string) error
		run     string // what `berth run` says
		read    string // what `berth ledger` says; empty: it can be read
	}{
		"another user's": {
			func(state string) error {
				return errors.Join(os.Mkdir(state, 0o750), os.WriteFile(filepath.Join(state, "ledger.json"), nil, 0o600))
			},
			"it belongs to user root and this runs as nobody: run it as root, or give it away (chown -R nobody ",
			"it belongs to user root and this runs as nobody: run it as root",
		},
		"another user's file": {
			func(state string) error {
				return errors.Join(os.Mkdir(state, 0o750), os.WriteFile(filepath.Join(state, "lock"), nil, 0o600), os.Chown(state, 65534, 65534))
			},
			"all in it must be files that user nobody owns and may write: chown -R nobody ", "",
		},
		"not to be made": {
			func(string) error { return nil }, "user nobody may not make the directory: make it (install -d -o nobody ", "",
		},
		"a file": {
			func(state string) error { return os.WriteFile(state, nil, 0o644) },
			"not a directory; name a directory: --state-dir", "not a directory; name a directory: --state-dir",
		},
	} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := tt.prepare(state); err != nil {
				t.Fatal(err)
			}
			for command, says := range map[string]string{
				"run --target-group web": tt.run, "ledger": tt.read,
			} {
				code, said := runAsNobody(t, program, []string{"BERTH_STATE_DIR=" + state, "BERTH_LISTEN=127.0.0.1:0"}, strings.Fields(command)...)
				if says == "" {
					if code != 0 {
						t.Errorf("berth %s: %d %s; want it to work", command, code, said)
					}
					continue
				}
				if code != exitFailure || !strings.Contains(said, says) {
					t.Errorf("berth %s: %d %s; want %d and %q", command, code, said, exitFailure, says)
				}
			}
		})
	}
	if err := stateError(dir, errors.New("something else")); err.Error() != "something else" {
		t.Errorf("got %v; want what is no matter of owners as it was", err)
	}
	if stateError(dir, nil) != nil {
		t.Error("nil has become an error")
	}
}

// strangersProgram puts the test binary into a directory that every user may enter.
func strangersProgram(t testing.TB, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "berth")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, data, 0o755)); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	return program
}

// runAsNobody runs a berth command in a process of its own that has no rights.
func runAsNobody(t testing.TB, program string, env []string, args ...string) (code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(append(os.Environ(), asBerth+"=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
