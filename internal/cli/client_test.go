package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"berth/internal/latest"
	"berth/pkg/client"
	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/server"
	"berth/pkg/status"
	"berth/pkg/target"
)

const testInstance = "i-0123456789abcdef0"

var testBuild = Build{Version: "1.2.3", Revision: "0123abc", Date: "2026-11-22T10:00:00Z"}

// shownAgent is a running agent as far as its clients see it: what it publishes is set by the test.
type shownAgent struct {
	disc   latest.Value[discovery.Snapshot]
	reg    latest.Value[registrar.Snapshot]
	socket string

	mu       sync.Mutex // guards followed
	followed map[string]bool
	asked    chan struct{} // gets a value when somebody follows
}

func newShownAgent(t testing.TB) *shownAgent {
	t.Helper()
	a := &shownAgent{followed: map[string]bool{}, asked: make(chan struct{}, 100)}
	a.socket = filepath.Join(t.TempDir(), "berth.sock")
	s, err := server.Listen(t.Context(), server.Config{
		Socket: a.socket, Build: status.Build{Version: "1.2.3"}, Registry: prometheus.NewRegistry(),
		Discovery: a.disc.Get, Registrar: a.reg.Get,
		Follow: func(keys []string) func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, k := range keys {
				a.followed[k] = true
			}
			a.asked <- struct{}{}
			return func() {}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return a
}

// beginAgent starts an agent on a given socket that shows one container, and returns it with what ends it.
func beginAgent(t *testing.T, socket string, w target.Want, health string) (*shownAgent, func()) {
	t.Helper()
	a := &shownAgent{followed: map[string]bool{}, asked: make(chan struct{}, 100), socket: socket}
	a.show(1, []target.Want{w}, nil, registered(w, health, ""))
	return a, a.serve(t)
}

// serve has the agent answer on its socket until end is called.
func (a *shownAgent) serve(t *testing.T) (end func()) {
	t.Helper()
	s, err := server.Listen(t.Context(), server.Config{
		Socket: a.socket, Registry: prometheus.NewRegistry(), Discovery: a.disc.Get, Registrar: a.reg.Get,
		Follow: func([]string) func() { a.asked <- struct{}{}; return func() {} },
	})
	if err != nil {
		t.Error(err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	}
}

// run runs a command line in this process and returns its exit code and output.
func (a *shownAgent) run(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	env := map[string]string{"BERTH_CONTROL_SOCKET": a.socket, "BERTH_STATUS_LISTEN": "127.0.0.1:1"}
	return runCommand(ctx, env, args...)
}

func runCommand(ctx context.Context, env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = execute(ctx, args, &environment{
		stdin: strings.NewReader(""), stdout: &out, stderr: &err, getenv: func(k string) string { return env[k] },
		build: testBuild,
	})
	return code, out.String(), err.String()
}

var testStart = time.Now().Add(-210 * time.Minute).Truncate(time.Second)

func testRun(name string) target.Run {
	return target.Run{ID: strings.Repeat(string("0123456789abcdef"[len(name)%16]), 64), Name: name, StartedAt: testStart}
}

func testWant(name string, hostPort uint16) target.Want {
	return target.Want{Group: "web", Run: testRun(name), Port: 8080, HostPort4: hostPort, Dynamic: true}
}

// show publishes a host that wants ws, and what the load balancer has of them.
func (a *shownAgent) show(seq uint64, ws []target.Want, decisions []discovery.Decision, targets ...registrar.TargetStatus) {
	d := &discovery.Snapshot{
		Seq: seq, Generation: 1, Wants: map[string][]target.Want{"web": ws}, Decisions: decisions,
		Stream: discovery.Stream{Up: true, Engine: "28.5.2", APIVersion: "1.51"},
	}
	a.disc.Set(d)
	a.reg.Set(&registrar.Snapshot{
		At: time.Now(), Seq: seq, Connected: true,
		Self: elb.Self{InstanceID: testInstance, Region: "eu-central-1"},
		Groups: []registrar.GroupStatus{{
			ARN: "arn:web", Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: seq, Targets: targets,
		}},
	})
}

func registered(w target.Want, health, reason string) registrar.TargetStatus {
	return registrar.TargetStatus{
		Target: target.Target{ID: testInstance, Port: w.HostPort4}, Phase: ledger.Registered, Health: health,
		Reason: reason, Since: testStart, Wants: []target.Want{w}, Run: w.Run,
	}
}

func decide(w target.Want, v discovery.Verdict, why, change string) discovery.Decision {
	return discovery.Decision{
		Run: w.Run, Group: w.Group, Port: w.Port, Protocol: w.Protocol, Verdict: v, Why: why, Change: change, Since: testStart,
	}
}

// terminal returns the two ends of a pseudo terminal of the given width.
func terminal(t *testing.T, width uint16) (master, slave *os.File) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := unix.IoctlSetWinsize(int(s.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: 24}); err != nil {
		t.Fatal(err)
	}
	return m, s
}

func TestDisplayOf(t *testing.T) {
	_, tty := terminal(t, 97)
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for name, tt := range map[string]struct {
		w    io.Writer
		env  map[string]string
		want display
	}{
		"terminal":      {tty, nil, display{97, true, true}},
		"NO_COLOR":      {tty, map[string]string{"NO_COLOR": "1"}, display{97, false, true}},
		"dumb terminal": {tty, map[string]string{"TERM": "dumb"}, display{97, false, true}},
		"file":          {file, nil, display{}},
		"buffer":        {&bytes.Buffer{}, nil, display{}},
	} {
		if got := displayOf(tt.w, func(k string) string { return tt.env[k] }); got != tt.want {
			t.Errorf("%s: got %+v; want %+v", name, got, tt.want)
		}
	}
}

func TestCoded(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
	}{
		{errors.New("anything"), exitFailure},
		{errors.Join(client.ErrNotRunning), exitNoAgent},
		{errors.Join(client.ErrSocketDenied), exitNoAgent},
		{exit(exitNever, client.ErrNotRunning), exitNever},
	} {
		var got *exitError
		if !errors.As(coded(tt.err), &got) || got.code != tt.code {
			t.Errorf("%v: got %+v; want code %d", tt.err, got, tt.code)
		}
	}
	if coded(nil) != nil {
		t.Error("nil has become an error")
	}
}

// Flags win over the environment, that over the file, that over the defaults; a broken file is the agent's trouble.
func TestAgentFlags_client(t *testing.T) {
	a := newShownAgent(t)
	a.show(1, nil, nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "berth.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nowhere := filepath.Join(dir, "nowhere.sock")
	write("control_socket: " + a.socket + "\nstatus_listen: 127.0.0.1:1\ntarget_groups: {web: {}}\n")
	for name, tt := range map[string]struct {
		env  map[string]string
		args []string
		code int
	}{
		"file":             {nil, []string{"--config", file}, 0},
		"variable's file":  {map[string]string{"BERTH_CONFIG": file}, nil, 0},
		"variable":         {map[string]string{"BERTH_CONTROL_SOCKET": nowhere}, []string{"--config", file}, exitNoAgent},
		"flag":             {map[string]string{"BERTH_CONTROL_SOCKET": nowhere}, []string{"--control-socket", a.socket}, 0},
		"flag to nowhere":  {nil, []string{"--config", file, "--control-socket", nowhere}, exitNoAgent},
		"flag with a typo": {nil, []string{"--control-sockt", nowhere}, exitUsage},
	} {
		code, _, stderr := runCommand(t.Context(), tt.env, append([]string{"status"}, tt.args...)...)
		if code != tt.code {
			t.Errorf("%s: got %d %s; want %d", name, code, stderr, tt.code)
		}
	}
	write("nonsense: [")
	code, _, stderr := runCommand(t.Context(), map[string]string{"BERTH_CONTROL_SOCKET": a.socket, "BERTH_CONFIG": file}, "status")
	if code != 0 {
		t.Errorf("broken file: got %d %s; want an answer", code, stderr)
	}
}
