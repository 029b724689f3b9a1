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

const (
	dirMode = 0o750
	// maxSize is far above what a ledger can need (100,000 entries take 90 MB) and below what would hurt a host.
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

func (osFS) Lock(path, holder string) (statedir.HeldLock, error) {
	lock, err := statedir.Lock(path, holder)
	if err != nil {
		return nil, err // and no lock that is not nil
	}
	return lock, nil
}

func (osFS) Create(path string) (statedir.File, error) {
	// What is left there from a crash may have another owner; a name can be removed whatever it names.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := statedir.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	return &statedir.OSFile{File: f}, nil
}
