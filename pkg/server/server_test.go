package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"berth/pkg/client"
	"berth/pkg/status/statustest"
)

// fetch asks a listener for a path over a connection of its own and returns the status and the body.
func fetch(t *testing.T, s *Server, name, path string) (int, string) {
	t.Helper()
	return exchange(t, dial(t, s, name), "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

// exchange sends a request as it is and reads the answer.
func exchange(t *testing.T, conn net.Conn, request string) (int, string) {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return resp.StatusCode, string(body)
}

func TestServer_everyListener(t *testing.T) {
	a := agent{beat: time.Now()}
	a.well()
	s := serving(t, &a, defaultLimits())
	for _, tt := range []struct {
		listener, path, want string
		code                 int
	}{
		{"--listen", "/metrics", "berth_targets_desired", 200},
		{"--listen", "/readyz", "ready\n", 200},
		{"--listen", "/healthz", "ok\n", 200},
		{"--listen", "/v1/status", "", 404},
		{"--status-listen", "/v1/status", `"api":"v1"`, 200},
		{"--status-listen", "/", "<h1>berth", 200},
		{"control socket", "/v1/status", `"api":"v1"`, 200},
		{"control socket", "/readyz", "ready\n", 200},
	} {
		code, body := fetch(t, s, tt.listener, tt.path)
		if code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s: got %d %s; want %d with %q", tt.listener, tt.path, code, body, tt.code, tt.want)
		}
	}
	if s.Addr("no such") != nil {
		t.Error("a listener that is not there has an address")
	}
}

// An address that another process has is said everywhere, and keeps nothing else from being served. When it is free the
// agent listens on it.
func TestServer_addressInUse(t *testing.T) {
	for flag, set := range map[string]func(*Config, string){
		"--listen":        func(c *Config, addr string) { c.Listen, c.StatusListen = addr, "127.0.0.1:0" },
		"--status-listen": func(c *Config, addr string) { c.Listen, c.StatusListen = "127.0.0.1:0", addr },
	} {
		synctest.Test(t, func(t *testing.T) {
			var free atomic.Bool
			network := newPipes()
			key, other := "listen", "--status-listen"
			if flag == other {
				key, other = "status_listen", "--listen"
			}
			var a agent
			a.well()
			cfg := a.config()
			set(&cfg, "127.0.0.1:9797")
			core, logs := observer.New(zap.InfoLevel)
			cfg.Log = zap.New(core)
			cfg.Listener = func(ctx context.Context, name, net, address string) (net.Listener, error) {
				if name == flag && !free.Load() {
					return nil, fmt.Errorf("bind: %w", syscall.EADDRINUSE)
				}
				return network.listen(ctx, name, net, address)
			}
			s, err := Listen(t.Context(), cfg)
			if err != nil {
				t.Fatalf("%s: %v; want a server without it", flag, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			time.Sleep(time.Hour)
			said := func(level zapcore.Level, message string) int {
				return logs.FilterLevelExact(level).FilterMessage(message).FilterField(zap.String("listener", flag)).Len()
			}
			if n := said(zap.ErrorLevel, "clients are not answered, trying again"); n != 1 {
				t.Errorf("%s: %d errors in the log after an hour; want 1: %v", flag, n, logs.All())
			}
			if r := s.Readiness(); !r.Ready || !strings.Contains(r.Text(), "[warn] "+key+": listen on 127.0.0.1:9797 ("+flag+"): bind: address already in use; trying again, for 1h0m0s (free the address") {
				t.Errorf("%s: ready %v:\n%s", flag, r.Ready, r.Text())
			}
			if up := s.listening(); up[key] || len(up) != 2 {
				t.Errorf("%s: up: %v", flag, up)
			}
			if s.Addr(flag) != nil || s.Addr(other) == nil {
				t.Errorf("%s: listens on %v, the other on %v", flag, s.Addr(flag), s.Addr(other))
			}
			free.Store(true)
			time.Sleep(reopenMost)
			synctest.Wait()
			if up := s.listening(); !up[key] || s.Addr(flag) == nil || strings.Contains(s.Readiness().Text(), key) {
				t.Errorf("%s: free again: up %v:\n%s", flag, up, s.Readiness().Text())
			}
			if n := said(zap.InfoLevel, "clients are answered again"); n != 1 {
				t.Errorf("%s: %d times that it is answered again; want 1", flag, n)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("%s: Run: %v", flag, err)
			}
		})
	}
}

// The control socket is the agent's own: one that cannot be opened says that another agent runs, or that nobody could ask.
func TestListen_socketInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.sock")
	first, err := listenSocket(t, path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if s, err := listenSocket(t, path, ""); err == nil {
		s.Close()
		t.Error("a second agent listens; want an error")
	} else if !strings.Contains(err.Error(), "another agent answers on it") {
		t.Errorf("got %v", err)
	}
}

func TestExplainListen(t *testing.T) {
	for _, err := range []error{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.EACCES} {
		if got := explainListen(err); !errors.Is(got, err) || got.Error() == err.Error() {
			t.Errorf("%v: got %q; want what to do, and the cause", err, got)
		}
	}
	if got := explainListen(syscall.EMFILE); !errors.Is(got, syscall.EMFILE) || got.Error() != syscall.EMFILE.Error() {
		t.Errorf("another error: got %q; want it as it is", got)
	}
}

func listenSocket(t *testing.T, path, group string) (*Server, error) {
	t.Helper()
	var a agent
	cfg := a.config()
	cfg.Socket, cfg.SocketGroup = path, group
	return Listen(t.Context(), cfg)
}

func TestListen_socketRights(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "berth")
	path := filepath.Join(dir, "berth.sock")
	s, err := listenSocket(t, path, "no-such-group-here")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|0o660; got != want {
		t.Errorf("mode: got %v; want %v", got, want)
	}
	s.Close()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestListen_staleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.sock")
	// What an agent that was killed leaves: a socket on which nobody listens.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	s, err := listenSocket(t, path, "")
	if err != nil {
		t.Fatalf("a stale socket is not replaced: %v", err)
	}
	defer s.Close()

	second, err := listenSocket(t, path, "")
	if err == nil {
		second.Close()
		t.Fatal("the socket of a running agent was taken over")
	}
	if !strings.Contains(err.Error(), "another agent answers") || !strings.Contains(err.Error(), path) {
		t.Errorf("got %q; want it to name the socket and the other agent", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first agent's socket is gone: %v", err)
	} else {
		_ = conn.Close()
	}
}

// An agent that ends late must not take its successor's socket away.
func TestServer_Close_successor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.sock")
	first, err := listenSocket(t, path, "")
	if err != nil {
		t.Fatal(err)
	}
	_ = first.listeners[0].Close() // it does not answer any more, and has not cleaned up
	second, err := listenSocket(t, path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
}

func TestListen_socketErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", maxSocketPath))
	for path, want := range map[string]string{
		file:                          "a file that is no socket is in its place",
		filepath.Join(file, "b.sock"): "not a directory",
		long:                          "longer than 107 bytes",
	} {
		s, err := listenSocket(t, path, "")
		if err == nil {
			s.Close()
			t.Errorf("%s: got no error", path)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q; want it to contain %q", path, err, want)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "precious" {
		t.Errorf("the file in the way: got %q, %v; want it untouched", data, err)
	}
}

func TestExplainSocket(t *testing.T) {
	denied := &fs.PathError{Op: "mkdir", Path: "/run/x", Err: syscall.EACCES}
	want := fmt.Sprintf("mkdir /run/x: permission denied: make /run/x a directory that uid %d may write to", os.Geteuid())
	if got := explainSocket("/run/x/berth.sock", denied); !strings.HasPrefix(got.Error(), want) || !errors.Is(got, fs.ErrPermission) {
		t.Errorf("got %v; want %s …", got, want)
	}
	if other := errors.New("other"); !errors.Is(explainSocket("/run/x/berth.sock", other), other) {
		t.Error("another error is no longer itself")
	}
}

// The kernel limits the name under which a socket is made as well as the one it gets.
func TestMakingName(t *testing.T) {
	for path, want := range map[string]string{
		"/run/berth/berth.sock": "/run/berth/_erth.sock",
		"/run/_berth.sock":      "/run/-berth.sock",
		"/s":                    "/_",
	} {
		if got := makingName(path); got != want {
			t.Errorf("%s: got %s; want %s", path, got, want)
		}
	}
}

func TestGiveToGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "socket")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"", "no-such-group-here"} {
		if err := giveToGroup(file, group); err != nil {
			t.Errorf("group %q: got %v; want nil", group, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may give a file to any group")
	}
	if err := giveToGroup(file, "daemon"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Gid != 1 {
		t.Errorf("owner: got %+v; want group daemon (1)", info.Sys())
	}
}

// A client that sends nothing, and one that never reads what it asked for, are cut; the others are served meanwhile.
func TestServer_idleClients(t *testing.T) {
	var a agent
	a.well()
	lim := defaultLimits()
	lim.header, lim.read, lim.write = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	s := serving(t, &a, lim)
	for _, name := range []string{"--listen", "--status-listen", "control socket"} {
		silent := dial(t, s, name)
		if n, err := io.Copy(io.Discard, silent); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: a silent client got %d bytes, %v; want the end", name, n, err)
		}
		slow := dial(t, s, name)
		if _, err := io.WriteString(slow, "GET / HTTP/1.1\r\nHost: localhost\r\nX-"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, slow); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: a slow client got %v; want the end", name, err)
		}
	}
}

// A client asks again and again and reads nothing: what it is owed does not pile up, and it is cut.
func TestServer_clientNeverReads(t *testing.T) {
	var a agent
	a.well()
	lim := defaultLimits()
	lim.write = 50 * time.Millisecond
	s := serving(t, &a, lim)
	conn := dial(t, s, "control socket")
	for {
		// Writing blocks when the server has stopped reading, and fails once it has cut the connection.
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			break
		}
	}
	if code, _ := fetch(t, s, "control socket", "/readyz"); code != http.StatusOK {
		t.Errorf("another client: got %d; want 200", code)
	}
}

func TestServer_tooManyClients(t *testing.T) {
	var a agent
	a.well()
	lim := defaultLimits()
	lim.conns, lim.header = 3, time.Hour
	s := serving(t, &a, lim)
	var holders []net.Conn
	for range lim.conns {
		conn := dial(t, s, "control socket")
		// An answer proves that the connection has its place.
		if code, _ := exchange(t, conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); code == 0 {
			t.Fatal("no answer")
		}
		holders = append(holders, conn)
	}
	code, body := fetch(t, s, "control socket", "/v1/status")
	if code != http.StatusServiceUnavailable || body != turnedAwayBody {
		t.Errorf("one too many: got %d %q; want 503 %q", code, body, turnedAwayBody)
	}
	_ = holders[0].Close()
	for { // its place is free as soon as the server has seen that
		if code, _ := fetch(t, s, "control socket", "/v1/status"); code == http.StatusOK {
			break
		}
	}
}

func TestServer_nonsense(t *testing.T) {
	var a agent
	a.well()
	core, logs := observer.New(zap.InfoLevel)
	cfg := a.config()
	cfg.StatusListen, cfg.Log = "127.0.0.1:0", zap.New(core)
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for name, request := range map[string]string{
		"no HTTP":    "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\r\n\r\n",
		"no host":    "GET /v1/status HTTP/1.1\r\n\r\n",
		"bad length": "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
	} {
		if code, body := exchange(t, dial(t, s, "--status-listen"), request); code < 400 || code >= 500 {
			t.Errorf("%s: got %d %s; want a 4xx", name, code, body)
		}
	}
	// The server stops reading a header that is too big, so the client may see a reset instead of the answer.
	big := dial(t, s, "--status-listen")
	_, _ = io.WriteString(big, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 256<<10)+"\r\n\r\n")
	if answer, _ := io.ReadAll(big); strings.Contains(string(answer), `"api"`) {
		t.Error("a header of 256 KiB was taken")
	}
	if code, _ := fetch(t, s, "--status-listen", "/v1/status"); code != http.StatusOK {
		t.Errorf("afterwards: got %d; want 200", code)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: got %v", err)
	}
	if n := logs.FilterLevelExact(zap.ErrorLevel).Len() + logs.FilterLevelExact(zap.WarnLevel).Len(); n != 0 {
		t.Errorf("clients' nonsense filled the log: %v", logs.All())
	}
}

// A page on the web whose name points here must not read the status through somebody's browser.
func TestServer_foreignName(t *testing.T) {
	var a agent
	a.well()
	s := serving(t, &a, defaultLimits())
	for host, want := range map[string]int{
		"attacker.example": 403, "attacker.example:9798": 403, "localhost": 200, "localhost:9798": 200,
		"127.0.0.1": 200, "127.0.0.1:9798": 200, "[::1]:9798": 200,
	} {
		code, body := exchange(t, dial(t, s, "--status-listen"),
			"GET /v1/status HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if code != want {
			t.Errorf("Host %s: got %d %s; want %d", host, code, body, want)
		}
	}
	// Other hosts reach a monitoring listener under any name.
	if code, _ := exchange(t, dial(t, s, "--listen"), "GET /readyz HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n"); code != 200 {
		t.Errorf("/readyz under a name: got %d; want 200", code)
	}
}

func TestLocalOnly_otherAddresses(t *testing.T) {
	h := http.NotFoundHandler()
	for _, addr := range []string{":9798", "10.0.0.7:9798", "status.example:9798"} {
		rec := get(t, localOnly(addr, h), "http://anything.example/")
		if rec.Code != http.StatusNotFound {
			t.Errorf("%s: got %d; want the request to pass", addr, rec.Code)
		}
	}
}

// A listener that breaks, the control socket included, is opened again, and clients are answered as before.
func TestServer_Run_listenerBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		var a agent
		a.well()
		cfg := a.config()
		cfg.Listen, cfg.StatusListen, cfg.Socket, cfg.Listener = ":9797", "127.0.0.1:9798", "/run/berth.sock", network.listen
		core, logs := observer.New(zap.ErrorLevel)
		cfg.Log = zap.New(core)
		s, err := Listen(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		for i, l := range s.listeners {
			_ = l.Close()
			synctest.Wait()
			if up := s.listening(); up[l.key] || logs.Len() != i+1 {
				t.Errorf("%s broken: up %v, log %v", l.name, up, logs.All())
			}
			time.Sleep(2 * reopenLeast)
			synctest.Wait()
			if code, body := exchange(t, network.dial(t, l.address), "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); code != http.StatusOK {
				t.Errorf("%s: %d %s", l.name, code, body)
			}
			if up := s.listening(); !up[l.key] {
				t.Errorf("%s open again: up %v", l.name, up)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := network.listening(); n != 0 {
			t.Errorf("%d listeners are left open", n)
		}
	})
}

// failing is a listener of which every other accept fails.
type failing struct {
	net.Listener
	accepted int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.accepted++; f.accepted%2 == 1 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: f.Addr(), Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

// Trouble that comes and goes with every connection does not fill the log.
func TestServer_Run_acceptFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		var a agent
		a.well()
		cfg := a.config()
		cfg.Listen, cfg.Listener = ":9797", network.listen
		core, logs := observer.New(zap.InfoLevel)
		cfg.Log = zap.New(core)
		s, err := Listen(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.listeners[0].Listener = &failing{Listener: s.listeners[0].Listener}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		if text := s.Readiness().Text(); !strings.Contains(text, "[warn] listen: accept") || !strings.Contains(text, "LimitNOFILE") {
			t.Errorf("while it fails:\n%s", text)
		}
		for range 600 { // ten minutes
			conn := network.dial(t, ":9797")
			exchange(t, conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			_ = conn.Close()
			time.Sleep(time.Second)
		}
		if n := logs.FilterLevelExact(zap.ErrorLevel).Len(); n < 1 || n > 11 {
			t.Errorf("%d errors in the log; want about one a minute", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A handler that panics ends its own request, and is said.
func TestServer_Run_handlerPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		var a agent
		a.well()
		cfg := a.config()
		cfg.Socket, cfg.Listener = "/run/berth.sock", network.listen
		cfg.Control = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("told to panic") })
		core, logs := observer.New(zap.InfoLevel)
		cfg.Log = zap.New(core)
		s, err := Listen(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		conn := network.dial(t, cfg.Socket)
		if _, err := io.WriteString(conn, "POST /v1/reload HTTP/1.1\r\nHost: berth\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v; want the connection closed", err)
		}
		synctest.Wait()
		said := logs.FilterLevelExact(zap.ErrorLevel).All()
		if len(said) != 1 || !strings.Contains(fmt.Sprintf("%s", said[0].ContextMap()["message"]), "told to panic") {
			t.Errorf("errors in the log: %v; want the panic", said)
		}
		if code, _ := exchange(t, network.dial(t, cfg.Socket), "GET /readyz HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n\r\n"); code != http.StatusOK {
			t.Errorf("afterwards: %d", code)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// Long polls do not hold the end of the agent up.
func TestServer_Run_endsWithLongPoll(t *testing.T) {
	a := agent{taken: make(chan struct{}, 1)}
	a.well()
	cfg := a.config()
	cfg.Socket = filepath.Join(t.TempDir(), "berth.sock")
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	api := client.New(cfg.Socket, "")
	defer api.Close()
	answer := make(chan error, 1)
	go func() {
		_, err := api.Status(context.WithoutCancel(ctx), client.StatusQuery{Follow: []string{"*"}, After: s.Status().Revision})
		answer <- err
	}()
	<-a.taken // the poll has been taken in
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: got %v; want nil", err)
	}
	if err := <-answer; err != nil {
		t.Errorf("the poll: got %v; want an answer", err)
	}
	if got := a.followed(); len(got) != 0 {
		t.Errorf("still followed: %v", got)
	}
}

// The time for sending a request is no bound on the wait for its answer.
func TestServer_longPollOutlivesReadTimeout(t *testing.T) {
	a := agent{taken: make(chan struct{}, 1)}
	a.well()
	lim := defaultLimits()
	lim.header, lim.read = 20*time.Millisecond, 20*time.Millisecond
	s := serving(t, &a, lim)
	before := s.Status().Revision
	c := client.New(s.cfg.Socket, "")
	defer c.Close()
	change := time.AfterFunc(10*lim.read, func() {
		d := statustest.Discovery()
		d.Seq = 2
		a.disc.Set(d)
	})
	defer change.Stop()
	got, err := c.Status(t.Context(), client.StatusQuery{Follow: []string{"web"}, After: before})
	if err != nil || got.Seq != 2 {
		t.Errorf("got seq %d, %v; want the change, 2", got.Seq, err)
	}
}

// The kernel lets in root and the socket's group, and nobody else.
func TestListen_socketRefusesOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "berth.sock")
	s, err := listenSocket(t, path, "daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := dialAs(path, 65534, 65534); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("nobody: got %v; want permission denied", err)
	}
	if err := dialAs(path, 65534, 1); err != nil {
		t.Errorf("a member of the group: got %v; want nil", err)
	}
}

// dialAs connects with the file system rights of a user and a group.
func dialAs(path string, uid, gid int) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never back: the thread ends with the goroutine
		if err := errors.Join(syscall.Setfsgid(gid), syscall.Setfsuid(uid)); err != nil {
			result <- err
			return
		}
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close()
		}
		result <- err
	}()
	return <-result
}

// What changes something is served over the control socket alone, and knows who asks.
func TestServer_control(t *testing.T) {
	a := agent{control: func(w http.ResponseWriter, r *http.Request) {
		peer, ok := PeerOf(r.Context())
		if !ok {
			writeError(w, http.StatusInternalServerError, "nobody")
			return
		}
		writeText(w, http.StatusOK, r.Method+" "+r.URL.Path+" by "+peer.String())
	}}
	a.well()
	s := serving(t, &a, defaultLimits())
	post := "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	code, body := exchange(t, dial(t, s, "control socket"), post)
	if want := fmt.Sprintf("POST /v1/reload by uid %d, pid %d", os.Geteuid(), os.Getpid()); code != 200 || body != want {
		t.Errorf("over the socket: got %d %s; want %s", code, body, want)
	}
	for _, name := range []string{"--listen", "--status-listen"} {
		if code, body := exchange(t, dial(t, s, name), post); code != http.StatusNotFound && code != http.StatusMethodNotAllowed {
			t.Errorf("over %s: got %d %s; want it refused", name, code, body)
		}
	}
	for _, path := range []string{"/v1/status", "/", "/readyz"} {
		if code, body := fetch(t, s, "control socket", path); code != 200 || strings.Contains(body, "by uid") {
			t.Errorf("%s: got %d %s; want the server's own", path, code, body)
		}
	}
	if _, ok := PeerOf(t.Context()); ok {
		t.Error("a context of no request has a peer")
	}
}

// A thousand clients that say nothing cost what the limits allow, and go when their time is over.
func TestServer_thousandClients(t *testing.T) {
	var a agent
	a.well()
	lim := defaultLimits()
	lim.header = 100 * time.Millisecond
	s := serving(t, &a, lim)
	before := runtime.NumGoroutine()
	most := 0
	for range 1000 {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "unix", s.cfg.Socket)
		if err != nil {
			continue // the kernel's queue is full: not ours to hold
		}
		defer func() { _ = conn.Close() }()
		most = max(most, runtime.NumGoroutine()-before)
	}
	// One goroutine a connection, one for each that is turned away, and the two of the test's HTTP server.
	if allowed := lim.conns + lim.turning + 8; most > allowed {
		t.Errorf("%d goroutines serve a thousand clients; want at most %d", most, allowed)
	}
	for {
		conn := dial(t, s, "control socket")
		if _, err := io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
			continue // closed at once: too many are being turned away
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			break
		}
	}
}
