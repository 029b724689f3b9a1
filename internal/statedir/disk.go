package statedir

import (
	"io"
)

// Disk is the disk as the state directory uses it. Paths are those of the directory and the files in it. A call may take any
// time.
type Disk interface {
	// MkdirAll makes a directory that only its owner can enter; it is no error if it is there.
	MkdirAll(dir string) error
	// Lock takes the lock file for this process and writes holder into it, or returns a *LockedError at once.
	Lock(path, holder string) (HeldLock, error)
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

// HeldLock is a lock that is held. Closing it releases it.
type HeldLock interface {
	io.Closer
	Named(path string) (bool, error)
}
