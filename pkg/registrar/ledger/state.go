package ledger

// What the writer asks of the ledger's memory, and tells it. Each holds the mutex for as long as it takes to copy.

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"
)

func (c claim) compare(o claim) int {
	return cmp.Or(cmp.Compare(c.arn, o.arn), c.target.Compare(o.target))
}

// take returns what has changed since it was last called, in order, and up to which change that is. If the file has to
// be written whole, it says so and takes nothing.
func (l *Ledger) take() (changes []change, seq uint64, whole bool) {
	l.mu.Lock()
	if l.dirty {
		l.mu.Unlock()
		return nil, 0, true
	}
	changes = make([]change, 0, len(l.changed))
	for key := range l.changed {
		changes = append(changes, change{key, l.records[key]})
	}
	clear(l.changed)
	seq = l.seq
	l.mu.Unlock()
	sortChanges(changes)
	return changes, seq, false
}

// takeHeader returns the header, and whether it has changed since it was last taken.
func (l *Ledger) takeHeader() (h fileHeader, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed, l.recounted = l.recounted, false
	return l.headerLocked(), changed
}

func (l *Ledger) headerLocked() fileHeader {
	h := l.header
	h.Schema, h.Written = schema, onDisk(time.Now())
	return h
}

// takeAll returns the whole state, and up to which change that is.
func (l *Ledger) takeAll() (state, uint64) {
	l.mu.Lock()
	s, seq := l.allLocked(), l.seq
	clear(l.changed)
	l.dirty, l.recounted = false, false
	l.mu.Unlock()
	sortChanges(s.changes)
	return s, seq
}

// all returns the whole state.
func (l *Ledger) all() state {
	l.mu.Lock()
	s := l.allLocked()
	l.mu.Unlock()
	sortChanges(s.changes)
	return s
}

func (l *Ledger) allLocked() state {
	s := state{header: l.headerLocked(), other: l.other, changes: make([]change, 0, len(l.records))}
	for key, r := range l.records {
		s.changes = append(s.changes, change{key, r})
	}
	return s
}

func sortChanges(c []change) {
	slices.SortFunc(c, func(a, b change) int { return a.claim.compare(b.claim) })
}

// unsaved reports whether anything is to be written.
func (l *Ledger) unsaved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirty || len(l.changed) > 0
}

// invalidate says that the file is given up. If it is gone, nothing is on disk any more.
func (l *Ledger) invalidate(gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = true
	if gone {
		l.durable = 0
	}
}

// saved says that everything up to seq is on disk.
func (l *Ledger) saved(seq uint64) {
	l.mu.Lock()
	l.durable = max(l.durable, seq)
	was := l.degraded
	if l.claimed <= l.durable {
		l.degraded = nil
	}
	recovered := was != nil && l.degraded == nil
	l.advanceLocked()
	l.mu.Unlock()
	if recovered {
		l.log.Info("ledger is on disk again")
	}
}

// degrade says that the disk does not take the ledger.
func (l *Ledger) degrade(err error) {
	l.mu.Lock()
	was := l.degraded
	l.degraded = err
	l.dirty = true
	l.advanceLocked()
	l.mu.Unlock()
	if was == nil || was.Error() != err.Error() {
		l.log.Warn("ledger is not on disk, going on from memory", zap.Error(err))
	}
}
