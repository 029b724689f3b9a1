package logs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// reader is who reads a log: it may stop reading, and be gone.
type reader struct {
	reads  chan struct{} // holds a value while it reads; the holder may use got
	gone   atomic.Bool
	writes atomic.Int64
	got    bytes.Buffer
}

func newReader() *reader {
	r := &reader{reads: make(chan struct{}, 1)}
	r.reads <- struct{}{}
	return r
}

func (r *reader) stop() { <-r.reads }
func (r *reader) goOn() { r.reads <- struct{}{} }

func (r *reader) Write(p []byte) (int, error) {
	r.writes.Add(1)
	if r.gone.Load() {
		return 0, errors.New("broken pipe")
	}
	r.stop()
	defer r.goOn()
	return r.got.Write(p)
}

func (r *reader) lines() []string {
	r.stop()
	defer r.goOn()
	return strings.Split(strings.TrimSuffix(r.got.String(), "\n"), "\n")
}

// written waits until all is written, however slow this machine is.
func written(sync func() error) {
	for sync() != nil { // it waits by itself
	}
}

// hung is a writer that takes nothing until it is closed.
type hung chan struct{}

func (h hung) Write(p []byte) (int, error) {
	<-h
	return len(p), nil
}

// Nothing is lost, and order is kept, as long as the reader reads.
func TestWriter_order(t *testing.T) {
	r := newReader()
	w := NewWriter(r)
	const n = 10_000
	for i := range n {
		fmt.Fprintf(w, "%d\n", i)
		if i%1000 == 0 {
			written(w.Sync)
		}
	}
	written(w.Sync)
	got := r.lines()
	if len(got) != n || w.Dropped() != 0 {
		t.Fatalf("%d lines, %d dropped; want %d", len(got), w.Dropped(), n)
	}
	for i, line := range got {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
}

// While nobody reads, a writer waits for nothing, holds no more than its bound, and says afterwards what is missing, at
// its place.
func TestWriter_blocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader()
		w := NewWriter(r)
		log, _, err := New(w, "info", "json")
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		begun := time.Now()
		const n = 20_000
		line := strings.Repeat("x", 200)
		log.Info(line)
		synctest.Wait() // that one is being written
		for range n - 1 {
			log.Info(line)
		}
		if err := log.Sync(); err == nil {
			t.Error("Sync: no error; want one while nobody reads")
		}
		if took := time.Since(begun); took != flushWithin {
			t.Errorf("took %v; want nothing but the %v of Sync", took, flushWithin)
		}
		dropped := w.Dropped()
		if dropped == 0 || dropped >= n {
			t.Errorf("%d of %d dropped", dropped, n)
		}
		w.mu.Lock()
		if len(w.pending) > maxPending {
			t.Errorf("holds %d bytes; want %d at most", len(w.pending), maxPending)
		}
		w.mu.Unlock()
		r.goOn()
		synctest.Wait()
		log.Info("after")
		if err := log.Sync(); err != nil {
			t.Error(err)
		}
		got := r.lines()
		if want := n - int(dropped) + 2; len(got) != want {
			t.Errorf("%d lines; want %d", len(got), want)
		}
		note := got[len(got)-2]
		if !strings.Contains(note, "log lines dropped") || !strings.Contains(note, fmt.Sprintf(`"lines":%d`, dropped)) || !strings.Contains(note, `"level":"warn"`) {
			t.Errorf("got %s before the first line after them; want what is missing", note)
		}
		if w.Dropped() != dropped {
			t.Errorf("%d dropped in the end; want %d", w.Dropped(), dropped)
		}
	})
}

// A reader that is gone costs a try for each batch, and no more; the lines are counted.
func TestWriter_readerGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader()
		w := NewWriter(r)
		log, _, err := New(w, "info", "json")
		if err != nil {
			t.Fatal(err)
		}
		r.gone.Store(true)
		for range 10 {
			log.Info("lost")
			time.Sleep(time.Second)
		}
		// Each is one try, with what is said of those before it.
		if n := r.writes.Load(); n != 10 {
			t.Errorf("%d writes; want 10", n)
		}
		if n := w.Dropped(); n < 10 || n > 20 {
			t.Errorf("%d dropped; want 10, and what was said of them", n)
		}
		r.gone.Store(false)
		log.Info("back")
		time.Sleep(time.Second)
		if got := r.lines(); len(got) != 2 || !strings.Contains(got[0], "log lines dropped") || !strings.Contains(got[1], "back") {
			t.Errorf("got %q; want what is missing and the line", got)
		}
	})
}

// One line that is larger than the bound is written, if nothing is pending.
func TestWriter_longLine(t *testing.T) {
	r := newReader()
	w := NewWriter(r)
	if _, err := w.Write(append(bytes.Repeat([]byte("x"), 2*maxPending), '\n')); err != nil {
		t.Fatal(err)
	}
	written(w.Sync)
	if w.Dropped() != 0 || r.got.Len() != 2*maxPending+1 {
		t.Errorf("%d dropped, %d bytes", w.Dropped(), r.got.Len())
	}
}

// Many goroutines may log while the reader stops and goes on; each line is written whole, or counted.
func TestWriter_concurrent(t *testing.T) {
	r := newReader()
	w := NewWriter(r)
	const writers, each = 8, 5_000
	line := strings.Repeat("y", 99) + "\n"
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range each {
				if i == each/2 {
					r.stop()
				}
				_, _ = w.Write([]byte(line))
				if i == each/2 {
					r.goOn()
				}
			}
		})
	}
	wg.Wait()
	written(w.Sync)
	got := r.lines()
	if uint64(len(got))+w.Dropped() != writers*each {
		t.Errorf("%d written and %d dropped; want %d", len(got), w.Dropped(), writers*each)
	}
	for _, l := range got {
		if l != strings.TrimSuffix(line, "\n") {
			t.Fatalf("half a line: %q", l)
		}
	}
}

// A process that ends does not wait for who does not read.
func TestWriter_Sync_bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := make(hung)
		w := NewWriter(h)
		fmt.Fprintln(w, "last words")
		begun := time.Now()
		if err := w.Sync(); err == nil || time.Since(begun) != flushWithin {
			t.Errorf("got %v after %v; want an error after %v", err, time.Since(begun), flushWithin)
		}
		close(h)
		if err := w.Sync(); err != nil {
			t.Errorf("got %v once it is read", err)
		}
	})
}

// full takes so many bytes of each write, and fails then; fewer than none: it takes all.
type full struct {
	room []int
	got  bytes.Buffer
}

func (f *full) Write(p []byte) (int, error) {
	room := -1
	if len(f.room) > 0 {
		room, f.room = f.room[0], f.room[1:]
	}
	if room < 0 {
		return f.got.Write(p)
	}
	f.got.Write(p[:room])
	return room, errors.New("no space left on device")
}

// What follows half a line begins on a line of its own, whatever was lost in between.
func TestWriter_halfALine(t *testing.T) {
	for _, test := range []struct {
		room    []int
		want    string
		dropped uint64
	}{
		{[]int{3}, "fir\n2 lines dropped\nthird\n", 2},
		{[]int{3, 0}, "fir\n2 lines dropped\nfourth\n", 4}, // what was said of them, too
		{[]int{3, 1}, "fir\n2 lines dropped\nfourth\n", 4},
		{[]int{6}, "first\n1 lines dropped\nthird\n", 1},
		{[]int{0}, "2 lines dropped\nthird\n", 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &full{room: test.room}
			w := NewWriter(f)
			w.saying(func(dropped uint64) []byte { return fmt.Appendf(nil, "%d lines dropped\n", dropped) })
			for _, lines := range []string{"first\nsecond\n", "third\n", "fourth\n"} {
				fmt.Fprint(w, lines)
				synctest.Wait()
			}
			got := f.got.String()
			if test.want = strings.TrimSuffix(test.want, "fourth\n") + "fourth\n"; got != test.want || w.Dropped() != test.dropped {
				t.Errorf("%v: got %q, %d dropped; want %q, %d", test.room, got, w.Dropped(), test.want, test.dropped)
			}
		})
	}
}
