// Package ledger keeps on disk what this host has registered, or may have, so that whoever comes after a crash knows what to
// clean up. Entries are durable before a registration is sent; a removal never waits for the disk.
//
//	ledger.go   Ledger: what is known, and who waits for the disk
//	entry.go    Entry and its phases
//	holding.go  what the ledger had of some targets, and taking back what came to nothing
//	state.go    what has changed since the last commit
//	writer.go   the one goroutine that writes
//	file.go     the file: pre-written, appended to, synced
//	format.go   lines, checksums and records
//	decode.go   reading it, torn or from another version
//	json.go     its JSON
//	compact.go  writing it anew when it is full
//	open.go     taking the state directory, and setting aside what cannot be read
//	lock.go     holding the state directory
//	fs.go       the disk, as tests replace it
//	options.go  options and metrics
//	peek.go     reading without the lock
package ledger

// What callers see of the ledger: claims in memory, and what of them the disk knows. writer.go brings them to
// disk, format.go says how they look there.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// ErrDegraded says that the disk did not take a claim in time, or cannot take any at present. The claim is kept in
// memory and goes to disk when the disk takes it: the caller goes on.
var ErrDegraded = errors.New("ledger is not on disk")

var errSlowDisk = errors.New("the disk does not answer in time")

// Ledger is the record of what this host has, or may have, registered. It is written before a registration is sent, so
// that an agent killed at any instant finds out what it may have left behind.
//
// Memory always has the latest state; only Intend waits for the disk, and never longer than the deadline. All methods
// may be called at the same time.
type Ledger struct {
	bootID   string
	deadline time.Duration
	log      *zap.Logger
	metrics  Metrics
	writer   *writer // nil: in memory alone

	wake    chan struct{} // one slot: a claim waits
	noted   chan struct{} // one slot: something changed that nobody waits for
	closing chan struct{} // closed by Close

	mu      sync.Mutex // guards what follows; nobody holds it while the disk works
	header  fileHeader
	other   [][]byte // lines that this version does not know
	records map[claim]*record
	changed map[claim]struct{} // since the writer last took them
	// dirty is set when the file has to be written whole: the header says who wrote what follows.
	dirty bool
	// recounted is set when the header has another number of peers than the file, or other groups that serve.
	recounted bool
	// seq counts changes; claimed is the last that somebody may wait for, durable the last that is on disk.
	seq, claimed, durable uint64
	degraded              error         // why the disk does not have all; nil: it does, or is about to
	advanced              chan struct{} // closed and replaced when durable or degraded changes
	closed                bool
}

// NewMemory returns a ledger that no disk stands behind. It starts no goroutine and needs no Close.
func NewMemory() *Ledger { return newLedger("", Options{}) }

func newLedger(bootID string, opts Options) *Ledger {
	l := &Ledger{
		bootID:   bootID,
		deadline: opts.Deadline,
		log:      opts.Log,
		metrics:  opts.Metrics,
		wake:     make(chan struct{}, 1),
		noted:    make(chan struct{}, 1),
		closing:  make(chan struct{}),
		records:  map[claim]*record{},
		changed:  map[claim]struct{}{},
		advanced: make(chan struct{}),
	}
	if l.deadline <= 0 {
		l.deadline = time.Second
	}
	if l.log == nil {
		l.log = zap.NewNop()
	}
	l.log = l.log.Named("ledger")
	return l
}

// Claim says which host this is, once that is known. It discards what another instance wrote (the ledger came with an
// image or a disk), its number of peers and the groups of its keys included, has the header written, and returns what remains, in order. It does not
// wait for the disk.
func (l *Ledger) Claim(self elb.Self) []Entry {
	l.mu.Lock()
	wrote, discarded := l.header.InstanceID, 0
	if self.InstanceID != "" {
		for key, r := range l.records {
			if !ownRecord(r, self) {
				l.dropLocked(key)
				discarded++
			}
		}
		if wrote != self.InstanceID {
			l.header.peers, l.header.serves = 0, nil
		}
		l.header.InstanceID, l.header.BootID = self.InstanceID, l.bootID
		l.dirty = true
	}
	l.mu.Unlock()
	poke(l.wake)
	if discarded > 0 {
		l.log.Info("ledger entries of another instance discarded", zap.Int("entries", discarded),
			zap.String("ledger_instance_id", wrote), zap.String("instance_id", self.InstanceID))
	}
	return l.Entries()
}

// ownRecord reports whether r may be of the host that self describes.
func ownRecord(r *record, self elb.Self) bool {
	if strings.HasPrefix(r.Target.ID, "i-") {
		return r.Target.ID == self.InstanceID && (r.instance == "" || r.instance == self.InstanceID)
	}
	if r.instance == "" {
		return r.Target.ID == self.Address4.String() || r.Target.ID == self.Address6.String()
	}
	return r.instance == self.InstanceID
}

// Entries returns the present content, ordered by ARN and target. The slices inside are shared: they must not be
// changed.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	records := slices.Collect(maps.Values(l.records))
	l.mu.Unlock()
	slices.SortFunc(records, func(a, b *record) int {
		return cmp.Or(cmp.Compare(a.Facts.ARN, b.Facts.ARN), a.Target.Compare(b.Target))
	})
	out := make([]Entry, len(records))
	for i, r := range records {
		out[i] = r.Entry
	}
	return out
}

// Intend records that this host is about to register targets, or has them registered for another run from now on (the
// same ARN and target with a new Run), and returns nil when the disk knows. Phase is Intended where an entry has none;
// Intended and BootID are filled in where they are missing. A claim that the disk has already costs nothing.
//
// After the deadline, and at once while the disk is known to be in trouble, it returns an error that wraps
// ErrDegraded; the claims are in memory then and go to disk later. So they are when ctx ends and its error is
// returned. Any other error says that an entry names no target: none was taken.
func (l *Ledger) Intend(ctx context.Context, entries []Entry) error {
	for _, e := range entries {
		if err := e.check(); err != nil {
			return fmt.Errorf("enter target %s of %q into the ledger: %w", e.Target, e.ARN(), err)
		}
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return fmt.Errorf("enter targets into the ledger: %w", fs.ErrClosed)
	}
	var need uint64
	for _, e := range entries {
		need = max(need, l.claimLocked(e))
	}
	if need <= l.durable || l.writer == nil {
		l.mu.Unlock()
		poke(l.noted)
		return nil
	}
	l.mu.Unlock()
	poke(l.wake)
	return l.await(ctx, need)
}

// Record enters claims that no call will follow: a target that was found registered, or one that is another run's from
// now on. It never waits; the disk hears of it as of a Note. An entry that names no target is left out.
func (l *Ledger) Record(entries []Entry) {
	if len(entries) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for _, e := range entries {
		if err := e.check(); err != nil {
			l.log.Warn("entry that names no target left out", zap.Error(err))
			continue
		}
		l.claimLocked(e)
	}
	poke(l.noted)
}

// claimLocked enters e and returns the sequence number that has to be on disk before e may be acted on.
func (l *Ledger) claimLocked(e Entry) uint64 {
	e = e.normal()
	if e.BootID == "" {
		e.BootID = l.bootID
	}
	r := &record{Entry: e, instance: l.header.InstanceID}
	if r.Intended.IsZero() {
		r.Intended = onDisk(time.Now())
	}
	old := l.records[r.key()]
	if old != nil {
		r.extra = old.extra.without(!old.Run.Same(e.Run), "phase", "run", "intended", "confirmed", "removed", "group", "facts")
	}
	// The disk need not be asked again for what it knows: that this host may have the target for this run.
	known := old != nil && old.Phase != Removing && old.Run.Same(e.Run) && old.BootID == e.BootID &&
		old.instance == r.instance
	if known {
		r.claimed = old.claimed
	}
	l.putLocked(r)
	if !known {
		r.claimed, l.claimed = l.seq, l.seq
	}
	return r.claimed
}

// await waits until need is on disk, or the disk is in trouble.
func (l *Ledger) await(ctx context.Context, need uint64) error {
	timer := time.NewTimer(l.deadline)
	defer timer.Stop()
	for {
		l.mu.Lock()
		done, trouble, advanced := need <= l.durable, l.degraded, l.advanced
		l.mu.Unlock()
		switch {
		case done:
			return nil
		case trouble != nil:
			return fmt.Errorf("%w: %w", ErrDegraded, trouble)
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for the ledger: %w", ctx.Err())
		case <-timer.C:
			if l.tooSlow(need) {
				return fmt.Errorf("%w: %w", ErrDegraded, errSlowDisk)
			}
		}
	}
}

// tooSlow notes that the disk missed the deadline for need. It reports false if need has just become durable.
func (l *Ledger) tooSlow(need uint64) bool {
	l.mu.Lock()
	if need <= l.durable {
		l.mu.Unlock()
		return false
	}
	first := l.degraded == nil
	if first {
		l.degraded = errSlowDisk
		l.advanceLocked()
	}
	l.mu.Unlock()
	if first {
		l.metrics.failed()
		l.log.Warn("ledger is not on disk, going on from memory", zap.Error(errSlowDisk),
			zap.Duration("deadline", l.deadline))
	}
	return true
}

// Note records what became of targets: Registered when the load balancer has confirmed them, Removing when a
// deregistration was accepted (the entry stays until a later look confirms it), Intended when the outcome of a call is
// not known, Absent when they are gone: their entries are dropped. It never waits; the disk hears of Intended at once, of
// the others with the next commit, or a second later. Targets without an entry are passed over.
func (l *Ledger) Note(arn string, targets []target.Target, phase Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	now := onDisk(time.Now())
	changed := false
	for _, t := range targets {
		key := claim{arn, t}
		old := l.records[key]
		switch {
		case old == nil:
			continue
		case phase == Absent:
			l.dropLocked(key)
			changed = true
			continue
		case phase == Registered && old.Phase == Registered && !old.Confirmed.IsZero():
			continue // as it was: a look every few minutes must not wear the disk
		}
		r := *old
		r.Phase = phase
		r.extra = old.extra.without(false, "phase", "confirmed", "removed")
		switch phase {
		case Registered:
			r.Confirmed, r.Removed = now, time.Time{}
		case Removing:
			r.Removed = now
		}
		l.putLocked(&r)
		if old.Phase == Removing && phase != Removing {
			r.claimed, l.claimed = l.seq, l.seq // the disk has to know before it is acted on
		}
		changed = true
	}
	switch {
	case changed && phase == Intended:
		poke(l.wake) // a call is under way that the next agent may have to look after
	case changed:
		poke(l.noted)
	}
}

// Peers returns how many hosts share the account's rate limits, as of the last NotePeers of this host; 0: nobody knows.
func (l *Ledger) Peers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.header.peers
}

// NotePeers keeps how many hosts share the account's rate limits, for the next agent. It never waits; the disk hears of it
// as of a Note, where it differs by more than a tenth from what is kept: less changes no pace.
func (l *Ledger) NotePeers(n int) {
	n = min(n, peersMost)
	l.mu.Lock()
	defer l.mu.Unlock()
	if kept := l.header.peers; l.closed || n <= 0 || max(n-kept, kept-n)*10 <= kept {
		return
	}
	l.header.peers, l.recounted = n, true
	poke(l.noted)
}

// Serves returns the group that last accepted a target of each key, as of the last NoteServes of this host. The map is shared:
// it must not be changed.
func (l *Ledger) Serves() map[string]elb.Facts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.header.serves
}

// NoteServes keeps the group that last accepted a target of each key, for the next agent, which may find no entry of a key whose
// containers have ended. It never waits; the disk hears of it as of a Note, where a key has another group than is kept. The map
// must not be changed any more.
func (l *Ledger) NoteServes(serves map[string]elb.Facts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	same := func(a, b elb.Facts) bool { return a.ARN == b.ARN }
	if l.closed || maps.EqualFunc(l.header.serves, serves, same) {
		return
	}
	l.header.serves, l.recounted = serves, true
	poke(l.noted)
}

func (l *Ledger) putLocked(r *record) {
	l.records[r.key()] = r
	l.touchLocked(r.key())
}

func (l *Ledger) dropLocked(key claim) {
	delete(l.records, key)
	l.touchLocked(key)
}

func (l *Ledger) touchLocked(key claim) {
	l.seq++
	if l.writer == nil {
		l.durable = l.seq
		return
	}
	l.changed[key] = struct{}{}
}

// advanceLocked wakes everybody in await.
func (l *Ledger) advanceLocked() {
	close(l.advanced)
	l.advanced = make(chan struct{})
}

// Err returns why the disk does not have the ledger now; nil when it has, but for what is being written.
func (l *Ledger) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.degraded
}

// Close brings to disk what is not there yet, within twice the deadline, and releases the lock. Its error says that
// the disk does not have all; the lock then stays until the process ends, because a write that hangs may still come
// through.
func (l *Ledger) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if l.writer == nil {
		return nil
	}
	if first {
		close(l.closing)
	}
	timer := time.NewTimer(2 * l.deadline)
	defer timer.Stop()
	select {
	case <-l.writer.ended:
		if err := l.Err(); err != nil {
			return fmt.Errorf("close ledger: %w", err)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("close ledger: %w", errSlowDisk)
	}
}

// poke sets a one-slot signal.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
