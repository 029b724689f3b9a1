package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/statedir"
	"berth/pkg/target"
	"berth/test/memdisk"
)

// counter is both halves of LedgerMetrics.
type counter struct {
	mu     sync.Mutex
	errors int
	syncs  []float64
}

func (c *counter) Inc() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors++
}

func (c *counter) Observe(s float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.syncs = append(c.syncs, s)
}

func (c *counter) failures() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.errors
}

const MemDir = "/state"

var memPath = filepath.Join(MemDir, fileName)

// openOn opens and claims a ledger on d.
func openOn(t *testing.T, d *memdisk.Disk, opts Options) *Ledger {
	t.Helper()
	opts.FS = d
	if opts.room == 0 {
		opts.room = 16 << 10 // enough, and quick to write
	}
	l := openLedger(t, MemDir, "boot-1", opts)
	l.Claim(ledgerSelf)
	return l
}

// onMemDisk returns the entries that the file on d holds.
func onMemDisk(t *testing.T, d *memdisk.Disk) []Entry {
	t.Helper()
	content, err := parse(d.Content(memPath))
	if err != nil {
		t.Fatalf("ledger on disk: %v", err)
	}
	var out []Entry
	for _, r := range content.records {
		out = append(out, r.Entry)
	}
	slices.SortFunc(out, Entry.Compare)
	return out
}

func wantOnDisk(t *testing.T, d *memdisk.Disk, want ...Entry) {
	t.Helper()
	if diff := cmp.Diff(want, onMemDisk(t, d)); diff != "" {
		t.Errorf("on disk (-want +got):\n%s", diff)
	}
}

// Whatever fails, at whatever step: the caller goes on, is told, and everything is on disk when the disk is well again.
func TestLedger_diskFaults(t *testing.T) {
	faults := map[string]error{
		"full": syscall.ENOSPC, "broken": syscall.EIO, "read-only": syscall.EROFS, "gone": syscall.ENOENT, "short": memdisk.ErrShort,
	}
	for _, ops := range []string{"create", "write", "sync", "rename", "syncdir", "named", "create datasync", "named mkdir"} {
		for name, fault := range faults {
			t.Run(strings.ReplaceAll(ops, " ", "+")+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d, c := memdisk.New(), &counter{}
					core, logs := observer.New(zap.InfoLevel)
					l := openOn(t, d, Options{Log: zap.New(core), Metrics: Metrics{Errors: c, Sync: c}})
					before := ledgerEntry(1, "before")
					mustIntend(t, l, before)
					var failed atomic.Int64
					d.On(failing(ops, fault, &failed))
					l.Claim(ledgerSelf) // has the file written whole: every operation is used

					start := time.Now()
					during := ledgerEntry(2, "during")
					err := l.Intend(t.Context(), []Entry{during})
					if !errors.Is(err, ErrDegraded) || !errors.Is(err, fault) {
						t.Fatalf("got %v; want ErrDegraded and %v", err, fault)
					}
					if waited := time.Since(start); waited > time.Second {
						t.Errorf("waited %v", waited)
					}
					if l.Err() == nil || failed.Load() == 0 || c.failures() == 0 {
						t.Errorf("Err() %v, %d operations failed, %d counted", l.Err(), failed.Load(), c.failures())
					}
					wantEntries(t, l, before, during)
					time.Sleep(5 * time.Minute)
					// Some 15 attempts in 5 minutes; each may come to several operations.
					if n := failed.Load(); n > 60 {
						t.Errorf("%d operations failed in 5 minutes: the disk is not left alone", n)
					}
					if n := logs.FilterMessage("ledger is not on disk, going on from memory").Len(); n > 3 {
						t.Errorf("warned %d times; want on change alone", n)
					}

					d.On(nil)
					time.Sleep(retryMost + time.Second)
					if err := l.Err(); err != nil {
						t.Errorf("degraded on a sound disk: %v", err)
					}
					if n := logs.FilterMessage("ledger is on disk again").Len(); n != 1 {
						t.Errorf("recovery logged %d times", n)
					}
					wantOnDisk(t, d, before, during)
					after := ledgerEntry(3, "after")
					mustIntend(t, l, after)
					wantOnDisk(t, d, before, during, after)

					// The next trouble begins with a short wait again.
					d.On(failing(ops, fault, &failed))
					l.Claim(ledgerSelf)
					if err := l.Intend(t.Context(), []Entry{ledgerEntry(4, "x")}); !errors.Is(err, ErrDegraded) {
						t.Errorf("second trouble: %v", err)
					}
					d.On(nil)
					time.Sleep(retryLeast + time.Millisecond)
					if err := l.Err(); err != nil {
						t.Errorf("not tried again at once: %v", err)
					}
				})
			})
		}
	}
}

// On a disk that is nearly full the room to grow is what is given up, not the ledger; and what was tried is given back.
func TestLedger_nearlyFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		d.Space = 12 << 10
		l := openOn(t, d, Options{room: 64 << 10})
		var want []Entry
		for i := range 5 {
			want = append(want, ledgerEntry(uint16(1+i), fmt.Sprint(i)))
			mustIntend(t, l, want[i])
			wantOnDisk(t, d, want...)
		}
		if n := len(d.Content(memPath)); n > 6000 {
			t.Errorf("%d bytes taken for 5 entries", n)
		}
		var err error
		for i := 5; err == nil && i < 100; i++ {
			want = append(want, ledgerEntry(uint16(1+i), fmt.Sprint(i)))
			err = l.Intend(t.Context(), want[i:])
		}
		if !errors.Is(err, ErrDegraded) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("full: got %v; want ErrDegraded and ENOSPC", err)
		}
		wantOnDisk(t, d, want[:len(want)-1]...)
		d.Mu.Lock()
		d.Space = 0
		d.Mu.Unlock()
		time.Sleep(time.Minute)
		wantOnDisk(t, d, want...)
	})
}

// A commit that fails once is saved by writing the whole file at once: nobody notices but the counter.
func TestLedger_failsOnce(t *testing.T) {
	for _, op := range []string{"write", "datasync"} {
		for _, fault := range []error{syscall.EIO, memdisk.ErrShort} {
			synctest.Test(t, func(t *testing.T) {
				d, c := memdisk.New(), &counter{}
				l := openOn(t, d, Options{Metrics: Metrics{Errors: c}})
				a, b := ledgerEntry(1, "a"), ledgerEntry(2, "b")
				mustIntend(t, l, a)
				var used atomic.Bool
				d.On(func(o, _ string) error {
					if o == op && used.CompareAndSwap(false, true) {
						return fault
					}
					return nil
				})
				mustIntend(t, l, b)
				if !used.Load() || c.failures() != 1 || l.Err() != nil {
					t.Errorf("%s: fault used: %v, %d failures counted, Err() %v", op, used.Load(), c.failures(), l.Err())
				}
				wantOnDisk(t, d, a, b)
			})
		}
	}
}

func TestLedger_hangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c := memdisk.New(), &counter{}
		l := openOn(t, d, Options{Metrics: Metrics{Errors: c, Sync: c}})
		mustIntend(t, l, ledgerEntry(1, "a"))
		release := make(chan struct{})
		d.On(func(op, _ string) error {
			if op == "datasync" {
				<-release
			}
			return nil
		})
		var another sync.WaitGroup                                                 // one hang counts once, however many wait
		another.Go(func() { l.Intend(t.Context(), []Entry{ledgerEntry(5, "e")}) }) //nolint:errcheck // as the first
		intend := func(port uint16) (time.Duration, error) {
			start := time.Now()
			err := l.Intend(t.Context(), []Entry{ledgerEntry(port, "b")})
			return time.Since(start), err
		}
		if waited, err := intend(2); !errors.Is(err, ErrDegraded) || waited != time.Second {
			t.Errorf("first: %v after %v; want ErrDegraded after 1s", err, waited)
		}
		if waited, err := intend(3); !errors.Is(err, ErrDegraded) || waited != 0 {
			t.Errorf("second: %v after %v; want ErrDegraded at once", err, waited)
		}
		another.Wait()
		start := time.Now()
		l.Note(ledgerARN, []target.Target{{ID: ledgerInstance, Port: 1}}, Absent)
		l.Record([]Entry{ledgerEntry(4, "d")})
		if n := len(l.Entries()); n != 4 {
			t.Errorf("%d entries in memory; want 4", n)
		}
		if err := l.Err(); !errors.Is(err, errSlowDisk) {
			t.Errorf("Err() %v", err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("Note, Record, Entries and Err waited %v", waited)
		}
		if c.failures() != 1 {
			t.Errorf("counted %d; want 1 for one hang", c.failures())
		}
		// What is on disk already may be sent again without asking it.
		if err := l.Intend(t.Context(), nil); err != nil {
			t.Errorf("nothing to enter: %v", err)
		}
		time.Sleep(time.Hour)
		close(release)
		time.Sleep(2 * time.Second)
		if err := l.Err(); err != nil {
			t.Errorf("degraded after the hang: %v", err)
		}
		wantOnDisk(t, d, l.Entries()...)
		if slowest := slices.Max(c.syncs); slowest < 3600 {
			t.Errorf("slowest fdatasync observed: %v s", slowest)
		}
	})
}

// A disk that takes 3 s for every commit must not cost every caller the deadline again.
func TestLedger_slowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		mustIntend(t, l, ledgerEntry(1, "a"))
		d.On(func(op, _ string) error {
			if op == "datasync" {
				time.Sleep(3 * time.Second)
			}
			return nil
		})
		start := time.Now()
		for i := range 100 {
			l.Intend(t.Context(), []Entry{ledgerEntry(uint16(100+i), "x")}) //nolint:errcheck // that is the point
			time.Sleep(100 * time.Millisecond)
		}
		if waited := time.Since(start) - 10*time.Second; waited > 3*time.Second {
			t.Errorf("a loop of 10 s waited for the disk for %v besides", waited)
		}
		time.Sleep(10 * time.Second)
		if len(onMemDisk(t, d)) != 101 || l.Err() != nil {
			t.Errorf("%d on disk, Err() %v", len(onMemDisk(t, d)), l.Err())
		}
	})
}

func TestLedger_Close_hangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		e := ledgerEntry(1, "a")
		mustIntend(t, l, e)
		release := make(chan struct{})
		d.On(func(op, _ string) error {
			if op == "datasync" {
				<-release
			}
			return nil
		})
		l.Record([]Entry{ledgerEntry(2, "b")})
		start := time.Now()
		if err := l.Close(); !errors.Is(err, errSlowDisk) {
			t.Errorf("close: %v", err)
		}
		if waited := time.Since(start); waited != 2*time.Second {
			t.Errorf("close took %v; want 2s", waited)
		}
		// A write that hangs may still come through: nobody else may have the directory meanwhile.
		d.On(nil)
		if _, err := Open(MemDir, "boot-1", Options{FS: d}); !errors.Is(err, statedir.ErrLocked) {
			t.Errorf("second ledger: %v; want ErrLocked", err)
		}
		close(release)
		synctest.Wait()
		again := openLedger(t, MemDir, "boot-1", Options{FS: d})
		wantEntries(t, again, e, ledgerEntry(2, "b"))
	})
}

func TestLedger_Close_degraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		mustIntend(t, l, ledgerEntry(1, "a"))
		var n atomic.Int64
		d.On(failing("write", syscall.ENOSPC, &n))
		if err := l.Intend(t.Context(), []Entry{ledgerEntry(2, "b")}); !errors.Is(err, ErrDegraded) {
			t.Fatal(err)
		}
		if err := l.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("close: %v; want ENOSPC", err)
		}
		if err := l.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("close again: %v; want ENOSPC", err)
		}
		if err := l.Intend(t.Context(), []Entry{ledgerEntry(3, "c")}); err == nil {
			t.Error("a closed ledger takes entries")
		}
		l.Note(ledgerARN, []target.Target{{ID: ledgerInstance, Port: 1}}, Absent)
		l.Record([]Entry{ledgerEntry(3, "c")})
		if got := len(l.Entries()); got != 2 {
			t.Errorf("%d entries; want the 2 of before", got)
		}
		// The lock is free: what was acknowledged is there.
		d.On(nil)
		wantEntries(t, openLedger(t, MemDir, "boot-1", Options{FS: d}), ledgerEntry(1, "a"))
	})
}

// What is asked for while the disk is busy goes out together.
func TestLedger_groupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{room: defaultRoom})
		mustIntend(t, l, ledgerEntry(1, "a"))
		hold := make(chan struct{})
		d.On(func(op, _ string) error {
			if op == "datasync" {
				<-hold
			}
			return nil
		})
		before := d.Count("datasync")
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				if err := l.Intend(t.Context(), []Entry{ledgerEntry(uint16(100+i), "x")}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all have asked; some are in the commit that is held
		close(hold)
		all.Wait()
		if n := d.Count("datasync") - before; n > 2 {
			t.Errorf("200 reconcilers took %d commits; want at most 2", n)
		}
		if n := len(onMemDisk(t, d)); n != 201 {
			t.Errorf("%d entries on disk", n)
		}
	})
}

// Only what the disk does not know costs a commit.
func TestLedger_Intend_known(t *testing.T) {
	intended := ledgerEntry(1, "a")
	for _, tt := range []struct {
		name   string
		note   Phase // before; empty: none
		change func(*Entry)
		cost   int
		phase  Phase
	}{
		{"again", "", func(*Entry) {}, 0, Intended},
		{"again after the load balancer had it", Registered, func(*Entry) {}, 0, Intended},
		{"again with a new key for the group", Registered, func(e *Entry) { e.Group.Key = "renamed" }, 0, Intended},
		{"another run", Registered, func(e *Entry) { e.Run.ID, e.Phase = "other", Registered }, 1, Registered},
		{"the same container's next run", "", func(e *Entry) { e.Run.StartedAt = e.Run.StartedAt.Add(time.Hour) }, 1, Intended},
		{"another boot", "", func(e *Entry) { e.BootID = "boot-2" }, 1, Intended},
		{"back while it is leaving", Removing, func(*Entry) {}, 1, Intended},
		{"back after it was gone", Absent, func(*Entry) {}, 1, Intended},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := memdisk.New()
				l := openOn(t, d, Options{})
				mustIntend(t, l, intended)
				if tt.note != "" {
					l.Note(ledgerARN, []target.Target{intended.Target}, tt.note)
				}
				time.Sleep(time.Minute)
				before := d.Count("datasync")
				e := intended
				tt.change(&e)
				mustIntend(t, l, e)
				if got := d.Count("datasync") - before; got != tt.cost {
					t.Errorf("%d commits; want %d", got, tt.cost)
				}
				if got := l.Entries()[0].Phase; got != tt.phase {
					t.Errorf("phase %s; want %s", got, tt.phase)
				}
				time.Sleep(2 * time.Second) // what nobody waits for is on disk as well by now
				wantOnDisk(t, d, l.Entries()...)
			})
		})
	}
}

func TestLedger_Note(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		e := ledgerEntry(1, "a")
		one := []target.Target{e.Target}
		mustIntend(t, l, e)
		time.Sleep(time.Minute)
		d.On(func(op, _ string) error {
			if op == "datasync" {
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		})
		commits := func(f func()) int {
			before, start := d.Count("datasync"), time.Now()
			f()
			if waited := time.Since(start); waited != 0 {
				t.Errorf("a note waited %v", waited)
			}
			time.Sleep(time.Minute)
			return d.Count("datasync") - before
		}
		var at time.Time
		for _, tt := range []struct {
			what    string
			note    func()
			commits int
			want    func(*Entry)
		}{
			{"confirmed", func() { l.Note(ledgerARN, one, Registered) }, 1, func(e *Entry) { e.Phase, e.Confirmed = Registered, at }},
			{"seen again", func() { l.Note(ledgerARN, one, Registered) }, 0, func(*Entry) {}},
			{"unknown group", func() { l.Note("arn:other", one, Absent) }, 0, func(*Entry) {}},
			{"unknown target", func() { l.Note(ledgerARN, []target.Target{{ID: "i-other", Port: 1}}, Registered) }, 0, func(*Entry) {}},
			{"deregistered", func() { l.Note(ledgerARN, one, Removing) }, 1, func(e *Entry) { e.Phase, e.Removed = Removing, at }},
			{"deregistered again", func() { l.Note(ledgerARN, one, Removing) }, 1, func(e *Entry) { e.Removed = at }},
			{"came back late", func() { l.Note(ledgerARN, one, Registered) }, 1, func(e *Entry) {
				e.Phase, e.Confirmed, e.Removed = Registered, at, time.Time{}
			}},
			{"in doubt", func() { l.Note(ledgerARN, one, Intended) }, 1, func(e *Entry) { e.Phase = Intended }},
		} {
			at = time.Now().UTC()
			if n := commits(tt.note); n != tt.commits {
				t.Errorf("%s: %d commits; want %d", tt.what, n, tt.commits)
			}
			tt.want(&e)
			wantEntries(t, l, e)
			wantOnDisk(t, d, e)
		}
		if n := commits(func() { l.Note(ledgerARN, one, Absent) }); n != 1 {
			t.Errorf("gone: %d commits", n)
		}
		wantEntries(t, l)
		wantOnDisk(t, d)
	})
}

// A disk that is in trouble from the start is no reason not to start.
func TestOpen_diskFaults(t *testing.T) {
	for _, ops := range []string{"mkdir", "lock", "create", "mkdir create"} {
		for _, fault := range []error{syscall.EROFS, syscall.ENOSPC, syscall.EIO} {
			synctest.Test(t, func(t *testing.T) {
				d := memdisk.New()
				first := openOn(t, d, Options{})
				a, b := ledgerEntry(1, "a"), ledgerEntry(2, "b")
				mustIntend(t, first, a)
				closeLedger(t, first)
				d.On(func(op, _ string) error {
					if strings.Contains(ops, op) {
						return fault
					}
					return nil
				})
				l := openOn(t, d, Options{})
				wantEntries(t, l, a)
				if err := l.Intend(t.Context(), []Entry{b}); !errors.Is(err, ErrDegraded) || !errors.Is(err, fault) {
					t.Errorf("%s: got %v; want ErrDegraded and %v", ops, err, fault)
				}
				d.On(nil)
				time.Sleep(time.Minute)
				wantOnDisk(t, d, a, b)
				if err := l.Err(); err != nil {
					t.Errorf("%s: %v", ops, err)
				}
			})
		}
	}
}

func TestLedger_Intend_context(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		mustIntend(t, l, ledgerEntry(1, "a"))
		d.On(func(op, _ string) error {
			time.Sleep(500 * time.Millisecond)
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := l.Intend(ctx, []Entry{ledgerEntry(2, "b")})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrDegraded) || time.Since(start) > 100*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		time.Sleep(5 * time.Second)
		wantOnDisk(t, d, ledgerEntry(1, "a"), ledgerEntry(2, "b"))
	})
}

func TestLedger_leavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	m := NewMemory() // no Close: it has none to end
	mustIntend(t, m, ledgerEntry(1, "a"))
	l, err := Open(t.TempDir(), "boot-1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	l.Claim(ledgerSelf)
	mustIntend(t, l, ledgerEntry(1, "a"))
	closeLedger(t, l)
	closeLedger(t, l)
	if _, err := Open(filepath.Join(t.TempDir(), "\x00"), "boot-1", Options{}); err == nil {
		t.Error("opened a directory that cannot be")
	}
}

// A tail torn at any byte, in any way, costs the last commit and no more.
func TestLedger_tornTail(t *testing.T) {
	a, b := ledgerEntry(1, "a"), ledgerEntry(2, "b")
	file := encodeLedger(t, 1, []Entry{a}, []Entry{b})
	last := strings.LastIndexByte(strings.TrimRight(string(file), "\n"), '\n') + 1
	rng := rand.New(rand.NewPCG(1, 2))
	tears := map[string]func(tail []byte, at int) []byte{
		"cut":           func(tail []byte, at int) []byte { return tail[:at] },
		"zeros after":   func(tail []byte, at int) []byte { return append(tail[:at:at], make([]byte, len(tail)-at+4096)...) },
		"zeros before":  func(tail []byte, at int) []byte { return append(make([]byte, at), tail[at:]...) },
		"one byte":      func(tail []byte, at int) []byte { tail[at] ^= byte(1 + rng.IntN(255)); return tail },
		"zeros between": func(tail []byte, at int) []byte { clear(tail[at:min(len(tail), at+16)]); return tail },
	}
	for name, tear := range tears {
		for at := range len(file) - last {
			tail := tear([]byte(strings.Clone(string(file[last:]))), at)
			content, err := parse(append(slices.Clone(file[:last]), tail...))
			if err != nil {
				if strings.Count(string(tail), "\n") > 1 {
					continue // the byte became a newline: two bad lines, and no tear looks like that
				}
				t.Fatalf("%s at byte %d: %v", name, at, err)
			}
			r := content.records[claim{ledgerARN, a.Target}]
			if r == nil || !cmp.Equal(r.Entry, a) {
				t.Fatalf("%s at byte %d: the commit before is lost", name, at)
			}
			if torn := content.records[claim{ledgerARN, b.Target}]; torn != nil && !cmp.Equal(torn.Entry, b) {
				t.Fatalf("%s at byte %d: took %+v", name, at, torn)
			}
		}
	}
}
