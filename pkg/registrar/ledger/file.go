package ledger

// Whole files of the ledger: how one is written beside the present one, and takes its place.

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/statedir"
)

// logFile is a file and how far it is used.
type logFile struct {
	statedir.File
	used, base int64
}

func (f *logFile) append(line []byte, m Metrics) error {
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

// install gives a synced file the ledger's name.
func (w *writer) install(name string, f *logFile) error {
	if err := w.fs.Rename(filepath.Join(w.dir, name), w.path); err != nil {
		return fmt.Errorf("replace the ledger: %w", err)
	}
	if err := w.fs.SyncDir(w.dir); err != nil {
		return fmt.Errorf("sync %s after replacing the ledger: %w", w.dir, err)
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
	header  fileHeader
	other   [][]byte
	changes []change
}

// writeState writes and syncs a new file with room to grow.
func (w *writer) writeState(name string, s state) (f *logFile, err error) {
	path := filepath.Join(w.dir, name)
	file, err := w.fs.Create(path)
	if err != nil {
		return nil, fmt.Errorf("write the ledger anew: %w", err)
	}
	f = &logFile{File: file}
	defer func() {
		if err != nil {
			f.Close()         //nolint:errcheck,gosec // the first error is the one that tells
			w.fs.Remove(path) //nolint:errcheck,gosec // it is replaced at the next attempt
			f, err = nil, fmt.Errorf("write the ledger anew: %w", err)
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
func (f *logFile) makeRoom(least int64) error {
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
