package registrar

// The disk as the ledger uses it, and the one that the operating system gives.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUnsafe says that a file of the state directory is not one that the agent made: a symbolic link, no regular file,
// or somebody else's. It is left as it is, and nothing is read from it.
var ErrUnsafe = errors.New("refused as unsafe")

// LedgerFS is the disk as the ledger uses it. Paths are those of the state directory and the files in it. A call may
// take any time; none is made while a mutex is held that Entries, Note or Intend need.
type LedgerFS interface {
	// MkdirAll makes a directory that only its owner can enter; it is no error if it is there.
	MkdirAll(dir string) error
	// Lock takes the lock file for this process and writes holder into it, or returns a *LockedError at once.
	Lock(path, holder string) (LedgerLock, error)
	// ReadFile returns a file's content. Its error is fs.ErrNotExist, or wraps ErrUnsafe, or is the disk's.
	ReadFile(path string) ([]byte, error)
	// Create makes an empty file for writing, in place of one that may be there.
	Create(path string) (LedgerFile, error)
	Rename(from, to string) error
	// Exists reports whether path names anything.
	Exists(path string) (bool, error)
	Remove(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
}

// LedgerFile is a file being written.
type LedgerFile interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes all of the file durable, Datasync what is needed to read its content again.
	Sync() error
	Datasync() error
	// Named reports whether path still names this file.
	Named(path string) (bool, error)
}

// LedgerLock is a lock that is held. Closing it releases it.
type LedgerLock interface {
	io.Closer
	Named(path string) (bool, error)
}

// fileMode is of every file in the state directory.
const fileMode = 0o640

const (
	ledgerDirMode = 0o750
	// maxLedgerSize is far above what a ledger can need (100,000 entries take 90 MB) and below what would hurt a host.
	maxLedgerSize = 512 << 20
)

// osFS is the operating system's file system.
type osFS struct{}

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, ledgerDirMode) }

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
	f, err := openFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxLedgerSize {
		return nil, fmt.Errorf("read %s: %d bytes are no ledger", path, info.Size())
	}
	data := make([]byte, info.Size())
	n, err := io.ReadFull(f, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it shrank meanwhile
	}
	return data[:n], err
}

func (osFS) Lock(path, holder string) (LedgerLock, error) {
	lock, err := lockFile(path, holder)
	if err != nil {
		return nil, err // and no lock that is not nil
	}
	return lock, nil
}

func (osFS) Create(path string) (LedgerFile, error) {
	// What is left there from a crash may have another owner; a name can be removed whatever it names.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := openFile(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// openFile opens a regular file of ours that is no link. Root creates for the owner of the directory, so that a
// command run by root leaves nothing behind that the agent may not touch.
func openFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, fileMode)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open %s: a symbolic link: %w", path, ErrUnsafe)
	}
	if err != nil {
		return nil, err
	}
	if err := checkOwner(f, path, flags&unix.O_CREAT != 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func checkOwner(f *os.File, path string, created bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("open %s: no regular file (%s): %w", path, info.Mode().Type(), ErrUnsafe)
	}
	owner, group := ownerOf(info)
	euid := uint32(os.Geteuid()) //nolint:gosec // never negative on Linux
	if euid != 0 {
		if owner != euid {
			return fmt.Errorf("open %s: owned by uid %d, this is uid %d: %w", path, owner, euid, ErrUnsafe)
		}
		return nil
	}
	dirInfo, err := os.Stat(parent(path))
	if err != nil {
		return err
	}
	dirOwner, dirGroup := ownerOf(dirInfo)
	switch {
	case owner == dirOwner:
		return nil
	case owner != 0:
		return fmt.Errorf("open %s: owned by uid %d, its directory by uid %d: %w", path, owner, dirOwner, ErrUnsafe)
	case created && (owner != dirOwner || group != dirGroup):
		return f.Chown(int(dirOwner), int(dirGroup))
	}
	return nil
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "."
}

func ownerOf(info fs.FileInfo) (uid, gid uint32) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}

// osFile is a LedgerFile and a LedgerLock.
type osFile struct{ *os.File }

func (f *osFile) Datasync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (f *osFile) Named(path string) (bool, error) {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	own, err := f.Stat()
	return err == nil && os.SameFile(there, own), err
}
