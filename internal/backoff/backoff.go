// Package backoff is how long to wait before something that failed is tried again: twice as long after each failure, up to
// a limit, and never all at the same moment.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Double returns least doubled n times, at most most.
func Double(least time.Duration, n int, most time.Duration) time.Duration {
	d := least
	for range n {
		if d >= most {
			break
		}
		d *= 2
	}
	return min(d, most)
}

// Jitter returns a random duration in [d/2, d].
func Jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2+1)
}

// Delay is Double with Jitter: the wait after n failures in a row that followed the first.
func Delay(least time.Duration, n int, most time.Duration) time.Duration {
	return Jitter(Double(least, n, most))
}

// Backoff counts the failures of one thing.
type Backoff struct {
	Least, Most time.Duration
	failures    int
}

// Next returns how long to wait after one more failure.
func (b *Backoff) Next() time.Duration {
	d := Delay(b.Least, b.failures, b.Most)
	b.failures++
	return d
}

// Reset forgets the failures: it worked.
func (b *Backoff) Reset() { b.failures = 0 }

// Sleep waits after one more failure. It reports false if ctx ended first.
func (b *Backoff) Sleep(ctx context.Context) bool {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
