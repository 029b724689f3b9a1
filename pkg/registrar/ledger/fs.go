package ledger

// The disk as the ledger uses it, and the one that the operating system gives.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"berth/internal/statedir"
)

// FS is the disk as the ledger uses it. Paths are those of the state directory and the files in it. A call may
// take any time; none is made while a mutex is held that Entries, Note or Intend need.
type FS interface {
	// MkdirAll makes a directory that only its owner can enter; it is no error if it is there.
	MkdirAll(dir string) error
	// Lock takes the lock file for this process and writes holder into it, or returns a *LockedError at once.
	Lock(path, holder string) (Lock, error)
	// ReadFile returns a file's content. Its error is fs.ErrNotExist, or wraps ErrUnsafe, or is the disk's.
	ReadFile(path string) ([]byte, error)
	// Create makes an empty file for writing, in place of one that may be there.
	Create(path string) (File, error)
	Rename(from, to string) error
	// Exists reports whether path names anything.
	Exists(path string) (bool, error)
	Remove(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
}

// File is a file being written.
type File interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes all of the file durable, Datasync what is needed to read its content again.
	Sync() error
	Datasync() error
	// Named reports whether path still names this file.
	Named(path string) (bool, error)
}

// Lock is a lock that is held. Closing it releases it.
type Lock interface {
	io.Closer
	Named(path string) (bool, error)
}

const (
	dirMode = 0o750
	// maxLedgerSize is far above what a ledger can need (100,000 entries take 90 MB) and below what would hurt a host.
	maxSize = 512 << 20
)

// osFS is the operating system's file system.
type osFS struct{}

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, dirMode) }

func (osFS) Remove(path string) error { return os.Remove(path) }

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) Exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) ReadFile(path string) ([]byte, error) {
	// O_NONBLOCK: a named pipe must not hold the start up.
	f, err := statedir.Open(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("read %s: %d bytes are no ledger", path, info.Size())
	}
	data := make([]byte, info.Size())
	n, err := io.ReadFull(f, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it shrank meanwhile
	}
	return data[:n], err
}

func (osFS) Lock(path, holder string) (Lock, error) {
	lock, err := statedir.Lock(path, holder)
	if err != nil {
		return nil, err // and no lock that is not nil
	}
	return lock, nil
}

func (osFS) Create(path string) (File, error) {
	// What is left there from a crash may have another owner; a name can be removed whatever it names.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := statedir.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	return &statedir.File{File: f}, nil
}
