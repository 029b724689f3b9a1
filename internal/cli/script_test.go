package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"berth/internal/elbsim"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// asBerth is the variable that makes the test binary the berth command: for tests that need a process of another user.
const asBerth = "BERTH_TEST_IS_BERTH"

func TestMain(m *testing.M) {
	if os.Getenv(asBerth) != "" {
		os.Exit(execute(context.Background(), os.Args[1:], process(testBuild)))
	}
	goleak.VerifyTestMain(m)
}

// scriptHost is the host that a script runs on: an agent of this process between a Docker engine in memory and elbsim.
type scriptHost struct {
	agent  *agenttest.Agent
	sim    *elbsim.Sim
	engine *enginetest.Engine
	config string
	stop   func()
	ids    map[string]string // by container name
	faults []string          // of elbsim, in force
	mu     sync.Mutex        // guards fail
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
//	background ARGS...       the same in the background
//	interrupt [CODE]         ends that, and it has to exit with this code (1)
//	as USER CODE ARGS...     a berth command in a process of its own, as root or nobody; it has to exit with this code
//	halt                     stop the agent; its ledger stays
//	age                      make the ledger that of an earlier boot
//	dockerdown               Docker does not answer any more
//	registered N [GROUP]     wait until so many targets are registered
//	drains N                 wait until so many drains hold that are nobody's stop signal
//	trouble GROUP            wait until a group of that key is in trouble
//	foreign PORT             register a target of this host behind the agent's back
//	fault ACTION CODE        make a call fail
//	heal                     make none fail any more
//	dockerfails MESSAGE      make Docker refuse to stop containers
//	rewrite FILE             replace the configuration
func TestScript(t *testing.T) {
	program := strangersProgram(t, agenttest.ShortDir(t))
	testscript.RunT(sequential{t}, testscript.Params{
		Dir: "testdata/script", Setup: setUpScript,
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Geteuid() == 0, nil },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent": scriptAgent, "container": scriptContainer, "berth": scriptBerth, "exits": scriptExits, "registered": scriptRegistered,
			"foreign": scriptForeign, "fault": scriptFault, "dockerfails": scriptDockerFails, "rewrite": scriptRewrite, "background": scriptBackground,
			"interrupt": scriptInterrupt, "drains": scriptDrains, "halt": scriptHalt, "age": scriptAge, "dockerdown": scriptDockerDown, "heal": scriptHeal,
			"trouble": scriptTrouble,
			"as":      func(ts *testscript.TestScript, _ bool, args []string) { scriptAs(ts, program, args) },
		},
	})
}

func setUpScript(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "berth-script-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // so that it is the files in it that nobody may not use
		return err
	}
	h := &scriptHost{engine: enginetest.New(), config: agenttest.ConfigFile(dir), ids: map[string]string{}, stop: func() {}}
	env.Defer(func() { h.stop() })
	env.Values[scriptKey{}] = h
	yaml := agenttest.YAML(dir, []string{"web", "dns"}, fmt.Sprintf("docker: {socket: %s/d.sock}\ndrain: {shutdown_max_wait: 6s}\n", dir))
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "state"), 0o700), os.WriteFile(h.config, []byte(yaml), 0o644)); err != nil {
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
		env.Setenv(name, value)
	}
	env.Setenv(asBerth, "1") // what `as` runs
	env.Setenv("BERTH_CONFIG", h.config)
	env.Setenv("SOCKET", dir+"/c.sock")
	env.Setenv("STATE", dir+"/state")
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

// Whoever may not use the control socket waits over the status address, and is told that nothing is looked at oftener for it.
func TestWait_overStatusAddress(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a command as somebody else")
	}
	dir := agenttest.ShortDir(t)
	socket := filepath.Join(dir, "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		run := target.Run{ID: strings.Repeat("a", 64), Name: "web-1", StartedAt: time.Now()}
		_ = json.NewEncoder(w).Encode(status.V1{
			API: "v1", At: time.Now(), Seq: 1, Connected: true, Rows: []status.Row{{Run: run, Group: "web", State: status.Healthy, Why: "it passes"}},
		})
	}))
	t.Cleanup(srv.Close)
	env := []string{"BERTH_CONTROL_SOCKET=" + socket, "BERTH_STATUS_LISTEN=" + srv.Listener.Addr().String()}
	code, out := runAsNobody(t, strangersProgram(t, dir), env, "wait", "web-1")
	if code != 0 || strings.Count(out, "ordinary schedule") != 1 || !strings.Contains(out, "web-1: healthy in web") {
		t.Errorf("berth wait = %d, %q; want 0, and what it could not have", code, out)
	}
}

// Every command that needs the agent says so where its socket may not be used, and exits with 5.
func TestCommands_socketDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a command as somebody else")
	}
	dir := agenttest.ShortDir(t)
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
