package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchDir is on a real disk: a temporary directory may be in memory. LEDGER_BENCH_DIR names another.
func benchDir(b *testing.B) string {
	b.Helper()
	if dir := os.Getenv("LEDGER_BENCH_DIR"); dir != "" {
		dir, err := os.MkdirTemp(dir, "ledger")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // best effort
		return dir
	}
	return b.TempDir()
}

// BenchmarkLedger_Intend is one durable claim, compactions included, and in turn with it the floor: a write of as many
// bytes into pre-written blocks, and fdatasync. Medians are reported; the time per operation is of both together.
func BenchmarkLedger_Intend(b *testing.B) {
	dir := benchDir(b)
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, defaultRoom)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	l, err := Open(dir, "boot-1", Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	l.Claim(ledgerSelf)
	mustIntendB(b, l, 0)
	line := make([]byte, 900)
	at, i := int64(0), 0
	var floor, intend []float64
	for b.Loop() {
		i++
		start := time.Now()
		if _, err := f.WriteAt(line, at); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		mustIntendB(b, l, i)
		floor, intend = append(floor, float64(between.Sub(start))), append(intend, float64(time.Since(between)))
		at = (at + 900) % (defaultRoom - 900)
	}
	slices.Sort(floor)
	slices.Sort(intend)
	for _, q := range []struct {
		name string
		at   int
	}{{"p50", len(floor) / 2}, {"p95", len(floor) * 95 / 100}} {
		b.ReportMetric(floor[q.at], "floor-"+q.name+"-ns")
		b.ReportMetric(intend[q.at], "intend-"+q.name+"-ns")
	}
}

func mustIntendB(b *testing.B, l *Ledger, i int) {
	if err := l.Intend(b.Context(), []Entry{ledgerEntry(uint16(1+i%50), fmt.Sprint(i))}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLedger_Intend_many is 100 reconcilers at once: what group commit gives.
func BenchmarkLedger_Intend_many(b *testing.B) {
	l, err := Open(benchDir(b), "boot-1", Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	l.Claim(ledgerSelf)
	mustIntendB(b, l, 0)
	b.SetParallelism(50)
	b.RunParallel(func(pb *testing.PB) {
		for i := 1; pb.Next(); i++ {
			mustIntendB(b, l, i)
		}
	})
}

// BenchmarkLedger_memory is a claim and its end without a disk, as in a simulation of many agents.
func BenchmarkLedger_memory(b *testing.B) {
	l := NewMemory()
	l.Claim(ledgerSelf)
	i := 0
	for b.Loop() {
		i++
		mustIntendB(b, l, i)
	}
}

// manyEntries returns a file with n entries of one group.
func manyEntries(t testing.TB, n int) []byte {
	b, err := appendHeader(nil, fileHeader{Schema: 1, InstanceID: ledgerInstance, BootID: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e := ledgerEntry(uint16(1+i%65535), fmt.Sprint(i))
		e.Facts.ARN = fmt.Sprint(ledgerARN, i/65535)
		r := &record{Entry: e, instance: ledgerInstance}
		if b, err = appendCommit(b, []change{{r.key(), r}}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// BenchmarkParseLedger reads 100,000 entries.
func BenchmarkParseLedger(b *testing.B) {
	data := manyEntries(b, 100_000)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
