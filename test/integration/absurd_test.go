package integration

import (
	"fmt"
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

// A thousand ports of one container are registered, and go, in five calls of two hundred each; where nothing says which
// of them is meant, that is said in one sentence.
func TestAbsurd_thousandPorts(t *testing.T) {
	t.Parallel()
	const n, most = 1000, 200
	// A thousand ports are two thousand processes of Docker's own, unless they are published without its proxy.
	engine := harness.StartEngine(t, harness.EngineOptions{Args: []string{"--userland-proxy=false"}})
	r := rig.New(t, rig.Options{
		Engine: &engine.Engine, Groups: []elbsim.Group{{Name: "web", HealthCheck: elbsim.HealthCheck{Interval: time.Minute}}},
		Sim: elbsim.Config{Latency: 30 * time.Millisecond},
	})
	agent := r.StartReady(t)
	// On host ports that no engine chooses: the host's own engine would find a thousand of its own taken.
	publish := []string{"23000-23999:10000-10999"}
	claims := make([]string, n)
	var want []target.Target
	for i := range n {
		claims[i] = fmt.Sprintf("%s:%d", r.Group("web"), 10000+i)
		want = append(want, target.Target{ID: rig.Instance, Port: uint16(23000 + i)})
	}
	unsure := engine.Run(t, harness.Spec{Labels: r.In("web"), Publish: publish})
	refused(t, agent, "a thousand ports, none named", unsure, "and 995 more, and nothing says which of them is meant")
	unsure.Remove(t)

	c := engine.Create(t, harness.Spec{Labels: map[string]string{rig.Label: strings.Join(claims, ",")}, Publish: publish})
	c.Start(t)
	started := time.Now()
	harness.Eventually(t, 2*harness.Patience, "a thousand targets", func() error {
		if got := len(r.Sim.Registered(r.Group("web"))); got != n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	r.WaitExact(t, "web", want...)
	in := batches(t, r, register, want, most)
	t.Logf("%d targets registered %v after the start in %d calls; the last after %v", n, time.Since(started).Round(time.Millisecond),
		len(in), in[len(in)-1].Time.Sub(started).Round(time.Millisecond))

	stopped := time.Now()
	c.Stop(t)
	r.WaitExact(t, "web")
	out := batches(t, r, deregister, want, most)
	t.Logf("and deregistered in %d calls; the last %v after docker stop began", len(out), out[len(out)-1].Time.Sub(stopped).Round(time.Millisecond))
}

// batches fails the test unless the calls of that action named each of the targets once, in as few calls as can be.
func batches(t *testing.T, r *rig.Rig, action string, want []target.Target, most int) []elbsim.Call {
	t.Helper()
	calls := r.Calls("web", action)
	if got := targetsIn(calls); !slices.Equal(got, sorted(want)) {
		t.Errorf("%s named %d targets; want %d, each once", action, len(got), len(want))
	}
	if len(calls) != (len(want)+most-1)/most {
		t.Errorf("%d calls of %s for %d targets", len(calls), action, len(want))
	}
	for _, call := range calls {
		if len(call.Targets) > most {
			t.Errorf("one call of %s named %d targets; want %d at most", action, len(call.Targets), most)
		}
	}
	return calls
}

// Labels that nobody means are refused in a sentence fit to be shown, and hold nobody up.
func TestAbsurd_labelsAndNames(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{
		Groups: []elbsim.Group{{Name: "web"}, {Name: "ruled"}},
		Rules:  map[string]string{"ruled": `containers: {image: "registry.example.com/*"}`},
	})
	agent := r.StartReady(t)
	image, err := r.Engine.Client.ImageInspect(t.Context(), r.Engine.WebImage(t, harness.Image{}))
	if err != nil {
		t.Fatal(err)
	}
	web := r.Group("web")
	rows := []struct{ name, label, image, why string }{
		{name: "a label of 64 KiB", label: strings.Repeat(web+",", 64<<10/(len(web)+1)), why: "bytes long, at most"},
		{name: "a word of 30 KiB", label: strings.Repeat("x", 30<<10), why: "letters, digits"},
		{name: "two thousand ports", label: claimsOf(web, 2000), why: "more than 1000 targets"},
		{name: "control characters", label: "\x1b[31m" + web + "\n\x00", why: "letters, digits"},
		{name: "right to left", label: "\u202e" + web, why: "letters, digits"},
		{name: "a comma too many", label: web + ",", why: "comma"},
		{name: "port 0", label: web + ":0", why: "a port from 1 to 65535"},
		{name: "port 65536", label: web + ":65536", why: "a port from 1 to 65535"},
		{name: "no rule knows ids", label: "-", image: image.ID, why: "run by its image's id"},
	}
	var specs []harness.Spec
	for _, row := range rows {
		spec := harness.Spec{Image: row.image, Labels: map[string]string{rig.Label: row.label}}
		if row.label == "-" {
			spec.Labels = nil
		}
		specs = append(specs, spec)
	}
	odd := harness.Spec{Name: "0_-." + strings.Repeat("long.-_", 30), Labels: r.In("web")}
	huge := harness.Spec{Labels: r.In("web"), Modify: func(c *container.Config, _ *container.HostConfig) {
		for i := range 16 {
			c.Labels[fmt.Sprintf("com.example.huge.%d", i)] = strings.Repeat("\u202e☃", 8<<10)
		}
	}}
	short := harness.Spec{Image: strings.TrimPrefix(image.ID, "sha256:")[:12], Labels: r.In("web")}
	made := r.Engine.RunAll(t, append(specs, odd, huge, short)...)
	r.WaitHealthy(t, "web", rig.TargetsOf(t, made[len(rows):]...)...)
	for i, row := range rows {
		refused(t, agent, row.name, made[i], row.why)
	}
	for _, row := range agent.Status(t).Rows {
		if said := row.Why + row.Change; len(said) > 1000 || strings.ContainsFunc(said, func(c rune) bool { return c < ' ' || c == '\u202e' }) {
			t.Errorf("%s: not fit to be shown: %q", row.Run.Name, said)
		}
	}
	if _, stdout, _ := r.Berth(t, "status", made[len(rows)].Name); !strings.Contains(stdout, made[len(rows)].Name[:40]) {
		t.Errorf("status does not know the one with the odd name:\n%s", stdout)
	}
	wantTargets(t, r, register, rig.TargetsOf(t, made[len(rows):]...)...)
	wantTargets(t, r, deregister)
	if calls := slices.Concat(r.Calls("ruled", register), r.Calls("ruled", deregister)); len(calls) > 0 {
		t.Errorf("calls for what no rule matches: %v", calls)
	}
}

// claimsOf is a label that names so many ports.
func claimsOf(group string, n int) string {
	claims := make([]string, n)
	for i := range claims {
		claims[i] = fmt.Sprintf("%s:%d", group, i+1)
	}
	return strings.Join(claims, ",")
}
