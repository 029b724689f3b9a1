package ledger

// The one goroutine that writes the ledger. It appends commits to a file whose blocks are already allocated and
// written, so that fdatasync has nothing to do but the data; writes the whole state to a new file at the start and
// after any trouble (after a failed fsync nothing about a file can be relied on); and replaces a file that has grown by
// a compacted one that a second goroutine prepares meanwhile.

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"berth/internal/backoff"
	"berth/internal/statedir"
)

const (
	// defaultRoom is room for some 1,200 changes.
	defaultRoom = 1 << 20
	// noteLinger is how long a change that nobody waits for may stay in memory.
	noteLinger = time.Second
	// After trouble the disk is tried again after retryLeast, then twice as long each time.
	retryLeast = 500 * time.Millisecond
	retryMost  = 30 * time.Second
)

var errReplaced = errors.New("the file was removed or replaced by somebody else")

// writer owns the files of a state directory. All but ended belongs to its goroutine once that runs.
type writer struct {
	l      *Ledger
	log    *zap.Logger
	fs     statedir.Disk
	dir    string
	path   string
	holder string
	room   int64
	lock   statedir.HeldLock // nil: the disk did not let us
	aside  string            // the name under which what lies at path has to be set aside first; empty: nothing has to

	file    *logFile // nil: the whole state has to be written
	wait    backoff.Backoff
	retry   <-chan time.Time // nil: not waiting
	compact *compaction      // nil: none under way
	// compactAt is the position in file from which it is due for compaction.
	compactAt int64

	ended chan struct{} // closed when the goroutine is over
}

func (w *writer) run() {
	defer close(w.ended)
	var linger <-chan time.Time
	for {
		var ready chan compacted
		if w.compact != nil {
			ready = w.compact.done
		}
		select {
		case <-w.l.wake:
		case <-w.l.noted:
			if linger == nil {
				linger = time.After(noteLinger)
			}
			continue
		case <-linger:
			linger = nil
		case <-w.retry:
			w.retry = nil
		case c := <-ready:
			w.adopt(c)
			if w.file != nil {
				continue
			}
		case <-w.l.closing:
			w.finish()
			return
		}
		if w.retry == nil {
			w.commit()
		}
	}
}

// commit brings to disk what has changed, and sees to it that it is tried again if the disk does not take it.
func (w *writer) commit() {
	err := w.append()
	if err != nil {
		w.l.metrics.failed()
		w.forsake(err)
	}
	if w.file == nil && w.l.unsaved() {
		err = w.rewrite()
		if err != nil {
			w.l.metrics.failed()
		}
	}
	if err != nil {
		w.trouble(err)
		return
	}
	w.wait.Reset()
	w.startCompaction()
}

// forsake gives a file up: it is not known what of it is on disk.
func (w *writer) forsake(cause error) {
	w.log.Warn("ledger file given up, written anew", zap.Error(cause))
	w.file.Close() //nolint:errcheck,gosec // it counts for nothing any more
	w.file = nil
	w.l.invalidate(errors.Is(cause, errReplaced))
}

// trouble notes that the disk does not take the ledger, and arms the next attempt.
func (w *writer) trouble(err error) {
	w.l.degrade(err)
	w.retry = time.After(w.wait.Next())
}

// append writes what has changed as one line, and a header that has as another: each is synced before the next, so that
// only the last line can be torn.
func (w *writer) append() error {
	if w.file == nil {
		return nil
	}
	changes, seq, whole := w.l.take()
	if whole {
		// The header changed: a new file has it, and costs no more than that.
		w.file.Close() //nolint:errcheck,gosec // all that was acknowledged was synced
		w.file = nil
		return nil
	}
	if len(changes) > 0 {
		line, err := appendCommit(nil, changes)
		if err != nil {
			return err
		}
		if err := w.appendLine(line); err != nil {
			return err
		}
		w.l.saved(seq)
	}
	header, changed := w.l.takeHeader()
	if !changed {
		return nil
	}
	line, err := appendHeader(nil, header)
	if err != nil {
		return err
	}
	return w.appendLine(line)
}

// appendLine brings one line to disk.
func (w *writer) appendLine(line []byte) error {
	if err := w.file.append(line, w.l.metrics); err != nil {
		return fmt.Errorf("append to the ledger: %w", err)
	}
	// A claim in a file that nobody will find again protects nobody.
	named, err := w.file.Named(w.path)
	if err != nil {
		return fmt.Errorf("look at the ledger: %w", err)
	}
	if !named {
		return fmt.Errorf("append to %s: %w", w.path, errReplaced)
	}
	if w.compact != nil {
		w.compact.since = append(w.compact.since, line...)
	}
	return nil
}

// rewrite writes the whole state to a new file that takes the old one's place.
func (w *writer) rewrite() error {
	w.dropCompaction()
	if err := w.checkLock(); err != nil {
		return err
	}
	if _, err := w.moveAside(); err != nil {
		return fmt.Errorf("set the unreadable ledger aside: %w", err)
	}
	state, seq := w.l.takeAll()
	f, err := w.writeState(wholeName, state)
	if err != nil {
		return err
	}
	if err := w.install(wholeName, f); err != nil {
		return errors.Join(err, f.Close())
	}
	w.file = f
	w.compactAt = f.base + max(w.room, f.base)/2
	w.l.saved(seq)
	return nil
}

// finish is the end: what is not on disk is tried once more.
func (w *writer) finish() {
	w.commit()
	w.dropCompaction()
	if w.file != nil {
		w.file.Close() //nolint:errcheck,gosec // all of it was synced
	}
	if err := w.unlock(); err != nil {
		w.log.Warn("lock of the state directory not released", zap.Error(err))
	}
}
