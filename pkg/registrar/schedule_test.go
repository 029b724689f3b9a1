package registrar

import (
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// crowdedOf is a reconciler of a host of a thousand in a crowd that does not end.
func crowdedOf(groups int64) *reconciler {
	env := &environment{pacer: pacer.New(nil), census: pacer.NewCensus(1000), followers: &followers{count: map[string]int{}}}
	env.census.SetGroups(int(groups))
	env.pacer.SetPeers(1000)
	return &reconciler{env: env, in: &input{keys: []string{"web"}}, have: map[target.Target]State{}, want: target.Set{}}
}

// TestSchedule_fullLookComes: writes in a crowd put the first look at a whole group off, but not for ever.
func TestSchedule_fullLookComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := crowdedOf(10)
		s, begun := &r.schedule, time.Now()
		s.start(begun, false, r.env.fleet())
		throttled(r.env.pacer)
		s.skip(begun, r)
		r.have[target.Target{ID: "i-1", Port: 1}] = State{Phase: ledger.Registered, Health: "healthy"}
		for {
			time.Sleep(r.env.fleet() / 10)
			now := time.Now()
			throttled(r.env.pacer)
			s.wrote(now, r)
			at, full := s.next(now, r)
			if full && !at.After(now) {
				break
			}
			if !at.After(now) {
				s.lookedAt(now, false, r)
			}
			if waited := now.Sub(begun); waited > 2*r.env.fleet() {
				t.Fatalf("no look at the whole group after %v", waited)
			}
		}
	})
}

// TestSchedule_awaitsGone: a registration that waits for a draining to be over has its look also in a crowd.
func TestSchedule_awaitsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := crowdedOf(10)
		x := target.Target{ID: "10.0.0.1", Port: 1}
		r.have[x], r.cond.AwaitGone = State{Phase: ledger.Removing}, true
		r.want.Add(x, target.Want{})
		throttled(r.env.pacer)
		now := time.Now()
		r.schedule.start(now, true, r.env.fleet())
		r.schedule.wrote(now, r)
		if at, _ := r.schedule.next(now, r); at.Sub(now) > 2*time.Minute {
			t.Errorf("the look that the registration waits for is %v away", at.Sub(now))
		}
	})
}

// TestSchedule_ledgerAlone: a host that only looks and knows its group from the ledger has a time for its first look.
func TestSchedule_ledgerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := crowdedOf(1)
		throttled(r.env.pacer)
		now := time.Now()
		r.have[target.Target{ID: "i-1", Port: 1}] = State{Phase: ledger.Registered, Health: "healthy"}
		r.schedule.start(now, false, r.env.fleet())
		r.schedule.skip(now, r)
		if at, full := r.schedule.next(now, r); at.IsZero() || !full {
			t.Errorf("next look: %v, full %v", at, full)
		}
	})
}

// TestSchedule_lookedTooSoon: a verification that was due seconds after a write says nothing about that. Another follows
// when it can.
func TestSchedule_lookedTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := crowdedOf(1)
		s, begun := &r.schedule, time.Now()
		s.start(begun, false, r.env.fleet())
		s.lookedAt(begun, true, r)
		r.have[target.Target{ID: "i-1", Port: 1}] = State{Phase: ledger.Registered, Health: "healthy"}
		due, _ := s.next(begun, r)
		time.Sleep(due.Add(-8 * time.Second).Sub(begun))
		s.wrote(time.Now(), r)
		time.Sleep(8 * time.Second)
		s.lookedAt(time.Now(), false, r)
		if at, _ := s.next(time.Now(), r); at.Sub(s.written) > 2*time.Minute {
			t.Errorf("the write is verified %v after it", at.Sub(s.written))
		}
	})
}

// TestSchedule_manyOfAll: as many hosts and groups as nobody has are no reason to panic.
func TestSchedule_manyOfAll(t *testing.T) {
	r := crowdedOf(1_000_000)
	r.env.census = pacer.NewCensus(1_000_000_000)
	r.schedule.factor = 72
	if every := r.schedule.verifyEvery(r); every <= 0 || every > 2*verifyMost {
		t.Errorf("a verification every %v", every)
	}
}

// throttled has one registration refused by a rate limit.
func throttled(p *pacer.Pacer) {
	permit := p.Ask(pacer.ClassRegister, false)
	<-permit.Ready()
	permit.Done(pacer.Throttled)
}
