package pacer

import (
	"time"
)

// bucket is a token bucket that can take a token back.
type bucket struct {
	burst    float64
	interval time.Duration // of one token
	tokens   float64
	at       time.Time // when tokens was right
}

func (b *bucket) refill(now time.Time) {
	if !b.at.IsZero() && b.interval > 0 {
		b.tokens = min(b.burst, b.tokens+float64(now.Sub(b.at))/float64(b.interval))
	}
	b.at = now
}

// delay returns how long until there is a token; 0 or less means now.
func (b *bucket) delay(now time.Time) time.Duration {
	b.refill(now)
	if b.tokens >= 1 {
		return 0
	}
	return max(time.Millisecond, time.Duration((1-b.tokens)*float64(b.interval)))
}

// take takes a token, into debt if need be.
func (b *bucket) take(now time.Time) {
	b.refill(now)
	b.tokens--
}

func (b *bucket) put() { b.tokens = min(b.burst, b.tokens+1) }
