package discovery

import (
	"sync"
	"time"
)

// Timekeeper is an Engine whose times are of another clock than this host's.
type Timekeeper interface {
	Clock() time.Time
}

// stepLeast is the least step of the clock that is noticed: more than reading two clocks takes, and less than matters.
const stepLeast = 20 * time.Millisecond

// reignsMost is how many settings of the clock are remembered.
const reignsMost = 16

// dockerClock translates times that Docker writes, which are of the host's wall clock, to this process's monotonic clock,
// which nobody sets: so whatever Docker dates can be compared with what was asked and answered here, and with other events,
// also when the wall clock has been set meanwhile. Times that it returns have a monotonic reading, and show what the wall
// clock shows now.
type dockerClock struct {
	wall func(now time.Time) time.Time // what Docker's clock shows
	born time.Time
	old  time.Duration // what is older than this process by so much is all the same

	mu     sync.Mutex    // guards the rest: the stream's goroutine translates, and the loop looks at the clock
	seen   time.Time     // the last look
	untold time.Duration // by how much the clock was set since look was last asked
	reigns []reign       // in order, never empty
}

// reign is a time in which nobody has set the clock.
type reign struct {
	after, from time.Time // the clock was set between these, on our clock; zero: before we knew it
	origin      time.Time // what it shows, less how old this process is
}

func newDockerClock(engine Engine, old time.Duration) *dockerClock {
	wall := func(now time.Time) time.Time { return now.Round(0) }
	if k, ok := engine.(Timekeeper); ok {
		wall = func(time.Time) time.Time { return k.Clock().Round(0) }
	}
	now := time.Now()
	return &dockerClock{wall: wall, born: now, old: old, seen: now, reigns: []reign{{origin: wall(now)}}}
}

// look looks at the clock, and returns by how much it was set since it was last called, whoever has noticed that.
func (c *dockerClock) look() (step time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked()
	step, c.untold = c.untold, 0
	return step
}

// looked looks at the clock, and returns the time.
func (c *dockerClock) looked() (now time.Time) {
	now = time.Now()
	origin := c.wall(now).Add(-now.Sub(c.born))
	step := origin.Sub(c.reigns[len(c.reigns)-1].origin)
	if step.Abs() < stepLeast { //mutant:trusts-the-clock
		c.seen = now
		return now
	}
	c.untold += step
	c.reigns = append(c.reigns, reign{after: c.seen, from: now, origin: origin})
	if len(c.reigns) > reignsMost {
		c.reigns = c.reigns[1:]
		c.reigns[0].after = time.Time{}
	}
	c.seen = now
	return now
}

// ours translates a time that Docker has just told. Where it may have been at two times (the clock was set back, or nobody
// knows when exactly it was set), it is the later one: what is heard then is no old news. It
// reports whether the clock can have shown it as far as this process knows; else it is older than this process.
func (c *dockerClock) ours(t time.Time) (at time.Time, known bool) {
	if t.IsZero() {
		return t, true // what never happened
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.looked()
	until := now
	for i := len(c.reigns) - 1; i >= 0; i-- {
		r := &c.reigns[i]
		shown := c.born.Add(t.Sub(r.origin))
		if !shown.After(until.Add(stepLeast)) && (r.after.IsZero() || !shown.Before(r.after.Add(-stepLeast))) && (!known || shown.After(at)) {
			at, known = shown, true
		}
		until = r.from
	}
	if known {
		return now.Add(at.Sub(now)), true
	}
	return now.Add(c.born.Add(-c.old).Sub(now)), false
}

// docker returns the earliest that Docker's clock has shown since a time of ours, and whether it was never set since.
func (c *dockerClock) docker(since time.Time) (earliest time.Time, steady bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.looked()
	until, steady := now, true
	for i := len(c.reigns) - 1; i >= 0; i-- {
		r := &c.reigns[i]
		if until.Before(since) {
			break
		}
		begin := maxTime(since, r.after)
		if shown := r.origin.Add(begin.Sub(c.born)); earliest.IsZero() || shown.Before(earliest) {
			earliest = shown
		}
		until, steady = r.from, i == len(c.reigns)-1
	}
	return earliest, steady
}
