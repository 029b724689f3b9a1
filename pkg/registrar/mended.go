package registrar

import "sync"

// mended tells when something that held everybody up has been mended.
type mended struct {
	mu sync.Mutex
	c  chan struct{} // closed and replaced each time
}

func newMended() *mended { return &mended{c: make(chan struct{})} }

func (m *mended) now() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.c)
	m.c = make(chan struct{})
}

// next returns a channel that closes the next time: another one than before means that it has happened meanwhile.
func (m *mended) next() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.c
}
