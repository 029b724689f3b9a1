package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process holds the state directory. The error that wraps it is a *LockedError.
var ErrLocked = errors.New("state directory in use")

// LockedError says who holds the state directory, as far as the lock file tells.
type LockedError struct {
	Path    string // of the lock file
	PID     int    // 0: not known
	Command string // as it was started; empty: not known
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = "process " + strconv.Itoa(e.PID)
	}
	if e.Command != "" {
		who += " (" + e.Command + ")"
	}
	return fmt.Sprintf("lock %s: held by %s", e.Path, who)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(other error) bool { return other == ErrLocked }

// ParseHolder reads "PID COMMAND", the lock file's content.
func ParseHolder(path, content string) *LockedError {
	pid, command, _ := strings.Cut(strings.TrimSpace(content), " ")
	e := &LockedError{Path: path}
	if n, err := strconv.Atoi(pid); err == nil && n > 0 {
		e.PID, e.Command = n, strings.TrimSpace(command)
	}
	return e
}

// Lock takes the lock file at path for this process and writes holder into it, or returns a *LockedError at once.
// Closing the file releases the lock.
func Lock(path, holder string) (*OSFile, error) {
	for {
		f, err := Open(path, unix.O_RDWR|unix.O_CREAT)
		if errors.Is(err, unix.EROFS) {
			existing, readErr := Open(path, unix.O_RDONLY) // which can be locked nevertheless
			if !errors.Is(readErr, fs.ErrNotExist) {
				f, err = existing, readErr
			}
		}
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			held := ParseHolder(path, readSome(f))
			err = errors.Join(err, f.Close())
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, held
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		named, err := (&OSFile{f}).Named(path)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named {
			writeHolder(f, holder)
			return &OSFile{f}, nil
		}
		f.Close() //nolint:errcheck,gosec // removed between open and lock: nobody else will look at this one
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func readSome(f *os.File) string {
	b := make([]byte, 4096)
	n, _ := f.ReadAt(b, 0)
	return string(b[:n])
}

// writeHolder says who holds the lock. That it is held does not depend on it, so a full disk is no error.
func writeHolder(f *os.File, holder string) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(holder+"\n"), 0)
	}
}
