package contract

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// outcome is a command line (DIR is the world's directory) and the exit code that docs/commands.md, or the command's help, promises for it.
type outcome struct {
	code int
	args string
}

// exits runs command lines one after the other.
func (w *world) exits(outcomes ...outcome) {
	w.t.Helper()
	for _, o := range outcomes {
		args := strings.Fields(strings.ReplaceAll(o.args, "DIR", w.dir))
		code, stdout, stderr := w.run(args...)
		if code != o.code {
			w.t.Errorf("berth %s: exit code %d; want %d\n%s%s", o.args, code, o.code, stdout, stderr)
		}
	}
}

// Wrong command lines and configurations, and what depends on nothing else.
func TestExit_usage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("bad.yaml", "target_groups: {web: {nonsense: 1}}\n")
	w.write("none.yaml", "target_groups: {}\n")
	w.write("file", "")
	w.exits(
		outcome{0, ""}, outcome{0, "--help"}, outcome{0, "help stop"}, outcome{0, "version"}, outcome{0, "version --json"},
		outcome{0, "completion bash"}, outcome{0, "__complete stop"}, outcome{0, "check --offline"},
		outcome{0, "man man"}, outcome{1, "man file"}, outcome{2, "man"},
		outcome{2, "nonsense"}, outcome{2, "--nonsense"}, outcome{2, "version nonsense"}, outcome{2, "version --josn"},
		outcome{2, "run --config bad.yaml"}, outcome{2, "run --config none.yaml"}, outcome{2, "run --config missing.yaml"},
		outcome{2, "run --log-level loud"}, outcome{2, "run --target-group web"}, outcome{2, "run something"},
		outcome{1, "run --state-dir DIR/file"}, outcome{1, "run --control-socket DIR/file"},
		outcome{2, "check --offline --config bad.yaml"}, outcome{2, "check something"},
		outcome{2, "plan --config bad.yaml"}, outcome{1, "plan --config bad.yaml --detailed-exitcode"}, outcome{2, "plan something"},
		outcome{1, "plan something --detailed-exitcode"},
		outcome{0, "ledger"}, outcome{0, "ledger --config bad.yaml --state-dir DIR/state"}, outcome{1, "ledger --state-dir DIR/file"}, outcome{2, "ledger something"},
		outcome{0, "boot"}, outcome{2, "boot --config bad.yaml --state-dir DIR/state"}, outcome{2, "boot something"},
		outcome{2, "status --nonsense"},
		outcome{2, "wait"}, outcome{2, "wait --for happy web-1"}, outcome{2, "wait --timeout 0s web-1"},
		outcome{2, "stop"}, outcome{2, "stop --settle -1s web-1"},
		outcome{2, "drain"}, outcome{2, "drain --all web-1"}, outcome{2, "undrain"}, outcome{2, "undrain --all web-1"},
		outcome{2, "explain"}, outcome{2, "explain a b"}, outcome{2, "reload something"}, outcome{2, "prune --json"},
		outcome{2, "shutdown-drain something"},
	)
}

// Without an agent.
func TestExit_noAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.run("web-1", "web", 32768)
	w.exits(
		outcome{5, "status"}, outcome{5, "status --json"}, outcome{5, "wait web-1"}, outcome{5, "stop web-1"}, outcome{5, "drain web-1"},
		outcome{5, "drain --all"}, outcome{5, "undrain web-1"}, outcome{5, "undrain --all"}, outcome{5, "prune --yes"}, outcome{5, "reload"},
		outcome{0, "explain web-1"}, outcome{1, "explain nobody"}, outcome{0, "check"},
		outcome{0, "plan"}, outcome{2, "plan --detailed-exitcode"}, outcome{0, "ledger"}, outcome{0, "boot"},
		outcome{0, "shutdown-drain"},
	)
	w.system("stopping")
	w.exits(outcome{0, "shutdown-drain"}) // nothing is registered
	w.fault("DescribeTargetHealth", "AccessDenied")
	w.exits(outcome{1, "check"}, outcome{1, "plan"}, outcome{1, "plan --detailed-exitcode"})
}

// Beside an agent.
func TestExit_agent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for port, c := range []struct{ name, group string }{{"web-1", "web"}, {"web-2", "web"}, {"lone", ""}, {"slow-1", "slow"}} {
		w.engine.run(c.name, c.group, 32768+port)
	}
	w.foreign("web", 9)
	w.up()
	w.exits(
		outcome{3, "run"},
		outcome{0, "wait --for registered web-1 web-2 slow-1"}, outcome{0, "wait --for drained lone"},
		outcome{1, "wait --for drained --timeout 100ms web-1"}, outcome{4, "wait lone"},
		outcome{0, "status"}, outcome{0, "status --all web-1"}, outcome{1, "status nobody"},
		outcome{0, "explain web-1"}, outcome{1, "explain nobody"}, outcome{0, "check"},
		outcome{0, "plan"}, outcome{0, "plan --detailed-exitcode"},
		outcome{2, "prune"}, outcome{2, "prune nosuch"}, outcome{0, "prune --yes"}, outcome{0, "prune --yes --json"},
		outcome{0, "drain slow-1"}, outcome{0, "drain slow-1"}, outcome{1, "drain nobody"}, outcome{0, "drain --wait --max-wait 100ms slow-1"},
		outcome{0, "undrain slow-1"}, outcome{0, "undrain slow-1"}, outcome{0, "undrain --all"}, outcome{0, "undrain nobody"},
		outcome{1, "stop --docker-socket none.sock lone"}, outcome{1, "stop lone nobody"},
		outcome{0, "stop --settle 0s lone"}, outcome{0, "stop --max-wait 100ms web-1"},
		outcome{0, "reload"},
	)
	w.configure("{web: {nonsense: 1}}")
	flags := " --control-socket " + w.path("c.sock")
	w.exits(outcome{2, "reload" + flags}, outcome{0, "status" + flags})
	w.configure("{web: {}, slow: {}}")
	w.interrupted(0, "status", "--watch")
	w.interrupted(1, "wait", "--for", "drained", "web-2")
	w.interrupted(1, "stop", "--settle", "1h", "--max-wait", "1h", "slow-1")
	w.interrupted(1, "drain", "--wait", "--max-wait", "1h", "slow-1")
	w.fault("DeregisterTargets", "AccessDenied")
	w.exits(outcome{1, "stop --settle 0s web-2"}, outcome{1, "drain web-2"}, outcome{0, "stop --force --settle 0s web-2"})
	w.down() // 0
}

// Waits that take their time: for health checks, and for a container that might be about to come.
func TestExit_wait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.run("web-1", "web", 32768)
	w.up()
	w.exits(outcome{0, "wait web-1"}, outcome{4, "wait nobody"})
}

// interrupted interrupts a command once it waits for the agent; it has to exit with a code.
func (w *world) interrupted(code int, args ...string) {
	w.t.Helper()
	rec := w.record()
	p := w.start(append(args, "--control-socket", w.path("p.sock"))...)
	w.eventually(strings.Join(args, " ")+" waits", func() bool { return rec.polls() })
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		w.t.Fatal(err)
	}
	if got := w.wait(p); got != code {
		w.t.Errorf("berth %q, interrupted: exit code %d; want %d\n%s%s", args, got, code, &p.stdout, &p.stderr)
	}
	rec.close()
}

// The units' commands, on what an earlier boot has left.
func TestExit_boot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stale := func() {
		w.write("state/ledger.json", string(goldenFile(t, "ledger/ledger.json"))) // nobody's boot
		w.foreign("web", 32768)
	}
	stale()
	w.exits(outcome{0, "boot"})
	w.registered("web", 0)
	stale()
	w.write("bad.yaml", "target_groups: {web: {nonsense: 1}}\n")
	w.exits(outcome{2, "boot --config bad.yaml --state-dir DIR/state"})
	w.registered("web", 0)
	stale()
	w.system("stopping")
	w.env = append(w.env, "BERTH_DRAIN_SHUTDOWN_MAX_WAIT=8s") // half of it is for the calls: enough on a busy machine
	w.exits(outcome{0, "shutdown-drain"})
	w.registered("web", 0)
	stale()
	w.fault("DeregisterTargets", "AccessDenied")
	w.exits(outcome{1, "boot"}, outcome{1, "shutdown-drain"})
	w.up()
	w.exits(outcome{3, "boot"})
	// Instance metadata that contradicts the configuration.
	w.down()
	if err := os.RemoveAll(w.path("state")); err != nil {
		t.Fatal(err)
	}
	w.exits(outcome{2, "run --instance-id i-00000000000000001"})
}
