package ledger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
	"berth/test/memdisk"
)

// TestLedger_Restore: an intent that came to nothing leaves no trace, in memory, on disk, or in what the next one waits
// for.
func TestLedger_Restore(t *testing.T) {
	x := ledgerEntry(1, "a").Target
	for _, tt := range []struct {
		name   string
		note   Phase // of the entry before; Absent: there was none
		change func(*Entry)
		again  int // commits that it costs to claim the entry of before anew
	}{
		{"nothing before", Absent, func(*Entry) {}, 1},
		{"leaving", Removing, func(*Entry) {}, 1},
		{"leaving, for another run", Removing, func(e *Entry) { e.Run.ID = "b" }, 1},
		{"intended", Intended, func(*Entry) {}, 0},
		{"intended, for another run", Intended, func(e *Entry) { e.Run.ID = "b" }, 1},
		{"registered", Registered, func(*Entry) {}, 0},
		{"registered, by another boot", Registered, func(e *Entry) { e.BootID = "boot-2" }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := memdisk.New()
				l := openOn(t, d, Options{})
				e := ledgerEntry(1, "a")
				mustIntend(t, l, e, ledgerEntry(2, "c"))
				l.Note(ledgerARN, []target.Target{x}, tt.note)
				time.Sleep(time.Minute)
				before := l.Entries()
				holdings := l.Holdings(ledgerARN, []target.Target{x})
				if got, ok := holdings[0].Entry(); ok != (tt.note != Absent) || ok && got.Phase != tt.note || holdings[0].Target() != x {
					t.Errorf("holds %+v, %t", got, ok)
				}

				next := e
				next.Intended = next.Intended.Add(time.Hour)
				tt.change(&next)
				mustIntend(t, l, next)
				if cmp.Equal(before, l.Entries()) {
					t.Fatal("the intent changed nothing")
				}
				l.Restore(holdings)
				time.Sleep(2 * time.Second)
				if diff := cmp.Diff(before, l.Entries()); diff != "" {
					t.Errorf("restored (-want +got):\n%s", diff)
				}
				wantOnDisk(t, d, before...)

				mustIntend(t, l, next)
				l.Restore(holdings)
				commits := d.Count("datasync")
				mustIntend(t, l, e)
				if got := d.Count("datasync") - commits; got != tt.again {
					t.Errorf("claimed anew at once with %d commits; want %d", got, tt.again)
				}
			})
		})
	}
}

// A holding that is what the ledger has costs the disk nothing.
func TestLedger_Restore_same(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		l := openOn(t, d, Options{})
		mustIntend(t, l, ledgerEntry(1, "a"))
		time.Sleep(time.Minute)
		commits := d.Count("datasync")
		l.Restore(l.Holdings(ledgerARN, []target.Target{ledgerEntry(1, "a").Target, ledgerEntry(2, "a").Target}))
		time.Sleep(time.Minute)
		if got := d.Count("datasync") - commits; got != 0 {
			t.Errorf("%d commits; want none", got)
		}
	})
}
