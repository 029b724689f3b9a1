package server

import (
	"fmt"
	"strings"
	"time"
)

// Loop is one of the agent's loops, as far as liveness goes.
type Loop struct {
	Name string
	// Beat returns when the loop last turned: not when it last made progress. Zero: it has not begun. It must have its
	// monotonic reading, or a clock that is set makes a loop that turns look stuck.
	Beat func() time.Time
	// Within is how long it may take to turn; 0 means DefaultLoopWithin.
	Within time.Duration
}

// DefaultLoopWithin is how long a loop may take to turn. Each loop wakes at least every few seconds, whether or not
// Docker or AWS answer.
const DefaultLoopWithin = 30 * time.Second

// Alive returns an error that names the loops that have not turned in time. since is when the agent started: a loop
// that has not begun is given its time from there. It is what /healthz answers and what a watchdog should ask.
func Alive(loops []Loop, since, now time.Time) error {
	var stuck []string
	for _, l := range loops {
		within := l.Within
		if within <= 0 {
			within = DefaultLoopWithin
		}
		beat := l.Beat()
		if beat.Before(since) {
			beat = since
		}
		if idle := now.Sub(beat); idle > within {
			stuck = append(stuck, fmt.Sprintf("%s has not turned for %s", l.Name, idle.Round(time.Second)))
		}
	}
	if len(stuck) > 0 {
		return &StuckError{Loops: stuck}
	}
	return nil
}

// StuckError says which loops do not turn.
type StuckError struct{ Loops []string }

func (e *StuckError) Error() string { return strings.Join(e.Loops, "; ") }
