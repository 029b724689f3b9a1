package registrar

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
)

// TestRegistrar_Turned: the loop says when it turned, while it waits for this host's identity and afterwards, by a clock
// that nobody sets: else a step back makes every beat look older than the agent, and the watchdog ends a loop that turns.
func TestRegistrar_Turned(t *testing.T) {
	known := make(chan struct{})
	r := New(func(ctx context.Context) (elb.API, elb.Self, error) {
		select {
		case <-known:
		case <-ctx.Done():
		}
		return nil, elb.Self{}, ctx.Err()
	}, ledger.NewMemory(), Options{})
	if at := r.Turned(); !at.IsZero() {
		t.Errorf("before Run: got %s; want the zero time", at)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := async(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	turnedAfter := func(before time.Time) time.Time {
		for !r.Turned().After(before) && t.Context().Err() == nil {
			runtime.Gosched()
		}
		if at := r.Turned().String(); !strings.Contains(at, " m=") { // as time.Time prints its monotonic reading
			t.Errorf("the loop last turned at %s; want a time with its monotonic reading", at)
		}
		return r.Turned()
	}
	waiting := turnedAfter(time.Time{})
	close(known)
	turnedAfter(waiting)
	cancel()
	<-ended
}
