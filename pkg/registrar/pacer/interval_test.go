package pacer

import (
	"testing"
	"testing/synctest"
	"time"
)

// looked makes looks that are throttled for so long, as a finder does whose group is not found.
func looked(p *Pacer, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		permit := p.Ask(ClassDescribe, true)
		<-permit.Ready()
		permit.Done(Throttled)
	}
}

// granted waits for a permit and returns how long it took to come.
func granted(p *Pacer, c Class) (*Permit, time.Duration) {
	asked := time.Now()
	permit := p.Ask(c, false)
	<-permit.Ready()
	return permit, time.Since(asked)
}

// TestPacer_looksThrottled: somebody uses up the limit on looks, for hours. Removals go on, registrations wait no longer than
// after a minute of it, and what becomes of a removal says nothing about looks.
func TestPacer_looksThrottled(t *testing.T) {
	for peers, most := range map[int]time.Duration{0: time.Minute, 10: 20 * time.Second, 1000: 100 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := New(nil)
			p.SetPeers(peers)
			p.SetServing()
			looked(p, 5*time.Hour)
			if i := p.Interval(); i > most {
				t.Errorf("%d peers: I is %v after five hours; want at most %v", peers, i, most)
			}
			before := p.Interval()
			look := p.Ask(ClassDescribe, true)
			for range 4 {
				permit, took := granted(p, ClassDeregister)
				if took > 0 {
					t.Errorf("%d peers: a removal waited for %v", peers, took)
				}
				permit.Done(Accepted)
			}
			if i := p.Interval(); i != before || ready(look) {
				t.Errorf("%d peers: I is %v after removals, was %v; the next look may go: %v", peers, i, before, ready(look))
			}
			look.Drop()
			if permit, took := granted(p, ClassRegister); took > most {
				t.Errorf("%d peers: a registration waited for %v", peers, took)
			} else {
				permit.Drop()
			}
		})
	}
}

// TestPacer_writesThrottled: a removal that is throttled waits as all do, for as long as the crowd may be there.
func TestPacer_writesThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.SetPeers(300)
		p.SetServing()
		looked(p, time.Hour)
		permit, _ := granted(p, ClassDeregister)
		permit.Done(Throttled)
		first := p.Interval()
		permit, took := granted(p, ClassDeregister)
		if took < first/2 {
			t.Errorf("a removal waited for %v after one that was throttled; I was %v", took, first)
		}
		permit.Done(Throttled)
		looked(p, 4*time.Hour)
		if permit, took = granted(p, ClassDeregister); took > 0 {
			t.Errorf("a removal waited for %v, hours after the last throttled one", took)
		}
		permit.Done(Accepted)
	})
}

// TestPacer_oneWriteThrottled: one write among hours of throttled looks says that writes are scarce, for as long as a crowd
// takes that begins now. It does not bring back an interval that has grown with the looks.
func TestPacer_oneWriteThrottled(t *testing.T) {
	for peers, most := range map[int]time.Duration{10: time.Minute, 100: 2 * time.Minute, 1000: 20 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := New(nil)
			p.SetPeers(peers)
			p.SetServing()
			looked(p, 5*time.Hour)
			permit, _ := granted(p, ClassRegister)
			permit.Done(Throttled)
			begun := time.Now()
			for waited := time.Second; waited > 0; {
				looked(p, time.Minute)
				permit, took := granted(p, ClassDeregister)
				permit.Done(Accepted)
				if waited = took; took > most/2 {
					t.Errorf("%d peers: a removal waited for %v, I is %v", peers, took, p.Interval())
				}
			}
			if took := time.Since(begun); took > most+5*time.Minute {
				t.Errorf("%d peers: writes counted as scarce for %v", peers, took)
			}
		})
	}
}

// TestPacer_sideBySide: removals that go out side by side and are throttled together are one sign, not five.
func TestPacer_sideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.SetPeers(320) // 32 s at most, 10 s at first
		p.SetServing()
		look, _ := granted(p, ClassDescribe)
		look.Done(Throttled)
		before := p.Interval()
		var permits []*Permit
		for range 4 {
			permit, _ := granted(p, ClassDeregister)
			permits = append(permits, permit)
		}
		time.Sleep(time.Second)
		for _, permit := range permits {
			permit.Done(Throttled)
		}
		if i := p.Interval(); i != 2*before {
			t.Errorf("I is %v after four at once, was %v; want twice that", i, before)
		}
	})
}

// TestPacer_drainingKeeps: what is about to go out anyway is not put off because the host begins to drain.
func TestPacer_drainingKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.SetPeers(10)
		p.SetServing()
		for p.Interval() < 20*time.Second {
			permit, _ := granted(p, ClassDeregister)
			permit.Done(Throttled)
		}
		time.Sleep(time.Until(p.next) - time.Second)
		p.SetDraining(true)
		if _, took := granted(p, ClassDeregister); took > time.Second {
			t.Errorf("the removal came after %v; it was due in a second", took)
		}
	})
}

// TestPacer_drainingCuts: what waits when the host begins to drain waits no longer than a host that drains does.
func TestPacer_drainingCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.SetPeers(10)
		p.SetServing()
		for end := time.Now().Add(5 * time.Hour); time.Now().Before(end); {
			permit, _ := granted(p, ClassDeregister)
			permit.Done(Throttled)
		}
		if i := p.Interval(); i < time.Hour/2 {
			t.Fatalf("I is %v after five hours of throttled writes", i)
		}
		asked := time.Now()
		permit := p.Ask(ClassDeregister, false)
		p.SetDraining(true)
		<-permit.Ready()
		if took := time.Since(asked); took > 10*time.Second {
			t.Errorf("the removal of a host that drains waited for %v", took)
		}
		permit.Done(Accepted)
	})
}
