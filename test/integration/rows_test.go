package integration

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// row is one row of the tables of what can happen to a container: what the container is, and what happens to it.
//
// All rows share one agent, and each has a container of its own. At the end the load balancer holds exactly what the
// rows say, and the record of calls names each target as often as the rows say: no call was needless.
type row struct {
	name    string
	group   string // "web" where empty
	spec    harness.Spec
	happens func(*life)
}

// life is one row's container while the row is played.
type life struct {
	*testing.T
	c      *harness.Container
	rig    *rig.Rig
	whole  *testing.T // the test of all rows: what is made for it lives until the calls have been counted
	key    string
	in     []target.Target // registered so far, in order; a target that came twice is here twice
	out    []target.Target // deregistered so far
	target target.Target   // registered last
}

// comes waits until the container's port of now is registered.
func (l *life) comes() {
	l.Helper()
	l.target = rig.TargetsOf(l, l.c)[0]
	l.in = append(l.in, l.target)
	harness.Eventually(l, harness.Patience, "registered", func() error {
		if !slices.Contains(l.rig.Sim.Registered(l.rig.Group(l.key)), l.target) {
			return fmt.Errorf("%v is not", l.target)
		}
		return nil
	})
}

// goes waits until what was registered last is no more.
func (l *life) goes() {
	l.Helper()
	l.out = append(l.out, l.target)
	harness.Eventually(l, harness.Patience, "deregistered", func() error {
		if slices.Contains(l.rig.Sim.Registered(l.rig.Group(l.key)), l.target) {
			return fmt.Errorf("%v is still registered", l.target)
		}
		return nil
	})
}

// alive fails the test unless the container runs: it was taken out before its death, if it was.
func (l *life) alive() {
	l.Helper()
	if state := l.c.Inspect(l).State; !state.Running {
		l.Errorf("the container is dead: %+v", state)
	}
}

// stays returns what should be registered in the end.
func (l *life) stays() []target.Target {
	left := slices.Clone(l.in)
	for _, t := range l.out {
		if i := slices.Index(left, t); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	return left
}

// exit makes the container die by itself.
func (l *life) exit(code int) {
	l.Helper()
	l.c.Ask(l)
	url := fmt.Sprintf("http://127.0.0.1:%d/exit?code=%d", l.c.Port(l, "8080/tcp"), code)
	request, err := http.NewRequestWithContext(l.Context(), http.MethodPost, url, http.NoBody)
	if err != nil {
		l.Fatal(err)
	}
	request.Close = true
	// It may die before it has answered.
	if response, err := http.DefaultClient.Do(request); err == nil {
		_ = response.Body.Close()
	}
}

// crash makes it die by itself and waits until its restart policy has brought it back.
func (l *life) crash() {
	l.Helper()
	before := l.c.Inspect(l).State.StartedAt
	l.exit(3)
	harness.Eventually(l, harness.Patience, "the next run", func() error {
		if state := l.c.Inspect(l).State; state.StartedAt == before || !state.Running {
			return fmt.Errorf("it is %s", state.Status)
		}
		return nil
	})
}

// waited fails the test unless the container had run for so long when it was registered last.
func (l *life) waited(least time.Duration) {
	l.Helper()
	began, err := time.Parse(time.RFC3339Nano, l.c.Inspect(l).State.StartedAt)
	if err != nil {
		l.Fatal(err)
	}
	for _, call := range l.rig.Calls(l.key, register) {
		if ran := call.Time.Sub(began); slices.Contains(call.Targets, l.target) && ran < least {
			l.Errorf("registered after it had run for %v; want %v at least", ran, least)
		}
	}
}

// survives sends a signal that takes the container out although it lives on.
func survives(signal string) func(*life) {
	return func(l *life) {
		l.c.Ask(l) // it has taken charge of its signals
		l.c.Signal(l, signal)
		l.goes()
		l.alive()
	}
}

// ignores sends signals that mean nothing to berth.
func ignores(signals ...string) func(*life) {
	return func(l *life) {
		l.c.Ask(l)
		for _, signal := range signals {
			l.c.Signal(l, signal)
		}
		l.alive()
	}
}

// stubborn is a container that lives on after SIGTERM and SIGINT.
func stubborn(stopSignal string) harness.Spec {
	return harness.Spec{Args: []string{"--stop=ignore"}, StopSignal: stopSignal}
}

var always = harness.Spec{Restart: "always"}

// A survivor of its stop signal comes back after ten minutes, and the wait of a crash loop doubles up to five: these
// are shown in fake time, in pkg/discovery. The engine's own stops and restarts are in engine_test.go.
var rows = []row{
	{name: "run", happens: func(*life) {}},
	{name: "exits by itself", happens: func(l *life) { l.exit(0); l.goes() }},
	{name: "stop", happens: func(l *life) { l.c.Stop(l); l.goes() }},
	{name: "stop that needs SIGKILL", spec: stubborn(""), happens: func(l *life) { l.c.BeginStop(l, time.Second)(); l.goes() }},
	{name: "stop and start", happens: func(l *life) { l.c.Stop(l); l.goes(); l.c.Start(l); l.comes() }},
	{name: "restart", happens: func(l *life) { l.c.Restart(l); l.goes(); l.comes() }},
	{name: "kill", happens: func(l *life) { l.c.Signal(l, "KILL"); l.goes() }},
	{name: "rm -f", happens: func(l *life) { l.c.Remove(l); l.goes() }},
	{name: "rm -f of a paused one", happens: func(l *life) { l.c.Pause(l); l.c.Remove(l); l.goes() }},
	{name: "out of memory", spec: harness.Spec{Modify: func(_ *container.Config, h *container.HostConfig) {
		h.Memory, h.MemorySwap = 24<<20, 24<<20
	}}, happens: exhaust},
	{name: "fails to start", happens: failToStart},
	{name: "died once", spec: always, happens: func(l *life) { l.crash(); l.goes(); l.comes(); l.waited(10 * time.Second) }},
	{name: "died twice", spec: always, happens: func(l *life) {
		l.crash()
		l.crash()
		l.goes()
		l.comes()
		l.waited(20 * time.Second)
	}},
	{name: "stop during backoff", spec: always, happens: stopInBackoff},

	{name: "SIGTERM", spec: stubborn(""), happens: survives("TERM")},
	{name: "SIGTERM where SIGQUIT stops", spec: stubborn("SIGQUIT"), happens: survives("15")},
	{name: "stop signal INT", spec: stubborn("INT"), happens: survives("SIGINT")},
	{name: "stop signal 2", spec: stubborn("2"), happens: survives("INT")},
	{name: "stop signal SIGRTMIN+3", spec: stubborn("SIGRTMIN+3"), happens: survives("SIGRTMIN+3")},
	{name: "stop signal 28", spec: stubborn("28"), happens: survives("SIGWINCH")},
	{name: "stop with SIGQUIT", spec: harness.Spec{StopSignal: "SIGQUIT"}, happens: func(l *life) { l.c.Stop(l); l.goes() }},
	{name: "HUP and USR1", happens: ignores("HUP", "SIGUSR1", "10")},
	{name: "INT where TERM stops", spec: stubborn(""), happens: ignores("INT")},
	{name: "WINCH where TERM stops", happens: ignores("WINCH")},

	{name: "pause", happens: func(l *life) { l.c.Pause(l); l.goes(); l.alive(); l.c.Unpause(l); l.comes() }},
	{name: "pause for a moment", happens: func(l *life) { l.c.Pause(l); l.c.Unpause(l) }},
	{name: "commit", happens: commit},
	{name: "rename", happens: func(l *life) { l.c.Rename(l, harness.Unique("Odd_name.with-all_that.is-allowed")) }},
	{name: "update", happens: update},
	{name: "exec", happens: execute},
	{name: "network disconnect and connect", happens: reconnect},
	{name: "second network", happens: secondNetwork},
	{name: "drain and undrain", happens: drainAndUndrain},

	{name: "gate, image's HEALTHCHECK", group: "careful", happens: func(*life) {}},
	{name: "gate, run-time HEALTHCHECK", group: "careful", happens: func(*life) {}, spec: harness.Spec{
		Modify: func(c *container.Config, _ *container.HostConfig) {
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/web", "healthcheck"}, Interval: 200 * time.Millisecond}
		},
	}},
	{name: "gate again after restart", group: "careful", happens: func(l *life) { l.c.Restart(l); l.goes(); l.comes() }},
	{name: "leaves when unhealthy", group: "strict", happens: func(l *life) {
		l.c.PutHealth(l, "livez", http.StatusServiceUnavailable)
		l.goes()
		l.c.PutHealth(l, "livez", http.StatusOK)
		l.comes()
	}},
	{name: "phantom unhealthy after unpause", group: "strict", happens: phantom, spec: harness.Spec{
		Modify: func(c *container.Config, _ *container.HostConfig) {
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/web", "healthcheck"}, Interval: 4 * time.Second}
		},
	}},
}

func TestRows(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{
		Groups: []elbsim.Group{{Name: "web"}, {Name: "careful"}, {Name: "strict"}},
		Rules:  map[string]string{"careful": "register_when: healthy", "strict": "deregister_when_unhealthy: true"},
	})
	r.StartReady(t)
	checked := r.Engine.WebImage(t, harness.Image{Healthcheck: 200 * time.Millisecond})
	specs := make([]harness.Spec, len(rows))
	for i := range rows {
		if rows[i].group == "" {
			rows[i].group = "web"
		}
		specs[i] = rows[i].spec
		specs[i].Labels = r.In(rows[i].group)
		if rows[i].group != "web" && specs[i].Modify == nil {
			specs[i].Image = checked
		}
	}
	lives := make([]*life, len(rows))
	for i, c := range r.Engine.RunAll(t, specs...) { // at once: their registrations share calls
		lives[i] = &life{c: c, rig: r, whole: t, key: rows[i].group}
	}
	t.Run("play", func(t *testing.T) {
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				lives[i].T = t
				lives[i].comes()
				row.happens(lives[i])
			})
		}
	})
	if slices.ContainsFunc(lives, func(l *life) bool { return l.T == nil }) {
		return // -run has chosen some of the rows: the others' calls mean nothing
	}
	// Whatever berth makes of what has happened, it has made it when it registers what has come since.
	for _, key := range []string{"web", "careful", "strict"} {
		last := &life{
			T: t, rig: r, key: key,
			c: r.Engine.Run(t, harness.Spec{Image: checked, Labels: r.In(key)}),
		}
		last.comes()
		countCalls(t, r, key, slices.Concat(lives, []*life{last}))
	}
}

// countCalls fails the test unless a group holds what the lives in it say, and was called for that alone.
func countCalls(t *testing.T, r *rig.Rig, key string, lives []*life) {
	t.Helper()
	of := map[target.Target]string{}
	var in, out, stays []target.Target
	for i, l := range lives {
		if l.key != key {
			continue
		}
		name := "the last one"
		if i < len(rows) {
			name = rows[i].name
		}
		for _, target := range l.in {
			of[target] = name
		}
		in, out, stays = append(in, l.in...), append(out, l.out...), append(stays, l.stays()...)
	}
	if err := r.Exact(key, stays...); err != nil {
		t.Error(err)
	}
	for action, want := range map[string][]target.Target{register: in, deregister: out} {
		count := map[target.Target]int{}
		for _, target := range want {
			count[target]++
		}
		calls := r.Calls(key, action)
		for _, target := range targetsIn(calls) {
			count[target]--
		}
		for target, n := range count {
			if n != 0 {
				t.Errorf("%s: %s was called %+d times more or less than needed for %v (%s)", key, action, -n, target, of[target])
			}
		}
		t.Logf("%s: %s of %d targets in %d calls", key, action, len(want), len(calls))
	}
}

// exhaust makes the container need more memory than it may have: requests whose headers never end.
func exhaust(l *life) {
	l.c.Ask(l)
	var dialer net.Dialer
	flood := []byte("GET / HTTP/1.1\r\nHost: web\r\nX: " + strings.Repeat("x", 900<<10))
	for range 200 {
		conn, err := dialer.DialContext(l.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", l.target.Port))
		if err != nil {
			break // it is dead
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.Write(flood); err != nil {
			break
		}
		if !l.c.Inspect(l).State.Running {
			break
		}
	}
	l.goes()
	harness.Eventually(l, harness.Patience, "dead for want of memory", func() error { // Docker hears of that apart from the death
		if state := l.c.Inspect(l).State; !state.OOMKilled {
			return fmt.Errorf("%+v", state)
		}
		return nil
	})
}
