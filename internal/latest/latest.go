// Package latest holds the newest of a series of values for readers who wait for the next.
package latest

import (
	"sync"
)

// Value holds the newest of a series of immutable values, such as the snapshots of discovery, for any number of
// readers. The zero value is empty and ready to use.
type Value[T any] struct {
	mu    sync.Mutex // guards both fields, so that a value always comes with the channel of its successor
	value *T
	next  chan struct{}
}

// Set publishes v, which must not be changed any more. It never blocks.
func (l *Value[T]) Set(v *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value = v
	if l.next != nil {
		close(l.next)
		l.next = nil
	}
}

// Get returns the newest value, nil if there was none, and a channel that closes at the next one.
func (l *Value[T]) Get() (*T, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = make(chan struct{})
	}
	return l.value, l.next
}
