package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/target"
)

// patience is how long anything may take before the test gives up.
const patience = time.Minute

// world is a host: a Docker engine, an account of AWS, a configuration, and at times an agent.
type world struct {
	t      *testing.T
	dir    string
	ip     string // of loopback, this world's own
	user   string // whom the agent names as the one who asks
	sim    *elbsim.Sim
	engine *engine
	env    []string
	agent  *process
}

var worlds atomic.Int32

// newWorld makes a host with the target groups web and slow: a target of slow drains for an hour, one of web hardly.
func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-c-") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// All of 127/8 is this host: an address of its own has every port free.
	pid := os.Getpid()
	w := &world{t: t, dir: dir, ip: fmt.Sprintf("127.%d.%d.%d", 64+pid>>8&63, pid&255, worlds.Add(1))}
	w.user = fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		w.user = u.Username
	}
	w.sim = elbsim.New(elbsim.Config{Lags: &elbsim.Lags{Register: time.Millisecond, Deregister: time.Millisecond}})
	for _, g := range []elbsim.Group{
		{Name: "web", DeregistrationDelay: -1, HealthCheck: elbsim.HealthCheck{Interval: time.Millisecond, Healthy: 2}},
		{Name: "slow", DeregistrationDelay: time.Hour, HealthCheck: elbsim.HealthCheck{Interval: time.Millisecond, Healthy: 2}},
	} {
		if _, err := w.sim.AddGroup(g); err != nil {
			t.Fatal(err)
		}
	}
	server, err := elbsim.Start(w.sim, elbsim.Listen{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	w.engine = newEngine(t, filepath.Join(dir, "d.sock"))
	w.env = append(server.Env(), "PATH="+w.path("bin")+":"+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+dir, "BERTH_CONFIG="+w.path("berth.yaml"),
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "LC_ALL=C", "TZ=UTC")
	w.configure("{web: {}, slow: {}}")
	for _, name := range []string{"state", "bin"} {
		if err := os.Mkdir(w.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.system("running")
	return w
}

// system has systemd, as far as systemctl tells, be in a state.
func (w *world) system(state string) {
	w.t.Helper()
	if err := os.WriteFile(w.path("bin/systemctl"), []byte("#!/bin/sh\necho "+state+"\n"), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// configure writes the configuration with these target groups.
func (w *world) configure(groups string) {
	w.t.Helper()
	w.write("berth.yaml", fmt.Sprintf(`target_groups: %[1]s
listen: %[3]s:9797
status_listen: %[3]s:9798
control_socket: %[2]s/c.sock
state_dir: %[2]s/state
docker: {socket: %[2]s/d.sock}
drain: {max_wait: 30s, shutdown_max_wait: 2s}
`, groups, w.dir, w.ip))
}

// process is a berth in the background.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer // read after ended
	ended          chan struct{}
}

// start starts a command. It is killed when the test ends.
func (w *world) start(args ...string) *process {
	w.t.Helper()
	p := &process{cmd: exec.Command(berth, args...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = w.env, w.dir
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
	})
	return p
}

// wait waits for the end of a process and returns its exit code.
func (w *world) wait(p *process) int {
	w.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		w.t.Fatalf("%q has not ended", p.cmd.Args)
	}
	return p.cmd.ProcessState.ExitCode()
}

// run runs a command to its end and returns what it printed.
func (w *world) run(args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	p := w.start(args...)
	code = w.wait(p)
	return code, p.stdout.String(), p.stderr.String()
}

// must runs a command that has to exit with a code, and returns what it printed.
func (w *world) must(code int, args ...string) string {
	w.t.Helper()
	got, stdout, stderr := w.run(args...)
	if got != code {
		w.t.Fatalf("berth %s: exit code %d; want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout
}

// launch starts the agent.
func (w *world) launch() { w.agent = w.start("run") }

// up starts the agent and waits until it is ready.
func (w *world) up() {
	w.t.Helper()
	w.launch()
	w.eventually("the agent ready", func() bool {
		select {
		case <-w.agent.ended:
			w.t.Fatalf("the agent ended:\n%s", &w.agent.stderr)
		default:
		}
		code, _, err := w.ask(http.MethodGet, "/readyz", "")
		return err == nil && code == http.StatusOK
	})
}

// down ends the agent as a service manager does.
func (w *world) down() {
	w.t.Helper()
	if err := w.agent.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	if code := w.wait(w.agent); code != 0 {
		w.t.Fatalf("the agent ended with %d:\n%s", code, &w.agent.stderr)
	}
}

func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// registered waits until so many targets are registered in a group.
func (w *world) registered(group string, n int) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d targets in %s", n, group), func() bool { return len(w.sim.Registered(group)) == n })
}

// follow returns the status, and has the agent look at its load balancers often: otherwise it may leave one alone for a
// minute.
func (w *world) follow() string {
	w.t.Helper()
	code, status, err := w.ask(http.MethodGet, "/v1/status?follow=*", "")
	if err != nil || code != http.StatusOK {
		w.t.Fatalf("status: %d, %v", code, err)
	}
	return status
}

// foreign registers a target of this host behind the agent's back.
func (w *world) foreign(group string, port uint16) {
	w.t.Helper()
	if err := w.sim.Register(group, target.Target{ID: "i-0123456789abcdef0", Port: port}); err != nil {
		w.t.Fatal(err)
	}
}

// metadata has the instance metadata service answer something.
func (w *world) metadata(path, value string) {
	w.t.Helper()
	if err := w.sim.SetMetadata("", path, value); err != nil {
		w.t.Fatal(err)
	}
}

// fault makes a call to AWS fail.
func (w *world) fault(action, code string) {
	w.t.Helper()
	if _, err := w.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: action, Code: code}); err != nil {
		w.t.Fatal(err)
	}
}

// dialSocket makes an HTTP client's connections go to a unix socket.
func dialSocket(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// ask sends a request over the control socket.
func (w *world) ask(method, path, body string) (code int, answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := dialSocket(w.path("c.sock")).Do(req)
	if err != nil {
		return 0, "", err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return resp.StatusCode, b.String(), errors.Join(err, resp.Body.Close())
}
