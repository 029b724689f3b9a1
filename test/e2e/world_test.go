package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
	"berth/test/harness"
)

const instance = "i-0123456789abcdef0"

// world is a machine, the account that it lives in, and the packages that are installed on it.
type world struct {
	*machine
	engine *harness.Engine
	sim    *elbsim.Sim
	server *elbsim.Server
	group  string // the target group's name, which is this world's alone
	debs   [2]string
	addr   string // of the status page
}

// versions are those of the packages: the second is an upgrade of the first.
var versions = [2]string{"0.0.1", "0.0.2"}

func newWorld(t *testing.T) *world {
	t.Helper()
	require(t)
	w := &world{engine: harness.RequireDocker(t), group: harness.Unique("e2e")}
	w.sim = elbsim.New(elbsim.Config{
		Instance: elbsim.Instance{ID: instance}, Probe: elbsim.NetProbe,
		Lags: &elbsim.Lags{Register: 200 * time.Millisecond, Deregister: 500 * time.Millisecond, Describe: 100 * time.Millisecond},
	})
	w.addGroup(t, w.group)
	var err error
	if w.server, err = elbsim.Start(w.sim, elbsim.Listen{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.server.Close(); err != nil {
			t.Errorf("end elbsim: %v", err)
		}
	})
	w.debs = packages(t)
	w.machine = newMachine(t, w.engine)
	w.prepare(t)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience) // the test's own is over
		defer cancel()
		out, err := exec.CommandContext(ctx, "docker", "exec", w.ID, "sh", "-c",
			"journalctl --no-pager -o short-precise -b -u 'berth*' -u docker | tail -n 200").CombinedOutput()
		t.Logf("the machine's journal (%v):\n%s", err, out)
	})
	return w
}

func (w *world) addGroup(t *testing.T, name string) {
	t.Helper()
	if _, err := w.sim.AddGroup(elbsim.Group{
		Name: name, DeregistrationDelay: time.Second, Tags: map[string]string{"berth": "true"},
		HealthCheck: elbsim.HealthCheck{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Healthy: 2, Path: "/healthz"},
	}); err != nil {
		t.Fatal(err)
	}
}

// packages builds both versions, for this host's architecture.
func packages(t *testing.T) (debs [2]string) {
	t.Helper()
	dist := t.TempDir()
	arch := sh(t, nil, "go", "env", "GOHOSTARCH")
	for i, version := range versions {
		debs[i] = sh(t, []string{"DIST=" + dist, "VERSION=" + version, "REVISION=e2e", "DATE=2026-01-01T00:00:00Z"}, "scripts/package.sh", arch)
	}
	return debs
}

// prepare gives the machine what a host has before Berth comes: AWS (in its environment), Docker, and a unit that runs
// containers by itself. Docker's unit stands for the engine that runs outside; it notes when it starts and stops.
func (w *world) prepare(t *testing.T) {
	t.Helper()
	w.addr = harness.FreeAddress(t)
	env := slices.Concat(w.server.Env(), []string{"BERTH_LISTEN=" + harness.FreeAddress(t), "BERTH_STATUS_LISTEN=" + w.addr})
	w.write(t, "/etc/default/berth", strings.Join(env, "\n")+"\n")
	unit := func(name, after string) {
		w.write(t, "/etc/systemd/system/"+name+".service", fmt.Sprintf(`[Unit]
Description=%s
%s
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'date +%%%%s.%%%%N >/var/%[1]s-started'
ExecStop=/bin/sh -c 'date +%%%%s.%%%%N >/var/%[1]s-stopped'
[Install]
WantedBy=multi-user.target
`, name, after))
	}
	unit("docker", "After=network-online.target")
	unit("web", "After=docker.service")
	for i, deb := range w.debs {
		sh(t, nil, "docker", "cp", deb, w.ID+":/root/berth-"+versions[i]+".deb")
	}
}

// configure writes the configuration: these groups.
func (w *world) configure(t *testing.T, groups ...string) {
	t.Helper()
	yaml := "target_groups:\n"
	for _, g := range groups {
		yaml += "  " + g + ": {}\n"
	}
	w.write(t, "/etc/berth/berth.yaml", yaml+"drain: {shutdown_max_wait: 20s}\n")
}

// serve starts a container that is to be in the group.
func (w *world) serve(t *testing.T) *harness.Container {
	t.Helper()
	return w.engine.Run(t, harness.Spec{Labels: map[string]string{"berth.targets": w.group}})
}

func targetOf(t *testing.T, c *harness.Container) target.Target {
	t.Helper()
	return target.Target{ID: instance, Port: c.Port(t, "8080/tcp")}
}

func (w *world) waitHealthy(t *testing.T, want target.Target) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "the container is healthy in the load balancer", func() error {
		var seen []string
		for _, x := range w.sim.Targets(w.group) {
			if x.Target == want && x.State == elbsim.StateHealthy {
				return nil
			}
			seen = append(seen, fmt.Sprintf("%v %+v", x.Target, x.Health))
		}
		return fmt.Errorf("there are %v", seen)
	})
}

func (w *world) waitActive(t *testing.T) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "berth.service is active", func() error {
		if state := w.property(t, "berth", "ActiveState"); state != "active" {
			return fmt.Errorf("it is %s: %s", state, w.property(t, "berth", "StatusText"))
		}
		return nil
	})
}

// unmoved runs f and fails the test if any target was registered or deregistered meanwhile, or is not there afterwards.
func (w *world) unmoved(t *testing.T, want target.Target, f func()) {
	t.Helper()
	w.sim.ResetCalls()
	f()
	for _, action := range []string{"RegisterTargets", "DeregisterTargets"} {
		if calls := w.sim.CallsOf(action); len(calls) > 0 {
			t.Errorf("%s: %v; want no call", action, calls)
		}
	}
	if got := w.sim.Registered(w.group); !slices.Equal(got, []target.Target{want}) {
		t.Errorf("registered: %v; want %v", got, want)
	}
}

// looked waits for a group's first look by the agent that runs now.
func (w *world) looked(t *testing.T) {
	t.Helper()
	w.waitActive(t)
	harness.Eventually(t, harness.Patience, "every group was tried", func() error {
		status := w.property(t, "berth", "StatusText")
		if !regexp.MustCompile(`^\d+ targets? in \d+ groups?($|, \d+ not ready)`).MatchString(status) {
			return fmt.Errorf("status %q", status)
		}
		return nil
	})
}

// age makes the state of a machine that is off another boot's: containers share the kernel's boot id.
func (w *world) age(t *testing.T) {
	t.Helper()
	const before = "00000000-0000-4000-8000-000000000000"
	dir := w.fetch(t, "/var/lib/berth")
	old, err := ledger.Peek(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries := old.Entries()
	if err := os.Remove(filepath.Join(dir, "ledger.json")); err != nil {
		t.Fatal(err)
	}
	kept, err := ledger.Open(dir, before, ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kept.Claim(elb.Self{InstanceID: instance, Region: w.sim.Region()})
	for _, e := range entries {
		e.BootID = before
		if err := kept.Intend(context.Background(), []ledger.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	file := discovery.NewDrainFile(dir)
	drains, err := file.Load()
	if err != nil {
		t.Fatal(err)
	}
	for i := range drains {
		drains[i].Boot = before
	}
	if err := file.Save(drains); err != nil {
		t.Fatal(err)
	}
	// As it was, owner included: the files are the agent's.
	uid := sh(t, nil, "stat", "-c", "%u:%g", dir)
	sh(t, nil, "chown", "-R", uid, dir)
	sh(t, nil, "docker", "cp", dir+"/.", w.ID+":/var/lib/berth") // -a would give them to the container's user, root
}
