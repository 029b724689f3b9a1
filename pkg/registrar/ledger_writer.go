package registrar

// The one goroutine that writes the ledger. It appends commits to a file whose blocks are already allocated and
// written, so that fdatasync has nothing to do but the data; writes the whole state to a new file at the start and
// after any trouble (after a failed fsync nothing about a file can be relied on); and replaces a file that has grown by
// a compacted one that a second goroutine prepares meanwhile.

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// ledgerRoom is room for some 1,200 changes.
	ledgerRoom = 1 << 20
	// ledgerLinger is how long a change that nobody waits for may stay in memory.
	ledgerLinger = time.Second
	// After trouble the disk is tried again after ledgerRetryLeast, then twice as long each time.
	ledgerRetryLeast = 500 * time.Millisecond
	ledgerRetryMost  = 30 * time.Second
)

var errReplaced = errors.New("the file was removed or replaced by somebody else")

// ledgerWriter owns the files of a state directory. All but ended belongs to its goroutine once that runs.
type ledgerWriter struct {
	l      *Ledger
	log    *zap.Logger
	fs     LedgerFS
	dir    string
	path   string
	holder string
	room   int64
	lock   LedgerLock // nil: the disk did not let us
	aside  string     // the name under which what lies at path has to be set aside first; empty: nothing has to

	file    *ledgerFile // nil: the whole state has to be written
	backoff time.Duration
	retry   <-chan time.Time // nil: not waiting
	compact *compaction      // nil: none under way
	// compactAt is the position in file from which it is due for compaction.
	compactAt int64

	ended chan struct{} // closed when the goroutine is over
}

// ledgerFile is a file and how far it is used.
type ledgerFile struct {
	LedgerFile
	used, base int64
}

// compaction is a file in the making.
type compaction struct {
	done  chan compacted
	since []byte // what was appended to the present file meanwhile
}

type compacted struct {
	file *ledgerFile
	err  error
}

func (w *ledgerWriter) run() {
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
				linger = time.After(ledgerLinger)
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
func (w *ledgerWriter) commit() {
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
	w.backoff = 0
	w.startCompaction()
}

// forsake gives a file up: it is not known what of it is on disk.
func (w *ledgerWriter) forsake(cause error) {
	w.log.Warn("ledger file given up, written anew", zap.Error(cause))
	w.file.Close() //nolint:errcheck,gosec // it counts for nothing any more
	w.file = nil
	w.l.invalidate(errors.Is(cause, errReplaced))
}

// trouble notes that the disk does not take the ledger, and arms the next attempt.
func (w *ledgerWriter) trouble(err error) {
	w.l.degrade(err)
	w.backoff = min(max(ledgerRetryLeast, 2*w.backoff), ledgerRetryMost)
	w.retry = time.After(w.backoff/2 + rand.N(w.backoff/2+1)) //nolint:gosec // jitter
}

// append writes what has changed as one line.
func (w *ledgerWriter) append() error {
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
	if len(changes) == 0 {
		return nil
	}
	line, err := appendCommit(nil, changes)
	if err != nil {
		return err
	}
	if err := w.file.append(line, w.l.metrics); err != nil {
		return fmt.Errorf("append to %s: %w", w.path, err)
	}
	// A claim in a file that nobody will find again protects nobody.
	named, err := w.file.Named(w.path)
	if err != nil {
		return fmt.Errorf("look at %s: %w", w.path, err)
	}
	if !named {
		return fmt.Errorf("append to %s: %w", w.path, errReplaced)
	}
	if w.compact != nil {
		w.compact.since = append(w.compact.since, line...)
	}
	w.l.saved(seq)
	return nil
}

func (f *ledgerFile) append(line []byte, m LedgerMetrics) error {
	if _, err := f.WriteAt(line, f.used); err != nil {
		return err
	}
	start := time.Now()
	err := f.Datasync()
	m.synced(time.Since(start))
	if err != nil {
		return err
	}
	f.used += int64(len(line))
	return nil
}

// rewrite writes the whole state to a new file that takes the old one's place.
func (w *ledgerWriter) rewrite() error {
	w.dropCompaction()
	if err := w.checkLock(); err != nil {
		return err
	}
	if _, err := w.moveAside(); err != nil {
		return fmt.Errorf("set aside %s: %w", w.path, err)
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

// install gives a synced file the ledger's name.
func (w *ledgerWriter) install(name string, f *ledgerFile) error {
	if err := w.fs.Rename(filepath.Join(w.dir, name), w.path); err != nil {
		return fmt.Errorf("replace %s: %w", w.path, err)
	}
	if err := w.fs.SyncDir(w.dir); err != nil {
		return fmt.Errorf("sync %s: %w", w.dir, err)
	}
	named, err := f.Named(w.path)
	if err == nil && !named {
		err = errReplaced
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", w.path, err)
	}
	return nil
}

// state is all that a file has to say.
type state struct {
	header  ledgerHeader
	other   [][]byte
	changes []change
}

// writeState writes and syncs a new file with room to grow.
func (w *ledgerWriter) writeState(name string, s state) (f *ledgerFile, err error) {
	path := filepath.Join(w.dir, name)
	file, err := w.fs.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	f = &ledgerFile{LedgerFile: file}
	defer func() {
		if err != nil {
			f.Close()         //nolint:errcheck,gosec // the first error is the one that tells
			w.fs.Remove(path) //nolint:errcheck,gosec // it is replaced at the next attempt
			f, err = nil, fmt.Errorf("write %s: %w", path, err)
		}
	}()
	const chunk = 1 << 20
	buf, err := appendHeader(make([]byte, 0, 16<<10), s.header)
	if err != nil {
		return f, err
	}
	flush := func(least int) error {
		if len(buf) < least {
			return nil
		}
		_, err := f.WriteAt(buf, f.used)
		f.used += int64(len(buf))
		buf = buf[:0]
		return err
	}
	for _, line := range s.other {
		buf = append(append(buf, line...), '\n')
	}
	for i := range s.changes {
		if buf, err = appendCommit(buf, s.changes[i:i+1]); err != nil {
			return f, err
		}
		if err := flush(chunk); err != nil {
			return f, err
		}
	}
	if err := flush(1); err != nil {
		return f, err
	}
	if err := f.makeRoom(w.room); err != nil {
		return f, err
	}
	return f, f.Sync()
}

// makeRoom pre-writes what is to be appended to: as much as the state takes, and least at the least. A disk that is too
// full for that may have space for the state itself, which is what counts.
func (f *ledgerFile) makeRoom(least int64) error {
	f.base = f.used
	end := f.base + max(least, f.base)
	zeros := make([]byte, min(end-f.base, 256<<10))
	for at := f.base; at < end; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-at)], at)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return f.Truncate(f.base)
		}
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// startCompaction begins to make a compacted file, if the present one has grown enough.
func (w *ledgerWriter) startCompaction() {
	if w.compact != nil || w.file == nil || w.file.used < w.compactAt {
		return
	}
	w.compact = &compaction{done: make(chan compacted, 1)}
	state, done := w.l.all(), w.compact.done
	go func() {
		f, err := w.writeState(compactName, state)
		done <- compacted{f, err}
	}()
}

// adopt puts a compacted file in the place of the present one, with what was appended meanwhile.
func (w *ledgerWriter) adopt(c compacted) {
	since := w.compact.since
	w.compact = nil
	err := c.err
	if err == nil && len(since) > 0 {
		err = c.file.append(since, LedgerMetrics{})
	}
	if err == nil {
		err = w.checkLock()
	}
	if err != nil {
		// The present file is as good as before. It is tried again after as much growth again.
		w.l.metrics.failed()
		w.log.Warn("ledger not compacted, goes on as it is", zap.Error(err))
		if c.file != nil {
			c.file.Close() //nolint:errcheck,gosec // it counts for nothing
		}
		w.compactAt = w.file.used + w.room/2
		return
	}
	if err := w.install(compactName, c.file); err != nil {
		// Which of the two the directory names is not known.
		w.l.metrics.failed()
		c.file.Close() //nolint:errcheck,gosec // it counts for nothing
		w.forsake(err)
		return
	}
	w.file.Close() //nolint:errcheck,gosec // nobody finds it any more
	w.file = c.file
	w.compactAt = c.file.base + max(w.room, c.file.base)/2
}

// dropCompaction waits for a compaction under way and throws its file away: what it has is out of date.
func (w *ledgerWriter) dropCompaction() {
	if w.compact == nil {
		return
	}
	if c := <-w.compact.done; c.file != nil {
		c.file.Close()                                 //nolint:errcheck,gosec // it counts for nothing
		w.fs.Remove(filepath.Join(w.dir, compactName)) //nolint:errcheck,gosec // the next one replaces it
	}
	w.compact = nil
}

// takeLock makes the directory and locks it.
func (w *ledgerWriter) takeLock() error {
	if err := w.fs.MkdirAll(w.dir); err != nil {
		return err
	}
	lock, err := w.fs.Lock(filepath.Join(w.dir, lockName), w.holder)
	if err != nil {
		return err
	}
	w.lock = lock
	return nil
}

// checkLock takes the lock if it is not held: because the disk was in trouble, or because the state directory is
// another one than at the start, where another agent may be at work by now.
func (w *ledgerWriter) checkLock() error {
	if w.lock != nil {
		named, err := w.lock.Named(filepath.Join(w.dir, lockName))
		if err != nil {
			return fmt.Errorf("look at the lock in %s: %w", w.dir, err)
		}
		if named {
			return nil
		}
	}
	old := w.lock
	if err := w.takeLock(); err != nil {
		return fmt.Errorf("lock %s: %w", w.dir, err)
	}
	if old != nil {
		old.Close() //nolint:errcheck,gosec // its file is gone
	}
	return nil
}

func (w *ledgerWriter) unlock() error {
	if w.lock == nil {
		return nil
	}
	err := w.lock.Close()
	w.lock = nil
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// finish is the end: what is not on disk is tried once more.
func (w *ledgerWriter) finish() {
	w.commit()
	w.dropCompaction()
	if w.file != nil {
		w.file.Close() //nolint:errcheck,gosec // all of it was synced
	}
	if err := w.unlock(); err != nil {
		w.log.Warn("lock of the state directory not released", zap.Error(err))
	}
}
