package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"berth/pkg/target"
	"berth/test/memdisk"
)

// crashLife is one life of an agent: what its reconcilers do, what its disk does to it, and when it ends.
type crashLife struct {
	steps   [2][]crashStep    // of two reconcilers, at the same time
	faults  map[int]DiskFault // by the number of the disk operation
	crashAt int               // the disk operation during which the machine goes down; it does at the end at the latest
	seed    uint64            // of what is kept of what was not synced
}

type crashStep struct {
	do   string
	port uint16
	run  string
}

type DiskFault struct {
	Err  error
	Hang time.Duration
}

func anyCrashLife() *rapid.Generator[crashLife] {
	step := rapid.Custom(func(t *rapid.T) crashStep {
		return crashStep{
			do: rapid.SampledFrom([]string{
				"intend", "intend", "intend", "record", "registered", "removing", "absent", "absent", "sleep", "vanish",
			}).Draw(t, "do"),
			port: rapid.Uint16Range(1, 3).Draw(t, "port"),
			run:  rapid.SampledFrom([]string{"a", "b"}).Draw(t, "run"),
		}
	})
	fault := rapid.Custom(func(t *rapid.T) DiskFault {
		return DiskFault{
			Err:  rapid.SampledFrom([]error{nil, syscall.ENOSPC, syscall.EIO, memdisk.ErrShort}).Draw(t, "error"),
			Hang: rapid.SampledFrom([]time.Duration{0, 0, 100 * time.Millisecond, 3 * time.Second}).Draw(t, "hang"),
		}
	})
	return rapid.Custom(func(t *rapid.T) crashLife {
		life := crashLife{
			faults:  rapid.MapOfN(rapid.IntRange(1, 150), fault, 0, 8).Draw(t, "faults"),
			crashAt: rapid.IntRange(1, 200).Draw(t, "crash at"),
			seed:    rapid.Uint64().Draw(t, "seed"),
		}
		for i := range life.steps {
			life.steps[i] = rapid.SliceOfN(step, 0, 30).Draw(t, "steps")
		}
		return life
	})
}

// crashClaim is what may be found of a claim after a crash.
type crashClaim struct {
	must     bool            // it has to be there
	runs     map[string]bool // for one of these
	removing bool            // it may be there as leaving
}

// crashModel is what the outside knows of one reconciler's claims.
type crashModel map[uint16]*crashClaim

func (m crashModel) at(port uint16) *crashClaim {
	if m[port] == nil {
		m[port] = &crashClaim{runs: map[string]bool{}}
	}
	return m[port]
}

func crashARN(i int) string {
	return fmt.Sprintf("arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/g%d/0", i)
}

// step takes one step, and notes what it means for what has to be found.
func (m crashModel) step(t *testing.T, l *Ledger, d *memdisk.Disk, arn string, s crashStep) {
	e := ledgerEntry(s.port, s.run)
	e.Facts.ARN = arn
	c := m.at(s.port)
	one := []target.Target{e.Target}
	switch s.do {
	case "intend":
		c.runs[e.Run.ID] = true
		if l.Intend(t.Context(), []Entry{e}) == nil {
			*c = crashClaim{must: true, runs: map[string]bool{e.Run.ID: true}}
		}
	case "record":
		e.Phase = Registered
		c.runs[e.Run.ID] = true
		l.Record([]Entry{e})
	case "registered":
		l.Note(arn, one, Registered)
	case "removing":
		c.removing = true
		l.Note(arn, one, Removing)
	case "absent":
		c.must = false
		l.Note(arn, one, Absent)
	case "sleep":
		time.Sleep(1500 * time.Millisecond)
	case "vanish":
		d.RemoveAll(memPath + ".") // what is not the ledger, and may be on the way to become it
	}
}

// check compares what a ledger holds with what it may hold, and takes what it holds as what has to stay.
func (m crashModel) check(found map[uint16]Entry) error {
	for port, c := range m {
		e, there := found[port]
		switch {
		case c.must && !there:
			return fmt.Errorf("port %d is lost", port)
		case there && !c.runs[e.Run.ID]:
			return fmt.Errorf("port %d is there for run %s; want one of %v", port, e.Run.ID, c.runs)
		case there && e.Phase == Removing && !c.removing:
			return fmt.Errorf("port %d is leaving, and nobody said so", port)
		}
		*c = crashClaim{must: there, runs: map[string]bool{e.Run.ID: true}, removing: e.Phase == Removing}
	}
	for port := range found {
		if m[port] == nil {
			return fmt.Errorf("port %d was never entered", port)
		}
	}
	return nil
}

// live runs one life on d and returns the disk that the next one finds.
func (life crashLife) live(t *testing.T, d *memdisk.Disk, models []crashModel) (*memdisk.Disk, error) {
	var mu sync.Mutex
	n := 0
	d.On(func(op, _ string) error {
		mu.Lock()
		n++
		fault, crash := life.faults[n], n == life.crashAt
		mu.Unlock()
		if crash {
			d.Mu.Lock()
			d.Crashed = true
			d.Mu.Unlock()
			return memdisk.ErrShort
		}
		time.Sleep(fault.Hang)
		return fault.Err
	})
	l, err := Open(MemDir, "boot-1", Options{FS: d, room: 2 << 10})
	if err == nil {
		l.Claim(ledgerSelf)
		var reconcilers sync.WaitGroup
		for i, steps := range life.steps {
			reconcilers.Go(func() {
				for _, s := range steps {
					models[i].step(t, l, d, crashARN(i), s)
				}
			})
		}
		reconcilers.Wait()
	}
	after := d.Crash(rand.New(rand.NewPCG(life.seed, 1)))
	if err == nil {
		l.Close()
		<-l.writer.ended
	}
	for _, name := range after.List() {
		if strings.Contains(name, ".corrupt-") {
			return nil, fmt.Errorf("a crash made the ledger unreadable: %q", after.List())
		}
	}
	return after, nil
}

// found returns what the ledger on d holds.
func found(d *memdisk.Disk, models []crashModel) error {
	data := d.Content(memPath)
	if data == nil {
		data = ledgerLines(ledgerHeader1)
	}
	content, err := parse(data)
	if err != nil {
		return err
	}
	for i, m := range models {
		here := map[uint16]Entry{}
		for key, r := range content.records {
			if key.arn == crashARN(i) {
				here[key.target.Port] = r.Entry
			}
		}
		if err := m.check(here); err != nil {
			return err
		}
	}
	return nil
}

// Whatever the disk does, and wherever the machine goes down, however much of what was not synced is kept: the next
// agent finds every claim that was acknowledged and not given up since, for the run that it was acknowledged for or
// one that was asked for later, and nothing that was never entered. The ledger is always readable.
func TestLedger_crash(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lives := rapid.SliceOfN(anyCrashLife(), 1, 3).Draw(rt, "lives")
		for i := range lives {
			// Reading comes before anything is written: a disk that refuses it is another test's.
			for n := range lives[i].faults {
				if n <= 3 {
					delete(lives[i].faults, n)
				}
			}
		}
		var failure error
		synctest.Test(t, func(t *testing.T) {
			d := memdisk.New()
			models := []crashModel{{}, {}}
			for i, life := range lives {
				if d, failure = life.live(t, d, models); failure == nil {
					failure = found(d, models)
				}
				if failure != nil {
					failure = fmt.Errorf("life %d: %w", i+1, failure)
					return
				}
			}
			// A sound disk ends it: everything works again.
			l, err := Open(MemDir, "boot-1", Options{FS: d})
			if err != nil {
				failure = err
				return
			}
			l.Claim(ledgerSelf)
			e := ledgerEntry(99, "z")
			if err := l.Intend(t.Context(), []Entry{e}); err != nil {
				failure = err
			}
			if err := l.Close(); err != nil {
				failure = err
			}
			content, err := parse(d.Content(memPath))
			if err != nil || !slices.ContainsFunc(contentEntries(content), func(o Entry) bool { return o.Compare(e) == 0 }) {
				failure = fmt.Errorf("on a sound disk: %w, %v", err, content)
			}
		})
		if failure != nil {
			rt.Fatal(failure)
		}
	})
}
