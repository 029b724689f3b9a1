package elbsim

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// udpIdle is how long a UDP flow may be silent: AWS's 120 s.
const udpIdle = 120 * time.Second

// serveUDP forwards datagrams, as a network load balancer does: those of one client address go to one target until
// the flow was silent for a while.
func (l *listener) serveUDP(ctx context.Context, socket *net.UDPConn) error {
	var running sync.WaitGroup
	defer running.Wait()
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	var mu sync.Mutex // guards upstream, between this loop and the ends of flows
	upstream := map[netip.AddrPort]*net.UDPConn{}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		mu.Lock()
		to := upstream[from]
		mu.Unlock()
		if to == nil {
			if to = l.udpFlow(ctx, &running, socket, from, func() {
				mu.Lock()
				delete(upstream, from)
				mu.Unlock()
			}); to == nil {
				continue // no target: the datagram is lost
			}
			mu.Lock()
			upstream[from] = to
			mu.Unlock()
		}
		_ = to.SetReadDeadline(time.Now().Add(udpIdle))
		_, _ = to.Write(buf[:n])
	}
}

// udpFlow opens a flow to a target and copies its answers back until it is silent, drained, or ctx ends.
func (l *listener) udpFlow(ctx context.Context, running *sync.WaitGroup, socket *net.UDPConn, from netip.AddrPort, ended func()) *net.UDPConn {
	ctx, cancel := context.WithCancelCause(ctx)
	f := l.sim.begin(&l.rules[0], cancel)
	if f == nil {
		cancel(nil)
		return nil
	}
	conn, err := net.Dial("udp", f.address)
	if err != nil {
		l.sim.done(f, -1)
		cancel(nil)
		return nil
	}
	to := conn.(*net.UDPConn)
	_ = to.SetReadDeadline(time.Now().Add(udpIdle))
	running.Go(func() {
		defer cancel(nil)
		stop := context.AfterFunc(ctx, func() { _ = to.Close() })
		defer stop()
		buf := make([]byte, 64<<10)
		for {
			n, err := to.Read(buf)
			if err != nil {
				break // silent, refused, drained or at the end
			}
			_, _ = socket.WriteToUDPAddrPort(buf[:n], from)
		}
		ended()
		_ = to.Close()
		l.sim.done(f, -1)
	})
	return to
}
