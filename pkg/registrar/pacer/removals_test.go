package pacer

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// registering stands for groups whose registrations are throttled, over and over, until ctx ends; every accepted-th call
// is accepted and its group done, 0: none is. It returns how many calls have gone out.
func registering(ctx context.Context, p *Pacer, groups, accepted int) *atomic.Int64 {
	var calls atomic.Int64
	for range groups {
		go func() {
			for again := false; ctx.Err() == nil; again = true {
				permit := p.Ask(ClassRegister, again)
				select {
				case <-permit.Ready():
				case <-ctx.Done():
					permit.Drop()
					return
				}
				n := calls.Add(1)
				time.Sleep(50 * time.Millisecond)
				if accepted > 0 && n%int64(accepted) == 0 {
					permit.Done(Accepted)
					return
				}
				permit.Done(Throttled)
			}
		}()
	}
	return &calls
}

// The first attempt of a removal is the next call that goes out, however long registrations have waited: requests fail
// until it has. Nobody starves, since each removal has one first attempt.
func TestPacer_firstRemovalGoesNext(t *testing.T) {
	for _, accepted := range []int{0, 3} { // none, one in three
		for _, peers := range []int{1, 100, 1000} {
			for _, waited := range []time.Duration{time.Second, 40 * time.Second, 10 * time.Minute} {
				t.Run(fmt.Sprintf("peers=%d accepted=%d after=%s", peers, accepted, waited), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						ctx, cancel := context.WithCancel(t.Context())
						p := New(nil)
						p.SetPeers(peers)
						p.SetServing()
						throttle(p)
						calls := registering(ctx, p, 20, accepted)
						time.Sleep(waited)
						synctest.Wait()
						before := calls.Load()
						removal := p.Ask(ClassDeregister, false)
						<-removal.Ready()
						if n := calls.Load() - before; n > 0 {
							t.Errorf("%d registrations went before it; want none", n)
						}
						removal.Done(Accepted)
						cancel()
						synctest.Wait()
						time.Sleep(time.Second) // calls under way
					})
				})
			}
		}
	}
}

// Calls that were under way together when the limit was met have learned one thing, once: the interval is what a single
// throttled call sets.
func TestPacer_throttledSideBySideCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.SetPeers(1)
		first := p.Ask(ClassDescribe, false)
		<-first.Ready()
		first.Done(Accepted)
		var burst []*Permit
		for range 5 {
			burst = append(burst, p.Ask(ClassDeregister, false))
		}
		for range 3 {
			burst = append(burst, p.Ask(ClassRegister, false))
		}
		for _, permit := range burst {
			<-permit.Ready()
		}
		for _, permit := range burst {
			permit.Done(Throttled)
		}
		if got := p.Interval(); got != time.Second {
			t.Errorf("the interval is %s after a burst of %d throttled calls; want 1s, as after one", got, len(burst))
		}
	})
}
