package chaos

import (
	"context"
	"sync"
	"testing"
	"time"

	"berth/test/harness"
	"berth/test/rig"
)

// answer is one request that a container of another service answered.
type answer struct {
	group    string
	identity harness.Identity
	from, to time.Time // when it was sent and answered
}

// clients send requests to every service, and note who answers.
type clients struct {
	wg     sync.WaitGroup
	cancel context.CancelFunc

	mu       sync.Mutex // guards what follows: several clients count
	answered int
	failed   int
	foreign  []answer
}

// startClients begins to send requests, two at a time to each service.
func startClients(t *testing.T, r *rig.Rig) *clients {
	ctx, cancel := context.WithCancel(t.Context())
	c := &clients{cancel: cancel}
	for _, service := range services {
		for range 2 {
			c.wg.Go(func() { c.ask(ctx, service, r.URL(service)) })
		}
	}
	t.Cleanup(c.end)
	return c
}

// end returns when the last request is answered.
func (c *clients) end() {
	c.cancel()
	c.wg.Wait()
}

func (c *clients) ask(ctx context.Context, group, url string) {
	for ctx.Err() == nil {
		begun := time.Now()
		// A paused container answers when it goes on: nobody waits for that.
		request, cancel := context.WithTimeout(ctx, 2*time.Second)
		identity, err := harness.AskAt(request, url)
		cancel()
		c.note(answer{group: group, identity: identity, from: begun, to: time.Now()}, err)
		pause(ctx, 5*time.Millisecond)
	}
}

func (c *clients) note(a answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.failed++
	case a.identity.Service != a.group:
		c.foreign = append(c.foreign, a)
		c.answered++
	default:
		c.answered++
	}
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
