package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"berth/internal/elbsim"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/target"
)

// asBerth is the variable that makes the test binary the berth command: for tests that need a process of another user.
const asBerth = "BERTH_TEST_IS_BERTH"

func TestMain(m *testing.M) {
	if os.Getenv(asBerth) != "" {
		os.Exit(execute(context.Background(), os.Args[1:], &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}))
	}
	goleak.VerifyTestMain(m)
}

// scriptHost is the host that a script runs on: an agent of this process between a Docker engine in memory and elbsim.
type scriptHost struct {
	sim    *elbsim.Sim
	engine *enginetest.Engine
	config string
	stop   func()
	agent  *agent
	ids    map[string]string // by container name
	mu     sync.Mutex        // guards failStop
	fail   string            // what Docker answers to a stop; empty: it stops
}

type scriptKey struct{}

// sequential runs scripts one after the other: the AWS SDK reads the environment of the process.
type sequential struct{ *testing.T }

func (s sequential) Parallel()     {}
func (s sequential) Verbose() bool { return testing.Verbose() }
func (s sequential) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(sequential{t}) })
}

// TestScript runs testdata/script. Beside testscript's own commands there are:
//
//	agent                    start the agent; its groups are web (attached) and dns
//	container NAME [LABEL]   run a container, with the label berth.targets if one is given
//	berth ARGS...            run a berth command in this process
//	exits CODE ARGS...       the same, and it has to exit with this code
//	background ARGS...       the same in the background; interrupt ends it, and it has to exit with 1
//	registered N [GROUP]     wait until so many targets are registered
//	drains N                 wait until so many drains hold that are nobody's stop signal
//	foreign PORT             register a target of this host behind the agent's back
//	fault ACTION CODE        make a call fail
//	dockerfails MESSAGE      make Docker refuse to stop containers
//	rewrite FILE             replace the configuration
func TestScript(t *testing.T) {
	testscript.RunT(sequential{t}, testscript.Params{
		Dir: "testdata/script", Setup: setUpScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent": scriptAgent, "container": scriptContainer, "berth": scriptBerth, "exits": scriptExits, "registered": scriptRegistered,
			"foreign": scriptForeign, "fault": scriptFault, "dockerfails": scriptDockerFails, "rewrite": scriptRewrite, "background": scriptBackground,
			"interrupt": scriptInterrupt, "drains": scriptDrains,
		},
	})
}

const scriptConfig = `target_groups: {web: {}, dns: {}}
listen: 127.0.0.1:0
status_listen: 127.0.0.1:0
control_socket: %[1]s/c.sock
state_dir: %[1]s/state
docker: {socket: %[1]s/d.sock}
`

func setUpScript(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "berth-script-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(dir) })
	h := &scriptHost{engine: enginetest.New(), config: filepath.Join(dir, "berth.yaml"), ids: map[string]string{}, stop: func() {}}
	env.Defer(func() { h.stop() })
	env.Values[scriptKey{}] = h
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "state"), 0o700), os.WriteFile(h.config, fmt.Appendf(nil, scriptConfig, dir), 0o600)); err != nil {
		return err
	}
	h.sim = elbsim.New(elbsim.Config{Lags: &elbsim.Lags{Register: 50 * time.Millisecond, Deregister: 50 * time.Millisecond}})
	for _, g := range []elbsim.Group{
		{Name: "web", DeregistrationDelay: time.Second, HealthCheck: elbsim.HealthCheck{Interval: 50 * time.Millisecond, Healthy: 2}},
		{Name: "dns", Protocol: "UDP", Port: 53, DeregistrationDelay: time.Second},
	} {
		if _, err := h.sim.AddGroup(g); err != nil {
			return err
		}
	}
	server, err := elbsim.Start(h.sim, elbsim.Listen{})
	if err != nil {
		return err
	}
	env.Defer(func() { _ = server.Close() })
	for _, kv := range server.Env() {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
		env.Defer(func() { _ = os.Unsetenv(name) })
	}
	env.Setenv("BERTH_CONFIG", h.config)
	env.Setenv("SOCKET", dir+"/c.sock")
	return serveDocker(env, h, dir+"/d.sock")
}

// serveDocker serves the two requests that berth stop sends to Docker.
func serveDocker(env *testscript.Env, h *scriptHost, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	mux.HandleFunc("POST /containers/{id}/stop", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		fail := h.fail
		h.mu.Unlock()
		if fail != "" {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, `{"message": %q}`, fail)
			return
		}
		h.engine.Stop(r.PathValue("id"))
		w.WriteHeader(http.StatusNoContent)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }()
	env.Defer(func() { _ = srv.Close() })
	return nil
}

func hostOf(ts *testscript.TestScript) *scriptHost { return ts.Value(scriptKey{}).(*scriptHost) }

// scriptAgent runs the agent as runAgent does, on the engine in memory.
func scriptAgent(ts *testscript.TestScript, _ bool, _ []string) {
	h := hostOf(ts)
	read := func() (*config.Config, error) {
		return config.Load(config.Options{ConfigPath: h.config, Getenv: ts.Getenv})
	}
	cfg, err := read()
	ts.Check(err)
	a := newAgent(cfg, zap.NewNop(), false)
	a.read, a.engine, h.agent = read, h.engine, a
	ts.Check(a.build(context.Background()))
	a.server, err = a.listen(context.Background())
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	h.stop = func() {
		cancel()
		if err := errors.Join(<-ended, a.ledger.Close()); err != nil {
			ts.Logf("agent: %v", err)
		}
	}
	eventually(ts, "the agent ready", func() bool { return a.server.Readiness().Ready })
}

func eventually(ts *testscript.TestScript, what string, holds func() bool) {
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			ts.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func scriptContainer(ts *testscript.TestScript, _ bool, args []string) {
	h := hostOf(ts)
	spec := enginetest.Spec{Name: args[0], Image: "my/web:1", Ports: []string{"8080"}}
	if len(args) > 1 {
		spec.Labels = map[string]string{discovery.TargetsLabel: args[1]}
	}
	h.ids[args[0]] = h.engine.Run(spec)
	ts.Setenv("ID_"+strings.ReplaceAll(args[0], "-", "_"), h.ids[args[0]])
}

// runBerth runs a command line in this process.
func runBerth(ctx context.Context, ts *testscript.TestScript, stdout, stderr io.Writer, args []string) int {
	return execute(ctx, args, &environment{stdin: strings.NewReader(ts.Getenv("ANSWER")), stdout: stdout, stderr: stderr, getenv: ts.Getenv})
}

func scriptBerth(ts *testscript.TestScript, neg bool, args []string) {
	if code := runBerth(context.Background(), ts, ts.Stdout(), ts.Stderr(), args); (code != 0) != neg {
		ts.Fatalf("berth %v exited with %d", args, code)
	}
}

func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if code := runBerth(context.Background(), ts, ts.Stdout(), ts.Stderr(), args[1:]); code != want {
		ts.Fatalf("berth %v exited with %d; want %d", args[1:], code, want)
	}
}

func scriptBackground(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() { ended <- runBerth(ctx, ts, io.Discard, io.Discard, args) }()
	background.Store(ts.Name(), func() int { cancel(); return <-ended })
}

// background holds what a script has running: testscript's values cannot be set once it runs.
var background sync.Map

func scriptInterrupt(ts *testscript.TestScript, _ bool, _ []string) {
	end, ok := background.LoadAndDelete(ts.Name())
	if !ok {
		ts.Fatalf("nothing runs in the background")
	}
	if code := end.(func() int)(); code != 1 {
		ts.Fatalf("it exited with %d; want 1", code)
	}
}

func scriptRegistered(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	group := "web"
	if len(args) > 1 {
		group = args[1]
	}
	eventually(ts, args[0]+" targets in "+group, func() bool { return len(hostOf(ts).sim.Registered(group)) == want })
}

func scriptForeign(ts *testscript.TestScript, _ bool, args []string) {
	port, err := target.ParsePort(args[0])
	ts.Check(err)
	ts.Check(hostOf(ts).sim.Register("web", target.Target{ID: testInstance, Port: port}))
}

func scriptFault(ts *testscript.TestScript, _ bool, args []string) {
	_, err := hostOf(ts).sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: args[0], Code: args[1]})
	ts.Check(err)
}

func scriptDockerFails(ts *testscript.TestScript, _ bool, args []string) {
	h := hostOf(ts)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = strings.Join(args, " ")
}

func scriptDrains(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	eventually(ts, args[0]+" drains", func() bool {
		s, _ := hostOf(ts).agent.seen.Get()
		n := 0
		for _, d := range s.Drains {
			if d.Cause != discovery.CauseStopSignal {
				n++
			}
		}
		return n == want
	})
}

// scriptRewrite replaces the target groups of the configuration; the rest stays.
func scriptRewrite(ts *testscript.TestScript, _ bool, args []string) {
	h := hostOf(ts)
	old, err := os.ReadFile(h.config)
	ts.Check(err)
	_, rest, _ := strings.Cut(string(old), "listen:")
	ts.Check(os.WriteFile(h.config, []byte(ts.ReadFile(args[0])+"listen:"+rest), 0o600))
}

// Every command that needs the agent says so where its socket may not be used, and exits with 5.
func TestCommands_socketDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a command as somebody else")
	}
	dir := shortDir(t)
	program := strangersProgram(t, dir)
	socket := filepath.Join(dir, "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	docker, err := net.Listen("unix", filepath.Join(dir, "d.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(docker) }()
	t.Cleanup(func() { _ = srv.Close() })
	if err := errors.Join(os.Chmod(socket, 0o600), os.Chmod(docker.Addr().String(), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"status", 5, "permission denied on the control socket"},
		{"wait web-1", 5, "permission denied on the control socket"},
		{"drain web-1", 5, "group berth"},
		{"undrain --all", 5, "group berth"},
		{"reload", 5, "group berth"},
		{"prune --yes", 5, "group berth"},
		{"stop web-1", 1, "permission denied on Docker's socket"},
	} {
		env := []string{"BERTH_CONTROL_SOCKET=" + socket, "BERTH_STATUS_LISTEN=127.0.0.1:1", "BERTH_DOCKER_SOCKET=" + docker.Addr().String()}
		got, out := runAsNobody(t, program, env, strings.Fields(test.args)...)
		if got != test.code || !strings.Contains(out, test.says) {
			t.Errorf("berth %s: %d %q; want %d and %q", test.args, got, out, test.code, test.says)
		}
	}
}
