package elbsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Listen says where a Sim is served. Port 0 takes a free one.
type Listen struct {
	// API is the address of ELBv2 and the pages of elbsim. Empty: 127.0.0.1:0.
	API string
	// IMDS are the addresses of metadata services by instance id; "" is the first instance. Nil: 127.0.0.1:0 for that.
	IMDS map[string]string
}

// Server serves a Sim on sockets: the API, IMDS, and every listener of its load balancers. Load balancers that are
// added later are not served.
type Server struct {
	sim      *Sim
	api      net.Listener
	imds     map[string]net.Listener
	http     []served
	tcp      []tcpListener
	udp      []udpListener
	balanced []balanced

	stop context.CancelFunc // Start's
	done chan error
}

type served struct {
	listener net.Listener
	server   *http.Server
}

type tcpListener struct {
	socket   net.Listener
	listener *listener
}

type udpListener struct {
	socket   *net.UDPConn
	listener *listener
}

// balanced is where a listener of a load balancer really listens.
type balanced struct {
	address  string
	listener *listener
}

// NewServer binds all sockets; Run serves them.
func NewServer(sim *Sim, listen Listen) (*Server, error) {
	s := &Server{sim: sim, imds: map[string]net.Listener{}}
	if err := s.bind(listen); err != nil {
		return nil, errors.Join(err, s.closeSockets())
	}
	return s, nil
}

func (s *Server) bind(listen Listen) error {
	var err error
	if s.api, err = net.Listen("tcp", cmp.Or(listen.API, "127.0.0.1:0")); err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	s.serve(s.api, s.sim)
	if listen.IMDS == nil {
		listen.IMDS = map[string]string{"": "127.0.0.1:0"}
	}
	for instance, address := range listen.IMDS {
		socket, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listen for IMDS: %w", err)
		}
		s.imds[s.sim.orFirst(instance)] = socket
		s.serve(socket, s.sim.IMDSFor(instance))
	}
	s.sim.lock()
	var listeners []*listener
	for _, b := range s.sim.balancers {
		listeners = append(listeners, b.listeners...)
	}
	s.sim.mu.Unlock()
	for _, l := range listeners {
		if err := s.bindListener(l); err != nil {
			return fmt.Errorf("listen for load balancer %s: %w", l.balancer.spec.Name, err)
		}
	}
	return nil
}

func (s *Server) bindListener(l *listener) error {
	if l.spec.Protocol == "UDP" {
		address, err := net.ResolveUDPAddr("udp", l.spec.Address)
		if err != nil {
			return err
		}
		socket, err := net.ListenUDP("udp", address)
		if err != nil {
			return err
		}
		s.udp = append(s.udp, udpListener{socket, l})
		s.balanced = append(s.balanced, balanced{socket.LocalAddr().String(), l})
		return nil
	}
	socket, err := net.Listen("tcp", l.spec.Address)
	if err != nil {
		return err
	}
	s.balanced = append(s.balanced, balanced{socket.Addr().String(), l})
	if l.spec.Protocol == "HTTP" {
		s.serve(socket, l)
		return nil
	}
	s.tcp = append(s.tcp, tcpListener{socket, l})
	return nil
}

func (s *Server) serve(l net.Listener, h http.Handler) {
	s.http = append(s.http, served{l, &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(discard{}, "", 0), // broken connections are what elbsim is for
	}})
}

type discard struct{}

// Write is io.Writer's.
func (discard) Write(b []byte) (int, error) { return len(b), nil }

// Run serves until ctx ends, with the health checks of the Sim, and returns when all has ended. Requests in progress
// are cut off.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		all  sync.WaitGroup
		once sync.Once
		err  error
	)
	start := func(f func() error) {
		all.Go(func() {
			if e := f(); e != nil {
				once.Do(func() { err = e })
			}
			cancel()
		})
	}
	for _, h := range s.http {
		h.server.BaseContext = func(net.Listener) context.Context { return ctx }
		start(func() error {
			if e := h.server.Serve(h.listener); !errors.Is(e, http.ErrServerClosed) {
				return e
			}
			return nil
		})
		stop := context.AfterFunc(ctx, func() { _ = h.server.Close() })
		defer stop()
	}
	for _, t := range s.tcp {
		start(func() error { return t.listener.serveTCP(ctx, t.socket) })
	}
	for _, u := range s.udp {
		start(func() error { return u.listener.serveUDP(ctx, u.socket) })
	}
	start(func() error { return s.sim.Run(ctx) })
	all.Wait()
	s.sim.closeIdle()
	return err
}

// closeSockets closes what was bound but never served.
func (s *Server) closeSockets() error {
	var errs []error
	for _, h := range s.http {
		errs = append(errs, h.listener.Close())
	}
	for _, t := range s.tcp {
		errs = append(errs, t.socket.Close())
	}
	for _, u := range s.udp {
		errs = append(errs, u.socket.Close())
	}
	return errors.Join(errs...)
}

// Start binds and serves at once, until Close: what a test needs.
func Start(sim *Sim, listen Listen) (*Server, error) {
	s, err := NewServer(sim, listen)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.done = stop, make(chan error, 1)
	go func() { s.done <- s.Run(ctx) }()
	return s, nil
}

// Close ends what Start began, and waits for it.
func (s *Server) Close() error {
	s.stop()
	return <-s.done
}

// URL is the endpoint of the API: http://127.0.0.1:4566.
func (s *Server) URL() string { return "http://" + s.api.Addr().String() }

// IMDSURL is the endpoint of an instance's IMDS ("" is the first instance), or "" if it is not served.
func (s *Server) IMDSURL(instance string) string {
	if l := s.imds[s.sim.orFirst(instance)]; l != nil {
		return "http://" + l.Addr().String()
	}
	return ""
}

// ListenerAddr is the address of the first listener that sends requests to the group (by name or ARN), or "".
func (s *Server) ListenerAddr(group string) string {
	s.sim.lock()
	defer s.sim.mu.Unlock()
	g, err := s.sim.find(group)
	if err != nil {
		return ""
	}
	for _, b := range s.balanced {
		for _, r := range b.listener.rules {
			for _, w := range r.groups {
				if w.group == g {
					return b.address
				}
			}
		}
	}
	return ""
}

// Address is where one listener of a load balancer listens.
type Address struct {
	LoadBalancer string `json:"load_balancer"`
	Protocol     string `json:"protocol"`
	Address      string `json:"address"`
}

// Listeners are the listeners of all load balancers.
func (s *Server) Listeners() []Address {
	out := make([]Address, len(s.balanced))
	for i, b := range s.balanced {
		out[i] = Address{b.listener.balancer.spec.Name, b.listener.spec.Protocol, b.address}
	}
	return out
}

// Env is the environment with which an AWS SDK or CLI talks to the server as the first instance: endpoints, region
// and keys, as NAME=value.
func (s *Server) Env() []string { return s.EnvFor("") }

// EnvFor is Env on another instance.
func (s *Server) EnvFor(instance string) []string {
	return []string{
		"AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2=" + s.URL(),
		"AWS_ENDPOINT_URL_AUTO_SCALING=" + s.URL(),
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + s.IMDSURL(instance),
		"AWS_REGION=" + s.sim.Region(),
		"AWS_DEFAULT_REGION=" + s.sim.Region(),
		"AWS_ACCESS_KEY_ID=elbsim",
		"AWS_SECRET_ACCESS_KEY=elbsim",
	}
}
