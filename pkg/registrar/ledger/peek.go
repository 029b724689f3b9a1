package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// Peek reads the ledger in dir as it is on disk, into one that lives in memory alone. It takes no lock and
// changes nothing, so that it may be called while an agent runs; the agent may then know more. A ledger that is not
// there is an empty one.
func Peek(dir string) (*Ledger, error) {
	l := NewMemory()
	data, err := osFS{}.ReadFile(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger in %s: %w", dir, err)
	}
	content, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read ledger in %s: %w", dir, err)
	}
	l.header, l.records, l.other = content.header, content.records, content.other
	return l, nil
}

// Stale returns the entries that are not known to be of the boot bootID or to be removed, in order: their ports belong to
// nobody now, and Docker is about to give them to whoever comes first. Where bootID is empty no entry is known to be.
func Stale(entries []Entry, bootID string) []Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.OfBoot(bootID) || e.Phase == Removing })
}
