package contract

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// printed compares what a command printed on standard output, JSON, with its golden file.
func (w *world) printed(name string, code int, args ...string) {
	w.t.Helper()
	golden(w.t, "json/"+name+".json", w.mask(pretty(w.t, w.must(code, args...))))
}

// What the commands print that need no agent, on a host where none runs.
func TestJSON_noAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.run("web-1", "web", 32768)
	w.engine.run("web-2", "web:9090", 32769)
	w.printed("version", 0, "version", "--json")
	w.printed("check_offline", 0, "check", "--offline", "--json")
	w.write("bad.yaml", "target_groups: {web: {nonsense: 1}}\n")
	w.printed("check_wrong", 2, "check", "--json", "--config", "bad.yaml")
	w.printed("check_noagent", 0, "check", "--json")
	w.printed("plan_noagent", 0, "plan", "--json")
	w.printed("explain_noagent", 0, "explain", "--json", "web-1")
	w.printed("ledger_empty", 0, "ledger", "--json")
	w.fault("DescribeTargetHealth", "AccessDenied")
	w.printed("plan_incomplete", 1, "plan", "--json")
}

// What the commands print that look, beside an agent with a healthy target, a request that cannot be met, a container
// that asks for nothing, and a target that is somebody else's.
func TestJSON_look(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.run("web-1", "web", 32768)
	w.engine.run("web-2", "web:9090", 32769)
	w.engine.run("lone", "", 32770)
	w.foreign("slow", 9)
	w.up()
	w.printed("wait_healthy", 0, "wait", "--json", "web-1")
	w.printed("wait_registered", 0, "wait", "--json", "--for", "registered", "--group", "web", "web-1")
	w.printed("wait_pending", 1, "wait", "--json", "--for", "drained", "--timeout", "2s", "web-1")
	w.printed("wait_never", 4, "wait", "--json", "web-1", "web-2", "lone", "nobody")
	w.printed("status", 0, "status", "--json")
	w.printed("status_all", 0, "status", "--json", "--all")
	w.printed("status_one", 0, "status", "--json", "web-1")
	w.printed("explain_healthy", 0, "explain", "--json", "web-1")
	w.printed("explain_refused", 0, "explain", "--json", "web-2")
	w.printed("explain_ignored", 0, "explain", "--json", "lone")
	w.printed("plan", 0, "plan", "--json")
	w.printed("check", 0, "check", "--json")
	w.ledgerHas("web-1", "registered")
	w.printed("ledger", 0, "ledger", "--json")
}

// What the commands print that act. A departure is over after 10 s or more, so only that of what was not registered is
// waited for here; TestJSON_gone waits for the others.
func TestJSON_act(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for port, c := range []struct{ name, group string }{
		{"web-1", "web"}, {"web-2", "web"}, {"slow-1", "slow"}, {"lone-1", ""}, {"lone-2", ""},
	} {
		w.engine.run(c.name, c.group, 32768+port)
	}
	w.foreign("web", 9)
	w.up()
	w.must(0, "wait", "--for", "registered", "web-1", "web-2", "slow-1")

	w.printed("drain", 0, "drain", "--json", "--wait", "--settle", "0s", "--reason", "a look inside", "lone-1")
	w.printed("drain_draining", 0, "drain", "--json", "slow-1")
	// That one drains for an hour.
	w.printed("drain_overdue", 0, "drain", "--json", "--wait", "--max-wait", "100ms", "slow-1")
	w.printed("status_drained", 0, "status", "--json", "lone-1")
	w.printed("explain_drained", 0, "explain", "--json", "lone-1")
	w.printed("undrain", 0, "undrain", "--json", "lone-1", "slow-1")
	w.printed("drain_host", 0, "drain", "--json", "--all")
	w.printed("undrain_host", 0, "undrain", "--json", "--all")
	w.must(0, "wait", "--for", "registered", "web-1", "web-2", "slow-1")

	w.printed("prune", 0, "prune", "--json", "--yes")
	w.printed("prune_nothing", 0, "prune", "--json", "--yes")

	w.configure("{web: {}}")
	w.printed("reload", 0, "reload", "--json")

	w.engine.refuseStops("no such luck")
	w.printed("stop_failed", 1, "stop", "--json", "--settle", "0s", "lone-1")
	w.engine.refuseStops("")
	w.printed("stop", 0, "stop", "--json", "--settle", "0s", "lone-1", "lone-2")
	w.printed("stop_overdue", 0, "stop", "--json", "--max-wait", "100ms", "web-1")
	w.fault("DeregisterTargets", "AccessDenied")
	w.printed("stop_kept", 1, "stop", "--json", "--settle", "0s", "web-2")
	w.printed("drain_stuck", 1, "drain", "--json", "web-2")
}

// What drain and stop print of a target of which the load balancer has let go.
func TestJSON_gone(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until load balancers have let go")
	}
	t.Parallel()
	for name, args := range map[string][]string{
		"drain_gone": {"drain", "--json", "--wait", "--settle", "0s", "web-1"},
		"stop_gone":  {"stop", "--json", "--settle", "0s", "web-1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.engine.run("web-1", "web", 32768)
			w.up()
			w.ledgerHas("web-1", "registered")
			w.printed(name, 0, args...)
			w.printed(name+"_status", 0, "status", "--json", "--all")
			w.down()
			golden(t, "ledger/gone.json", w.ledger(false))
		})
	}
}

// The status of hosts in trouble: what scripts branch on are the words of it.
func TestJSON_trouble(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]struct {
		makes func(w *world)
		shows []string
	}{
		"denied": {func(w *world) {
			w.configure("{web: {}, nosuch: {}}")
			w.fault("RegisterTargets", "AccessDenied")
		}, []string{`"ready":true`, `"state":"denied"`, `"state":"gone"`}},
		"full": {func(w *world) { w.fault("RegisterTargets", "TooManyTargets") }, []string{`"ready":true`, `"state":"full"`}},
		"spot": {func(w *world) {
			w.metadata("spot/instance-action", `{"action":"terminate","time":"2001-02-03T04:05:06Z"}`)
		}, []string{`"ready":true`, `"kind":"spot"`, `"cause":"spot"`, `"state":"drained"`}},
		"nodocker": {func(w *world) {
			w.env = append(w.env, "BERTH_DOCKER_SOCKET="+w.path("none.sock"))
		}, []string{`"ready":false`, `"account":"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.engine.run("web-1", "web", 32768)
			trouble.makes(w)
			w.launch()
			w.eventually("the trouble shows", func() bool {
				_, status, err := w.ask("GET", "/v1/status", "")
				return err == nil && !slices.ContainsFunc(trouble.shows, func(piece string) bool { return !strings.Contains(status, piece) })
			})
			w.printed("status_"+name, 0, "status", "--json")
			code, ready, err := w.ask("GET", "/readyz?format=json", "")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "json/ready_"+name+".json", w.mask(fmt.Sprintf("# %d\n%s", code, pretty(t, ready))))
		})
	}
}
