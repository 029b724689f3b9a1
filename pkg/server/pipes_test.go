package server

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
)

// pipes are listeners in memory, for servers inside synctest bubbles.
type pipes struct {
	mu   sync.Mutex // guards open
	open map[string]*pipe
}

type pipe struct {
	of      *pipes
	address string
	conns   chan net.Conn
	closed  chan struct{}
}

func newPipes() *pipes { return &pipes{open: map[string]*pipe{}} }

// listen is Config.Listener.
func (p *pipes) listen(_ context.Context, _, _, address string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[address] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &pipe{p, address, make(chan net.Conn), make(chan struct{})}
	p.open[address] = l
	return l, nil
}

// dial connects to who listens, and closes the connection with the test.
func (p *pipes) dial(t *testing.T, address string) net.Conn {
	t.Helper()
	p.mu.Lock()
	l := p.open[address]
	p.mu.Unlock()
	if l == nil {
		t.Fatalf("nobody listens on %s", address)
	}
	near, far := net.Pipe()
	l.conns <- far
	t.Cleanup(func() { _ = near.Close() })
	return near
}

// listening returns how many listeners are open.
func (p *pipes) listening() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

func (l *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipe) Close() error {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if l.of.open[l.address] == l {
		delete(l.of.open, l.address)
		close(l.closed)
	}
	return nil
}

func (l *pipe) Addr() net.Addr { return &net.UnixAddr{Name: l.address} }
