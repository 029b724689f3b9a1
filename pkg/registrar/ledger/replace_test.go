package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"berth/internal/statedir"
	"berth/pkg/target"
	"berth/test/memdisk"
)

// Entries that are appended while a compacted file is made are in it.
func TestLedger_compaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{room: defaultRoom})
		mustIntend(t, l, ledgerEntry(1, "a"))
		churn := func(l *Ledger) {
			for i := range 1500 {
				e := ledgerEntry(uint16(1+i%7), fmt.Sprint(i))
				mustIntend(t, l, e)
				if i%3 == 0 {
					l.Note(ledgerARN, []target.Target{e.Target}, Absent)
				}
			}
		}
		var held atomic.Bool
		hold := make(chan struct{})
		d.On(func(op, _ string) error {
			if op == "sync" {
				held.Store(true)
				<-hold
			}
			return nil
		})
		churn(l)
		if !held.Load() {
			t.Fatal("1,500 commits and no compaction")
		}
		renames := d.Count("rename")
		before := len(d.Content(memPath))
		close(hold)
		synctest.Wait()
		if got := d.Count("rename") - renames; got != 1 {
			t.Fatalf("%d files replaced; want 1", got)
		}
		if after := len(d.Content(memPath)); after >= before {
			t.Errorf("compaction made %d bytes of %d", after, before)
		}
		time.Sleep(2 * time.Second)
		wantOnDisk(t, d, l.Entries()...)
		churn(l)
		time.Sleep(2 * time.Second)
		wantOnDisk(t, d, l.Entries()...)
		if size := len(d.Content(memPath)); size > 4*defaultRoom {
			t.Errorf("3,000 commits left %d bytes", size)
		}
		if got := d.List(); len(got) != 2 {
			t.Errorf("files %q; want the ledger and the lock", got)
		}
	})
}

// A compaction that fails is no trouble: the present file goes on. Neither is one whose rename may or may not have
// happened: the whole state is written again.
func TestLedger_compactionFails(t *testing.T) {
	for _, op := range []string{"create", "sync", "rename", "syncdir", "lock"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, c := memdisk.New(), &counter{}
				l := openOn(t, d, Options{Metrics: Metrics{Errors: c}})
				mustIntend(t, l, ledgerEntry(1, "a"))
				var failed atomic.Bool
				d.On(func(o, path string) error {
					hit := o == op || op == "lock" && o == "named" && filepath.Base(path) == lockName
					if hit && failed.CompareAndSwap(false, true) {
						return syscall.EIO
					}
					return nil
				})
				for i := range 200 {
					mustIntend(t, l, ledgerEntry(uint16(1+i%7), fmt.Sprint(i)))
				}
				time.Sleep(2 * time.Second)
				if !failed.Load() || c.failures() == 0 || l.Err() != nil {
					t.Errorf("an operation failed: %v, %d counted, Err() %v", failed.Load(), c.failures(), l.Err())
				}
				wantOnDisk(t, d, l.Entries()...)
			})
		})
	}
}

// While no compacted file can be made, it is tried now and then, not with every commit.
func TestLedger_compactionFails_always(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c := memdisk.New(), &counter{}
		l := openOn(t, d, Options{Metrics: Metrics{Errors: c}})
		mustIntend(t, l, ledgerEntry(1, "a"))
		var tried atomic.Int64
		d.On(failing("create", syscall.ENOSPC, &tried))
		for i := range 200 {
			mustIntend(t, l, ledgerEntry(uint16(1+i%7), fmt.Sprint(i)))
			synctest.Wait()
		}
		if n := tried.Load(); n < 2 || n > 30 || int64(c.failures()) != n {
			t.Errorf("tried %d times in 200 commits, %d failures counted", n, c.failures())
		}
		if err := l.Err(); err != nil {
			t.Errorf("degraded: %v", err)
		}
		time.Sleep(2 * time.Second)
		wantOnDisk(t, d, l.Entries()...)
	})
}

// Somebody removes the file, or the whole directory, under a running agent.
func TestLedger_vanishes(t *testing.T) {
	for _, what := range []string{memPath, MemDir} {
		synctest.Test(t, func(t *testing.T) {
			d := memdisk.New()
			l := openOn(t, d, Options{})
			a, b, c := ledgerEntry(1, "a"), ledgerEntry(2, "b"), ledgerEntry(3, "c")
			mustIntend(t, l, a)
			d.RemoveAll(what)
			mustIntend(t, l, b)
			wantOnDisk(t, d, a, b)
			mustIntend(t, l, c)
			wantOnDisk(t, d, a, b, c)
		})
	}
}

// What was on disk is not any more when the file is gone and no other can be made: nobody may rely on it.
func TestLedger_vanishes_forGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		a, b := ledgerEntry(1, "a"), ledgerEntry(2, "b")
		mustIntend(t, l, a)
		mustIntend(t, l, a) // known: costs nothing
		d.RemoveAll(MemDir)
		d.On(func(op, _ string) error {
			if op == "mkdir" || op == "create" {
				return syscall.EACCES
			}
			return nil
		})
		for _, e := range []Entry{b, a} {
			if err := l.Intend(t.Context(), []Entry{e}); !errors.Is(err, ErrDegraded) || !errors.Is(err, syscall.EACCES) {
				t.Errorf("%s: got %v; want ErrDegraded and EACCES", e.Target, err)
			}
		}
		d.On(nil)
		time.Sleep(time.Minute)
		mustIntend(t, l, a)
		wantOnDisk(t, d, a, b)
	})
}

// A directory that was replaced may be another agent's by now.
func TestLedger_vanishes_takenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		a := ledgerEntry(1, "a")
		mustIntend(t, l, a)
		d.RemoveAll(MemDir)
		d.Mu.Lock()
		d.Locked = map[string]bool{}
		d.Mu.Unlock()
		other := openOn(t, d, Options{Holder: "77 berth run"})
		mustIntend(t, other, ledgerEntry(9, "other"))
		err := l.Intend(t.Context(), []Entry{ledgerEntry(2, "b")})
		if !errors.Is(err, ErrDegraded) || !errors.Is(err, statedir.ErrLocked) {
			t.Errorf("got %v; want ErrDegraded and ErrLocked", err)
		}
		time.Sleep(time.Hour)
		wantOnDisk(t, d, ledgerEntry(9, "other"))
		closeLedger(t, other)
		time.Sleep(time.Minute)
		wantOnDisk(t, d, a, ledgerEntry(2, "b"))
	})
}
