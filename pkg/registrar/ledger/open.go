package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"berth/internal/backoff"
	"berth/internal/statedir"
)

// The files in the state directory.
const (
	fileName    = "ledger.json"
	lockName    = "lock"
	wholeName   = fileName + ".tmp"     // the whole state, on its way to become ledger.json
	compactName = fileName + ".compact" // the same, made while ledger.json is still appended to
)

// Open takes the state directory's lock and reads its ledger; a directory that is not there is made. bootID is
// written into new entries. The ledger has a goroutine until Close.
//
// It returns a *LockedError if another process holds the directory, an error that wraps ErrUnsafe if a file in it
// cannot be trusted, and the system's error if the directory cannot be used at all. A disk that is full, read-only or
// broken is no error: the ledger is degraded then, and catches up when it can. A ledger that cannot be read is set
// aside under a dated name, and an empty one begins.
func Open(dir, bootID string, opts Options) (*Ledger, error) {
	l := newLedger(bootID, opts)
	w := &writer{
		l: l, log: l.log, fs: opts.FS, dir: dir, path: filepath.Join(dir, fileName),
		holder: cmp.Or(opts.Holder, strconv.Itoa(os.Getpid())+" "+strings.Join(os.Args, " ")),
		room:   cmp.Or(opts.room, defaultRoom),
		wait:   backoff.Backoff{Least: retryLeast, Most: retryMost},
		ended:  make(chan struct{}),
	}
	if w.fs == nil {
		w.fs = osFS{}
	}
	l.writer = w
	if err := w.takeLock(); err != nil {
		if !diskTrouble(err) {
			return nil, fmt.Errorf("open ledger in %s: %w", dir, err)
		}
		w.trouble(fmt.Errorf("take the state directory: %w", err))
	}
	content, err := w.read()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger in %s: %w", dir, err), w.unlock())
	}
	l.header, l.records, l.other = content.header, content.records, content.other
	l.seq, l.durable = 1, 1 // what was read is on disk
	for _, r := range l.records {
		r.claimed = l.seq
	}
	go w.run()
	return l, nil
}

// diskTrouble reports whether err is of a kind that passes by itself or with an operator's help, while the agent goes
// on from memory. Anything else is a mistake in the set-up, to be shown at the start.
func diskTrouble(err error) bool {
	for _, e := range []unix.Errno{unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.ESTALE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// scarce reports whether err says nothing of the disk, only that the process or the host has run out of something.
func scarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// read reads the file, and sets it aside if it is no ledger.
func (w *writer) read() (*content, error) {
	empty := &content{records: map[claim]*record{}}
	data, err := w.fs.ReadFile(w.path)
	for range 2 {
		if errors.Is(err, unix.EIO) {
			data, err = w.fs.ReadFile(w.path) // nothing is given up for an error that passes
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return empty, nil
	case errors.Is(err, statedir.ErrUnsafe), errors.Is(err, fs.ErrPermission), scarce(err):
		return nil, err
	case err != nil:
		w.setAside(err, nil)
		return empty, nil
	}
	content, err := parse(data)
	if err != nil {
		var corrupt *corruptError
		errors.As(err, &corrupt)
		w.setAside(err, corrupt.lost)
		return empty, nil
	}
	if content.torn > 0 {
		w.log.Warn("last line of the ledger was not written whole, left out", zap.Int("bytes", content.torn))
	}
	if content.header.Schema > schema {
		w.log.Info("ledger of a newer version read", zap.Int("schema", content.header.Schema),
			zap.Int("own_schema", schema))
	}
	if n := len(content.skipped); n > 0 {
		w.log.Warn("ledger entries that name no target left out", zap.Int("entries", n),
			zap.Strings("first", content.skipped[:min(n, 10)]))
	}
	return content, nil
}

// setAside gets an unreadable ledger out of the way and says what that means. If the disk does not let it, it is tried
// again before anything is written in its place.
func (w *writer) setAside(cause error, lost *content) {
	w.l.metrics.failed()
	w.aside = w.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z")
	name, err := w.moveAside()
	fields := []zap.Field{
		zap.NamedError("cause", cause), zap.String("file", w.path), zap.String("set_aside_as", name),
		zap.String("consequence", "it is not known any more which targets this host registered: those that are wanted are "+
			"adopted, the others stay registered as unclaimed"),
		zap.String("change", "look at the unclaimed targets with berth status, remove them with berth prune"),
	}
	if lost != nil {
		names := make([]string, 0, len(lost.records))
		for key := range lost.records {
			names = append(names, key.arn+" "+key.target.String())
		}
		slices.Sort(names)
		fields = append(fields, zap.Int("readable_entries", len(names)), zap.Strings("readable", names[:min(50, len(names))]))
	}
	w.log.Error("ledger unreadable, set aside, an empty one begins", fields...)
	if err != nil {
		w.log.Warn("unreadable ledger not set aside yet", zap.Error(err))
	}
}

// moveAside renames what was found unreadable to a name that is free, and returns that.
func (w *writer) moveAside() (string, error) {
	if w.aside == "" {
		return "", nil
	}
	there, err := w.fs.Exists(w.path)
	if err != nil {
		return w.aside, err
	}
	if !there {
		w.aside = ""
		return "", nil
	}
	name := w.aside
	for i := 2; ; i++ {
		taken, err := w.fs.Exists(name)
		if err != nil {
			return name, err
		}
		if !taken {
			break
		}
		name = w.aside + "-" + strconv.Itoa(i)
	}
	if err := w.fs.Rename(w.path, name); err != nil {
		return name, err
	}
	w.aside = ""
	return name, w.fs.SyncDir(w.dir)
}
