package registrar

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// environment is what all reconcilers of a registrar share.
type environment struct {
	calls     *elb.Client // nil before identity and credentials are known
	pacer     *pacer.Pacer
	ledger    *ledger.Ledger
	metrics   *Metrics
	log       *zap.Logger
	bootID    string
	dry       bool // look, and change nothing
	started   time.Time
	board     *board
	followers *followers
	census    *pacer.Census
	mended    *mended               // the credentials are good again
	gone      func(groupARN string) // a call said that the group does not exist. Never blocks
	accepted  func()                // a target is registered that was not. Never blocks
}

// fleet is the time in which every peer may look at every group once, at about one look a second.
func (e *environment) fleet() time.Duration { return e.census.Fleet() }

// peers is how many hosts share the account's rate limits, as far as is known; 0: nothing is.
func (e *environment) peers() int { return e.census.Peers() }

// sawPeers takes in whose targets a look at a whole group has shown; this host's own id is among them or not.
func (e *environment) sawPeers(groupARN string, ids map[string]bool, own string) {
	e.census.Saw(groupARN, ids, own, func(peers int, at pacer.Place) {
		e.pacer.SetPeers(peers)
		e.pacer.SetPlace(at)
	})
	e.ledger.NotePeers(e.census.Counted())
}

// followers counts who waits for news of which group, by key.
type followers struct {
	mu    sync.Mutex
	count map[string]int
	pokes map[*reconciler]bool // the reconcilers that run
}

func (f *followers) any(keys []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(keys, func(k string) bool { return f.count[k] > 0 })
}

func (f *followers) add(keys []string, n int) {
	f.change(keys, n)
	f.poke()
}

func (f *followers) change(keys []string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range keys {
		if f.count[k] += n; f.count[k] <= 0 {
			delete(f.count, k)
		}
	}
}

// poke has all reconcilers look at what is new.
func (f *followers) poke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range f.pokes {
		r.poke()
	}
}

// each calls do for the running reconcilers that key names, and reports whether there was one.
func (f *followers) each(key string, do func(*reconciler)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := false
	for r := range f.pokes {
		if in := r.slot.Load(); in != nil && slices.Contains(in.keys, key) {
			do(r)
			found = true
		}
	}
	return found
}

func (f *followers) running(r *reconciler, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if yes {
		f.pokes[r] = true
	} else {
		delete(f.pokes, r)
	}
}

// board is where the state of all groups is put up. Reconcilers put one group's status each, the supervisor what there is
// to say of a group that no reconciler has spoken of yet; readers get an immutable Snapshot of all and a channel that
// closes when there is a newer one.
type board struct {
	mu       sync.Mutex             // guards all below
	statuses map[string]GroupStatus // by ARN
	sought   map[string]GroupStatus // by key, of all groups in the configuration
	held     map[string][]Held      // by ARN, of all groups that have targets of a key which names another one
	head     Snapshot               // without groups
	current  *Snapshot
	changed  chan struct{}
}

func newBoard() *board {
	return &board{statuses: map[string]GroupStatus{}, current: &Snapshot{At: time.Now()}, changed: make(chan struct{})}
}

func (b *board) snapshot() (*Snapshot, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current == nil {
		b.current = b.build()
	}
	return b.current, b.changed
}

// build makes the snapshot when somebody asks for it, not with every change: a host of many groups changes far more
// often than anybody looks.
func (b *board) build() *Snapshot {
	s := b.head
	s.At = time.Now()
	s.Groups = slices.Collect(maps.Values(b.statuses))
	served := map[string]bool{}
	for i := range s.Groups {
		s.Groups[i].Held = b.held[s.Groups[i].ARN]
		for _, key := range s.Groups[i].Keys {
			served[key] = true
		}
	}
	for key, g := range b.sought {
		if !served[key] {
			s.Groups = append(s.Groups, g)
		}
	}
	slices.SortFunc(s.Groups, func(x, y GroupStatus) int {
		return cmp.Or(cmp.Compare(firstKey(x.Keys), firstKey(y.Keys)), cmp.Compare(x.ARN, y.ARN))
	})
	return &s
}

// firstKey sorts groups that left the configuration last.
func firstKey(keys []string) string {
	if len(keys) == 0 {
		return "\xff"
	}
	return keys[0]
}

// edit changes what is on the board, under its lock, and tells whoever waits.
func (b *board) edit(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	b.current = nil
	close(b.changed)
	b.changed = make(chan struct{})
}

// put puts up one group's status; one that says nothing new wakes nobody.
func (b *board) put(id string, s GroupStatus) {
	b.mu.Lock()
	before, ok := b.statuses[id]
	b.mu.Unlock()
	if ok && reflect.DeepEqual(before, s) { // a status has one writer: nobody changes it in between
		return
	}
	b.edit(func() { b.statuses[id] = s })
}

func (b *board) remove(id string) {
	b.edit(func() { delete(b.statuses, id) })
}

// publish puts the group's state on the board. step is what comes next.
func (r *reconciler) publish(step Step) {
	if r.in == nil {
		return
	}
	s := GroupStatus{
		ARN: r.arn, Name: r.in.facts.Name, Keys: r.in.keys, State: StateOK, Seq: r.doneSeq, Tried: r.tried,
		Facts: r.in.facts, Refusals: r.refusals, Unclaimed: target.Sorted(r.unclaimed), VerifiedAt: r.schedule.verifiedAt,
	}
	if !r.tried {
		s.State = StateWaiting
	}
	s.Pending = r.pending()
	for c := pacer.ClassDescribe; c > pacer.ClassNone; c-- { // the trouble of the most urgent class wins, but a group that is gone explains the rest
		ce := r.trouble[c]
		if ce == nil || s.State == StateGone {
			continue
		}
		s.State, s.Err, s.Change = behaviours[ce.Fault].state, ce.Error(), elb.Advice(ce, r.in.group.Reference(), r.in.facts)
		s.RetryAt = r.cond.Hold[c]
	}
	remove, add := Outstanding(r.want, r.have, r.cond)
	for i, outstanding := range [][]target.Target{remove, add} {
		c := []pacer.Class{pacer.ClassDeregister, pacer.ClassRegister}[i]
		if first, _ := r.setbacks(c, outstanding, time.Now()); first.said != nil && s.Err == "" {
			s.State, s.Err = behaviours[first.said.Fault].state, first.said.Error()
			s.Change, s.RetryAt = elb.Advice(first.said, r.in.group.Reference(), r.in.facts), first.Until
		}
	}
	unserved := ""
	if why, change := r.in.facts.Unsupported(r.in.self); why != "" && r.in.serves() {
		s.State, s.Err = StateMisconfigured, "the target group cannot be served: "+why
		s.Change = change + ", and name it in place of " + r.in.group.Reference().String()
		if unserved = s.Err; unserved != r.unserved {
			r.log.Error("target group cannot be served", zap.String("error", s.Err), zap.String("change", s.Change))
		}
	}
	r.unserved = unserved
	if step.Class == pacer.ClassNone && s.RetryAt.IsZero() && s.State != StateOK {
		s.RetryAt = step.At
	}
	for _, t := range target.Sorted(r.have) {
		h := r.have[t]
		if h.Found && len(r.want[t]) == 0 {
			continue // somebody else's
		}
		s.Targets = append(s.Targets, TargetStatus{
			Target: t, Phase: h.Phase, Health: h.Health, Reason: h.Reason, Description: h.Description,
			Since: h.Since, Wants: r.want[t], Run: h.Run,
		})
	}
	for _, t := range r.want.Sorted() {
		if _, ok := r.have[t]; !ok {
			s.Targets = append(s.Targets, TargetStatus{Target: t, Phase: ledger.Absent, Wants: r.want[t], Run: claimant(r.want[t])})
		}
	}
	slices.SortFunc(s.Targets, func(a, b TargetStatus) int { return a.Target.Compare(b.Target) })
	r.env.board.put(r.arn, s)
}
