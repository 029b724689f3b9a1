package ledger

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"berth/test/memdisk"
)

// failing returns a hook that fails the operations named in ops ("write rename"), and counts how often it did.
func failing(ops string, err error, n *atomic.Int64) func(op, path string) error {
	return func(op, path string) error {
		if !slices.Contains(strings.Fields(ops), op) || filepath.Base(path) == lockName {
			return nil
		}
		n.Add(1)
		return fmt.Errorf("%s: %w", op, err)
	}
}

// What tests of other packages need of the inside of a ledger.

// LongestLinger is how long a commit waits for more to go with it.
const LongestLinger = noteLinger

// WithRoom has less pre-written than a ledger of full size.
func WithRoom(o Options, room int64) Options {
	o.room = room
	return o
}

// AwaitWriter waits until the ledger's goroutine has ended.
func AwaitWriter(l *Ledger) { <-l.writer.ended }

// entriesOn returns what the ledger on a disk holds, in no order.
func EntriesOn(d *memdisk.Disk) ([]Entry, error) {
	content, err := parse(d.Content(memPath))
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, r := range content.records {
		out = append(out, r.Entry)
	}
	return out, nil
}
