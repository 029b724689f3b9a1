package ledger

// The lock on the state directory: one agent on one host, whoever started it.

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// takeLock makes the directory and locks it.
func (w *writer) takeLock() error {
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
func (w *writer) checkLock() error {
	if w.lock != nil {
		named, err := w.lock.Named(filepath.Join(w.dir, lockName))
		if err != nil {
			return fmt.Errorf("look at the lock: %w", err)
		}
		if named {
			return nil
		}
	}
	old := w.lock
	if err := w.takeLock(); err != nil {
		return fmt.Errorf("take the state directory: %w", err)
	}
	if old != nil {
		old.Close() //nolint:errcheck,gosec // its file is gone
	}
	return nil
}

func (w *writer) unlock() error {
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
