package ledger

import (
	"path/filepath"

	"go.uber.org/zap"
)

// compaction is a file in the making.
type compaction struct {
	done  chan compacted
	since []byte // what was appended to the present file meanwhile
}

type compacted struct {
	file *logFile
	err  error
}

// startCompaction begins to make a compacted file, if the present one has grown enough.
func (w *writer) startCompaction() {
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
func (w *writer) adopt(c compacted) {
	since := w.compact.since
	w.compact = nil
	err := c.err
	if err == nil && len(since) > 0 {
		err = c.file.append(since, Metrics{})
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
func (w *writer) dropCompaction() {
	if w.compact == nil {
		return
	}
	if c := <-w.compact.done; c.file != nil {
		c.file.Close()                                 //nolint:errcheck,gosec // it counts for nothing
		w.fs.Remove(filepath.Join(w.dir, compactName)) //nolint:errcheck,gosec // the next one replaces it
	}
	w.compact = nil
}
