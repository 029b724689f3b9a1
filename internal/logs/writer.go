package logs

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// maxPending is what a Writer holds while what is below it takes nothing, in bytes. What is being written may be as much again.
	maxPending = 1 << 20
	// maxSpare is the largest buffer that is kept for later.
	maxSpare = 64 << 10
	// flushWithin bounds the wait of Sync: a unit that is stopped is gone in time, whoever reads its log.
	flushWithin = time.Second
)

// Writer takes lines and hands them to another writer, in order, without ever waiting for that: what does not fit while
// it is blocked is dropped and counted. One goroutine writes, and it lives as long as there is something to write, so that
// a Writer needs no end. It is safe for concurrent use.
//
// zap's BufferedWriteSyncer is none: it writes in the caller's goroutine, under its lock, as soon as its buffer is full.
type Writer struct {
	to io.Writer

	mu      sync.Mutex                  // guards what follows
	note    func(dropped uint64) []byte // says in the log itself what is missing; nil: nothing does
	pending []byte                      // lines that are to be written
	spare   []byte                      // the buffer before, to be used again
	done    chan struct{}               // closed when the goroutine that writes ends; nil: none runs
	dropped uint64                      // lines, in all
	unsaid  uint64                      // of them, those that note has not said
	half    bool                        // the last that was written is half a line, whose rest is lost
}

// NewWriter returns a Writer on to.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// saying has note say in the log itself how many lines are missing at that place.
func (w *Writer) saying(note func(dropped uint64) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note = note
}

// Write takes the lines in p, or drops them all. It returns at once and never fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending) > 0 && len(w.pending)+len(p) > maxPending {
		w.drop(lines(p))
		return len(p), nil
	}
	w.noteDropped()
	w.pending = append(w.pending, p...)
	if w.done == nil {
		w.done = make(chan struct{})
		go w.drain(w.done) //mutant:waits-for-the-log
	}
	return len(p), nil
}

// drain writes until nothing is pending.
func (w *Writer) drain(done chan struct{}) {
	defer close(done)
	w.mu.Lock()
	defer w.mu.Unlock()
	for taken := true; ; {
		if len(w.pending) == 0 && taken {
			w.noteDropped() // the next line may be long in coming
		}
		if len(w.pending) == 0 {
			w.done = nil
			return
		}
		batch := w.pending
		w.pending, w.spare = w.spare[:0], nil
		end := 0 // of half a line before it
		if w.half {
			batch, end = append([]byte("\n"), batch...), 1
		}
		w.mu.Unlock()
		n, err := w.to.Write(batch)
		w.mu.Lock()
		if taken = err == nil; !taken {
			w.drop(lines(batch[max(n, end):]))
		}
		if n > 0 {
			w.half = !taken && batch[n-1] != '\n'
		}
		if cap(batch) <= maxSpare {
			w.spare = batch[:0]
		}
	}
}

// drop counts lines that are lost. mu is held.
func (w *Writer) drop(n uint64) {
	w.dropped += n
	w.unsaid += n
}

// noteDropped has the log say what is missing in it, at its place. mu is held.
func (w *Writer) noteDropped() {
	if w.note != nil && w.unsaid > 0 {
		w.pending = append(w.pending, w.note(w.unsaid)...)
		w.unsaid = 0
	}
}

// Dropped returns how many lines were dropped, or could not be written.
func (w *Writer) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Sync waits until what was taken is written, a second at most.
func (w *Writer) Sync() error {
	w.mu.Lock()
	done := w.done
	w.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-time.After(flushWithin):
		return errors.New("the log is not written to its end: nobody takes it")
	}
}

// lines counts lines, the last of which may lack its end.
func lines(p []byte) uint64 {
	n := uint64(bytes.Count(p, []byte("\n")))
	if len(p) > 0 && p[len(p)-1] != '\n' {
		n++
	}
	return n
}
