package registrar

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
)

// LedgerView is what a ledger's file says.
type LedgerView struct {
	InstanceID, BootID string  // of the agent that last began it; empty: there is no ledger
	Entries            []Entry // by ARN, then by target
}

// ReadLedger reads the ledger in dir for showing: it takes no lock, changes nothing, and may be used while an agent is
// writing. What the agent was about to write is not in it. A ledger that is not there is an empty one; its error wraps
// ErrUnsafe, or says where the file is no ledger. fsys is the disk; nil: the operating system's.
func ReadLedger(dir string, fsys LedgerFS) (LedgerView, error) {
	if fsys == nil {
		fsys = osFS{}
	}
	path := filepath.Join(dir, ledgerName)
	data, err := fsys.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return LedgerView{}, nil
	}
	if err != nil {
		return LedgerView{}, fmt.Errorf("read ledger: %w", err)
	}
	content, err := parseLedger(data)
	if err != nil {
		return LedgerView{}, fmt.Errorf("read ledger %s: %w", path, err)
	}
	return LedgerView{
		InstanceID: content.header.InstanceID, BootID: content.header.BootID,
		Entries: sortedEntries(slices.Collect(maps.Values(content.records))),
	}, nil
}
