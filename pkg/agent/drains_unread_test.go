package agent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
