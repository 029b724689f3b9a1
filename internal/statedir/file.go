// Package statedir is the state directory: who holds it, and how a file in it is opened so that nobody is tricked.
//
//	disk.go    what is asked of a disk, as tests replace it
//	file.go    opens files that are ours, and tells whether a name still means them
//	lock.go    the lock file: one agent on one host
//	advice.go  what to change about a directory that cannot be used
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUnsafe says that a file of the state directory is not one that the agent made: a symbolic link, no regular file,
// or somebody else's. It is left as it is, and nothing is read from it.
var ErrUnsafe = errors.New("refused as unsafe")

// fileMode is of every file in the state directory.
const fileMode = 0o640

// Open opens a regular file of ours that is no link. Root creates for the owner of the directory, so that a
// command run by root leaves nothing behind that the agent may not touch.
func Open(path string, flags int) (*os.File, error) {
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
	owner, group := OwnerOf(info)
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
	dirOwner, dirGroup := OwnerOf(dirInfo)
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

// OwnerOf returns user and group of a file.
func OwnerOf(info fs.FileInfo) (uid, gid uint32) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}

// OSFile is a File and a HeldLock.
type OSFile struct{ *os.File }

// Datasync makes durable what is needed to read the content again.
func (f *OSFile) Datasync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// Named reports whether path still names this file.
func (f *OSFile) Named(path string) (bool, error) {
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
