package elbsim

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/pkg/target"
)

// No request fails while targets come and go under load: those that drain finish what they have, and the lag of
// deregistration is waited out before a server stops, as a careful deployment does.
func TestForwarder_noFailedRequest(t *testing.T) {
	const (
		targets  = 10
		clients  = 8
		replaced = 20
	)
	lag := 20 * time.Millisecond
	s, srv := balancedSim(t, Config{Lags: &Lags{Deregister: lag}}, func(s *Sim) {
		addGroup(t, s, Group{Name: "web", DeregistrationDelay: time.Hour})
		if err := s.Forward("lb", "web", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	})
	type server struct {
		*httptest.Server
		target target.Target
	}
	var served atomic.Int64
	start := func() server {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			served.Add(1)
			_, _ = io.WriteString(w, "ok")
		}))
		one := targetAt(t, h.Listener.Addr())
		mustRegister(t, s, "web", one)
		return server{h, one}
	}
	running := make([]server, targets)
	for i := range running {
		running[i] = start()
	}

	ctx, stop := context.WithCancel(t.Context())
	var asked, failed atomic.Int64
	var load sync.WaitGroup
	for range clients {
		load.Go(func() {
			hc := &http.Client{Transport: &http.Transport{}}
			defer hc.CloseIdleConnections()
			for ctx.Err() == nil {
				asked.Add(1)
				resp, err := hc.Get("http://" + srv.ListenerAddr("web") + "/")
				if err != nil {
					failed.Add(1)
					t.Errorf("request: %v", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok" {
					failed.Add(1)
					t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
					return
				}
			}
		})
	}
	for i := range replaced {
		old := running[i%targets]
		running[i%targets] = start()
		if err := s.Deregister("web", old.target); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lag)
		inFlight := func() int {
			n := 0
			for _, st := range s.Stats() {
				if st.Target == old.target {
					n = st.InFlight
				}
			}
			return n
		}
		eventually(t, "the drained target to be idle", func() bool { return inFlight() == 0 })
		old.Close()
	}
	stop()
	load.Wait()
	for _, h := range running {
		h.Close()
	}
	if asked.Load() < replaced || failed.Load() > 0 || served.Load() != asked.Load() {
		t.Errorf("%d requests, %d failed, %d served", asked.Load(), failed.Load(), served.Load())
	}
	t.Logf("%d requests while %d of %d targets were replaced", asked.Load(), replaced, targets)
}

// BenchmarkForwarder is the throughput of a listener with ten targets, beside a bare reverse proxy to one.
func BenchmarkForwarder(b *testing.B) {
	newBackend := func() *httptest.Server {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
		b.Cleanup(h.Close)
		return h
	}
	ask := func(b *testing.B, address string) {
		hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		defer hc.CloseIdleConnections()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				resp, err := hc.Get("http://" + address + "/")
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Errorf("got %s", resp.Status)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	}
	for _, targets := range []int{1, 10} {
		b.Run(fmt.Sprintf("elbsim/targets=%d", targets), func(b *testing.B) {
			s := New(Config{Lags: &Lags{}})
			if _, err := s.AddGroup(Group{Name: "web"}); err != nil {
				b.Fatal(err)
			}
			for range targets {
				port, err := portOf(newBackend().Listener.Addr())
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Register("web", target.Target{ID: testInstance, Port: port}); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Forward("lb", "web", "127.0.0.1:0"); err != nil {
				b.Fatal(err)
			}
			srv, err := Start(s, Listen{})
			if err != nil {
				b.Fatal(err)
			}
			defer srv.Close()
			ask(b, srv.ListenerAddr("web"))
		})
	}
	b.Run("bare", func(b *testing.B) {
		to, err := url.Parse(newBackend().URL)
		if err != nil {
			b.Fatal(err)
		}
		transport := &http.Transport{MaxIdleConnsPerHost: 512}
		defer transport.CloseIdleConnections()
		proxy := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }})
		defer proxy.Close()
		ask(b, proxy.Listener.Addr().String())
	})
}

// BenchmarkCalls is what one call of one of many clients costs, without sockets and without the SDK.
func BenchmarkCalls(b *testing.B) {
	const hosts = 10_000
	s := New(Config{RecordLimit: -1, Quotas: Quotas{TargetsPerGroup: -1, TargetsPerLoadBalancer: -1}})
	arn, err := s.AddGroup(Group{Name: "web"})
	if err != nil {
		b.Fatal(err)
	}
	bodies := map[string][]string{}
	for i := range hosts {
		id := fmt.Sprintf("i-%017x", i)
		if err := s.AddInstance(Instance{ID: id}); err != nil {
			b.Fatal(err)
		}
		if err := s.Register(arn, target.Target{ID: id, Port: 32768}); err != nil {
			b.Fatal(err)
		}
		for _, action := range []string{"RegisterTargets", "DescribeTargetHealth"} {
			bodies[action] = append(bodies[action], url.Values{
				"Action": {action}, "Version": {"2015-12-01"}, "TargetGroupArn": {arn}, "Targets.member.1.Id": {id}, "Targets.member.1.Port": {"32769"},
			}.Encode())
		}
	}
	for action, calls := range bodies {
		b.Run(action, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				if out := s.call(b.Context(), calls[i%hosts], "bench"); out.status != http.StatusOK {
					b.Fatalf("got %d %s", out.status, out.body)
				}
			}
		})
	}
}
