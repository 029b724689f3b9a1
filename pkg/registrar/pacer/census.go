package pacer

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Census counts who shares the account's rate limits, as far as one host can tell: the most distinct ids seen in one
// group. It also tells where this host stands among them, in an order that all of them see alike.
type Census struct {
	fixed  int // from the configuration; 0: count
	mu     sync.Mutex
	before memory
	seen   map[string]groupCensus // by group ARN
	groups atomic.Int64
}

// NewCensus returns a census that counts, or that knows the number of peers where fixed is not 0.
func NewCensus(fixed int) *Census { return &Census{fixed: fixed} }

// SetGroups says how many groups this host serves.
func (c *Census) SetGroups(n int) { c.groups.Store(int64(n)) }

// memory is what an earlier process of this host has counted.
type memory struct {
	peers int
	until time.Time // from then on it counts no more
}

// memoryMost is how long what an earlier process has counted counts at most: every group is looked at once a day.
const memoryMost = 48 * time.Hour

// Remember takes in what an earlier process of this host has counted: it counts until this one has seen every group.
func (c *Census) Remember(peers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = memory{peers, time.Now().Add(memoryMost)}
}

// Counted returns the number of peers for the next process to remember; 0: it was not counted.
func (c *Census) Counted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fixed > 0 {
		return 0
	}
	return c.most()
}

// groupCensus is what one look at a whole group has counted.
type groupCensus struct {
	peers  int // this host included
	before int // of them, by their ids
	member bool
}

// Place is the part of each round of calls that is one host's: from at, for width, both in parts of the round. The zero
// place is none in particular.
type Place struct{ at, width float64 }

// in returns a moment of the round that begins now: within the place, or any where it is none. The rounds that places
// are parts of begin when the wall clock is a multiple of their length: on all hosts alike.
func (p Place) in(round time.Duration, now time.Time) time.Time {
	if p.width == 0 {
		return now.Add(rand.N(round + 1))
	}
	at := time.Duration((p.at + p.width*rand.Float64()) * float64(round))
	ahead := (at - time.Duration(now.UnixNano()%int64(round))) % round
	if ahead < 0 {
		ahead += round
	}
	return now.Add(ahead)
}

// Saw takes in the ids of a group and tells the number of peers, and this host's place among those of the largest group
// that it is in.
func (c *Census) Saw(groupARN string, ids map[string]bool, own string, tell func(peers int, at Place)) {
	g := groupCensus{peers: 1, member: ids[own]}
	for id := range ids {
		if id != own {
			g.peers++
		}
		if id < own {
			g.before++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]groupCensus{}
	}
	c.seen[groupARN] = g
	tell(c.most(), c.place())
}

// Peers is how many hosts share the account's rate limits, as far as is known; 0: nothing is.
func (c *Census) Peers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most()
}

// most is called with mu held.
func (c *Census) most() int {
	if c.fixed > 0 {
		return c.fixed
	}
	most := 0
	if int64(len(c.seen)) < max(1, c.groups.Load()) && time.Now().Before(c.before.until) {
		most = c.before.peers
	}
	for _, g := range c.seen {
		most = max(most, g.peers)
	}
	return most
}

// place is called with mu held. The hosts of a group are spaced evenly; where its first one stands goes by its ARN, so
// that the rows of several groups do not coincide. A host that is in none yet has no place: all those between two that
// are would have the same.
func (c *Census) place() Place {
	largest := ""
	for groupARN, g := range c.seen {
		most := c.seen[largest].peers
		if g.member && (g.peers > most || g.peers == most && groupARN < largest) {
			largest = groupARN
		}
	}
	g := c.seen[largest]
	if g.peers < 2 {
		return Place{}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(largest)) // never fails
	width := 1 / float64(g.peers)
	_, at := math.Modf(float64(h.Sum32())/(1<<32) + float64(g.before)*width)
	return Place{at: at, width: width}
}

// Fleet is the time in which every peer may look at every group once, at about one look a second.
func (c *Census) Fleet() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(min(int64(c.most())*c.groups.Load(), fleetMost)) * time.Second
}

// fleetMost bounds the time of a fleet, in seconds: a month, in which nobody waits for a look any more.
const fleetMost = 30 * 24 * 3600
