package elbsim

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

func TestNetProbe(t *testing.T) {
	ok := backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("User-Agent") != "ELB-HealthChecker/2.0":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case r.URL.Path == "/created":
			w.WriteHeader(http.StatusCreated)
		case r.URL.Path == "/slow":
			<-r.Context().Done()
		}
	})
	addr := func(one target.Target) string { return (&entry{Target: one}).dialAddress() }
	for name, test := range map[string]struct {
		check Check
		want  Result
	}{
		"200":               {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/", Codes: "200"}}, Passed()},
		"201 of 200":        {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/created", Codes: "200"}}, Mismatch(201)},
		"201 of 200,201":    {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/created", Codes: "200,201"}}, Passed()},
		"201 of 200-299":    {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/created", Codes: "200-299"}}, Passed()},
		"redirect":          {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/moved", Codes: "200"}}, Mismatch(302)},
		"timeout":           {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/slow", Codes: "200"}}, TimedOut()},
		"refused":           {Check{Address: addr(unusedPort(t)), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/", Codes: "200"}}, Failed()},
		"TCP":               {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "TCP"}}, Passed()},
		"TCP refused":       {Check{Address: addr(unusedPort(t)), HealthCheck: HealthCheck{Protocol: "TCP"}}, Failed()},
		"HTTPS without TLS": {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTPS", Path: "/", Codes: "200"}}, Failed()},
		"path with rubbish": {Check{Address: addr(ok), HealthCheck: HealthCheck{Protocol: "HTTP", Path: "/%zz", Codes: "200"}}, Failed()},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := 10 * time.Second
			if name == "timeout" {
				timeout = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if diff := cmp.Diff(test.want, NetProbe(ctx, test.check)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Over sockets: initial, healthy, unhealthy, draining, gone, by real checks of a real server.
func TestProbe_real(t *testing.T) {
	var sick atomic.Bool
	one := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "hello")
	})
	s, srv := balancedSim(t, Config{Probe: NetProbe}, func(s *Sim) {
		addGroup(t, s, Group{
			Name: "web", DeregistrationDelay: 3 * time.Second,
			HealthCheck: HealthCheck{Path: "/healthz", Interval: 20 * time.Millisecond, Healthy: 2},
		})
		if err := s.Forward("lb", "web", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	})
	c := clientWith(newTransport(t), srv.URL())
	arn := s.GroupARN("web")
	is := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return described(t, c, arn, one)[one] == want })
	}
	is("unused/Target.NotRegistered")
	register(t, c, arn, one)
	is("healthy")
	if status, body := get(t, newTransport(t), srv.ListenerAddr("web"), "/"); status != 200 || body != "hello" {
		t.Errorf("through the load balancer: got %d %s", status, body)
	}
	sick.Store(true)
	is("unhealthy/Target.ResponseCodeMismatch")
	sick.Store(false)
	is("healthy")
	deregister(t, c, arn, one)
	is("draining/Target.DeregistrationInProgress")
	is("unused/Target.NotRegistered")
}

// In a bubble a Prober of one's own runs by fake time, one goroutine for each registered target and none for others.
func TestProbe_synctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := on(1)[0], on(2)[0]
		var probes atomic.Int64 // of one
		s := New(Config{Probe: func(_ context.Context, c Check) Result {
			if c.Target == one {
				probes.Add(1)
			}
			time.Sleep(100 * time.Millisecond)
			if c.Target == two {
				return TimedOut()
			}
			return Passed()
		}})
		arn := addGroup(t, s, Group{Name: "web", HealthCheck: HealthCheck{Interval: 10 * time.Second}})
		mustRegister(t, s, arn, one)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		if err := s.Run(t.Context()); err == nil {
			t.Error("a second Run was accepted")
		}
		mustRegister(t, s, arn, two)
		time.Sleep(2050 * time.Millisecond)
		if got := s.Targets(arn)[0].Reason; got != "Elb.InitialHealthChecking" {
			t.Errorf("during the first check: got %s", got)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]State{StateHealthy, StateInitial}, statesOf(s, arn)); diff != "" {
			t.Errorf("after one and a half checks (-want +got):\n%s", diff)
		}
		time.Sleep(10 * time.Second)
		if got := statesOf(s, arn)[1]; got != StateUnhealthy {
			t.Errorf("after two failures: got %s", got)
		}
		if err := s.Deregister(arn, one, two); err != nil {
			t.Fatal(err)
		}
		before := probes.Load()
		time.Sleep(time.Minute)
		if probes.Load() != before {
			t.Error("a draining target is still probed")
		}
		mustRegister(t, s, arn, one)
		time.Sleep(time.Minute)
		if probes.Load() == before {
			t.Error("a revived target is not probed")
		}
		if _, err := clientOf(s).DeleteTargetGroup(t.Context(), deleteInput(arn)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
