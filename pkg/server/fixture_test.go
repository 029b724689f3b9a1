package server

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/internal/latest"
	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/status"
	"berth/pkg/status/statustest"
)

// agent stands for the rest of the process: what discovery and the registrar publish.
type agent struct {
	disc latest.Value[discovery.Snapshot]
	reg  latest.Value[registrar.Snapshot]

	mu        sync.Mutex // guards following
	following map[string]int
	taken     chan struct{} // gets a value when a group is followed; may be nil
	host      status.Host
	checks    []status.Check
	control   http.HandlerFunc
	beat      time.Time
}

func (a *agent) config() Config {
	return Config{
		Build:     status.Build{Version: "1.2.3", Revision: "0123abc", GoVersion: "go1.26"},
		Registry:  prometheus.NewRegistry(),
		Discovery: a.disc.Get,
		Registrar: a.reg.Get,
		Follow:    a.follow,
		Host:      func() status.Host { return a.host },
		Checks:    func() []status.Check { return a.checks },
		Loops:     []Loop{{Name: "watcher", Beat: func() time.Time { return a.beat }}},
	}
}

func (a *agent) follow(keys []string) func() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.following == nil {
		a.following = map[string]int{}
	}
	for _, k := range keys {
		a.following[k]++
	}
	if a.taken != nil {
		a.taken <- struct{}{}
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, k := range keys {
			if a.following[k]--; a.following[k] == 0 {
				delete(a.following, k)
			}
		}
	}
}

func (a *agent) followed() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]int{}
	for k, n := range a.following {
		out[k] = n
	}
	return out
}

// well publishes a host with one healthy container.
func (a *agent) well() {
	d, r := statustest.Well()
	a.host = status.Host{InstanceID: statustest.Instance, Region: "eu-central-1"}
	a.disc.Set(d)
	a.reg.Set(r)
}

// unserved returns a server for its handlers alone.
func unserved(t *testing.T, a *agent) *Server {
	t.Helper()
	s, err := Listen(t.Context(), a.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); s.socket.follower.close() })
	return s
}

// get asks a handler.
func get(t *testing.T, h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec
}

// serving starts a server on loopback ports and a socket, and ends it with the test.
func serving(t *testing.T, a *agent, lim limits) *Server {
	t.Helper()
	cfg := a.config()
	cfg.Listen, cfg.StatusListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Socket = filepath.Join(t.TempDir(), "berth.sock")
	if a.control != nil {
		cfg.Control = a.control
	}
	s, err := listen(t.Context(), cfg, lim)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v; want nil after its context ended", err)
		}
	})
	return s
}

// dial connects to a listener of a server and closes the connection with the test.
func dial(t *testing.T, s *Server, name string) net.Conn {
	t.Helper()
	addr := s.Addr(name)
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
