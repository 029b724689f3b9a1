package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"berth/internal/elbsim"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// While no agent runs all containers are replaced. On its return it removes exactly what is stale, and only then
// registers what has come, in each group.
func TestLedger_awayOverChurn(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Groups: []elbsim.Group{{Name: "web"}, {Name: "api"}}})
	// Somebody registered these by hand, on ports that no container has.
	foreign := target.Target{ID: rig.Instance, Port: 9}
	for _, key := range []string{"web", "api"} {
		if err := r.Sim.Register(r.Group(key), foreign); err != nil {
			t.Fatal(err)
		}
	}
	agent := r.StartReady(t)
	generation := func() (all []*harness.Container, targets map[string][]target.Target) {
		var specs []harness.Spec
		for range 10 {
			specs = append(specs, harness.Spec{Labels: r.In("web")}, harness.Spec{Labels: r.In("api")})
		}
		all = r.Engine.RunAll(t, specs...)
		byKey := map[string][]*harness.Container{}
		for i, c := range all {
			key := []string{"web", "api"}[i%2]
			byKey[key] = append(byKey[key], c)
		}
		return all, map[string][]target.Target{"web": rig.TargetsOf(t, byKey["web"]...), "api": rig.TargetsOf(t, byKey["api"]...)}
	}
	old, before := generation()
	for key, targets := range before {
		r.WaitExact(t, key, append(targets, foreign)...)
	}
	agent.Stop(t)
	r.Sim.ResetCalls()
	harness.EachOf(t, old, func(ctx context.Context, c *harness.Container) error {
		return r.Engine.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
	})
	_, now := generation()
	r.Start(t)
	for key := range now {
		r.WaitExact(t, key, append(now[key], foreign)...)
		removed, added := r.Calls(key, deregister), r.Calls(key, register)
		if got, want := targetsIn(removed), minus(before[key], now[key]); !slices.Equal(got, want) {
			t.Errorf("removed from %s: %v; want what is stale, %v", key, got, want)
		}
		if got, want := targetsIn(added), minus(now[key], before[key]); !slices.Equal(got, want) {
			t.Errorf("registered in %s: %v; want what is new, %v", key, got, want)
		}
		if len(removed) > 0 && len(added) > 0 && removed[len(removed)-1].ID > added[0].ID {
			t.Errorf("in %s a registration (call %d) came before a removal (call %d)", key, added[0].ID, removed[len(removed)-1].ID)
		}
	}
}

// A ledger that is lost, or cannot be read, heals: what is wanted is adopted without a call and goes out when its
// container dies. What no container wants is left alone and counted.
func TestLedger_lost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(path string) error{
		"removed": os.Remove,
		"unreadable": func(path string) error {
			return os.WriteFile(path, []byte("{\"schema\":1}\nnot a ledger any more\nat all\n"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{})
			agent := r.StartReady(t)
			stays := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			goes := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			away := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			unclaimed := rig.TargetsOf(t, away)
			r.WaitExact(t, "web", rig.TargetsOf(t, stays, goes, away)...)

			agent.Kill(t)
			away.Remove(t) // it can not be known any more who registered its port
			if err := lose(filepath.Join(r.StateDir(), "ledger.json")); err != nil {
				t.Fatal(err)
			}
			r.Sim.ResetCalls()
			agent = r.StartReady(t)
			harness.Eventually(t, harness.Patience, "two adopted targets", func() error {
				if n := strings.Count(agent.Log(), "adopted a target that was registered already"); n != 2 {
					return fmt.Errorf("%d adopted", n)
				}
				return nil
			})
			if got := metric(t, agent, "berth_unclaimed_targets"); got != "1" {
				t.Errorf("berth_unclaimed_targets is %s; want 1", got)
			}
			var shown []target.Target
			for _, row := range agent.Status(t).Rows {
				if row.State == status.Unclaimed {
					shown = append(shown, row.Target)
				}
			}
			if !slices.Equal(shown, unclaimed) {
				t.Errorf("unclaimed are %v; want %v", shown, unclaimed)
			}
			gone := rig.TargetsOf(t, goes)
			goes.Stop(t)
			r.WaitExact(t, "web", slices.Concat(rig.TargetsOf(t, stays), unclaimed)...)
			wantTargets(t, r, deregister, gone...)
			wantTargets(t, r, register)
			aside, err := filepath.Glob(filepath.Join(r.StateDir(), "ledger.json.corrupt-*"))
			if want := strings.Count(name, "unreadable"); err != nil || len(aside) != want {
				t.Errorf("set aside: %q (%v); want %d", aside, err, want)
			}
		})
	}
}

// The disk is full when the agent starts. It works all the same, says so, and catches up when there is room.
func TestLedger_diskFull(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	mount(t, r, "size=64k")
	ballast := filepath.Join(r.StateDir(), "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill a disk of 64 KiB with 128: %v", err)
	}
	agent := r.StartReady(t)
	degraded(t, r, agent, "no space left on device")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, r, agent)
}

// The disk is read-only from the start.
func TestLedger_readOnlyAtStart(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	unmount := mount(t, r, "ro")
	agent := r.StartReady(t)
	degraded(t, r, agent, "read-only file system")
	unmount()
	caughtUp(t, r, agent)
}

// The disk turns read-only under a running agent.
func TestLedger_readOnly(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	agent := r.StartReady(t)
	stays := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitExact(t, "web", rig.TargetsOf(t, stays)...)
	unmount := mount(t, r, "ro")
	degraded(t, r, agent, "read-only file system", rig.TargetsOf(t, stays)...)
	unmount()
	caughtUp(t, r, agent)
}

// degraded shows that the agent registers and deregisters while the disk does not take its ledger, and says so.
func degraded(t *testing.T, r *rig.Rig, agent *rig.Agent, cause string, others ...target.Target) {
	t.Helper()
	stays := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	goes := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitExact(t, "web", append(rig.TargetsOf(t, stays, goes), others...)...)
	goes.Stop(t)
	r.WaitExact(t, "web", append(rig.TargetsOf(t, stays), others...)...)

	readiness := agent.Status(t).Readiness
	if text := readiness.Text(); !readiness.Ready || !strings.Contains(text, "[warn] ledger: ") || !strings.Contains(text, cause) {
		t.Errorf("readiness is\n%s\nwant ready, with a word on the ledger: %s", text, cause)
	}
	if got := metric(t, agent, "berth_ledger_errors_total"); got == "0" {
		t.Errorf("berth_ledger_errors_total is %s", got)
	}
	if n := logged(t, agent, "ledger is not on disk, going on from memory", 1); n > 3 {
		t.Errorf("it was logged %d times that the ledger is not on disk; want when it begins and when it changes", n)
	}
}

// caughtUp waits until the agent says that its ledger is on disk, and looks there.
func caughtUp(t *testing.T, r *rig.Rig, agent *rig.Agent) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "the ledger on disk", func() error {
		if text := agent.Status(t).Readiness.Text(); !strings.Contains(text, "[ok  ] ledger: ") {
			return errors.New(text)
		}
		kept, err := ledger.Peek(r.StateDir())
		if err != nil {
			return err
		}
		var held []target.Target
		for _, e := range kept.Entries() {
			if e.Phase == ledger.Registered {
				held = append(held, e.Target)
			}
		}
		return r.Exact("web", held...)
	})
}

// metric returns the value of the one series of that name.
func metric(t *testing.T, agent *rig.Agent, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^`+name+`(?:\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(agent.Metrics(t), -1)
	if len(found) != 1 {
		t.Fatalf("%d series of %s; want one", len(found), name)
	}
	return found[0][1]
}

// mount mounts a file system of its own over the rig's state directory, until unmount is called or the test ends.
func mount(t *testing.T, r *rig.Rig, options string) (unmount func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root, for a file system of its own")
		}
		t.Skip("needs root, for a file system of its own")
	}
	var flags uintptr = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if options == "ro" {
		flags, options = flags|unix.MS_RDONLY, ""
	}
	if err := os.MkdirAll(r.StateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", r.StateDir(), "tmpfs", flags, options); err != nil {
		t.Fatalf("mount a tmpfs on %s: %v", r.StateDir(), err)
	}
	mounted := true
	unmount = func() {
		if !mounted {
			return
		}
		mounted = false
		if err := unix.Unmount(r.StateDir(), unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", r.StateDir(), err)
		}
	}
	t.Cleanup(unmount)
	return unmount
}
