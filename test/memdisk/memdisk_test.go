package memdisk

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"berth/internal/statedir"
)

// The disk is itself a thing to get wrong: it has to lose what was not synced, and keep what was.
func TestDisk_crash(t *testing.T) {
	lost, kept := 0, 0
	for seed := range uint64(50) {
		d := New()
		write := func(name, text string) statedir.File {
			f, err := d.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte(text), 0); err != nil {
				t.Fatal(err)
			}
			return f
		}
		f := write("a", "safe")
		if err := errors.Join(f.Sync(), d.SyncDir(".")); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("loss"), 4); err != nil {
			t.Fatal(err)
		}
		write("b", "never synced")
		after := d.Crash(rand.New(rand.NewPCG(seed, 0)))
		got := string(after.Content("a"))
		if !strings.HasPrefix(got, "safe") {
			t.Fatalf("lost what was synced: %q", got)
		}
		if got == "safe" {
			lost++
		}
		if got == "safeloss" {
			kept++
		}
		if err := f.Sync(); !errors.Is(err, errCrashed) {
			t.Fatalf("sync after the crash: %v", err)
		}
	}
	if lost == 0 || kept == 0 {
		t.Errorf("of 50 crashes %d lost and %d kept what was not synced; want some of each", lost, kept)
	}
}
