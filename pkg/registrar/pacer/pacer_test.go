package pacer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// grants asks for n permits of a class at once, ends each as it comes, and returns when each came.
func grants(p *Pacer, c Class, n int, o Outcome) []time.Duration {
	start := time.Now()
	var permits []*Permit
	for range n {
		permits = append(permits, p.Ask(c, false))
	}
	var at []time.Duration
	for _, permit := range permits {
		<-permit.Ready()
		at = append(at, time.Since(start))
		permit.Done(o)
	}
	return at
}

func TestPacer_rates(t *testing.T) {
	cases := map[string]struct {
		class    Class
		burst    int
		interval time.Duration
	}{
		"register":   {ClassRegister, 3, time.Second},
		"deregister": {ClassDeregister, 5, 250 * time.Millisecond},
		"describe":   {ClassDescribe, 5, time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := grants(New(nil), c.class, c.burst+4, Accepted)
				for i, got := range at {
					want := time.Duration(max(0, i-c.burst+1)) * c.interval
					if got < want || got > want+10*time.Millisecond {
						t.Errorf("grant %d came after %v; want %v", i, got, want)
					}
				}
			})
		})
	}
}

// TestPacer_priority: removals overtake registrations, and those looks; attempts after a failure stand in line; and
// nobody waits for ever.
func TestPacer_priority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		throttle(p)
		look := p.Ask(ClassDescribe, false)
		add := p.Ask(ClassRegister, false)
		again := p.Ask(ClassDeregister, true)
		remove := p.Ask(ClassDeregister, false)
		order := []struct {
			name   string
			permit *Permit
		}{{"first removal", remove}, {"registration", add}, {"look", look}, {"removal after a failure", again}}
		for i, o := range order {
			<-o.permit.Ready()
			for _, later := range order[i+1:] {
				if ready(later.permit) {
					t.Errorf("%s was granted before the %s had ended", later.name, o.name)
				}
			}
			o.permit.Done(Unanswered)
		}
	})
}

// TestPacer_priorityStarvesNobody: twenty groups whose removals are refused for ever have a first attempt each, before a look
// that has waited for longer; then it is the look's turn.
func TestPacer_priorityStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const groups = 20
		p := New(nil)
		p.SetPeers(24) // I = 1 s at first, 20 s at most
		throttle(p)
		look := p.Ask(ClassDescribe, false)
		var first, later int
		var ended sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range groups {
			ended.Go(func() {
				for again := false; ; again = true {
					remove := p.Ask(ClassDeregister, again)
					select {
					case <-remove.Ready():
					case <-ctx.Done():
						remove.Drop()
						return
					}
					if again {
						later++
					} else {
						first++
					}
					remove.Done(Throttled)
				}
			})
		}
		<-look.Ready()
		if first != groups || later > 0 {
			t.Errorf("the look went after %d first attempts of removals and %d others; want %d, which are all, and none", first, later, groups)
		}
		look.Done(Accepted)
		cancel()
		ended.Wait()
	})
}

// TestPacer_firstAttempts: what has to be known before anything can be registered is asked for five times a second, unless the
// host is one of a crowd, by its number of peers or by what a call was answered; other looks are not.
func TestPacer_firstAttempts(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(*Pacer)
		ask    func(*Pacer) *Permit
		rate   time.Duration // of one call
	}{
		"alone":              {func(*Pacer) {}, func(p *Pacer) *Permit { return p.AskFirst(true) }, 200 * time.Millisecond},
		"ten hosts":          {func(p *Pacer) { p.SetPeers(10) }, func(p *Pacer) *Permit { return p.AskFirst(false) }, 200 * time.Millisecond},
		"eleven":             {func(p *Pacer) { p.SetPeers(11) }, func(p *Pacer) *Permit { return p.AskFirst(true) }, time.Second},
		"throttled a moment": {func(p *Pacer) { throttle(p); attempt(p, ClassRegister, true, Accepted) }, func(p *Pacer) *Permit { return p.AskFirst(true) }, time.Second},
		"an ordinary look":   {func(*Pacer) {}, func(p *Pacer) *Permit { return p.Ask(ClassDescribe, false) }, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New(nil)
				tt.before(p)
				begun := time.Now()
				for range 45 {
					permit := tt.ask(p)
					<-permit.Ready()
					permit.Done(Accepted)
				}
				if took, want := time.Since(begun), 40*tt.rate; took < want || took > want+50*time.Millisecond {
					t.Errorf("45 calls took %v; want 5 at once and 40 in %v", took, want)
				}
			})
		})
	}
}

// TestPacer_firstLooksBeforeLookUps: what was found can be looked at, and registered, before everything is found.
func TestPacer_firstLooksBeforeLookUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		var found []*Permit
		for range 20 {
			found = append(found, p.AskFirst(false))
		}
		<-found[0].Ready()
		found[0].Done(Accepted)
		time.Sleep(time.Second)
		look := p.AskFirst(true)
		<-look.Ready()
		if ready(found[len(found)-1]) {
			t.Error("the look came after all look-ups")
		}
		look.Done(Accepted)
		for _, permit := range found[1:] {
			<-permit.Ready()
			permit.Done(Accepted)
		}
	})
}

// TestPacer_acceptedSideBySide: calls that were under way together have met the limit once, whichever answer comes first.
func TestPacer_acceptedSideBySide(t *testing.T) {
	for name, outcomes := range map[string][]Outcome{
		"throttled first": {Throttled, Accepted, Accepted},
		"throttled last":  {Accepted, Accepted, Throttled},
		"between":         {Accepted, Throttled, Accepted},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := New(nil)
			p.SetPeers(240)
			attempt(p, ClassRegister, false, Accepted)
			var burst []*Permit
			for range outcomes {
				burst = append(burst, p.Ask(ClassDeregister, false))
			}
			for i, permit := range burst {
				<-permit.Ready()
				time.Sleep(time.Millisecond)
				permit.Done(outcomes[i])
			}
			if got := p.Interval(); got != 10*time.Second {
				t.Errorf("%s: the interval is %v; want 10s", name, got)
			}
			// The next call that goes out has more to say.
			if attempt(p, ClassRegister, true, Throttled); p.Interval() != 20*time.Second {
				t.Errorf("%s: the interval is %v after another throttled call; want 20s", name, p.Interval())
			}
		})
	}
}

func throttle(p *Pacer) {
	permit := p.Ask(ClassRegister, false)
	<-permit.Ready()
	permit.Done(Throttled)
}

func ready(t *Permit) bool {
	select {
	case <-t.Ready():
		return true
	default:
		return false
	}
}

func TestPacer_throttled(t *testing.T) {
	cases := map[string]struct {
		peers    int
		draining bool
		first    time.Duration
		cap      time.Duration
	}{
		"one peer":     {peers: 1, first: time.Second, cap: 20 * time.Second},
		"240 peers":    {peers: 240, first: 10 * time.Second, cap: 24 * time.Second},
		"unknown":      {peers: 0, first: time.Second, cap: 60 * time.Second},
		"draining":     {peers: 1, draining: true, first: time.Second, cap: 10 * time.Second},
		"ten thousand": {peers: 10000, first: 10000 * time.Second / 24, cap: 1000 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told time.Duration
				p := New(func(d time.Duration) { told = d })
				p.SetPeers(c.peers)
				p.SetDraining(c.draining)
				p.SetServing()
				throttle(p)
				if got := p.Interval(); got != c.first || told != got {
					t.Fatalf("interval after the first throttle is %v, told %v; want %v", got, told, c.first)
				}
				for range 12 {
					before := p.Interval()
					asked := time.Now()
					permit := p.Ask(ClassRegister, true)
					<-permit.Ready()
					if waited := time.Since(asked); waited < before*7/10 || waited > before {
						t.Fatalf("waited %v; want between %v and %v", waited, before*7/10, before)
					}
					permit.Done(Throttled)
				}
				if got := p.Interval(); got < c.cap || got > max(c.cap, time.Since(p.throttled)/5) {
					t.Errorf("interval after many throttles is %v; want the cap of %v", got, c.cap)
				}
				for i := 0; p.Interval() > 0; i++ {
					if i > 30 {
						t.Fatal("accepted calls do not end the slow-down")
					}
					permit := p.Ask(ClassRegister, false)
					<-permit.Ready()
					permit.Done(Accepted)
				}
			})
		})
	}
}

// TestPacer_oneProbe: while the host is throttled, one call is in flight at most, whatever its class.
func TestPacer_oneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		throttle(p)
		a, b := p.Ask(ClassDeregister, false), p.Ask(ClassRegister, false)
		<-a.Ready()
		time.Sleep(time.Hour)
		synctest.Wait()
		if ready(b) {
			t.Error("a second call was let out while the first was in flight")
		}
		a.Done(Accepted)
		<-b.Ready()
		b.Done(Accepted)
	})
}

func TestPermit_drop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		for range 3 {
			permit := p.Ask(ClassRegister, false)
			<-permit.Ready()
			permit.Done(Accepted)
		}
		for range 10 { // a permit that is given back costs nothing
			permit := p.Ask(ClassRegister, false)
			<-permit.Ready()
			permit.Drop()
			permit.Drop()
			permit.Done(Throttled)
		}
		if got := p.Interval(); got != 0 {
			t.Errorf("Done after Drop counted: interval %v", got)
		}
		waiting := p.Ask(ClassRegister, false)
		<-waiting.Ready()
		next := p.Ask(ClassRegister, false)
		synctest.Wait()
		if ready(next) {
			t.Fatal("more than the rate was let out")
		}
		next.Drop()
		if !p.Idle() {
			t.Error("a dropped permit still waits")
		}
		waiting.Done(Accepted)
	})
}

// TestPacer_first: the first call of all goes out alone, so that a fleet that starts at once is told so by one call a
// host; once it is answered, the others follow.
func TestPacer_first(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		a, b, c := p.Ask(ClassDescribe, false), p.Ask(ClassDescribe, false), p.Ask(ClassDescribe, false)
		<-a.Ready()
		time.Sleep(firstAlone / 2)
		if ready(b) || ready(c) {
			t.Fatal("another call went out before the first was answered")
		}
		a.Done(Aborted) // says nothing
		<-b.Ready()
		if synctest.Wait(); ready(c) {
			t.Fatal("a call that was given up counts as answered")
		}
		b.Done(Accepted)
		<-c.Ready()
		c.Done(Accepted)
	})
}

// TestPacer_firstHangs: a first call that hangs holds nobody up for long.
func TestPacer_firstHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		hung, asked := p.Ask(ClassDescribe, false), time.Now()
		<-hung.Ready()
		a, b := p.Ask(ClassDescribe, false), p.Ask(ClassRegister, false)
		<-a.Ready()
		<-b.Ready()
		if waited := time.Since(asked); waited > firstAlone {
			t.Errorf("the others waited %v", waited)
		}
		for _, permit := range []*Permit{hung, a, b} {
			permit.Done(Accepted)
		}
	})
}

// attempt makes one call and returns how long it had to wait.
func attempt(p *Pacer, c Class, again bool, o Outcome) time.Duration {
	asked := time.Now()
	permit := p.Ask(c, again)
	<-permit.Ready()
	permit.Done(o)
	return time.Since(asked)
}

// inOutage makes a pacer of so many peers whose calls have failed for long enough to be an outage.
func inOutage(peers int, o Outcome) *Pacer {
	p := New(nil)
	p.SetPeers(peers)
	attempt(p, ClassRegister, false, o)
	time.Sleep(outageAfter)
	attempt(p, ClassRegister, true, o)
	return p
}

// TestPacer_outage: while nothing succeeds, attempts after a failure are as far apart as the fleet is large, and first
// attempts are not held up; when the service is back, four calls go out at that pace.
func TestPacer_outage(t *testing.T) {
	cases := map[string]struct {
		peers int
		pace  time.Duration
	}{
		"ten":          {10, 3125 * time.Millisecond},
		"a thousand":   {1000, 312500 * time.Millisecond},
		"ten thousand": {10000, 8 * time.Minute},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New(nil)
				p.SetPeers(c.peers)
				attempt(p, ClassRegister, false, Failed)
				time.Sleep(outageAfter)
				if waited := attempt(p, ClassRegister, true, Failed); waited > 0 {
					t.Errorf("the first retry waited %v", waited)
				}
				if waited := attempt(p, ClassRegister, true, Failed); waited > c.pace+time.Second {
					t.Errorf("the place in the row is %v away; want at most %v", waited, c.pace)
				}
				paced := func(o Outcome) {
					t.Helper()
					if waited := attempt(p, ClassRegister, true, o); waited < c.pace*94/100 || waited > c.pace*106/100 {
						t.Errorf("a retry waited %v; want about %v", waited, c.pace)
					}
				}
				for range 100 {
					paced(Failed)
					if waited := attempt(p, ClassDeregister, false, Failed); waited > 0 {
						t.Fatalf("a first attempt waited %v", waited)
					}
				}
				if !p.Crowded() {
					t.Error("nobody would know of the crowd")
				}
				paced(Failed)
				for range 1 + outageCalls {
					paced(Accepted)
				}
				total := time.Duration(0)
				for i := 0; p.outage.interval > 0; i++ {
					if total += attempt(p, ClassDeregister, true, Accepted); i > 30 || total > 2*c.pace {
						t.Fatalf("still slow after %d more calls and %v", i, total)
					}
				}
				for range 4 {
					if waited := attempt(p, ClassDeregister, true, Accepted); waited > 0 {
						t.Errorf("a retry long after the outage waited %v", waited)
					}
				}
			})
		})
	}
}

// TestPacer_outageUnanswered: what is not answered may be this host's own network: nobody waits longer than some times as
// long as that has lasted, and in the end as long as after an answer.
func TestPacer_outageUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		p := inOutage(1000, Unanswered)
		for p.outage.interval < p.retryPace() {
			age := time.Since(begun)
			if waited := attempt(p, ClassDeregister, true, Unanswered); waited > outageGrowth*age {
				t.Fatalf("after %v without an answer a retry waited %v", age, waited)
			}
			if age > p.retryPace() {
				t.Fatalf("after %v the interval is %v", age, p.outage.interval)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := inOutage(1000, Unanswered)
		attempt(p, ClassRegister, true, Failed)
		if got := p.outage.interval; got != p.retryPace() {
			t.Errorf("the service has said that it is in trouble, and the interval is %v; want %v", got, p.retryPace())
		}
	})
}

// TestPacer_blip: what fails for a few seconds brings no crowd: the first success ends the slow-down.
func TestPacer_blip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := inOutage(1000, Failed)
		attempt(p, ClassDescribe, false, Accepted)
		for range 3 {
			if waited := attempt(p, ClassRegister, true, Accepted); waited > 2*time.Second {
				t.Errorf("a retry waited %v after the blip", waited)
			}
		}
	})
}

// TestPacer_oneBrokenGroup: where other calls succeed, it is no outage.
func TestPacer_oneBrokenGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.SetPeers(1000)
		for range 50 {
			time.Sleep(20 * time.Second)
			if waited := attempt(p, ClassRegister, true, Failed); waited > 0 {
				t.Fatalf("the broken group waited %v for a permit", waited)
			}
			attempt(p, ClassRegister, false, Accepted)
		}
	})
}

// TestPacer_outageOrder: after an outage writes are caught up with before looks.
func TestPacer_outageOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := inOutage(100, Failed)
		p.outage.next = time.Now().Add(10 * time.Second) // the host's turn: both have asked by then
		look := p.AskLast()
		time.Sleep(time.Second)
		write := p.Ask(ClassRegister, true)
		<-write.Ready()
		if ready(look) {
			t.Error("the look went first")
		}
		write.Done(Accepted)
		<-look.Ready()
		look.Done(Accepted)
	})
}

// outageOf makes a pacer of a thousand peers whose calls have failed for d.
func outageOf(d time.Duration) *Pacer {
	p := New(nil)
	p.SetPeers(1000)
	begun := time.Now()
	for attempt(p, ClassRegister, false, Failed); time.Since(begun) < d; {
		time.Sleep(outageAfter)
		attempt(p, ClassRegister, true, Failed)
	}
	return p
}

// TestPacer_outageTurns: first attempts take nobody's turn, however many there are, and whatever becomes of them.
func TestPacer_outageTurns(t *testing.T) {
	for _, o := range []Outcome{Accepted, Failed} {
		synctest.Test(t, func(t *testing.T) {
			p := outageOf(10 * time.Minute)
			retry, asked := p.Ask(ClassDeregister, true), time.Now()
			for range 20 {
				time.Sleep(100 * time.Second)
				attempt(p, ClassRegister, false, o)
			}
			if !ready(retry) {
				t.Errorf("a retry still waits after %v of first attempts with outcome %v", time.Since(asked), o)
			}
			<-retry.Ready()
			retry.Done(Accepted)
		})
	}
}

// TestPacer_outageFlaps: a service that fails once more while it comes back finds the same row of hosts, not a crowd.
func TestPacer_outageFlaps(t *testing.T) {
	for name, outcomes := range map[string][]Outcome{
		"fails once more":      {Accepted, Failed},
		"accepts, fails, soon": {Accepted, Failed, Accepted},
		"throttles":            {Throttled, Failed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := outageOf(10 * time.Minute)
				for _, o := range outcomes {
					attempt(p, ClassRegister, true, o)
				}
				if waited := attempt(p, ClassRegister, true, Failed); waited < 4*time.Minute {
					t.Errorf("the next retry waited %v", waited)
				}
			})
		})
	}
}

// TestPacer_forgets: what was learned about a crowd is out of date when nothing was called for long.
func TestPacer_forgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told time.Duration
		p := New(func(d time.Duration) { told = d })
		p.SetPeers(1000)
		throttle(p)
		attempt(p, ClassRegister, true, Accepted)
		if !p.Crowded() || p.Interval() == 0 || told != p.Interval() {
			t.Fatalf("nothing was learned: interval %v, told %v", p.Interval(), told)
		}
		time.Sleep(20 * time.Minute)
		if got := p.Interval(); got != 0 || told != 0 {
			t.Errorf("after a lull the interval is %v, and %v was told", got, told)
		}
		if p.Crowded() {
			t.Error("crowded for ever")
		}
		time.Sleep(24 * time.Hour)
		throttle(p)
		for range 5 {
			attempt(p, ClassRegister, true, Throttled)
		}
		if got := p.Interval(); got > 100*time.Second {
			t.Errorf("a new row is as slow as if it were a day old: %v", got)
		}
	})
}
