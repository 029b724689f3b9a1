package elbsim

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

// One instance on two ports is two targets: registering, draining and health are each port's own. Stand-ins that keep
// one entry per instance id cannot hold this.
func TestTargets_keyedByIDAndPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		register(t, c, arn, on(32768, 32769)...)
		s.SetBackend(on(32769)[0], Failed())
		time.Sleep(time.Minute)
		want := map[target.Target]string{on(32768)[0]: "healthy", on(32769)[0]: "unhealthy/Target.FailedHealthChecks"}
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("two ports of one instance (-want +got):\n%s", diff)
		}
		deregister(t, c, arn, on(32768)...)
		want[on(32768)[0]] = "draining/Target.DeregistrationInProgress"
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("after deregistering one port (-want +got):\n%s", diff)
		}
		time.Sleep(5 * time.Minute)
		delete(want, on(32768)[0])
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("after the delay (-want +got):\n%s", diff)
		}
	})
}

func TestTargets_life(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web", DeregistrationDelay: time.Minute})
		one := on(32768)[0]
		is := func(when, want string) {
			t.Helper()
			if got := described(t, c, arn, one)[one]; got != want {
				t.Errorf("%s: got %s; want %s", when, got, want)
			}
		}
		is("never registered", "unused/Target.NotRegistered")
		register(t, c, arn, one)
		is("at once", "initial/Elb.RegistrationInProgress")
		time.Sleep(2 * time.Second)
		is("after the lag and one check", "healthy")
		time.Sleep(time.Hour)
		is("an hour later", "healthy")
		deregister(t, c, arn, one)
		is("deregistered", "draining/Target.DeregistrationInProgress")
		time.Sleep(59 * time.Second)
		is("at the end of the delay", "draining/Target.DeregistrationInProgress")
		time.Sleep(time.Second)
		is("after the delay", "unused/Target.NotRegistered")
		if got := described(t, c, arn); len(got) != 0 {
			t.Errorf("all targets after the delay: got %v; want none", got)
		}
	})
}

func TestTargets_registerAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		register(t, c, arn, on(1)...)
		time.Sleep(time.Minute)
		register(t, c, arn, on(1, 1, 2)...)
		want := map[target.Target]string{on(1)[0]: "healthy", on(2)[0]: "initial/Elb.RegistrationInProgress"}
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("registering a registered target (-want +got):\n%s", diff)
		}

		deregister(t, c, arn, on(1)...)
		time.Sleep(time.Minute)
		register(t, c, arn, on(1)...)
		if got := described(t, c, arn)[on(1)[0]]; got != "initial/Elb.RegistrationInProgress" {
			t.Errorf("a draining target registered again: got %s; want initial", got)
		}
		time.Sleep(time.Hour) // past the end of the first delay
		if got := described(t, c, arn)[on(1)[0]]; got != "healthy" {
			t.Errorf("long after: got %s; want healthy", got)
		}
	})
}

func TestTargets_deregisterWhatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web", Port: 80})
		register(t, c, arn, on(80, 32768)...)
		time.Sleep(time.Minute)
		deregister(t, c, arn, on(9)...)
		deregister(t, c, arn, target.Target{ID: otherInstance, Port: 32768})
		want := map[target.Target]string{on(80)[0]: "healthy", on(32768)[0]: "healthy"}
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("strangers deregistered (-want +got):\n%s", diff)
		}
		// Without a port it is the group's port that is meant, not every port of the instance.
		deregister(t, c, arn, on(0)...)
		want[on(80)[0]] = "draining/Target.DeregistrationInProgress"
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("deregistered without a port (-want +got):\n%s", diff)
		}
		since := s.Targets(arn)[0].Deregistered
		time.Sleep(time.Minute)
		deregister(t, c, arn, on(80)...)
		if got := s.Targets(arn)[0].Deregistered; !got.Equal(since) {
			t.Errorf("deregistering a draining target began its delay anew: %v; want %v", got, since)
		}
	})
}

func TestTargets_oneInvalidFailsAll(t *testing.T) {
	for _, partial := range []bool{false, true} {
		s := New(Config{Unverified: Unverified{PartialRegister: partial}})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		err := tryRegister(t.Context(), c, arn, on(1)[0], target.Target{ID: otherInstance, Port: 1})
		wantCode(t, err, "InvalidTarget")
		if got := len(s.Registered(arn)) == 1; got != partial {
			t.Errorf("partial %v: registered %v", partial, s.Registered(arn))
		}
	}
}

func TestTargets_unused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web", Detached: true})
		register(t, c, arn, on(1)...)
		time.Sleep(time.Minute)
		is := func(when, want string) {
			t.Helper()
			if got := described(t, c, arn)[on(1)[0]]; got != want {
				t.Errorf("%s: got %q; want %q", when, got, want)
			}
		}
		is("no listener", "unused/Target.NotInUse")
		if err := s.Attach("web"); err != nil {
			t.Fatal(err)
		}
		is("a listener came", "initial/Elb.RegistrationInProgress")
		time.Sleep(2 * time.Second)
		is("checked", "healthy")
		if err := s.Detach("web"); err != nil {
			t.Fatal(err)
		}
		is("the listener went", "unused/Target.NotInUse")
		deregister(t, c, arn, on(1)...)
		is("deregistered from an unused group", "")
	})
}

func TestTargets_instanceStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		register(t, c, arn, on(1, 2)...)
		time.Sleep(time.Minute)
		state := func(state string) map[target.Target]string {
			t.Helper()
			if err := s.SetInstanceState(testInstance, state); err != nil {
				t.Fatal(err)
			}
			return described(t, c, arn)
		}
		for _, want := range []struct{ state, health string }{
			{"stopped", "unused/Target.InvalidState"},
			{"running", "initial/Elb.RegistrationInProgress"},
			{"terminated", "draining/Target.DeregistrationInProgress"},
		} {
			got := state(want.state)
			if got[on(1)[0]] != want.health || got[on(2)[0]] != want.health {
				t.Errorf("%s: got %v; want %s", want.state, got, want.health)
			}
		}
		wantCode(t, tryRegister(t.Context(), c, arn, on(3)...), "InvalidTarget")

		// What is known of an instance can change without disturbing its targets.
		other := target.Target{ID: otherInstance, Port: 1}
		for _, address := range []string{"10.0.0.11", "10.0.0.12"} {
			if err := s.AddInstance(Instance{ID: otherInstance, PrivateIP: address}); err != nil {
				t.Fatal(err)
			}
			register(t, c, arn, other)
			time.Sleep(time.Minute)
			if got := described(t, c, arn)[other]; got != "healthy" {
				t.Errorf("with address %s: got %s", address, got)
			}
		}
		since := s.Targets(arn)[len(s.Targets(arn))-1].Since
		if since.After(time.Now().Add(-time.Minute)) {
			t.Errorf("healthy since %v: the new address began it anew", since)
		}
		if s.SetInstanceState(testInstance, "sleeping") == nil || s.SetInstanceState("i-00000000000000000", "running") == nil {
			t.Error("an unknown state, or an unknown instance, was accepted")
		}
	})
}

func TestTargets_health(t *testing.T) {
	check := HealthCheck{Interval: 10 * time.Second, Healthy: 3, Unhealthy: 2}
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Backend: func(target.Target) Result { return TimedOut() }, Lags: &Lags{}})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web", HealthCheck: check})
		one := on(1)[0]
		register(t, c, arn, one)
		start := time.Now()
		for _, step := range []struct {
			at   time.Duration
			then func()
			want string
		}{
			{at: 9 * time.Second, want: "initial/Elb.InitialHealthChecking"}, // one failure: not enough
			{at: 10 * time.Second, want: "unhealthy/Target.Timeout"},
			{at: 15 * time.Second, then: func() { s.SetBackend(one, Mismatch(503)) }, want: "unhealthy/Target.Timeout"},
			{at: 20 * time.Second, want: "unhealthy/Target.ResponseCodeMismatch"},
			{at: 25 * time.Second, then: func() { s.SetBackend(one, Passed()) }, want: "unhealthy/Target.ResponseCodeMismatch"},
			{at: 45 * time.Second, want: "unhealthy/Target.ResponseCodeMismatch"}, // two passes of three
			{at: 50 * time.Second, want: "healthy"},
			{at: time.Hour + 5*time.Second, then: func() { s.SetBackend(one, Failed()) }, want: "healthy"},
			{at: time.Hour + 15*time.Second, want: "healthy"}, // one failure of two
			{at: time.Hour + 20*time.Second, want: "unhealthy/Target.FailedHealthChecks"},
		} {
			time.Sleep(time.Until(start.Add(step.at)))
			if step.then != nil {
				step.then()
			}
			if got := described(t, c, arn)[one]; got != step.want {
				t.Errorf("after %v: got %s; want %s", step.at, got, step.want)
			}
		}
		last := s.Targets(arn)[0]
		if want := start.Add(time.Hour + 20*time.Second); !last.Since.Equal(want) {
			t.Errorf("unhealthy since %v; want the time of the check, %v", last.Since, want)
		}
	})
}

// What a lazily evaluated target shows must not depend on how often somebody looked.
func TestTargets_lookingChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watched, alone := on(1)[0], on(2)[0]
		s := New(Config{Lags: &Lags{}, Backend: func(target.Target) Result { return Failed() }})
		arn := addGroup(t, s, Group{Name: "web", HealthCheck: HealthCheck{Interval: 5 * time.Second}})
		if err := s.Register(arn, watched, alone); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			time.Sleep(1700 * time.Millisecond)
			_ = s.Targets(arn)
			if i%40 == 39 {
				for _, one := range []target.Target{watched, alone} {
					s.SetBackend(one, map[bool]Result{true: Passed(), false: Failed()}[i%80 == 39])
				}
			}
		}
		got := s.Targets(arn)
		if diff := cmp.Diff(got[0].Health, got[1].Health); diff != "" {
			t.Errorf("two targets of the same fate differ:\n%s", diff)
		}
	})
}

func TestTargets_forcedHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		one := on(1)[0]
		register(t, c, arn, one)
		time.Sleep(time.Minute)
		for _, h := range []Health{
			{State: StateUnhealthyDraining, Reason: "Target.FailedHealthChecks"},
			{State: StateUnavailable, Reason: "Elb.InternalError"},
			{State: StateUnused, Reason: "Target.IpUnusable"},
			{State: StateUnavailable, Reason: "Target.HealthCheckDisabled"},
		} {
			if err := s.SetHealth("web", one, h); err != nil {
				t.Fatal(err)
			}
			if got, want := described(t, c, arn)[one], string(h.State)+"/"+h.Reason; got != want {
				t.Errorf("got %s; want %s", got, want)
			}
		}
		if err := s.SetHealth("web", one, Health{}); err != nil {
			t.Fatal(err)
		}
		if got := described(t, c, arn)[one]; got != "healthy" {
			t.Errorf("forced no longer: got %s; want healthy", got)
		}
		if err := s.SetHealth("web", on(2)[0], Health{}); err == nil {
			t.Error("forced the health of a stranger")
		}
	})
}

func TestTargets_ip(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := New(Config{Unverified: Unverified{RefuseDrainingIP: refuse}})
			c := clientOf(s)
			arn := addGroup(t, s, Group{Name: "ip", Type: "ip", Protocol: "TCP"})
			one := target.Target{ID: defaultIP, Port: 5432}
			register(t, c, arn, one)
			time.Sleep(time.Minute)
			if got := described(t, c, arn)[one]; got != "healthy" {
				t.Errorf("got %s; want healthy", got)
			}
			deregister(t, c, arn, one)
			err := tryRegister(t.Context(), c, arn, one)
			if refuse {
				wantCode(t, err, "InvalidTarget")
			} else if err != nil {
				t.Errorf("registering a draining address: %v", err)
			}
		})
	}
}

func TestTargets_quotaCountsDraining(t *testing.T) {
	for _, counts := range []bool{false, true} {
		s := New(Config{Quotas: Quotas{TargetsPerGroup: 2}, Unverified: Unverified{DrainingCounts: counts}})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		register(t, c, arn, on(1, 2)...)
		register(t, c, arn, on(1, 2)...) // again: adds nothing
		deregister(t, c, arn, on(1)...)
		err := tryRegister(t.Context(), c, arn, on(3)...)
		if counts {
			wantCode(t, err, "TooManyTargets")
		} else if err != nil {
			t.Errorf("with one of two draining: %v", err)
		}
	}
}

func TestTargets_anyInstance(t *testing.T) {
	s := New(Config{AnyInstance: true, AutoAttach: true, Lags: &Lags{}})
	c := clientOf(s)
	g := create(t, c, createInput("web"))
	register(t, c, *g.TargetGroupArn, target.Target{ID: "i-0aaaaaaaaaaaaaaaa", Port: 1})
	if got := statesOf(s, "web"); len(got) != 1 || got[0] != StateHealthy {
		t.Errorf("got %v; want one healthy target", got)
	}
}

func TestTargets_goAPI(t *testing.T) {
	s := New(Config{})
	arn := addGroup(t, s, Group{Name: "web"})
	if err := s.Register("web", on(2, 1)...); err != nil {
		t.Fatal(err)
	}
	if err := s.Deregister(arn, on(1)...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(on(2), s.Registered("web")); diff != "" {
		t.Errorf("registered (-want +got):\n%s", diff)
	}
	if len(s.Calls()) != 0 {
		t.Errorf("what happens behind the client's back is on record: %v", s.Calls())
	}
	if s.Register("nowhere", on(1)...) == nil || s.Register("web", target.Target{ID: otherInstance, Port: 1}) == nil {
		t.Error("registered in no group, or no instance")
	}
	if s.Targets("nowhere") != nil {
		t.Error("an unknown group has targets")
	}
	if _, err := s.AddGroup(Group{Name: "web"}); err == nil {
		t.Error("added a group of a name that is taken")
	}
}

// Targets that come and go must not leave anything behind.
func TestTargets_forgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		arn := addGroup(t, s, Group{Name: "web"})
		for port := uint16(1); port <= 2000; port++ {
			if err := s.Register(arn, on(port)...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if err := s.Deregister(arn, on(port)...); err != nil {
				t.Fatal(err)
			}
		}
		g := s.groups[arn]
		if n := len(g.entries); n > 302 || n != len(g.leaving) || n != len(s.instances[testInstance].entries) || g.registered != 0 {
			t.Errorf("%d entries, %d leaving, %d of the instance, %d registered; want those of the last 300 s", n, len(g.leaving), len(s.instances[testInstance].entries), g.registered)
		}
	})
}
