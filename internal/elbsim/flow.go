package elbsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"berth/pkg/target"
)

// errDrained ends what is still in progress on a target when its deregistration delay is over.
var errDrained = errors.New("the deregistration delay is over")

// flow is one request or connection in progress on a target.
type flow struct {
	entry   *entry
	address string // where the target is reached
	scheme  string // http or https, for HTTP requests
	trace   string // its X-Amzn-Trace-Id
	stats   *stats
	end     context.CancelCauseFunc
	timer   *time.Timer // ends it with the deregistration delay; nil: none
	err     error       // why no reply came
}

// stats are what a target was sent, since the Sim began. They outlive its registrations.
type stats struct {
	requests uint64
	active   int
	byClass  [6]uint64 // replies by hundreds of their status; 0: none came
	last     string    // why none came, the last time
}

// TargetStats is what load balancers sent to one target.
type TargetStats struct {
	target.Target
	Group    string `json:"target_group"`
	Requests uint64 `json:"requests"` // or connections
	InFlight int    `json:"in_flight"`
	Status2x uint64 `json:"status_2xx"`
	Status3x uint64 `json:"status_3xx"`
	Status4x uint64 `json:"status_4xx"`
	Status5x uint64 `json:"status_5xx"`
	Errors   uint64 `json:"errors"` // no reply came: the load balancer said 502 or 504
	// LastError says why, the last time.
	LastError string `json:"last_error,omitempty"`
}

// Stats returns what load balancers sent to each target, by group and target.
func (s *Sim) Stats() []TargetStats {
	s.lock()
	defer s.mu.Unlock()
	out := []TargetStats{}
	for _, g := range s.groups {
		for key, st := range g.stats {
			out = append(out, TargetStats{
				Target: key, Group: g.name, Requests: st.requests, InFlight: st.active, Errors: st.byClass[0], LastError: st.last,
				Status2x: st.byClass[2], Status3x: st.byClass[3], Status4x: st.byClass[4], Status5x: st.byClass[5],
			})
		}
	}
	slices.SortFunc(out, func(a, b TargetStats) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), a.Target.Compare(b.Target))
	})
	return out
}

// begin picks a target for a new request or connection of a rule. It returns nil if there is none.
func (s *Sim) begin(r *rule, end context.CancelCauseFunc) *flow {
	now := s.lock()
	defer s.mu.Unlock()
	g := s.choose(r.groups)
	e := s.pick(g, now)
	if e == nil {
		return nil
	}
	st := g.stats[e.Target]
	if st == nil {
		st = &stats{}
		g.stats[e.Target] = st
	}
	st.requests++
	st.active++
	f := &flow{entry: e, address: e.dialAddress(), scheme: "http", stats: st, end: end}
	if g.spec.Protocol == "HTTPS" {
		f.scheme = "https"
	}
	f.trace = fmt.Sprintf("Root=1-%08x-%016x%08x", now.Unix(), s.rng.Uint64(), s.rng.Uint32())
	if e.flows == nil {
		e.flows = map[*flow]struct{}{}
	}
	e.flows[f] = struct{}{}
	if e.gone.After(now) {
		f.endAt(e.gone, now)
	}
	return f
}

// done ends a flow. Status 0 is one without a reply, -1 one that has no status.
func (s *Sim) done(f *flow, status int) {
	now := s.lock()
	defer s.mu.Unlock()
	f.keep()
	delete(f.entry.flows, f)
	f.stats.active--
	if f.err != nil {
		f.stats.last = now.Format("15:04:05.000") + ": " + f.err.Error()
	}
	if class := status / 100; status >= 0 && class < len(f.stats.byClass) {
		f.stats.byClass[class]++
	}
}

// endAt ends the flow at a time, if its group's load balancer does that.
func (f *flow) endAt(at, now time.Time) {
	g := f.entry.group
	if g.network() && g.attribute(attrTerminate) != "true" {
		return
	}
	f.timer = time.AfterFunc(at.Sub(now), func() { f.end(errDrained) })
}

// keep lets the flow go on.
func (f *flow) keep() {
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
}

func (g *group) network() bool { return g.spec.Protocol != "HTTP" && g.spec.Protocol != "HTTPS" }

// serveTCP forwards connections, as a network load balancer does, until ctx ends; then it closes those in progress.
func (l *listener) serveTCP(ctx context.Context, listen net.Listener) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	stop := context.AfterFunc(ctx, func() { _ = listen.Close() })
	defer stop()
	for {
		conn, err := listen.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		connections.Go(func() { l.connection(ctx, conn.(*net.TCPConn)) })
	}
}

// connection forwards one connection. Without a target, or where the target refuses, the client's is reset.
func (l *listener) connection(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := l.sim.begin(&l.rules[0], cancel)
	if f == nil {
		_ = client.SetLinger(0)
		return
	}
	defer l.sim.done(f, -1)
	dialer := net.Dialer{Timeout: connectTimeout}
	upstream, err := dialer.DialContext(ctx, "tcp", f.address)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := upstream.(*net.TCPConn)
	defer server.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = client.SetLinger(0)
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { l.pump(server, client) })
	both.Go(func() { l.pump(client, server) })
	both.Wait()
}

// pump copies one direction and passes its end on.
func (l *listener) pump(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from) // a broken connection ends it like any other end
	_ = to.CloseWrite()
}
