// Package pacer decides when a host may call AWS, whose rate limits all hosts of an account and region share. One pacer
// serves all target groups of a host.
//
//	class.go     the kinds of calls, in the order in which they matter
//	pacer.go     Pacer and Permit: who goes next, and when
//	bucket.go    the host's own budget for each kind
//	interval.go  how long to wait between calls while AWS throttles
//	outage.go    how often to call while nobody answers
//	census.go    how many hosts share the limits, and where this one stands among them
package pacer

import (
	"sync"
	"time"
)

// Outcome is what became of a call, as far as pacing is concerned.
type Outcome uint8

// The outcomes.
const (
	Accepted   Outcome = iota // answered by the service, with success or with an error that is no rate limit
	Throttled                 // refused by a rate limit
	Failed                    // answered by a service in trouble
	Unanswered                // not answered: the service, or the way to it, or this host's own network
	Aborted                   // given up by the caller: it says nothing
)

// rates is how often this host calls by itself, before anybody throttles it: burst at once, then one per interval.
var rates = [Classes]struct {
	burst    float64
	interval time.Duration
}{
	ClassDeregister: {burst: 5, interval: 250 * time.Millisecond},
	ClassRegister:   {burst: 3, interval: time.Second},
	ClassDescribe:   {burst: 5, interval: time.Second},
}

// opening is how often a host calls by itself for what has to be known before it can register anything, where it is not
// one of a crowd: half of what the account takes. Ten hosts at the ordinary rate take all of it: more are a crowd.
var opening = bucket{burst: 5, interval: 200 * time.Millisecond}

const crowd = 10

// headStart is how much earlier than it did a first attempt counts as having asked. It makes registrations overtake looks,
// and it starves nobody: who waits longer than the difference goes first. An attempt after a failure has none.
var headStart = [Classes]time.Duration{ClassRegister: 30 * time.Second}

// lookLead is by how much the first look at a group goes before the look-ups of others: what was found is registered
// before all are.
const lookLead = 30 * time.Second

// lookLag is how much later a look that failed counts as having asked: the writes of an outage are caught up with first.
const lookLag = 24 * time.Hour

// firstAlone is how long the first call of all is alone under way: if it hangs, it is in nobody's way.
const firstAlone = 500 * time.Millisecond

// Pacer spaces the calls of one host. The rate limits of an account and region are shared by all of its hosts, which
// cannot see each other: a host that is throttled infers from that, and from the number of its peers, how long to
// wait so that all of them together use the limit and no more.
//
// The first attempt of a removal goes before all that waits. Each removal has one, so that nobody starves: not a group
// whose removals always fail, and not those who register what there is to remove.
//
// While nothing throttles, each class has its own bucket; what has to be known before anything can be registered has one
// that is larger, where the host is not one of a crowd. After a throttled call one call at a time goes out, 0.7 I to I
// apart (uniformly), whatever its class: the first throttle sets I to P/24 s (at least 1 s) for P peers, each further one
// doubles it, each accepted call divides it by 3, and below half a second it ends. I is capped at the largest of 20 s
// (60 s while P is not known, 10 s while the host drains), P/10 s, and a fifth of the time since the first throttle;
// while the host serves nothing yet, P/15 s and a tenth. What becomes of a call that went out before I last became longer
// changes it no more: calls side by side meet one limit, once. The time counts while writes are throttled and the host does not
// drain. Looks have a limit of their own, which somebody else may use up for hours: while they alone are throttled,
// removals go out at their own rate. The first call of all goes out alone.
//
// While no call succeeds at all, attempts after a failure go out one at a time, as far apart as makes all hosts together
// call 3.2 times a second (J, see retryPace): the service comes back to a crowd that does not trample it. Each host has its
// place in a round of J, which it knows from the ids in its largest group. First attempts are not held up. When the
// service is back, J stays for four calls, and halves with each further one.
//
// A Pacer has no goroutine. It is safe for concurrent use. docs/adr/0007 tells where the numbers come from.
type Pacer struct {
	mu       sync.Mutex // guards all below; never held while anything waits
	buckets  [Classes]bucket
	opening  bucket // of AskFirst's calls
	waiting  []*Permit
	inFlight int
	timer    *time.Timer
	asked    uint64

	peers     int       // 0: not known
	answered  bool      // a call has been answered
	firstAt   time.Time // the first call went out
	serving   bool      // this host has registered what it had to, or had so before
	draining  bool
	interval  time.Duration // I; 0: nobody throttles
	crowded   time.Time     // the last call that was throttled, or failed in an outage
	throttled time.Time     // the first of the present row of throttled calls, or of writes where looks alone were before
	scarce    time.Time     // until when writes count as throttled
	stretched uint64        // how often I has become longer
	next      time.Time     // the earliest time of the next call while I > 0
	outage    outage
	onChange  func(interval time.Duration)
	told      time.Duration // what onChange was last told
}

// New returns a pacer that has not been throttled. onChange, if not nil, is called with each new interval, the
// longer one of I and J, under the pacer's lock: it must not call back.
func New(onChange func(interval time.Duration)) *Pacer {
	p := &Pacer{onChange: onChange, opening: opening}
	p.opening.tokens = opening.burst
	for c := range p.buckets {
		p.buckets[c] = bucket{burst: rates[c].burst, interval: rates[c].interval, tokens: rates[c].burst}
	}
	return p
}

// SetPeers tells how many hosts share the rate limits; 0 means that nobody knows.
func (p *Pacer) SetPeers(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers = max(n, 0)
}

// SetPlace tells which part of each round of all peers' attempts in an outage is this host's.
func (p *Pacer) SetPlace(at Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outage.place = at
}

// SetDraining tells whether the host drains, when waiting long is worse than asking again.
func (p *Pacer) SetDraining(draining bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = draining
	now := time.Now()
	if limit := p.limit(now); draining && p.interval > limit {
		next := p.next
		if p.space(limit, now); next.Before(p.next) {
			p.next = next
		}
		p.report()
		p.dispatch()
	}
}

// SetServing says that something of this host was registered before. A host that serves nothing yet waits less.
func (p *Pacer) SetServing() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = true
}

// Registered says that a registration has succeeded. With it the host serves, unless others still wait for their call.
func (p *Pacer) Registered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = p.serving || len(p.waiting) == 0
}

// Interval returns I: zero while nobody throttles.
func (p *Pacer) Interval() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(time.Now())
	return p.interval
}

// Idle reports whether nothing waits and nobody throttles: the time for looks that may as well be left out.
func (p *Pacer) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(time.Now())
	return p.interval == 0 && len(p.waiting) == 0
}

// Crowded reports whether many hosts seem to want to call at once: one of this host's calls was throttled, or failed in
// an outage, within the last P seconds, but at least a minute. What can wait, waits then.
func (p *Pacer) Crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inCrowd(time.Now())
}

func (p *Pacer) inCrowd(now time.Time) bool {
	return !p.crowded.IsZero() && now.Sub(p.crowded) < p.lull()
}

// report tells onChange when the interval has changed. The caller holds the lock.
func (p *Pacer) report() {
	if interval := max(p.interval, p.outage.interval); interval != p.told && p.onChange != nil {
		p.told = interval
		p.onChange(interval)
	}
}

// Permit is the right to make one call. Its owner waits for Ready, and then ends it with Done or Drop, exactly once.
type Permit struct {
	pacer     *Pacer
	class     Class
	ready     chan struct{}
	rank      time.Time // when it asked, less its head start
	order     uint64
	again     bool
	removes   bool // the first attempt of a removal
	opens     bool // of AskFirst
	aside     bool // granted regardless of I: what becomes of it says nothing about I, unless it is throttled
	granted   bool
	bucket    *bucket // that it was granted from
	stretched uint64  // the pacer's when it was granted
	ended     bool
}

// Ask gets in line for one call. again says that the call is an attempt after a failure; that of a removal is one where
// all that it names has been tried in vain.
func (p *Pacer) Ask(c Class, again bool) *Permit {
	t := &Permit{class: c, again: again}
	var lead time.Duration
	if !again {
		lead, t.removes = headStart[c], c == ClassDeregister //mutant:removal-waits-its-turn
	}
	return p.ask(t, lead)
}

// AskFirst gets in line for the first look at a group, or else for the look-up of one, before which nothing can be
// registered there. Neither has failed yet.
func (p *Pacer) AskFirst(look bool) *Permit {
	var lead time.Duration
	if look {
		lead = lookLead
	}
	return p.ask(&Permit{class: ClassDescribe, opens: true}, lead)
}

// AskLast gets in line for a look that has failed before and can wait for all else that does.
func (p *Pacer) AskLast() *Permit { return p.ask(&Permit{class: ClassDescribe, again: true}, -lookLag) }

func (p *Pacer) ask(t *Permit, lead time.Duration) *Permit {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.forget(now)
	p.asked++
	t.pacer, t.ready, t.rank, t.order = p, make(chan struct{}), now.Add(-lead), p.asked
	p.waiting = append(p.waiting, t)
	p.dispatch()
	return t
}

// before reports whether t goes before o where both may go.
func (t *Permit) before(o *Permit) bool {
	switch {
	case t.removes != o.removes:
		return t.removes
	case !t.rank.Equal(o.rank):
		return t.rank.Before(o.rank)
	}
	return t.order < o.order
}

// Ready is closed when the call may be made.
func (t *Permit) Ready() <-chan struct{} { return t.ready }

// Class returns what the permit is for.
func (t *Permit) Class() Class { return t.class }

// Again reports whether the permit is for an attempt after a failure.
func (t *Permit) Again() bool { return t.again }

// Drop gives the permit back unused, whether it was granted or not.
func (t *Permit) Drop() {
	p := t.pacer
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	if t.granted {
		p.end(t)
		t.bucket.put()
		if p.interval > 0 && !t.aside {
			p.next = time.Now()
		}
		if p.outage.interval > 0 && t.again {
			p.outage.next = time.Now()
		}
	} else {
		for i, w := range p.waiting {
			if w == t {
				p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
				break
			}
		}
	}
	p.dispatch()
}

// Done says what became of the call that the permit was for.
func (t *Permit) Done(o Outcome) {
	p := t.pacer
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.ended || !t.granted {
		return
	}
	t.ended = true
	p.end(t)
	p.answered = p.answered || o != Aborted
	now := time.Now()
	interval := p.interval
	news := interval == 0 || t.stretched == p.stretched && (!t.aside || o == Throttled)
	scarcer := o == Throttled && t.class != ClassDescribe
	if interval == 0 && o == Throttled || scarcer && !now.Before(p.scarce) {
		p.throttled = now
	}
	switch {
	case o == Throttled && interval == 0:
		interval = max(time.Second, time.Duration(p.peers)*time.Second/24)
	case !news:
	case o == Throttled:
		interval *= 2
	case o == Accepted && interval > 0:
		if interval /= 3; interval < 500*time.Millisecond {
			interval = 0
		}
	}
	if scarcer { // for as long as the crowd may still be there
		p.scarce = now.Add(max(p.lull(), 2*interval))
	}
	if news {
		p.space(min(interval, p.limit(now)), now)
	}
	p.endure(o, t.again, now)
	if o == Throttled {
		p.crowded = now
	}
	p.report()
	p.dispatch()
}

// end takes a granted permit out of the count. The caller holds the lock.
func (p *Pacer) end(t *Permit) {
	p.inFlight--
	if t.again {
		p.outage.inFlight--
	}
}

// dispatch grants what may be granted now, and sets the timer for what may be later. The caller holds the lock.
func (p *Pacer) dispatch() {
	now := time.Now()
	var wait time.Duration
	for {
		wait = untilDone
		i := p.first(func(t *Permit) bool {
			d := p.delay(t, now)
			wait = min(wait, d)
			return d <= 0
		})
		if i < 0 {
			break
		}
		t := p.waiting[i]
		p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
		t.bucket = p.bucketOf(t, now)
		t.bucket.take(now)
		t.granted, t.stretched, t.aside = true, p.stretched, p.passes(t, now)
		p.inFlight++
		if p.firstAt.IsZero() {
			p.firstAt = now
		}
		if t.again {
			p.outage.inFlight++
		}
		close(t.ready)
	}
	if len(p.waiting) == 0 {
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.tick)
	} else {
		p.timer.Reset(wait)
	}
}

// untilDone stands for as long as another call takes: its end dispatches again.
const untilDone = time.Hour

// delay is how long a permit still has to wait; 0 or less: it may go.
func (p *Pacer) delay(t *Permit, now time.Time) time.Duration {
	var d time.Duration
	switch {
	case p.interval > 0 && !p.passes(t, now):
		if p.inFlight > 0 {
			return untilDone
		}
		d = p.next.Sub(now)
		if t.class == ClassDeregister {
			d = min(d, p.scarce.Sub(now))
		}
	case !p.answered && p.inFlight > 0 && now.Sub(p.firstAt) < firstAlone:
		return p.firstAt.Add(firstAlone).Sub(now)
	default:
		d = p.bucketOf(t, now).delay(now)
	}
	if t.again && p.outage.interval > 0 {
		if p.outage.inFlight > 0 {
			return untilDone
		}
		d = max(d, p.outage.next.Sub(now))
	}
	return d
}

// bucketOf is what a permit comes from where I is 0.
func (p *Pacer) bucketOf(t *Permit, now time.Time) *bucket {
	if t.opens && p.peers <= crowd && !p.inCrowd(now) {
		return &p.opening
	}
	return &p.buckets[t.class]
}

func (p *Pacer) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dispatch()
}

// first returns the index of the waiting permit that goes first among those that may go, or -1.
func (p *Pacer) first(may func(*Permit) bool) int {
	best := -1
	for i, t := range p.waiting {
		if !may(t) {
			continue
		}
		if best < 0 || t.before(p.waiting[best]) {
			best = i
		}
	}
	return best
}
