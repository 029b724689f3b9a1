package server

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/status"
)

// limits bound what a client can make the agent hold, whoever it is.
type limits struct {
	conns       int           // a listener's connections; more are turned away with 503
	turning     int           // connections that are being turned away; more are closed
	polls       int           // requests that wait for a change, over the control socket and over TCP; more are answered 503
	headerBytes int           // of a request
	bodyBytes   int64         // of a request over TCP
	socketBytes int64         // of a request over the control socket: a prune of 1,000 targets with the longest names has 160 KiB
	header      time.Duration // from the connection to the end of a request's header
	read        time.Duration // to the end of its body
	write       time.Duration // of an answer: a client that never reads is cut
	idle        time.Duration // between two requests
	grace       time.Duration // for answers under way when the agent ends
}

func defaultLimits() limits {
	return limits{
		conns: 128, turning: 32, polls: 64, headerBytes: 16 << 10, bodyBytes: 64 << 10, socketBytes: 256 << 10,
		header: 5 * time.Second, read: 10 * time.Second, write: 15 * time.Second, idle: 30 * time.Second,
		grace: time.Second,
	}
}

// Config says where the server listens and what it shows. Every function may be called from any goroutine, must
// return at once, and may be nil where its doc says so.
type Config struct {
	// Listen is the address of /metrics, /healthz and /readyz, which other hosts may reach: ":9797". Empty: none.
	Listen string
	// StatusListen is the address of / and /v1/status: "127.0.0.1:9798". Empty: none. What it shows names containers,
	// so it should stay on the loopback interface.
	StatusListen string
	// Socket is the path of the control socket. Empty: none.
	Socket string
	// SocketGroup is the group that may use the control socket beside root and the agent's user. Empty, or a group that
	// does not exist: the agent's own group.
	SocketGroup string
	// Listener opens the listener of that name (see Addr) on network "tcp" or "unix". It closes what it has opened if it
	// fails, and knows who connects only on a unix socket. nil: the sockets of this host.
	Listener func(ctx context.Context, name, network, address string) (net.Listener, error)

	Build status.Build
	// Registry gets the server's metrics and is served at /metrics. Required.
	Registry *prometheus.Registry
	// Discovery returns the newest snapshot of Docker's half (nil before the first) and a channel that closes at the
	// next one. Required; Latest.Get is one.
	Discovery func() (*discovery.Snapshot, <-chan struct{})
	// Stream returns the state of the connection to Docker, which is known before there is a snapshot. May be nil: then
	// the snapshot's own is shown.
	Stream func() discovery.Stream
	// Registrar returns the newest snapshot of the load balancers' half, likewise. Required.
	Registrar func() (*registrar.Snapshot, <-chan struct{})
	// Follow makes the registrar look often at the groups until stop is called: for clients of the control socket alone,
	// since each look is a call of AWS. May be nil.
	Follow func(keys []string) (stop func())
	// Host returns what is known of the instance. May be nil.
	Host func() status.Host
	// Loops are watched by /healthz.
	Loops []Loop
	// ReloadErr returns why the last reload of the configuration was refused, nil if it was not. May be nil.
	ReloadErr func() error
	// LogDropped returns how many lines of the log were dropped. May be nil.
	LogDropped func() uint64
	// Checks returns further things to name in readiness: a ledger that is not on disk, a reload that was refused. May be
	// nil.
	Checks func() []status.Check
	// Control answers what is asked over the control socket under /v1/ beside the status: what changes something. It
	// learns from PeerOf who asks. A handler that takes longer than an answer's 15 s must extend its write deadline
	// (http.ResponseController). May be nil.
	Control http.Handler
	Log     *zap.Logger
}

// Server serves the agent's HTTP endpoints.
type Server struct {
	cfg     Config
	limits  limits
	log     *zap.Logger
	started time.Time
	socket  access        // over the control socket
	tcp     access        // over TCP
	done    chan struct{} // closed when Run begins to shut down: long polls end

	listeners []*listener
	closing   sync.Once
}

// access is what the clients of a listener may have beside answers.
type access struct {
	// follower has groups looked at often for them; nil: they get what the ordinary schedule sees.
	follower *follower
	polls    chan struct{} // one slot for each long poll
}

// Listen opens every socket of the configuration and registers the metrics; it serves nothing before Run. A control
// socket that cannot be opened is an error: a second agent ends before it has done anything. An address that cannot be
// had is none, since any process may have taken it: it is logged, is said by Readiness, and is tried again by Run. The
// caller must call Run or Close.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	return listen(ctx, cfg, defaultLimits())
}

func listen(ctx context.Context, cfg Config, lim limits) (_ *Server, err error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s := &Server{
		cfg: cfg, limits: lim, log: cfg.Log.Named("server"), started: time.Now(),
		socket: access{newFollower(cfg.Follow), make(chan struct{}, lim.polls)},
		tcp:    access{nil, make(chan struct{}, lim.polls)},
		done:   make(chan struct{}),
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := registerMetrics(cfg.Registry, cfg.Build, s.state, s.Readiness, cfg.ReloadErr, cfg.LogDropped, s.listening); err != nil {
		return nil, err
	}
	for _, l := range []*listener{
		{name: "--listen", key: "listen", network: "tcp", address: cfg.Listen, handler: s.MonitoringHandler(), bodyBytes: lim.bodyBytes},
		{
			name: "--status-listen", key: "status_listen", network: "tcp", address: cfg.StatusListen,
			handler: localOnly(cfg.StatusListen, s.StatusHandler()), bodyBytes: lim.bodyBytes,
		},
		{name: "control socket", key: "control_socket", network: "unix", address: cfg.Socket, handler: s.controlHandler(), bodyBytes: lim.socketBytes},
	} {
		if l.address == "" {
			continue
		}
		l.limits, l.log = lim, s.log.With(zap.String("listener", l.name))
		l.opener = func(ctx context.Context) (net.Listener, net.Addr, func(), error) {
			return s.open(ctx, l.name, l.network, l.address)
		}
		s.listeners = append(s.listeners, l)
		if err := l.open(ctx); err != nil && l.network == "unix" {
			return nil, err
		}
	}
	return s, nil
}

// open opens a listener. Its address is what clients dial.
func (s *Server) open(ctx context.Context, name, network, address string) (l net.Listener, addr net.Addr, cleanup func(), err error) {
	switch {
	case s.cfg.Listener != nil:
		if l, err = s.cfg.Listener(ctx, name, network, address); err != nil {
			return nil, nil, nil, fmt.Errorf("listen on %s (%s): %w", address, name, err)
		}
		return l, l.Addr(), func() {}, nil
	case network == "unix":
		l, cleanup, err = listenUnix(ctx, address, s.cfg.SocketGroup, s.log)
		return l, &net.UnixAddr{Name: address, Net: network}, cleanup, err
	default:
		var lc net.ListenConfig
		if l, err = lc.Listen(ctx, network, address); err != nil {
			return nil, nil, nil, fmt.Errorf("listen on %s (%s): %w", address, name, explainListen(err))
		}
		return l, l.Addr(), func() {}, nil
	}
}

// Addr returns the address of a listener ("--listen", "--status-listen", "control socket"), nil if there is none or it
// is not open: for tests and logs, where port 0 was asked for.
func (s *Server) Addr(name string) net.Addr {
	for _, l := range s.listeners {
		if l.name == name {
			return l.where()
		}
	}
	return nil
}

// Run serves until ctx ends, then gives answers under way a second and closes. A listener that cannot be opened, or that
// ends, is opened again meanwhile: nothing that happens to one ends Run, which returns nil.
func (s *Server) Run(ctx context.Context) error {
	// Requests end when the server does, not before: one that holds a drain would otherwise use up the grace.
	base, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	servers := make([]*http.Server, 0, len(s.listeners))
	var serving sync.WaitGroup
	for _, l := range s.listeners {
		srv := &http.Server{
			Handler:           http.MaxBytesHandler(l.handler, l.bodyBytes),
			ReadHeaderTimeout: s.limits.header,
			ReadTimeout:       s.limits.read,
			WriteTimeout:      s.limits.write,
			IdleTimeout:       s.limits.idle,
			MaxHeaderBytes:    s.limits.headerBytes,
			ConnContext:       withPeer,
			BaseContext:       func(net.Listener) context.Context { return base },
			ErrorLog:          log.New(httpLog{s.log}, "", 0),
		}
		servers = append(servers, srv)
		serving.Go(func() { l.serve(ctx, srv) })
	}

	<-ctx.Done()
	close(s.done)
	endRequests()
	s.socket.follower.close()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.grace)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(grace); err != nil {
			_ = srv.Close() // whoever is left does not read
		}
	}
	serving.Wait()
	s.Close()
	return nil
}

// Close closes the sockets of a server that is not running. It may be called more than once.
func (s *Server) Close() {
	s.closing.Do(func() {
		for _, l := range s.listeners {
			l.shut()
		}
	})
}

// Readiness returns what /readyz answers now.
func (s *Server) Readiness() status.Readiness { return s.readiness(s.state()) }

func (s *Server) readiness(h status.Host, d *discovery.Snapshot, r *registrar.Snapshot) status.Readiness {
	var more []status.Check
	if s.cfg.Checks != nil {
		more = s.cfg.Checks()
	}
	for _, l := range s.listeners {
		if c, down := l.check(); down {
			more = append(more, c)
		}
	}
	return status.ReadinessOf(h, s.stream(d), d, r, more...)
}

// stream is the connection to Docker: as the snapshot has it, so that a status does not contradict itself, else as it is.
func (s *Server) stream(d *discovery.Snapshot) discovery.Stream {
	switch {
	case d != nil:
		return d.Stream
	case s.cfg.Stream != nil:
		return s.cfg.Stream()
	default:
		return discovery.Stream{}
	}
}

// Alive returns what /healthz answers now: nil, or an error that names the loops that do not turn.
func (s *Server) Alive() error { return Alive(s.cfg.Loops, s.started, time.Now()) }

// Status returns what /v1/status answers now.
func (s *Server) Status() status.V1 {
	h, d, r := s.state()
	status := status.Of(time.Now(), s.agent(), h, d, r)
	status.Readiness, status.Docker = s.readiness(h, d, r), s.stream(d)
	return status
}

func (s *Server) agent() status.AgentV1 {
	return status.AgentV1{Build: s.cfg.Build, PID: os.Getpid(), StartedAt: s.started.UTC()}
}

func (s *Server) state() (status.Host, *discovery.Snapshot, *registrar.Snapshot) {
	d, _ := s.cfg.Discovery()
	r, _ := s.cfg.Registrar()
	return s.host(), d, r
}

func (s *Server) host() status.Host {
	if s.cfg.Host == nil {
		return status.Host{}
	}
	return s.cfg.Host()
}

// listening reports of each listener, by its key of the configuration, whether clients are answered on it.
func (s *Server) listening() map[string]bool {
	up := map[string]bool{}
	for _, l := range s.listeners {
		_, down := l.check()
		up[l.key] = !down
	}
	return up
}

// httpLog is where net/http's complaints go. A client's broken TLS or headers are its own affair; a handler that panics
// is ours.
type httpLog struct{ log *zap.Logger }

func (w httpLog) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("http: panic")) {
		w.log.Error("a request ended in a panic", zap.ByteString("message", p))
	} else {
		w.log.Debug("client", zap.ByteString("message", p))
	}
	return len(p), nil
}
