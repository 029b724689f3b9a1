package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Identity is what the server says about itself.
type Identity struct {
	Service string `json:"service"`
	Name    string `json:"name"`
	Host    string `json:"host"` // in a container: the first 12 digits of its id
	Run     string `json:"run"`  // another one with every start of the program
}

// server is one run of the program.
type server struct {
	identity Identity
	health   [2]atomic.Int32 // of healthz, livez: the status to answer
	exit     chan int        // a request asked to die with this code
}

// The entries of server.health.
const (
	healthz = iota
	livez
)

// serve listens, answers, and returns when it has been told to stop and has done so. Its first result is the exit code.
func serve(ctx context.Context, o options, signals <-chan os.Signal, out io.Writer) (int, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return 1, fmt.Errorf("read hostname: %w", err)
	}
	s := &server{
		identity: Identity{Service: o.service, Name: o.name, Host: hostname, Run: rand.Text()[:8]},
		exit:     make(chan int, 1),
	}
	status := int32(http.StatusOK)
	if o.unhealthy {
		status = http.StatusServiceUnavailable
	}
	s.health[healthz].Store(status)
	s.health[livez].Store(status)

	stopped := make(chan struct{}) // closed when a stop was asked for
	life := newLife(o, signals, s.exit, out)
	if o.startDelay > 0 {
		if code, done := life.sleep(ctx, o.startDelay, false); done {
			return code, nil
		}
	}

	web := &http.Server{Handler: s.handler(stopped), ReadHeaderTimeout: 10 * time.Second}
	listeners, err := listen(ctx, o, out)
	if err != nil {
		return 1, err
	}
	failed := make(chan error, len(listeners.http))
	for _, l := range listeners.http {
		go func() { failed <- web.Serve(l) }()
	}
	defer listeners.close()
	go echoStream(listeners.tcp)
	go echoPackets(listeners.udp)

	code, drain, err := life.wait(ctx, failed)
	if err != nil || !drain {
		return code, errors.Join(err, web.Close())
	}
	// Serve on: a load balancer goes on sending for a while.
	if code, done := life.sleep(context.WithoutCancel(ctx), o.drain, true); done {
		return code, web.Close()
	}
	close(stopped)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := web.Shutdown(ctx); err != nil {
		return 1, fmt.Errorf("finish requests in flight: %w", err)
	}
	return 0, nil
}

// life turns signals, timers and requests into the moment and manner of the end.
type life struct {
	options
	signals <-chan os.Signal
	exit    <-chan int
	out     io.Writer
	expire  <-chan time.Time // --exit-after
}

func newLife(o options, signals <-chan os.Signal, exit <-chan int, out io.Writer) *life {
	l := &life{options: o, signals: signals, exit: exit, out: out}
	if o.exitAfter > 0 {
		l.expire = time.After(o.exitAfter)
	}
	return l
}

// wait returns when the program should end: with an exit code, and whether it should drain first.
func (l *life) wait(ctx context.Context, failed <-chan error) (code int, drain bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return 0, true, nil
		case err := <-failed:
			return 1, false, fmt.Errorf("serve: %w", err)
		case code := <-l.exit:
			return code, false, nil
		case <-l.expire:
			return l.exitCode, false, nil
		case s := <-l.signals:
			fmt.Fprintf(l.out, "web: %v\n", s)
			if s != syscall.SIGTERM && s != syscall.SIGINT || l.stop == stopIgnore {
				continue
			}
			return 0, l.stop == stopGraceful, nil
		}
	}
}

// sleep waits for d. It reports whether the program should end at once instead, and with which code: a second SIGTERM
// while it drains changes nothing, one before it listens ends it.
func (l *life) sleep(ctx context.Context, d time.Duration, draining bool) (code int, done bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return 0, false
		case <-ctx.Done():
			return 0, true
		case code := <-l.exit:
			return code, true
		case <-l.expire:
			return l.exitCode, true
		case s := <-l.signals:
			fmt.Fprintf(l.out, "web: %v\n", s)
			if !draining && (s == syscall.SIGTERM || s == syscall.SIGINT) && l.stop != stopIgnore {
				return 0, true
			}
		}
	}
}

// listeners are all the sockets of the program. tcp and udp are nil where there is no echo.
type listeners struct {
	http []net.Listener
	tcp  net.Listener
	udp  net.PacketConn
}

func listen(ctx context.Context, o options, out io.Writer) (*listeners, error) {
	var config net.ListenConfig
	l := &listeners{}
	for address := range strings.SplitSeq(o.listen, ",") {
		h, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		l.http = append(l.http, h)
		fmt.Fprintf(out, "web: http on %s\n", h.Addr())
	}
	var err error
	if o.echoTCP != "" {
		if l.tcp, err = config.Listen(ctx, "tcp", o.echoTCP); err != nil {
			l.close()
			return nil, fmt.Errorf("listen on %s: %w", o.echoTCP, err)
		}
		fmt.Fprintf(out, "web: tcp echo on %s\n", l.tcp.Addr())
	}
	if o.echoUDP != "" {
		if l.udp, err = config.ListenPacket(ctx, "udp", o.echoUDP); err != nil {
			l.close()
			return nil, fmt.Errorf("listen on %s: %w", o.echoUDP, err)
		}
		fmt.Fprintf(out, "web: udp echo on %s\n", l.udp.LocalAddr())
	}
	return l, nil
}

func (l *listeners) close() {
	for _, h := range l.http {
		_ = h.Close() // Shutdown has closed it already
	}
	if l.tcp != nil {
		_ = l.tcp.Close()
	}
	if l.udp != nil {
		_ = l.udp.Close()
	}
}

func echoStream(l net.Listener) {
	if l == nil {
		return
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // the peer went away: nothing to tell anybody
		}()
	}
}

func echoPackets(c net.PacketConn) {
	if c == nil {
		return
	}
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		_, _ = c.WriteTo(buffer[:n], from)
	}
}

// handler answers requests until stopped is closed; from then on it asks clients to close their connections.
func (s *server) handler(stopped <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.who)
	for i, path := range []string{healthz: "/healthz", livez: "/livez"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			status := int(s.health[i].Load())
			w.WriteHeader(status)
			fmt.Fprintln(w, http.StatusText(status))
		})
		mux.HandleFunc("PUT "+path, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(io.LimitReader(r.Body, 16))
			status, convErr := strconv.Atoi(strings.TrimSpace(string(body)))
			if err != nil || convErr != nil || status < 200 || status > 599 {
				http.Error(w, "body must be a status from 200 to 599", http.StatusBadRequest)
				return
			}
			s.health[i].Store(int32(status))
			w.WriteHeader(http.StatusNoContent)
		})
	}
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.URL.Query().Get("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
			s.who(w, r)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /exit", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		_ = http.NewResponseController(w).Flush() // the answer goes out before the process does
		select {
		case s.exit <- code:
		default:
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stopped:
			w.Header().Set("Connection", "close")
		default:
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *server) who(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.identity) // the client went away: nothing to tell anybody
}
