package agent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/test/agenttest"
)

// forbidden are drains that may not be read.
type forbidden struct{ agenttest.Drains }

func (*forbidden) Load() ([]discovery.Drain, error) {
	return nil, fmt.Errorf("read drains: %w", fs.ErrPermission)
}

// Drains that may not be read end the agent at its start, with what to change: it would serve what somebody took out.
func TestNew_drainsForbidden(t *testing.T) {
	agenttest.Account(t, "web")
	o := agenttest.Host(t, enginetest.New(), "web")
	o.Drains = &forbidden{}
	_, err := agenttest.Run(o, nil)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chown") {
		t.Errorf("got %v; want that they may not be read, and what to change", err)
	}
	o.Drains = nil
	if a, err := agenttest.Run(o, nil); err != nil {
		t.Errorf("with those of its own: %v", err)
	} else if err := a.Stop(); err != nil {
		t.Error(err)
	}
}

// While drains cannot be read /readyz says so, and whoever ends one is told that it may come back.
func TestReadiness_drainsUnread(t *testing.T) {
	agenttest.Account(t, "web")
	o := agenttest.Host(t, enginetest.New(), "web")
	path := filepath.Join(o.Config.StateDir, "drains.json")
	if err := os.MkdirAll(path, 0o700); err != nil { // a directory reads as no file does
		t.Fatal(err)
	}
	a := agenttest.StartReady(t, o)
	if text := a.Readiness().Text(); !strings.Contains(text, "[warn] drains: drains of before cannot be read: ") || !strings.Contains(text, "is a directory") {
		t.Errorf("/readyz says:\n%s\nwant that the drains cannot be read", text)
	}
	if v, err := a.Client.Undrain(t.Context(), ""); err != nil || !strings.Contains(v.Warning, "cannot be read") {
		t.Errorf("undrain: %+v, %v; want a warning", v, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, "the drains read", func() bool { return !strings.Contains(a.Readiness().Text(), "drains") })
}

// A dry run reads them, and leaves them where they are.
func TestNew_dryRunLeavesDrains(t *testing.T) {
	agenttest.Account(t, "web")
	o := agenttest.Host(t, enginetest.New(), "web")
	o.DryRun = true
	path := filepath.Join(o.Config.StateDir, "drains.json")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	a := agenttest.StartReady(t, o)
	if _, err := a.Drain(t.Context(), discovery.Drain{Cause: discovery.CauseSpot}); !errors.Is(err, discovery.ErrNotSaved) {
		t.Errorf("Drain: got %v; want that it is not saved", err)
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		t.Errorf("%v, %v; want it as it was", info, err)
	}
}

// What is let in while the drains cannot be read is in, also when they are read, and the answer says so.
func TestControl_undrainedWhileUnread(t *testing.T) {
	c := newControlledUnread(t)
	id := c.engine.Run(enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	agenttest.Eventually(t, "web-1 known", func() bool { _, ok := c.row("web-1"); return ok })
	v, err := c.Client.Undrain(t.Context(), "web-1")
	if err != nil || len(v.Ended) != 0 || !strings.Contains(v.Warning, "ends when they are read") {
		t.Errorf("undrain: %+v, %v; want that what holds it ends when they are read", v, err)
	}
	since := time.Now()
	c.restore(t,
		discovery.Drain{ID: "operator/" + id, Container: id, Cause: discovery.CauseOperator, Since: since},
		discovery.Drain{ID: "operator/name:web-1", Container: id, Name: "web-1", Cause: discovery.CauseOperator, Since: since},
		discovery.Drain{ID: "operator/name:web-2", Container: "f00", Name: "web-2", Cause: discovery.CauseOperator, Since: since},
	)
	agenttest.Eventually(t, "the drains read", func() bool { return !strings.Contains(c.Readiness().Text(), "drains") })
	agenttest.Eventually(t, "web-1 wanted", func() bool { return c.wanted(id) })
	if drains := c.drains(); len(drains) != 1 || drains["operator/name:web-2"].Name != "web-2" {
		t.Errorf("drains: %+v; want the other's alone", drains)
	}
}

// controlledUnread is an agent whose drains cannot be read yet.
type controlledUnread struct {
	*controlled
	path string
}

func newControlledUnread(t *testing.T) *controlledUnread {
	t.Helper()
	agenttest.Account(t, "web")
	c := &controlledUnread{controlled: &controlled{engine: enginetest.New()}}
	o := agenttest.Host(t, c.engine, "web")
	c.path = filepath.Join(o.Config.StateDir, "drains.json")
	err := os.MkdirAll(o.Config.StateDir, 0o700)
	if err = errors.Join(err, os.Symlink(t.TempDir(), c.path)); err != nil { // a directory reads as no file does
		t.Fatal(err)
	}
	c.Agent = agenttest.StartReady(t, o)
	return c
}

// restore has the drains be readable, and hold these.
func (c *controlledUnread) restore(t *testing.T, drains ...discovery.Drain) {
	t.Helper()
	dir := t.TempDir()
	if err := discovery.NewDrainFile(dir).Save(drains); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "drains.json"), c.path); err != nil {
		t.Fatal(err)
	}
}
