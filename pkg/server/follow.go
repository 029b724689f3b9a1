package server

import (
	"slices"
	"sync"
	"time"
)

// followLinger is how long a group is still followed after the last client that asked for it was answered: somebody
// who polls asks again within that time.
const followLinger = 10 * time.Second

// follower keeps the registrar looking often at the groups for which clients wait. A group is followed once, however
// many ask.
type follower struct {
	follow func(keys []string) (stop func())

	mu     sync.Mutex // guards what follows
	groups map[string]*followed
	closed bool
}

type followed struct {
	holders int
	stop    func()
	linger  *time.Timer // runs while nobody holds it
}

func newFollower(follow func(keys []string) (stop func())) *follower {
	return &follower{follow: follow, groups: map[string]*followed{}}
}

// hold follows the groups until release is called and followLinger has passed without another hold. release may be
// called more than once.
func (f *follower) hold(keys []string) (release func()) {
	if f.follow == nil || len(keys) == 0 {
		return func() {}
	}
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return func() {}
	}
	for _, key := range keys {
		g, ok := f.groups[key]
		if !ok {
			g = &followed{stop: f.follow([]string{key})}
			f.groups[key] = g
		}
		if g.linger != nil {
			g.linger.Stop()
			g.linger = nil
		}
		g.holders++
	}
	return sync.OnceFunc(func() { f.release(keys) })
}

func (f *follower) release(keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		g, ok := f.groups[key]
		if !ok {
			continue // closed meanwhile
		}
		if g.holders--; g.holders == 0 {
			g.linger = time.AfterFunc(followLinger, func() { f.expire(key, g) })
		}
	}
}

// expire ends the following of a group, unless somebody has taken it up again since the timer fired.
func (f *follower) expire(key string, g *followed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.groups[key] != g || g.holders > 0 {
		return
	}
	g.stop()
	delete(f.groups, key)
}

// close ends all following; later holds do nothing.
func (f *follower) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, g := range f.groups {
		if g.linger != nil {
			g.linger.Stop()
		}
		g.stop()
	}
	clear(f.groups)
}
