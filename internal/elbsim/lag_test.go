package elbsim

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim/limits"
	"berth/pkg/target"
)

func TestLag_describe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Lags: &Lags{Describe: 3 * time.Second}})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web", DeregistrationDelay: 10 * time.Second})
		one := on(1)[0]
		register(t, c, arn, one)
		start := time.Now()
		for _, step := range []struct {
			at   time.Duration
			want string
		}{{0, ""}, {2999 * time.Millisecond, ""}, {3 * time.Second, "healthy"}, {time.Minute, "healthy"}} {
			time.Sleep(time.Until(start.Add(step.at)))
			if got := described(t, c, arn)[one]; got != step.want {
				t.Errorf("%v after registration: got %q; want %q", step.at, got, step.want)
			}
		}
		if got := statesOf(s, "web"); got[0] != StateHealthy {
			t.Errorf("Targets is not the present: %v", got)
		}
		deregister(t, c, arn, one)
		start = time.Now()
		for _, step := range []struct {
			at   time.Duration
			want string
		}{{0, "healthy"}, {3 * time.Second, "draining/Target.DeregistrationInProgress"}, {12 * time.Second, "draining/Target.DeregistrationInProgress"}, {13 * time.Second, ""}} {
			time.Sleep(time.Until(start.Add(step.at)))
			if got := described(t, c, arn)[one]; got != step.want {
				t.Errorf("%v after deregistration: got %q; want %q", step.at, got, step.want)
			}
		}
	})
}

func TestLag_registerIsConfigurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		arn := addGroup(t, s, Group{Name: "web"})
		s.SetLags(Lags{Register: 30 * time.Second})
		if err := s.Register(arn, on(1)...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(29 * time.Second)
		if got := statesOf(s, arn)[0]; got != StateInitial {
			t.Errorf("before the lag is over: got %s", got)
		}
		time.Sleep(time.Second)
		if got := statesOf(s, arn)[0]; got != StateHealthy {
			t.Errorf("after the lag: got %s", got)
		}
	})
}

// Load balancers go on with a deregistered target for the lag, and no longer; the others see nothing of it.
func TestLag_deregisteredTargetsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, delay := range []time.Duration{time.Minute, -1} { // also where it does not drain at all
			s := New(Config{})
			arn := addGroup(t, s, Group{Name: "web", DeregistrationDelay: delay})
			if err := s.Register(arn, on(1, 2)...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if err := s.Deregister(arn, on(1)...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(1999 * time.Millisecond)
			if diff := cmp.Diff(map[uint16]int{1: 5, 2: 5}, picked(s, arn, 10)); diff != "" {
				t.Errorf("delay %v, within the lag (-want +got):\n%s", delay, diff)
			}
			time.Sleep(time.Millisecond)
			if diff := cmp.Diff(map[uint16]int{2: 10}, picked(s, arn, 10)); diff != "" {
				t.Errorf("delay %v, after the lag (-want +got):\n%s", delay, diff)
			}
		}
	})
}

// picked counts by port where n new requests of a group would go; 0 where no target can take one.
func picked(s *Sim, arn string, n int) map[uint16]int {
	got := map[uint16]int{}
	for range n {
		now := s.lock()
		if e := s.pick(s.groups[arn], now); e != nil {
			got[e.Port]++
		} else {
			got[0]++
		}
		s.mu.Unlock()
	}
	return got
}

func TestPick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Lags: &Lags{Register: 2 * time.Second}})
		arn := addGroup(t, s, Group{Name: "web", HealthCheck: HealthCheck{Interval: 10 * time.Second}})
		is := func(when string, want map[uint16]int) {
			t.Helper()
			if diff := cmp.Diff(want, picked(s, arn, 12)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		is("no target", map[uint16]int{0: 12})
		if err := s.Register(arn, on(1, 2, 3)...); err != nil {
			t.Fatal(err)
		}
		s.SetBackend(on(3)[0], Failed())
		is("none healthy yet: fail-open", map[uint16]int{1: 4, 2: 4, 3: 4})
		time.Sleep(2 * time.Second)
		is("two healthy", map[uint16]int{1: 6, 2: 6})
		s.SetBackend(on(1)[0], TimedOut())
		s.SetBackend(on(2)[0], Mismatch(500))
		time.Sleep(30 * time.Second)
		is("none healthy any more: fail-open", map[uint16]int{1: 4, 2: 4, 3: 4})
		s.SetBackend(on(2)[0], Passed())
		time.Sleep(time.Minute)
		is("one recovered", map[uint16]int{2: 12})
		if err := s.SetHealth("web", on(3)[0], Health{State: StateHealthy}); err != nil {
			t.Fatal(err)
		}
		is("one forced", map[uint16]int{2: 6, 3: 6})
		if err := s.Deregister(arn, on(1, 2, 3)...); err != nil {
			t.Fatal(err)
		}
		is("all drain", map[uint16]int{0: 12})
		if err := s.Register(arn, on(2)...); err != nil {
			t.Fatal(err)
		}
		is("one revived", map[uint16]int{2: 12})
		if err := s.Detach("web"); err != nil {
			t.Fatal(err)
		}
		is("unused", map[uint16]int{0: 12})
	})
}

// Latency delays the effect, and a client that gives up meanwhile changes nothing about it.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Latency: time.Second})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		start := time.Now()
		register(t, c, arn, on(1)...)
		if took := time.Since(start); took != time.Second {
			t.Errorf("a call took %v; want 1s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		err := tryRegister(ctx, c, arn, on(2)...)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v; want a deadline", err)
		}
		if diff := cmp.Diff(on(1), s.Registered(arn)); diff != "" {
			t.Errorf("at the client's deadline (-want +got):\n%s", diff)
		}
		time.Sleep(700 * time.Millisecond)
		if diff := cmp.Diff(on(1, 2), s.Registered(arn)); diff != "" {
			t.Errorf("when the call would have ended (-want +got):\n%s", diff)
		}
		last := s.Calls()[1]
		if last.Outcome != "left" || !last.EffectAt.Equal(start.Add(2*time.Second)) {
			t.Errorf("record: got %+v; want left, with its effect 2 s after the start", last)
		}
		s.SetLatency(0)
		start = time.Now()
		register(t, c, arn, on(3)...)
		if took := time.Since(start); took != 0 {
			t.Errorf("without latency a call took %v", took)
		}
	})
}

func TestThrottling(t *testing.T) {
	for _, rejectedTakes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			throttling := limits.Default()
			throttling.RejectedTakes = rejectedTakes
			s := New(Config{Throttling: throttling})
			arn := addGroup(t, s, Group{Name: "web"})
			// Two clients, one account.
			clients := []interface {
				register() error
				describe() error
			}{throttled{t, s, arn, testInstance}, throttled{t, s, arn, otherInstance}}
			count := func(n int, call func(i int) error) (passed int) {
				for i := range n {
					err := call(i)
					if err == nil {
						passed++
						continue
					}
					wantCode(t, err, "Throttling")
				}
				return passed
			}
			registers := func(n int) int { return count(n, func(i int) error { return clients[i%2].register() }) }
			describes := func(n int) int { return count(n, func(i int) error { return clients[i%2].describe() }) }

			if got := registers(30); got != 20 {
				t.Errorf("of 30 registrations at once %d passed; want 20", got)
			}
			// 20 were taken from the bucket of all actions, and 10 more if rejected ones take too.
			want := 20
			if rejectedTakes {
				want = 10
			}
			if got := describes(30); got != want {
				t.Errorf("then of 30 describes %d passed; want %d", got, want)
			}
			time.Sleep(time.Second)
			if got := registers(10); got != 4 {
				t.Errorf("a second later %d registrations passed; want 4", got)
			}
			time.Sleep(time.Hour)
			if got := describes(100); got != 40 {
				t.Errorf("after a rest %d describes passed; want 40", got)
			}
			s.SetThrottling(nil)
			if got := registers(100); got != 100 {
				t.Errorf("switched off, %d of 100 passed", got)
			}
		})
	}
}

type throttled struct {
	t        *testing.T
	s        *Sim
	arn      string
	instance string
}

func (c throttled) register() error {
	return tryRegister(c.t.Context(), clientWith(c.s.HTTPClientFor(c.instance), "http://elb.test"), c.arn, target.Target{ID: testInstance, Port: 1})
}

func (c throttled) describe() error {
	return describeHealth(c.t.Context(), clientWith(c.s.HTTPClientFor(c.instance), "http://elb.test"), c.arn)
}
