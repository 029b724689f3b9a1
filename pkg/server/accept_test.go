package server

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// poor is a listener whose first accept fails.
type poor struct {
	net.Listener
	err    syscall.Errno
	failed atomic.Bool
}

func (p *poor) Accept() (net.Conn, error) {
	if p.failed.Swap(true) {
		return p.Listener.Accept()
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: p.Addr(), Err: os.NewSyscallError("accept4", p.err)}
}

// A listener that cannot accept for a moment ends nothing: what removes targets goes on, and the port answers again.
func TestServer_Run_acceptFails(t *testing.T) {
	for _, e := range []syscall.Errno{syscall.ENOMEM, syscall.ENOBUFS, syscall.EPERM, syscall.ENETDOWN} {
		t.Run(e.Error(), func(t *testing.T) {
			var a agent
			a.well()
			cfg := a.config()
			cfg.Listen = "127.0.0.1:0"
			s, err := Listen(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			s.listeners[0].Listener = &poor{Listener: s.listeners[0].Listener, err: e}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for !answers(t, client, "http://"+s.Addr("--listen").String()+"/healthz") {
				select {
				case err := <-ended:
					t.Fatalf("the server ended with %v; want it to go on", err)
				case <-time.After(10 * time.Millisecond):
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// answers reports whether a server answers a request.
func answers(t *testing.T, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return true
}
