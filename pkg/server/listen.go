package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"berth/internal/backoff"
)

// maxSocketPath is what the kernel takes for a unix socket's path (sun_path, with its final zero).
const maxSocketPath = 107

// explainListen adds what to do to the errors that operators meet.
func explainListen(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another berth or another program has it; see: ss -ltnp", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: no interface of this host has that address", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: ports below 1024 need CAP_NET_BIND_SERVICE", err)
	default:
		return err
	}
}

// explainSocket adds what to do where the agent may not make its control socket: a first start without systemd.
func explainSocket(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return err
	}
	return fmt.Errorf("%w: make %s a directory that uid %d may write to (berth.service makes /run/berth), or name another place with --control-socket",
		err, filepath.Dir(path), os.Geteuid())
}

// listenUnix opens the control socket: mode 0660, group as given. A socket that nobody answers on is replaced, one
// that somebody answers on is an error. It is made under another name and moved into place, so that it never stands
// there with other rights.
func listenUnix(ctx context.Context, path, group string, log *zap.Logger) (net.Listener, func(), error) {
	fail := func(err error) (net.Listener, func(), error) {
		return nil, nil, fmt.Errorf("listen on control socket %s: %w", path, explainSocket(path, err))
	}
	path = filepath.Clean(path)
	if len(path) > maxSocketPath {
		return fail(fmt.Errorf("the path is longer than %d bytes", maxSocketPath))
	}
	making := makingName(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	if err := checkVacant(ctx, path); err != nil {
		return fail(err)
	}
	if err := os.Remove(making); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", making)
	if err != nil {
		return fail(err)
	}
	undo := func(err error) (net.Listener, func(), error) {
		_ = l.Close() // unlinks the socket
		return fail(err)
	}
	if err := os.Chmod(making, 0o660); err != nil {
		return undo(err)
	}
	if err := giveToGroup(making, group); err != nil {
		// The agent works without; whoever is in the group will be told that they are refused.
		log.Warn("control socket stays with the agent's own group",
			zap.String("socket", path), zap.String("group", group), zap.Error(err))
	}
	made, err := os.Lstat(making)
	if err != nil {
		return undo(err)
	}
	if err := os.Rename(making, path); err != nil {
		return undo(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would unlink the name it was made under
	}
	cleanup := func() {
		// Only ours: a successor may have put its own there.
		if there, err := os.Lstat(path); err == nil && os.SameFile(made, there) {
			_ = os.Remove(path)
		}
	}
	return l, cleanup, nil
}

// makingName is the name beside path under which its socket is made: no longer than path, because the kernel limits
// both.
func makingName(path string) string {
	dir, base := filepath.Split(path)
	if strings.HasPrefix(base, "_") {
		return dir + "-" + base[1:]
	}
	return dir + "_" + base[1:]
}

// checkVacant returns an error if path is something that must not be replaced.
func checkVacant(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("a file that is no socket is in its place; remove it or choose another path")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil // left behind by an agent that was killed
	}
	if err == nil {
		_ = conn.Close()
	}
	return errors.New("another agent answers on it; only one may run on a host")
}

// giveToGroup makes the named group the file's; no name, or no such group, leaves it as it is.
func giveToGroup(path, name string) error {
	if name == "" {
		return nil
	}
	g, err := user.LookupGroup(name)
	if unknown := user.UnknownGroupError(""); errors.As(err, &unknown) {
		return nil
	}
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %s: id %q: %w", name, g.Gid, err)
	}
	return os.Chown(path, -1, gid)
}

// turnedAwayBody is what a client beyond the limit reads.
const turnedAwayBody = `{"error":"too many clients are connected; try again"}` + "\n"

// turnedAway is the whole answer to a connection beyond the limit.
var turnedAway = fmt.Sprintf("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"+
	"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(turnedAwayBody), turnedAwayBody)

// gate is a listener that holds at most a fixed number of connections and turns the rest away with an answer,
// instead of letting them wait without one. What keeps it from accepting for a while does not end it.
type gate struct {
	net.Listener
	slots   chan struct{}
	turning chan struct{}
	// accepts is told what came of each accept that does not end the listener; nil: a connection.
	accepts func(error)
	closed  chan struct{}
	close   func() error
}

func newGate(l net.Listener, lim limits, accepts func(error)) *gate {
	g := &gate{
		Listener: l, slots: make(chan struct{}, lim.conns), turning: make(chan struct{}, lim.turning), accepts: accepts,
		closed: make(chan struct{}),
	}
	g.close = sync.OnceValue(func() error {
		close(g.closed)
		return l.Close()
	})
	return g
}

// Close ends Accept.
func (g *gate) Close() error { return g.close() }

// acceptPause bounds the wait after an accept that failed. The clients wait in the kernel meanwhile.
const acceptPause = time.Second

// Accept returns the next connection for which there is a place.
func (g *gate) Accept() (net.Conn, error) {
	pause := backoff.Backoff{Least: 10 * time.Millisecond, Most: acceptPause}
	for {
		conn, err := g.Listener.Accept()
		switch {
		case err != nil && broken(err):
			return nil, err
		case err != nil:
			// The kernel or the process has no memory or no descriptor left, or the network is down: accept(2).
			g.accepts(err)
			select {
			case <-time.After(pause.Next()):
				continue
			case <-g.closed:
				return nil, net.ErrClosed
			}
		}
		g.accepts(nil)
		pause.Reset()
		select {
		case g.slots <- struct{}{}:
			return &gatedConn{Conn: conn, leave: sync.OnceFunc(func() { <-g.slots })}, nil
		default:
			g.turnAway(conn)
		}
	}
}

// broken reports whether an error of accept says that the listener itself is none any more. All others are of one
// connection, or pass.
func broken(err error) bool {
	for _, e := range []error{net.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (g *gate) turnAway(conn net.Conn) {
	select {
	case g.turning <- struct{}{}:
		turn := func() {
			defer func() { <-g.turning }()
			sayFull(conn)
		}
		go turn()
	default:
		_ = conn.Close()
	}
}

// sayFull answers a connection that has no place. It takes in what the client sends first: closing with unread data
// would reset the connection and lose the answer.
func sayFull(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 4096)
	if _, err := conn.Read(buf); err != nil {
		return
	}
	_, _ = conn.Write([]byte(turnedAway))
}

type gatedConn struct {
	net.Conn
	leave func()
}

// Close gives the place back.
func (c *gatedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// localOnly refuses requests under a foreign name on a listener that is meant for this host: a web page whose name was
// pointed at 127.0.0.1 must not read the status through a browser here.
func localOnly(addr string, h http.Handler) http.Handler {
	host, _, err := net.SplitHostPort(addr)
	if ip, perr := netip.ParseAddr(host); err != nil || (host != "localhost" && (perr != nil || !ip.IsLoopback())) {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Host
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err != nil && name != "localhost" {
			writeError(w, http.StatusForbidden, "this address answers to localhost and IP addresses only")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ownSite refuses what a page of another site has a browser ask: it could not read the answer, and would still make the
// agent work. Sec-Fetch-Site is sent by every browser of today, Origin by older ones with some requests; commands and
// scripts send neither.
func ownSite(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		foreign := site != "" && site != "same-origin" && site != "none" // none: typed by the user
		if foreign || origin != "" && origin != "http://"+r.Host {
			writeError(w, http.StatusForbidden, "this address answers no page of another site; type it into the browser's address bar")
			return
		}
		h.ServeHTTP(w, r)
	})
}
