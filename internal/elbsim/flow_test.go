package elbsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/target"
)

// Requests in flight on a draining target end well; new ones go elsewhere; at the end of the delay the rest is cut off.
func TestBalancer_draining(t *testing.T) {
	started, release := make(chan struct{}, 2), make(chan struct{})
	slow := func(w http.ResponseWriter, _ *http.Request) {
		started <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "slow")
	}
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut off %v", cut), func(t *testing.T) {
			delay := time.Hour
			if cut {
				delay = 200 * time.Millisecond
			}
			var old, fresh target.Target
			s, srv := balancedSim(t, Config{}, func(s *Sim) {
				addGroup(t, s, Group{Name: "web", DeregistrationDelay: delay})
				old, fresh = backend(t, slow), backend(t, named("fresh"))
				mustRegister(t, s, "web", old)
				if err := s.Forward("lb", "web", "127.0.0.1:0"); err != nil {
					t.Fatal(err)
				}
			})
			c := newTransport(t)
			var status int
			var body string
			var inFlight sync.WaitGroup
			inFlight.Go(func() { status, body = get(t, c, srv.ListenerAddr("web"), "/") })
			<-started
			mustRegister(t, s, "web", fresh)
			if err := s.Deregister("web", old); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				if _, body := get(t, c, srv.ListenerAddr("web"), "/"); body != "fresh" {
					t.Errorf("a new request went to the draining target: %s", body)
				}
			}
			if st := s.Stats(); len(st) != 2 {
				t.Errorf("stats: got %+v", st)
			}
			if cut {
				inFlight.Wait()
				if status != 502 {
					t.Errorf("in flight at the end of the delay: got %d %s; want 502", status, body)
				}
				release <- struct{}{}
				return
			}
			release <- struct{}{}
			inFlight.Wait()
			if status != 200 || body != "slow" {
				t.Errorf("in flight while draining: got %d %s", status, body)
			}
		})
	}
}

// A target that is registered again keeps what was in flight on it; otherwise it ends with the delay, where the load
// balancer does that.
func TestFlows_end(t *testing.T) {
	for name, test := range map[string]struct {
		protocol string
		revive   bool
		ends     bool
	}{
		"application": {"HTTP", false, true}, "revived": {"HTTP", true, false}, "network": {"TCP", false, false}, "datagrams": {"UDP", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{})
				arn := addGroup(t, s, Group{Name: "web", Protocol: test.protocol, DeregistrationDelay: time.Minute})
				mustRegister(t, s, arn, on(1)...)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				f := s.begin(&rule{groups: []weightedGroup{{s.groups[arn], 1}}}, cancel)
				if err := s.Deregister(arn, on(1)...); err != nil {
					t.Fatal(err)
				}
				if test.revive {
					mustRegister(t, s, arn, on(1)...)
				}
				time.Sleep(time.Minute - time.Nanosecond)
				if ctx.Err() != nil {
					t.Error("ended before the delay was over")
				}
				time.Sleep(time.Hour)
				if got := errors.Is(context.Cause(ctx), errDrained); got != test.ends {
					t.Errorf("after the delay: ended %v; want %v", got, test.ends)
				}
				s.done(f, 200)
				if got := s.Stats()[0]; got.InFlight != 0 || got.Requests != 1 {
					t.Errorf("stats: got %+v", got)
				}
			})
		})
	}
}

func TestBalancer_tcp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			echoing.Go(func() { defer conn.Close(); _, _ = io.Copy(conn, conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); echoing.Wait() })
	one := targetAt(t, l.Addr())
	s, srv := balancedSim(t, Config{}, func(s *Sim) {
		addGroup(t, s, Group{Name: "echo", Protocol: "TCP", DeregistrationDelay: time.Hour})
		addGroup(t, s, Group{Name: "nobody", Protocol: "TCP"})
		mustRegister(t, s, "echo", one)
		for _, g := range []string{"echo", "nobody"} {
			if err := s.Forward("nlb-"+g, g, "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
		}
	})
	dial := func(group string) *net.TCPConn {
		conn, err := net.Dial("tcp", srv.ListenerAddr(group))
		if err != nil {
			t.Fatal(err)
		}
		return conn.(*net.TCPConn)
	}
	conn := dial("echo")
	defer conn.Close()
	sent := bytes.Repeat([]byte("berth "), 100_000)
	var writing sync.WaitGroup
	writing.Go(func() { _, _ = conn.Write(sent); _ = conn.CloseWrite() })
	got, err := io.ReadAll(conn)
	writing.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("echo: got %d bytes, %v; want the %d sent", len(got), err, len(sent))
	}

	// A connection lives on while its target drains; new ones find nobody and are reset.
	open := dial("echo")
	defer open.Close()
	echoed := func() error {
		if _, err := open.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(open, make([]byte, 1))
		return err
	}
	if err := echoed(); err != nil {
		t.Fatal(err)
	}
	if err := s.Deregister("echo", one); err != nil {
		t.Fatal(err)
	}
	if err := echoed(); err != nil {
		t.Errorf("on a draining target: %v", err)
	}
	mustReset := func(what, group string) {
		t.Helper()
		conn, err := net.Dial("tcp", srv.ListenerAddr(group))
		if err == nil { // the reset may be faster than the dialer
			defer conn.Close()
			_, err = conn.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %v; want a reset", what, err)
		}
	}
	mustReset("the only target drains", "echo")
	mustReset("no target", "nobody")
	mustRegister(t, s, "echo", unusedPort(t))
	mustReset("a target that refuses", "echo")
}

func TestBalancer_udp(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	})
	t.Cleanup(func() { _ = socket.Close(); echoing.Wait() })
	s, srv := balancedSim(t, Config{}, func(s *Sim) {
		addGroup(t, s, Group{Name: "dns", Protocol: "UDP"})
		mustRegister(t, s, "dns", targetAt(t, socket.LocalAddr()))
		if err := s.Forward("nlb", "dns", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	})
	conn, err := net.Dial("udp", srv.ListenerAddr("dns"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 1500)
	for _, word := range []string{"one", "two"} {
		if _, err := io.WriteString(conn, word); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != strings.ToUpper(word) {
			t.Errorf("got %q, %v; want %s in capitals", buf[:n], err, word)
		}
	}
	if st := s.Stats(); len(st) != 1 || st[0].Requests != 1 || st[0].InFlight != 1 {
		t.Errorf("got %+v; want one flow for both datagrams", st)
	}
}
