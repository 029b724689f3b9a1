// Package chaos shows that what holds for each thing that can happen holds for all of them at once: random lives of
// twenty containers, an engine that restarts, an event stream that breaks, an agent that is killed and one that is
// stopped, each followed by another one, and clients who notice all of it.
//
//	chaos_test.go  the run, and what must be true of it
//	proxy.go       the engine's socket, with connections that can be cut
//	clients.go     requests through the load balancers, and who answered them
//	lives.go       what happens to containers, at random
package chaos

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// proxy stands before an engine's socket. Its connections can be cut.
type proxy struct {
	path     string // its own socket
	engine   string // the engine's
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex // guards conns: connections come and go
	conns map[net.Conn]bool
}

// startProxy begins to forward. It ends with the test.
func startProxy(t testing.TB, engine string) *proxy {
	t.Helper()
	p := &proxy{path: filepath.Join(t.TempDir(), "d.sock"), engine: engine, conns: map[net.Conn]bool{}}
	var err error
	if p.listener, err = (&net.ListenConfig{}).Listen(t.Context(), "unix", p.path); err != nil {
		t.Fatal(err)
	}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = p.listener.Close() // accept ends
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.forward(conn) })
	}
}

// forward copies both ways until one side ends.
func (p *proxy) forward(conn net.Conn) {
	defer p.drop(conn)
	p.keep(conn)
	up, err := net.Dial("unix", p.engine)
	if err != nil {
		return // the engine is down: whoever connects sees the connection end
	}
	defer p.drop(up)
	p.keep(up)
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{conn, up}, {up, conn}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
	_, _ = conn.Close(), up.Close()
	<-done
}

func (p *proxy) keep(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[conn] = true
}

func (p *proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}

// cut closes every connection, the event stream's among them, and returns how many there were.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	return len(p.conns) / 2
}

// String names it in failures.
func (p *proxy) String() string { return fmt.Sprintf("%s before %s", p.path, p.engine) }
