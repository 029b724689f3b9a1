package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"berth/internal/elbsim"
	"berth/pkg/agent"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/host"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

func hostOf(ts *testscript.TestScript) *scriptHost { return ts.Value(scriptKey{}).(*scriptHost) }

// scriptAgent runs the agent as runAgent does, on the engine in memory.
func scriptAgent(ts *testscript.TestScript, _ bool, _ []string) {
	h := hostOf(ts)
	read := agenttest.Reader(h.config, ts.Getenv)
	cfg, err := read()
	ts.Check(err)
	a, err := agenttest.Run(agent.Options{Config: cfg, Read: read, BootID: host.BootID(), Engine: h.engine}, nil)
	ts.Check(err)
	h.agent = a
	h.stop = func() {
		if err := a.Stop(); err != nil {
			ts.Logf("agent: %v", err)
		}
	}
	ts.Check(agenttest.Await("the agent ready", func() bool { return a.Readiness().Ready }))
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
	return execute(ctx, args, &environment{
		stdin: strings.NewReader(ts.Getenv("ANSWER")), stdout: stdout, stderr: stderr, getenv: ts.Getenv, engine: hostOf(ts).engine, build: testBuild,
	})
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

func scriptInterrupt(ts *testscript.TestScript, _ bool, args []string) {
	want := exitFailure
	if len(args) > 0 {
		var err error
		want, err = strconv.Atoi(args[0])
		ts.Check(err)
	}
	end, ok := background.LoadAndDelete(ts.Name())
	if !ok {
		ts.Fatalf("nothing runs in the background")
	}
	if code := end.(func() int)(); code != want {
		ts.Fatalf("it exited with %d; want %d", code, want)
	}
}

func scriptRegistered(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	group := "web"
	if len(args) > 1 {
		group = args[1]
	}
	ts.Check(agenttest.Await(args[0]+" targets in "+group, func() bool { return len(hostOf(ts).sim.Registered(group)) == want }))
}

func scriptForeign(ts *testscript.TestScript, _ bool, args []string) {
	port, err := target.ParsePort(args[0])
	ts.Check(err)
	ts.Check(hostOf(ts).sim.Register("web", target.Target{ID: testInstance, Port: port}))
}

func scriptFault(ts *testscript.TestScript, _ bool, args []string) {
	h := hostOf(ts)
	id, err := h.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: args[0], Code: args[1]})
	ts.Check(err)
	h.faults = append(h.faults, id)
}

func scriptHeal(ts *testscript.TestScript, _ bool, _ []string) {
	h := hostOf(ts)
	for _, id := range h.faults {
		h.sim.RemoveFault(id)
	}
	h.faults = nil
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
	ts.Check(agenttest.Await(args[0]+" drains", func() bool {
		n := 0
		for _, d := range hostOf(ts).agent.Status().Drains {
			if d.Cause != discovery.CauseStopSignal {
				n++
			}
		}
		return n == want
	}))
}

func scriptTrouble(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(agenttest.Await(args[0]+" in trouble", func() bool {
		s := hostOf(ts).agent.Status()
		g := status.GroupNamed(&s, args[0])
		return g != nil && g.Err != ""
	}))
}

// scriptRewrite replaces the target groups of the configuration; the rest stays.
func scriptRewrite(ts *testscript.TestScript, _ bool, args []string) {
	h := hostOf(ts)
	old, err := os.ReadFile(h.config)
	ts.Check(err)
	_, rest, _ := strings.Cut(string(old), "listen:")
	ts.Check(os.WriteFile(h.config, []byte(ts.ReadFile(args[0])+"listen:"+rest), 0o600))
}

func scriptHalt(ts *testscript.TestScript, _ bool, _ []string) { hostOf(ts).stop() }

func scriptDockerDown(ts *testscript.TestScript, _ bool, _ []string) {
	hostOf(ts).engine.FailPing(&discovery.EngineError{
		Host: "unix:///run/d.sock", Why: "there is no such socket", Change: "start Docker", Err: fs.ErrNotExist,
	})
}

// scriptAge has an earlier boot have written what is in the ledger.
func scriptAge(ts *testscript.TestScript, _ bool, _ []string) {
	const before = "00000000-0000-4000-8000-000000000000"
	h, dir := hostOf(ts), ts.Getenv("STATE")
	old, err := ledger.Peek(dir)
	ts.Check(err)
	ts.Check(os.Remove(filepath.Join(dir, "ledger.json")))
	kept, err := ledger.Open(dir, before, ledger.Options{})
	ts.Check(err)
	kept.Claim(elb.Self{InstanceID: testInstance, Region: h.sim.Region()})
	for _, e := range old.Entries() {
		e.BootID = before
		ts.Check(kept.Intend(context.Background(), []ledger.Entry{e}))
	}
	ts.Check(kept.Close())
}

// scriptAs runs a command in a process of its own, as another user if need be: there it finds its engine on the socket
// alone.
func scriptAs(ts *testscript.TestScript, program string, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: as USER CODE ARGS...")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	command := append([]string{program}, args[2:]...)
	if args[0] == "nobody" {
		command = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, command...)
	}
	code := 0
	var failed *exec.ExitError
	if err := ts.Exec(command[0], command[1:]...); errors.As(err, &failed) {
		code = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("berth %v as %s exited with %d; want %d", args[2:], args[0], code, want)
	}
}
