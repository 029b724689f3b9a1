package pacer

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// idsOf are the ids of a group of n hosts.
func idsOf(n int) map[string]bool {
	ids := map[string]bool{}
	for i := range n {
		ids[fmt.Sprintf("i-%03d", i)] = true
	}
	return ids
}

// sees has c take in a group and returns what it tells.
func sees(c *Census, groupARN string, ids map[string]bool, own string) (peers int, at Place) {
	c.Saw(groupARN, ids, own, func(n int, p Place) { peers, at = n, p })
	return peers, at
}

// TestCensus_place: the hosts of a group share a round among them, each seeing the same, without gaps.
func TestCensus_place(t *testing.T) {
	const n = 100
	var begins []float64
	for id := range idsOf(n) {
		c := &Census{}
		peers, at := sees(c, "arn:web", idsOf(n), id)
		if peers != n || at.width != 1.0/n || at.at < 0 || at.at >= 1 {
			t.Fatalf("%s: %d peers, place %+v; want %d and a hundredth", id, peers, at, n)
		}
		begins = append(begins, at.at)
	}
	slices.Sort(begins)
	for i := range begins[1:] {
		if gap := begins[i+1] - begins[i]; gap < 0.99/n || gap > 1.01/n {
			t.Errorf("places %d and %d are %g of a round apart; want %g", i, i+1, gap, 1.0/n)
		}
	}
}

// TestCensus_largest: the place is that of the largest group, whatever is looked at last; alone there is none.
func TestCensus_largest(t *testing.T) {
	c := &Census{fixed: 1000}
	if peers, at := sees(c, "arn:alone", idsOf(1), "i-000"); peers != 1000 || at != (Place{}) {
		t.Errorf("alone: %d peers, place %+v; want the configured 1000 and no place", peers, at)
	}
	_, large := sees(c, "arn:web", idsOf(50), "i-000")
	_, after := sees(c, "arn:api", idsOf(20), "i-000")
	if large != after || large.width != 1.0/50 {
		t.Errorf("place %+v, then %+v; want that of the group of 50 both times", large, after)
	}
	// Not in a group yet: it is one more, and has no place, since all others like it would have the same.
	if peers, at := sees(&Census{}, "arn:web", idsOf(3), "i-9"); peers != 4 || at != (Place{}) {
		t.Errorf("a host that is about to join: %d peers, place %+v; want 4, and none", peers, at)
	}
	if _, at := sees(c, "arn:larger", idsOf(60), "i-9"); at != large {
		t.Errorf("place %+v; want %+v: this host is not in the larger group", at, large)
	}
}

// TestCensus_remembers: what an earlier process has counted counts until every group was seen, or for two days, and what is
// counted since may only be more; a configured number stands.
func TestCensus_remembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCensus(0)
		c.SetGroups(2)
		if c.Peers() != 0 || c.Counted() != 0 {
			t.Errorf("%d peers at first, %d counted; want none", c.Peers(), c.Counted())
		}
		c.Remember(400)
		if got := c.Peers(); got != 400 {
			t.Errorf("%d peers at the start; want the 400 of before", got)
		}
		if peers, _ := sees(c, "arn:web", idsOf(3), "i-000"); peers != 400 || c.Counted() != 400 {
			t.Errorf("%d peers, %d counted, when one group of two was seen; want the 400 of before", peers, c.Counted())
		}
		if peers, _ := sees(c, "arn:web", idsOf(500), "i-000"); peers != 500 || c.Counted() != 500 {
			t.Errorf("%d peers, %d counted; want the 500 that were seen", peers, c.Counted())
		}
		sees(c, "arn:web", idsOf(3), "i-000")
		if peers, _ := sees(c, "arn:api", idsOf(5), "i-000"); peers != 5 || c.Counted() != 5 {
			t.Errorf("%d peers, %d counted, when all was seen; want 5", peers, c.Counted())
		}
		c = NewCensus(0)
		c.SetGroups(2)
		c.Remember(400)
		sees(c, "arn:web", idsOf(3), "i-000")
		time.Sleep(48 * time.Hour)
		if got := c.Peers(); got != 3 {
			t.Errorf("%d peers after two days without a look at one of the groups; want the 3 of the other", got)
		}
		c = NewCensus(7)
		c.Remember(400)
		if c.Peers() != 7 || c.Counted() != 0 {
			t.Errorf("%d peers, %d counted; want the 7 of the configuration, and none", c.Peers(), c.Counted())
		}
	})
}

// TestPacer_outageEven: hosts that know their places try again evenly, round after round, each once a round.
func TestPacer_outageEven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hosts, rounds = 100, 10
		const round = 31250 * time.Millisecond // of 100 hosts
		var mu sync.Mutex
		var tried []time.Duration
		var all sync.WaitGroup
		begun := time.Now()
		for id := range idsOf(hosts) {
			c := &Census{}
			peers, at := sees(c, "arn:web", idsOf(hosts), id)
			all.Go(func() {
				p := New(nil)
				p.SetPeers(peers)
				p.SetPlace(at)
				attempt(p, ClassRegister, false, Failed)
				time.Sleep(outageAfter)
				for attempt(p, ClassRegister, true, Failed); time.Since(begun) < (rounds+2)*round; {
					attempt(p, ClassRegister, true, Failed)
					mu.Lock()
					tried = append(tried, time.Since(begun))
					mu.Unlock()
				}
			})
		}
		all.Wait()
		slices.Sort(tried)
		inside := func(from, to time.Duration) int {
			n := 0
			for _, at := range tried {
				if at >= from && at < to {
					n++
				}
			}
			return n
		}
		if n := inside(2*round, (2+rounds)*round); n < hosts*rounds-hosts || n > hosts*rounds+hosts {
			t.Errorf("%d attempts of %d hosts in %d rounds", n, hosts, rounds)
		}
		for from := 2 * round; from < (1+rounds)*round; from += time.Second {
			if n := inside(from, from+10*time.Second); n < 29 || n > 35 {
				t.Errorf("%d attempts in the 10 s from %v on; want 32", n, from)
			}
		}
	})
}

// TestPacer_outageWaits: nobody waits longer than a round for his place: not whose turn has gone by unused, and not who
// had another retry under way when the outage was found.
func TestPacer_outageWaits(t *testing.T) {
	const round = 31250 * time.Millisecond
	pacer := func(own string) *Pacer {
		p := New(nil)
		p.SetPeers(100)
		_, at := sees(&Census{}, "arn:web", idsOf(100), own)
		p.SetPlace(at)
		return p
	}
	for i := range 100 {
		own := fmt.Sprintf("i-%03d", i)
		synctest.Test(t, func(t *testing.T) {
			p := pacer(own)
			attempt(p, ClassRegister, false, Failed)
			time.Sleep(outageAfter)
			one, other := p.Ask(ClassRegister, true), p.Ask(ClassDescribe, true)
			<-one.Ready()
			<-other.Ready()
			one.Done(Failed)
			other.Done(Failed)
			if waited := attempt(p, ClassRegister, true, Failed); waited > round {
				t.Errorf("%s waited %v for its first turn; want at most %v", own, waited, round)
			}
			time.Sleep(2*round + time.Duration(i)*round/100) // nothing to do, but not so long that all is forgotten
			attempt(p, ClassRegister, true, Failed)
			if waited := attempt(p, ClassRegister, true, Failed); waited > round {
				t.Errorf("%s waited %v after a turn of its own choice; want at most %v", own, waited, round)
			}
		})
	}
}

// TestPacer_outageShrinks: whoever waits in a row that grows shorter waits no longer than the row is now.
func TestPacer_outageShrinks(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			p := outageOf(time.Minute)
			retry := p.Ask(ClassDeregister, true)
			for range outageCalls + 6 {
				attempt(p, ClassDescribe, false, Accepted)
			}
			if ready(retry) {
				retry.Done(Accepted)
				return
			}
			row, asked := p.outage.interval, time.Now()
			<-retry.Ready()
			if waited := time.Since(asked); waited > row {
				t.Errorf("waited %v in a row of %v", waited, row)
			}
			retry.Done(Accepted)
		})
	}
}
