package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestDouble(t *testing.T) {
	for _, tt := range []struct {
		least time.Duration
		n     int
		most  time.Duration
		want  time.Duration
	}{
		{time.Second, 0, time.Minute, time.Second},
		{time.Second, 3, time.Minute, 8 * time.Second},
		{time.Second, 6, time.Minute, time.Minute},
		{time.Second, 1 << 30, time.Minute, time.Minute},
		{time.Minute, 0, time.Second, time.Second},
		{0, 5, time.Second, 0},
	} {
		if got := Double(tt.least, tt.n, tt.most); got != tt.want {
			t.Errorf("Double(%v, %d, %v) = %v; want %v", tt.least, tt.n, tt.most, got, tt.want)
		}
	}
}

func TestJitter(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 2, 3, time.Second} {
		for range 1000 {
			if got := Jitter(d); got < d/2 || got > d {
				t.Fatalf("Jitter(%v) = %v; want at least half of it, and no more than it", d, got)
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{Least: time.Second, Most: 3 * time.Second}
		for i, longest := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
			begun := time.Now()
			if !b.Sleep(t.Context()) {
				t.Fatal("ended early")
			}
			if got := time.Since(begun); got < longest/2 || got > longest {
				t.Errorf("failure %d: waited %v; want between %v and %v", i+1, got, longest/2, longest)
			}
		}
		b.Reset()
		if got := b.Next(); got > time.Second {
			t.Errorf("after a success: %v; want at most 1s", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if b.Sleep(ctx) {
			t.Error("slept though the context had ended")
		}
	})
}
