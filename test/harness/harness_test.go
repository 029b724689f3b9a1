package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEventually(t *testing.T) {
	calls := 0
	Eventually(t, Patience, "the third call", func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if calls != 3 {
		t.Errorf("%d calls; want 3", calls)
	}

	failed := recorded(t, func(r *recorder) {
		Eventually(r, time.Millisecond, "a miracle", func() error { return errors.New("no miracles today") })
	})
	if !strings.Contains(failed, "a miracle") || !strings.Contains(failed, "no miracles today") {
		t.Errorf("gave up with %q; want what was waited for, and the last error", failed)
	}
}

func TestUnavailable(t *testing.T) {
	t.Setenv("CI", "true")
	if failed := recorded(t, func(r *recorder) { unavailable(r, "no %s", "engine") }); failed != "no engine" {
		t.Errorf("with CI set it failed with %q; want no engine", failed)
	}
	t.Setenv("CI", "")
	skipped := &recorder{TB: t}
	run(func() { unavailable(skipped, "no engine") })
	if skipped.failed != "" || !skipped.skipped {
		t.Errorf("without CI: failed %q, skipped %v; want skipped alone", skipped.failed, skipped.skipped)
	}
}

func TestFreePort(t *testing.T) {
	l, err := net.Listen("tcp", FreeAddress(t))
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	l.Close()
}

func TestOwnerGone(t *testing.T) {
	if ownerGone(Owner(), time.Now()) {
		t.Error("this process counts as gone")
	}
	child := exec.Command("true")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	owner := fmt.Sprintf("%s-%d-%s", pidNamespace(), child.Process.Pid, startTicks(child.Process.Pid))
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if !ownerGone(owner, time.Now()) {
		t.Errorf("%s has ended and does not count as gone", owner)
	}
	reused := fmt.Sprintf("%s-%d-1", pidNamespace(), os.Getpid())
	if !ownerGone(reused, time.Now()) {
		t.Errorf("%s: another process that had this pid does not count as gone", reused)
	}
	if ownerGone("1-1-1", time.Now()) {
		t.Error("a process of another pid namespace counts as gone at once")
	}
	if !ownerGone("1-1-1", time.Now().Add(-2*abandoned)) {
		t.Error("what a process of another pid namespace made long ago stays for ever")
	}
	if !ownerGone("", time.Now()) {
		t.Error("what nobody owns stays for ever")
	}
}

func TestEngine_Run(t *testing.T) {
	engine := RequireDocker(t)
	var c *Container
	t.Run("life", func(t *testing.T) {
		c = engine.Run(t, Spec{Name: "shop", Env: []string{"WEB_SERVICE=shop"}, Labels: map[string]string{"some": "label"}})
		first := c.Ask(t)
		if first.Service != "shop" || first.Name != c.Name || first.Host != c.ID[:12] {
			t.Errorf("answer %+v; want service shop of container %s (%s)", first, c.Name, c.ID[:12])
		}
		if got := c.Inspect(t).Config.Labels; got["some"] != "label" || got[LabelOwner] != Owner() || got[LabelTest] != t.Name() {
			t.Errorf("labels %v; want the given one and the harness's", got)
		}
		c.PutHealth(t, "healthz", http.StatusServiceUnavailable)
		c.Restart(t)
		if again := c.Ask(t); again.Run == first.Run {
			t.Errorf("after a restart it says %+v; want another run", again)
		}
		c.Pause(t)
		c.Unpause(t)
		c.Rename(t, Unique("other"))
		c.Signal(t, "HUP")
		if got := c.Inspect(t); !got.State.Running || got.Name != "/"+c.Name {
			t.Errorf("state %+v, name %s; want it running as %s", got.State, got.Name, c.Name)
		}
		c.BeginStop(t, time.Minute)()
		if got := c.Inspect(t).State; got.Running || got.ExitCode != 0 {
			t.Errorf("state after its stop %+v; want a clean end", got)
		}
	})
	if t.Failed() {
		return
	}
	if _, err := engine.Client.ContainerInspect(t.Context(), c.ID); !errdefs.IsNotFound(err) {
		t.Errorf("after its test the container is there still: %v", err)
	}
}

func TestEngine_RunAll_publishing(t *testing.T) {
	engine := RequireDocker(t)
	image := engine.WebImage(t, Image{
		Expose: []string{"8080/tcp", "7000/udp"}, Healthcheck: 100 * time.Millisecond, StopSignal: "SIGINT",
		Labels: map[string]string{"berth.targets": `web:8080,"quoted"`},
	})
	made := engine.RunAll(
		t,
		Spec{Image: image},
		Spec{Image: image, Publish: []string{"127.0.0.1::8080"}},
		Spec{Image: image, Publish: []string{}},
	)
	all, loopback, none := made[0], made[1], made[2]
	if a, b := all.Port(t, "8080/tcp"), all.Port(t, "7000/udp"); a == 0 || b == 0 {
		t.Errorf("published on %d and %d; want two ports", a, b)
	}
	if got := loopback.Inspect(t).NetworkSettings.Ports["8080/tcp"]; len(got) != 1 || got[0].HostIP != "127.0.0.1" {
		t.Errorf("bindings %v; want one on 127.0.0.1", got)
	}
	if got := none.Inspect(t).NetworkSettings.Ports["8080/tcp"]; len(got) != 0 {
		t.Errorf("bindings %v; want none", got)
	}
	config := all.Inspect(t).Config
	if config.StopSignal != "SIGINT" || config.Labels["berth.targets"] != `web:8080,"quoted"` {
		t.Errorf("stop signal %q, labels %v; want the image's", config.StopSignal, config.Labels)
	}
	for _, want := range []string{container.Healthy, container.Unhealthy} {
		Eventually(t, Patience, "health "+want, func() error {
			if got := all.Inspect(t).State.Health; got == nil || got.Status != want {
				return fmt.Errorf("health is %+v", got)
			}
			return nil
		})
		all.PutHealth(t, "livez", http.StatusInternalServerError)
	}
}

func TestEngine_Sweep(t *testing.T) {
	engine := RequireDocker(t)
	left := engine.Create(t, Spec{Labels: map[string]string{LabelOwner: pidNamespace() + "-1-0"}})
	mine := engine.Create(t, Spec{})
	stranger := engine.Create(t, Spec{Modify: func(c *container.Config, _ *container.HostConfig) { delete(c.Labels, LabelOwner) }})
	abandonedNetwork, err := engine.Client.NetworkCreate(t.Context(), Unique("berth-test"), network.CreateOptions{
		Labels: map[string]string{LabelOwner: pidNamespace() + "-1-0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Client.ContainerInspect(t.Context(), left.ID); !errdefs.IsNotFound(err) {
		t.Errorf("what a dead process left is there still: %v", err)
	}
	if _, err := engine.Client.NetworkInspect(t.Context(), abandonedNetwork.ID, network.InspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("the network that a dead process left is there still: %v", err)
	}
	for _, c := range []*Container{mine, stranger} {
		c.Inspect(t) // fails the test if it is gone
	}
}

func TestPrivateEngine(t *testing.T) {
	host := RequireDocker(t)
	var p plot
	t.Run("life", func(t *testing.T) {
		engine := StartEngine(t, EngineOptions{})
		p = engine.plot
		engine.Run(t, Spec{Network: engine.CreateNetwork(t)}).Ask(t)
		c := engine.Run(t, Spec{Restart: "always"})
		before := c.Ask(t)
		if _, err := host.Client.ContainerInspect(t.Context(), c.ID); !errdefs.IsNotFound(err) {
			t.Errorf("the host's engine knows the private engine's container: %v", err)
		}
		engine.Restart(t)
		if after := c.Ask(t); after.Run == before.Run {
			t.Error("without live-restore the container survived its engine's restart")
		}
		engine.Freeze(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := engine.Client.Ping(ctx); err == nil {
			t.Error("a frozen engine answers")
		}
		engine.Thaw(t)
		engine.Kill(t)
		if _, err := engine.Client.Ping(t.Context()); err == nil {
			t.Error("a killed engine answers")
		}
		engine.Start(t)
		c.Ask(t)
		engine.Kill(t) // the test ends with the engine dead and the container alive
	})
	p.assertGone(t)
	host.Run(t, Spec{}).Ask(t) // the host's engine and its bridge are as they were
}

func TestPrivateEngine_liveRestore(t *testing.T) {
	RequireDocker(t)
	var p plot
	t.Run("life", func(t *testing.T) {
		engine := StartEngine(t, EngineOptions{LiveRestore: true})
		p = engine.plot
		c := engine.Run(t, Spec{})
		before, port := c.Ask(t), c.Port(t, "8080/tcp")
		engine.Restart(t)
		if after := c.Ask(t); after.Run != before.Run || c.Port(t, "8080/tcp") != port {
			t.Errorf("answers %+v, then %+v; want the same run on the same port", before, after)
		}
		// The test ends with the engine down and the container up.
		engine.Stop(t)
	})
	p.assertGone(t)
}

func TestSweepEngines(t *testing.T) {
	RequireDocker(t)
	engine := StartEngine(t, EngineOptions{})
	engine.Run(t, Spec{})
	// From here on any process that starts an engine may sweep this one, too.
	if err := os.WriteFile(engine.plot.path("owner"), []byte(pidNamespace()+"-1-0"), 0o600); err != nil {
		t.Fatal(err)
	}
	sweepEngines()
	engine.plot.assertGone(t)
	<-engine.ended
}

// assertGone fails the test if anything of the plot is left.
func (p plot) assertGone(t *testing.T) {
	t.Helper()
	pids, err := p.processes(everything...)
	if err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left (%v)", pids, err)
	}
	mounts, err := p.mounts()
	if err != nil || len(mounts) > 0 {
		t.Errorf("mounts %v are left (%v)", mounts, err)
	}
	if got := p.interfaces(); len(got) > 0 {
		t.Errorf("interfaces %v are left", got)
	}
	if _, err := os.Stat(p.dir); err == nil {
		t.Errorf("%s is left", p.dir)
	}
}

// recorder is a testing.TB that notes its end instead of ending the test.
type recorder struct {
	testing.TB
	failed  string
	skipped bool
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	panic(r)
}

func (r *recorder) Skipf(string, ...any) {
	r.skipped = true
	panic(r)
}

// run calls f up to the point where a recorder ends it.
func run(f func()) {
	defer func() {
		if ended := recover(); ended != nil {
			if _, ok := ended.(*recorder); !ok {
				panic(ended)
			}
		}
	}()
	f()
}

// recorded returns what f failed with.
func recorded(t *testing.T, f func(*recorder)) string {
	t.Helper()
	r := &recorder{TB: t}
	run(func() { f(r) })
	return r.failed
}
