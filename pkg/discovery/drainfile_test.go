package discovery_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/discovery"
)

func TestDrainFile(t *testing.T) {
	dir := t.TempDir()
	f := discovery.NewDrainFile(dir)
	if got, err := f.Load(); err != nil || len(got) != 0 {
		t.Errorf("without a file: got %v, %v; want none", got, err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	drains := []discovery.Drain{
		{ID: "operator/host", Cause: discovery.CauseOperator, By: "ann", Reason: "kernel", Since: at, Instance: "i-1", Boot: "b"},
		{ID: "stop_signal/c", Cause: discovery.CauseStopSignal, Container: "c", StartedAt: at.Add(-time.Hour), Hold: discovery.HoldRun, Since: at},
	}
	for _, want := range [][]discovery.Drain{drains, drains[:1], nil} {
		if err := f.Save(want); err != nil {
			t.Fatal(err)
		}
		got, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append([]discovery.Drain{}, want...), got); diff != "" {
			t.Errorf("saved and loaded (-want +got):\n%s", diff)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("in the directory: %v, %v; want drains.json alone", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v; want 0600", info.Mode(), err)
	}
}

func TestDrainFile_unreadable(t *testing.T) {
	for name, content := range map[string]string{
		"garbage":         "\x00\x01",
		"cut short":       `{"version":1,"drains":[{"id":"a"`,
		"another shape":   `[]`,
		"an unknown hold": `{"version":1,"drains":[{"id":"a","cause":"operator","hold":"forever"}]}`,
		"huge":            `{"drains":[],"x":"` + strings.Repeat("x", 9<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "drains.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			f := discovery.NewDrainFile(dir)
			got, err := f.Load()
			if err == nil || len(got) != 0 {
				t.Errorf("got %v, %v; want an error", got, err)
			}
			aside, globErr := filepath.Glob(path + ".corrupt-*")
			if globErr != nil || len(aside) != 1 || !strings.Contains(err.Error(), filepath.Base(aside[0])) {
				t.Errorf("set aside: got %v; want one file, named in %v", aside, err)
			}
			if got, err := f.Load(); err != nil || len(got) != 0 {
				t.Errorf("again: got %v, %v; want none", got, err)
			}
			if err := f.Save(nil); err != nil {
				t.Errorf("Save: %v", err)
			}
		})
	}
}

// TestDrainFile_owner: an agent that root ran by hand leaves a file that the service may read.
func TestDrainFile_owner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	const uid, gid = 65534, 65533
	dir := t.TempDir()
	f, path := discovery.NewDrainFile(dir), filepath.Join(dir, "drains.json")
	if err := os.WriteFile(path, []byte(`{"drains":[]}`), 0o600); err != nil { // as an agent of before left it
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Save(nil); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != uid || owner.Gid != gid || info.Mode().Perm() != 0o600 {
			t.Errorf("the file is %d:%d's, %v; want its directory's owner's, 0600", owner.Uid, owner.Gid, info.Mode())
		}
		if err := os.Remove(path); err != nil { // and where there was none
			t.Fatal(err)
		}
	}
}

// A file of a later version is read as far as it is understood, and what says nothing is left out.
func TestDrainFile_laterVersion(t *testing.T) {
	dir := t.TempDir()
	content := `{"version":9,"new":{},"drains":[{"id":"a","cause":"operator","hold":"keep","since":"2026-01-02T03:04:05Z","colour":"red"},{"id":"","cause":"x","hold":"keep"},{"hold":"run"}]}`
	if err := os.WriteFile(filepath.Join(dir, "drains.json"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := discovery.NewDrainFile(dir).Load()
	if err != nil || len(got) != 1 || got[0].ID != "a" {
		t.Errorf("got %+v, %v; want drain a alone", got, err)
	}
}

func TestDrainFile_noDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	f := discovery.NewDrainFile(dir)
	if err := f.Save(nil); err == nil || !strings.Contains(err.Error(), "save drains") {
		t.Errorf("Save: got %v; want an error", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(nil); err != nil {
		t.Errorf("Save, once it is there: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := discovery.NewDrainFile(filepath.Join(dir, "drains.json")).Load(); err == nil {
		t.Error("Load below a file: got no error")
	}
}

func TestHold_text(t *testing.T) {
	for h, want := range map[discovery.Hold]string{discovery.HoldKeep: "keep", discovery.HoldRun: "run", discovery.HoldConnection: "connection"} {
		b, err := h.MarshalText()
		var back discovery.Hold
		if err != nil || string(b) != want || back.UnmarshalText(b) != nil || back != h {
			t.Errorf("%v: got %q, %v, back %v; want %q", uint8(h), b, err, back, want)
		}
	}
	if got := fmt.Sprint(discovery.Hold(9)); got != "hold(9)" {
		t.Errorf("an unknown hold: got %q", got)
	}
	var h discovery.Hold
	if err := h.UnmarshalText([]byte("forever")); err == nil {
		t.Error("forever: got no error")
	}
}
