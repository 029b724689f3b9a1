package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/client"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// ask runs a command and fails the test unless it ends with that code.
func ask(t *testing.T, r *rig.Rig, want int, command string, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := r.Berth(t, command, args...)
	if code != want {
		t.Fatalf("berth %s %v: exit code %d; want %d\n%s\n%s", command, args, code, want, stdout, stderr)
	}
	return stdout, stderr
}

// The listener goes on sending for 2 s after it has let go, and the containers die at once on SIGTERM: nothing but the
// right order keeps every request answered.
func TestStopCommand_noRequestIsLost(t *testing.T) {
	r := rig.New(t, rig.Options{
		// Longer than the load balancer sends: it breaks off what is in flight when the delay is over.
		Groups: []elbsim.Group{{Name: "web", DeregistrationDelay: 5 * time.Second}},
		Sim: elbsim.Config{Lags: &elbsim.Lags{
			Deregister: 2 * time.Second, Describe: 100 * time.Millisecond, Register: 200 * time.Millisecond,
		}},
	})
	r.StartReady(t)
	dies := harness.Spec{Labels: r.In("web"), Args: []string{"--stop=die"}}
	old := r.Engine.RunAll(t, dies, dies)
	r.WaitHealthy(t, "web", rig.TargetsOf(t, old...)...)

	var sent, failed atomic.Int64
	var last atomic.Pointer[error]
	done := make(chan struct{})
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			// Some 200 a second: each leaves two connections behind that the kernel remembers for a minute.
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-done:
					return
				case <-pace.C:
				}
				sent.Add(1)
				if _, err := harness.AskAt(t.Context(), r.URL("web")); err != nil {
					failed.Add(1)
					last.Store(&err)
				}
			}
		})
	}
	fresh := r.Engine.RunAll(t, dies, dies)
	ask(t, r, 0, "wait", "--for", "healthy", fresh[0].Name, fresh[1].Name)
	stdout, _ := ask(t, r, 0, "stop", "--settle", "3s", "--json", old[0].Name, old[1].ID[:12])
	close(done)
	load.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed, the last with: %v\n%+v", n, sent.Load(), *last.Load(), r.Sim.Stats())
	}
	var result struct {
		Containers []struct{ ID, Outcome string } `json:"containers"`
	}
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || len(result.Containers) != 2 {
		t.Fatalf("%v: %s", err, stdout)
	}
	for i, c := range old {
		if got := result.Containers[i]; got.ID != c.ID || got.Outcome != "stopped" {
			t.Errorf("got %+v; want %s stopped", got, c.ID)
		}
		if c.Inspect(t).State.Running {
			t.Errorf("%s runs", c.Name)
		}
	}
	r.WaitExact(t, "web", rig.TargetsOf(t, fresh...)...)
}

// An interrupted stop undoes its drain, however it ends: the container is registered again, and was not stopped.
func TestStopCommand_interrupted(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"by its user": syscall.SIGINT, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{})
			agent := r.StartReady(t)
			c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			want := rig.TargetsOf(t, c)
			r.WaitHealthy(t, "web", want...)
			stop := r.Begin(t, "stop", "--settle", "1h", "--max-wait", "1h", c.Name)
			r.WaitExact(t, "web")
			drains := slices.DeleteFunc(agent.Status(t).Drains, func(d status.DrainV1) bool { return d.Container != c.ID })
			if len(drains) != 1 || drains[0].Hold != "connection" || drains[0].By == "" {
				t.Errorf("drains while it goes on: %+v; want one that a connection holds", drains)
			}
			stop.Signal(signal)
			code, _, stderr := stop.End(t)
			if signal == syscall.SIGINT && (code != 1 || !strings.Contains(stderr, "its drain is undone")) {
				t.Errorf("got %d %q; want 1 and what was undone", code, stderr)
			}
			r.WaitExact(t, "web", want...)
			if !c.Inspect(t).State.Running {
				t.Error("the container was stopped")
			}
		})
	}
}

// What cannot be deregistered keeps running, and is said; --force stops it.
func TestStopCommand_cannotBeDeregistered(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	want := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", want...)
	if _, err := r.Sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: deregister, Code: "AccessDenied"}); err != nil {
		t.Fatal(err)
	}
	_, stderr := ask(t, r, 1, "stop", "--settle", "0s", c.Name)
	if !strings.Contains(stderr, "cannot be deregistered") || !strings.Contains(stderr, "--force") {
		t.Errorf("got %q; want why, and what to do", stderr)
	}
	if !c.Inspect(t).State.Running {
		t.Error("the container was stopped")
	}
	ask(t, r, 0, "stop", "--settle", "0s", "--force", c.Name)
	if c.Inspect(t).State.Running {
		t.Error("the container runs")
	}
}

func TestDrainCommand_container(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	agent := r.StartReady(t)
	cs := r.Engine.RunAll(t, harness.Spec{Labels: r.In("web")}, harness.Spec{Labels: r.In("web")})
	both := rig.TargetsOf(t, cs...)
	r.WaitHealthy(t, "web", both...)

	ask(t, r, 0, "drain", "--reason", "heap dump", cs[0].Name)
	// It has returned: the target is out already.
	if err := r.Exact("web", rig.TargetsOf(t, cs[1])...); err != nil {
		t.Error(err)
	}
	drains := slices.DeleteFunc(agent.Status(t).Drains, func(d status.DrainV1) bool { return d.Container != cs[0].ID })
	if len(drains) != 1 || drains[0].Reason != "heap dump" || drains[0].By == "" || drains[0].Since.IsZero() {
		t.Errorf("drains %+v; want who, when and why", drains)
	}
	// It outlives the agent.
	agent.Kill(t)
	r.StartReady(t)
	if err := r.Exact("web", rig.TargetsOf(t, cs[1])...); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	ask(t, r, 0, "undrain", cs[0].Name)
	r.WaitExact(t, "web", both...)
	if stdout, _ := ask(t, r, 0, "undrain", cs[0].Name); !strings.Contains(stdout, "nobody has drained") {
		t.Errorf("a second time: %q", stdout)
	}
}

func TestDrainCommand_host(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Groups: []elbsim.Group{{Name: "web"}, {Name: "api"}}})
	agent := r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web", "api")})
	want := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", want...)
	r.WaitHealthy(t, "api", want...)
	ask(t, r, 0, "drain", "--all", "--wait", "--settle", "100ms")
	for _, key := range []string{"web", "api"} {
		if err := r.Exact(key); err != nil {
			t.Error(err)
		}
	}
	if stdout, _ := ask(t, r, 0, "status"); !strings.Contains(stdout, "the host drains: operator") {
		t.Errorf("status does not say it:\n%s", stdout)
	}
	// What is started meanwhile stays out, too.
	late := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	harness.Eventually(t, harness.Patience, "the new one drained", func() error {
		_, stdout, _ := r.Berth(t, "status", late.Name)
		if !strings.Contains(stdout, "drained") {
			return errors.New(stdout)
		}
		return nil
	})
	// Nor does a new agent register anything.
	agent.Stop(t)
	r.StartReady(t)
	for _, key := range []string{"web", "api"} {
		if err := r.Exact(key); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
	ask(t, r, 0, "undrain", "--all")
	r.WaitHealthy(t, "web", append(want, rig.TargetsOf(t, late)...)...)
	r.WaitHealthy(t, "api", want...)
	wantTargets(t, r, deregister, want...)
	wantTargets(t, r, register, slices.Concat(want, want, rig.TargetsOf(t, late))...)
	if out, in := len(r.Calls("api", deregister)), len(r.Calls("api", register)); out != 1 || in != 2 {
		t.Errorf("the other group: %d calls of %s and %d of %s; want 1 and 2", out, deregister, in, register)
	}
}

func TestPruneCommand(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	foreign, other := target.Target{ID: rig.Instance, Port: 9}, target.Target{ID: "i-0fedcba9876543210", Port: 9}
	if err := r.Sim.AddInstance(elbsim.Instance{ID: other.ID}); err != nil {
		t.Fatal(err)
	}
	if err := r.Sim.Register(r.Group("web"), foreign, other); err != nil {
		t.Fatal(err)
	}
	// With something to register the agent looks at the whole group at its start.
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	want := rig.TargetsOf(t, c)
	r.StartReady(t)
	harness.Eventually(t, harness.Patience, "all registered", func() error { return r.Exact("web", append(slices.Clone(want), foreign, other)...) })
	harness.Eventually(t, harness.Patience, "one unclaimed", func() error {
		stdout, _ := ask(t, r, 0, "status")
		if !strings.Contains(stdout, "unclaimed") {
			return errors.New(stdout)
		}
		return nil
	})
	// Nobody agrees: nothing happens.
	if stdout, _ := ask(t, r, 2, "prune"); !strings.Contains(stdout, "- deregister "+foreign.String()) || strings.Contains(stdout, other.ID) {
		t.Errorf("the plan is:\n%s", stdout)
	}
	all := append(slices.Clone(want), foreign, other)
	if err := r.Exact("web", all...); err != nil {
		t.Errorf("before anybody agreed: %v", err)
	}
	ask(t, r, 0, "prune", "--yes")
	if err := r.Exact("web", append(slices.Clone(want), other)...); err != nil {
		t.Error(err)
	}
	if stdout, _ := ask(t, r, 0, "prune", "--yes", "--json"); strings.TrimSpace(stdout) != `{"removed":[],"left":[]}` {
		t.Errorf("a second time: %s", stdout)
	}
}

func TestReloadCommand(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Groups: []elbsim.Group{{Name: "web"}, {Name: "api"}}})
	agent := r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web", "api")})
	want := rig.TargetsOf(t, c)
	r.WaitHealthy(t, "web", want...)
	r.WaitHealthy(t, "api", want...)
	changing := func() int { return len(r.Sim.CallsOf(register)) + len(r.Sim.CallsOf(deregister)) }

	// With an error, without groups, with a change that needs a restart: nothing changes, and it says so.
	before, status := changing(), agent.Status(t)
	for name, yaml := range map[string]string{
		"an error": "target_groups: {web: {port: 80}}\n", "no groups": "target_groups: {}\n",
		"a restart": r.YAML(nil, "aws: {write_timeout: 4s}\n"),
	} {
		r.Configure(t, yaml)
		if _, stderr := ask(t, r, 2, "reload"); !strings.Contains(stderr, "refused") {
			t.Errorf("%s: %q", name, stderr)
		}
	}
	if got := agent.Status(t); got.Generation != status.Generation || changing() != before {
		t.Errorf("refused reloads changed something: generation %d, then %d; %d calls, then %d", status.Generation, got.Generation, before, changing())
	}
	// A key that is renamed makes no call. Labels name keys: the rule takes the container there.
	renamed := fmt.Sprintf("target_groups:\n  %s: {}\n  renamed: {name: %s, labels: false, containers: {name: %q}}\n", r.Group("web"), r.Group("api"), c.Name)
	r.Configure(t, renamed)
	ask(t, r, 0, "reload")
	harness.Eventually(t, harness.Patience, "the renamed key acted on", func() error {
		s := agent.Status(t)
		for _, g := range s.Groups {
			if slices.Contains(g.Keys, "renamed") && g.Seq >= s.Seq && g.State == "ok" {
				return nil
			}
		}
		return fmt.Errorf("groups: %+v", s.Groups)
	})
	if changing() != before {
		t.Errorf("renaming a key made calls: %v", r.Sim.CallsOf(deregister))
	}
	// A group that goes takes its targets along.
	r.Configure(t, "target_groups:\n  "+r.Group("web")+": {}\n")
	ask(t, r, 0, "reload", "--json")
	r.WaitExact(t, "api")
	if err := r.Exact("web", want...); err != nil {
		t.Error(err)
	}
}

// Reloads under churn leave behind neither goroutines nor memory.
func TestReload_hundredUnderChurn(t *testing.T) {
	r := rig.New(t, rig.Options{Groups: []elbsim.Group{{Name: "web"}, {Name: "api"}}})
	agent := r.StartReady(t)
	client := client.New(r.Socket(), "")
	defer client.Close()
	both, one := r.YAML(nil, ""), "target_groups:\n  "+r.Group("web")+": {}\n"
	reload := func(yaml string) {
		t.Helper()
		r.Configure(t, yaml)
		if _, err := client.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		reload(one)
		reload(both)
	}
	goroutinesBefore, threadsBefore := metricOf(t, agent, "go_goroutines"), metricOf(t, agent, "go_memstats_heap_objects")
	stop := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.Engine.Run(t, harness.Spec{Labels: r.In("web", "api")}).Remove(t)
			}
		}
	})
	for range 50 {
		reload(one)
		reload(both)
	}
	close(stop)
	churn.Wait()
	harness.Eventually(t, harness.Patience, "as many goroutines as before", func() error {
		if now := metricOf(t, agent, "go_goroutines"); now > goroutinesBefore+10 {
			return fmt.Errorf("%v goroutines; %v before", now, goroutinesBefore)
		}
		if now := metricOf(t, agent, "go_memstats_heap_objects"); now > 3*threadsBefore+100_000 {
			return fmt.Errorf("%v objects on the heap; %v before", now, threadsBefore)
		}
		return nil
	})
	r.WaitExact(t, "web")
	r.WaitExact(t, "api")
}

func TestExplainCommand(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Rules: map[string]string{"web": "register_when: healthy"}})
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	// Without an agent its parts find out the same.
	for _, running := range []bool{false, true} {
		if running {
			r.StartReady(t)
		}
		stdout, stderr := ask(t, r, 0, "explain", append(r.ConfigFlags(), c.Name)...)
		for _, want := range []string{"[ok  ] container: it is running", "[ok  ] request: its label berth.targets asks for " + r.Group("web"), "has no HEALTHCHECK", "→ give it a HEALTHCHECK"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("agent running %v: %q is not in\n%s%s", running, want, stdout, stderr)
			}
		}
		if strings.Contains(stderr, "looking without it") == running {
			t.Errorf("agent running %v: %q", running, stderr)
		}
	}
	if len(r.Sim.CallsOf(register)) > 0 {
		t.Error("explaining registered something")
	}
	_, stderr := ask(t, r, 1, "explain", "no-such-container")
	if !strings.Contains(stderr, "no-such-container") {
		t.Errorf("an unknown name: %q", stderr)
	}
}

// metricOf returns the value of one of the agent's metrics that has no labels.
func metricOf(t *testing.T, agent *rig.Agent, name string) float64 {
	t.Helper()
	for line := range strings.Lines(agent.Metrics(t)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// The recipe of docs/rolling-deploys.md, as it is.
func TestRollingDeploy(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	r.StartReady(t)
	image, service := r.Engine.WebImage(t, harness.Image{}), harness.Unique("service")
	deploy := func(wantCode int, env []string, args ...string) string {
		t.Helper()
		env = append(env, "IMAGE="+image, "GROUP="+r.Group("web"), "STOP_FLAGS=--settle 1s")
		code, out := r.Script(t, "../../deploy/examples/rolling-deploy.sh", env, append([]string{service, "-l", harness.LabelOwner + "=" + harness.Owner()}, args...)...)
		if code != wantCode {
			t.Fatalf("exit code %d; want %d\n%s", code, wantCode, out)
		}
		return out
	}
	serving := func(n int) []target.Target {
		t.Helper()
		got := r.Sim.Registered(r.Group("web"))
		if len(got) != n {
			t.Fatalf("%d targets are registered; want %d", len(got), n)
		}
		return got
	}
	deploy(0, []string{"COUNT=2"})
	first := serving(2)
	if out := deploy(0, nil); !strings.Contains(out, "2 new, 2 replaced") {
		t.Errorf("it says %q", out)
	}
	second := serving(2)
	for _, before := range first {
		if slices.Contains(second, before) {
			t.Errorf("%v is still registered", before)
		}
	}
	// New ones that do not get healthy in time leave everything as it was.
	deploy(1, []string{"TIMEOUT=10ms"})
	r.WaitExact(t, "web", second...)
}
