package agenttest

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// Network is listeners in memory: what an agent listens on there is dialled there. It works inside synctest bubbles.
type Network struct {
	mu        sync.Mutex
	listeners map[address]*listener
}

// NewNetwork returns a network on which nobody listens.
func NewNetwork() *Network { return &Network{listeners: map[address]*listener{}} }

// Listen is agent.Options.Listeners.
func (n *Network) Listen(_ context.Context, _, network, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := address{network, addr}
	if n.listeners[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: at, Err: syscall.EADDRINUSE}
	}
	l := &listener{address: at, network: n, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

// Dial connects to whoever listens, as net.Dialer.DialContext does. A listener without a host has every host.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	at := address{network, addr}
	l := n.listeners[at]
	if _, port, err := net.SplitHostPort(addr); l == nil && err == nil {
		l = n.listeners[address{network, ":" + port}]
	}
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: network, Addr: at, Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	near, far := net.Pipe() // has deadlines
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: network, Addr: at, Err: ctx.Err()}
	}
}

// Listening returns how many listeners are open.
func (n *Network) Listening() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.listeners)
}

// address is where a listener is found.
type address struct{ network, address string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.address }

type listener struct {
	address
	network *Network
	conns   chan net.Conn
	closed  chan struct{}
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: l.address.network, Addr: l.address, Err: net.ErrClosed}
	}
}

// Close ends the listening. Connections stay.
func (l *listener) Close() error {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	if l.network.listeners[l.address] == l {
		delete(l.network.listeners, l.address)
		close(l.closed)
	}
	return nil
}

// Addr returns where it listens.
func (l *listener) Addr() net.Addr { return l.address }
