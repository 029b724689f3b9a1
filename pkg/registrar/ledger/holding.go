package ledger

import (
	"berth/pkg/target"
)

// Holding is what the ledger had of one target at one moment: an entry, or none.
type Holding struct {
	key    claim
	record *record // nil: none. Records are never changed, only replaced
}

// Target returns the target.
func (h Holding) Target() target.Target { return h.key.target }

// Entry returns the entry; false: there was none. The slices inside are shared: they must not be changed.
func (h Holding) Entry() (Entry, bool) {
	if h.record == nil {
		return Entry{}, false
	}
	return h.record.Entry, true
}

// Holdings returns what the ledger has of these targets, one each and in their order.
func (l *Ledger) Holdings(arn string, targets []target.Target) []Holding {
	out := make([]Holding, len(targets))
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, t := range targets {
		key := claim{arn, t}
		out[i] = Holding{key, l.records[key]}
	}
	return out
}

// Restore takes back what was entered since for these targets, because it came to nothing: their entries are as they were,
// with times and all, and where there was none there is none again. It never waits; the disk hears of it as of a Note.
func (l *Ledger) Restore(holdings []Holding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	changed := false
	for _, h := range holdings {
		now := l.records[h.key]
		switch {
		case now == h.record:
			continue
		case h.record == nil:
			l.dropLocked(h.key)
		default:
			r := *h.record
			l.putLocked(&r)
			if r.Phase != Removing && (now == nil || now.claimed != r.claimed) {
				r.claimed, l.claimed = l.seq, l.seq // the disk may have another run's claim meanwhile
			}
		}
		changed = true
	}
	if changed {
		poke(l.noted)
	}
}
