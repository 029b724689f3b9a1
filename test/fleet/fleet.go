// Package fleet simulates a whole account: thousands of hosts, each with the real registrar and the real SDK client,
// over elbsim's transport without sockets and with AWS's three account-wide rate limits, in the fake time of synctest.
//
// Hosts share target groups by the hundred, as AWS's quota of 1,000 targets a group makes them. One SDK client serves
// all hosts: what is simulated is the registrar, its pacer, and the account.
package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"berth/internal/elbsim"
	"berth/internal/elbsim/limits"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// services are the groups of each shard: every host serves one container in each.
var services = []string{"web", "api"}

const (
	shard    = 100 // hosts that share a target group
	before   = 30000
	after    = 40000
	bootID   = "boot"
	foreign  = "i-0ffffffffffffffff"
	maxHours = 24 * 7
	latency  = 30 * time.Millisecond // of a call
)

// Account is a simulated account and its hosts. It has to live in a synctest bubble.
type Account struct {
	sim    *elbsim.Sim
	api    elb.API
	hosts  []*host
	begun  time.Time
	tally  tally
	cancel context.CancelFunc
	ended  sync.WaitGroup
	ctx    context.Context
}

type host struct {
	id      string
	index   int
	reg     *registrar.Registrar
	ledger  *ledger.Ledger
	pacer   *pacer.Pacer
	desired registrar.Desired
	ports   map[string]int // what each service has on this host
	removal removals
	missing atomic.Int32 // writes that the scenario still waits for
	exactAt atomic.Int64 // when the last of them took effect, in nanoseconds since the account began
}

// tally counts calls, by the second of their arrival.
type tally struct {
	mu      sync.Mutex
	seconds []uint32
	counts  map[kind]int
	from    time.Time
}

type kind struct {
	write, rejected, foreign bool
}

// NewAccount makes an account of that many hosts. Seeded hosts have a registration in each group, and a ledger that says
// so; the others begin with nothing.
func NewAccount(hosts int, seeded bool, peers int) (*Account, error) {
	a := &Account{begun: time.Now(), tally: tally{counts: map[kind]int{}}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.sim = elbsim.New(elbsim.Config{
		AnyInstance: true, RecordLimit: -1, OnCall: a.called, Throttling: limits.Default(),
		Latency: latency,
	})
	a.api = elb.NewAPI(aws.Config{
		Region: a.sim.Region(), HTTPClient: a.sim.HTTPClient(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFLEET", "secret", ""),
	})
	for n := range (hosts + shard - 1) / shard {
		for _, s := range services {
			if _, err := a.sim.AddGroup(elbsim.Group{Name: groupName(s, n)}); err != nil {
				return nil, err
			}
		}
	}
	for i := range hosts {
		h := &host{id: fmt.Sprintf("i-%017x", i+1), index: i, ledger: ledger.NewMemory(), ports: map[string]int{}}
		a.hosts = append(a.hosts, h)
		if seeded {
			if err := a.seed(h); err != nil {
				return nil, err
			}
		}
		connect := func(context.Context) (elb.API, elb.Self, error) {
			return a.api, elb.Self{InstanceID: h.id, Region: a.sim.Region()}, nil
		}
		h.pacer = pacer.New(nil)
		h.reg = registrar.New(connect, h.ledger, registrar.Options{BootID: bootID, Peers: peers, Pacer: h.pacer})
	}
	return a, nil
}

func groupName(service string, n int) string { return fmt.Sprintf("%s-%d", service, n) }

func (h *host) group(service string) string { return groupName(service, h.index/shard) }

func (a *Account) seed(h *host) error {
	for i, s := range services {
		x := target.Target{ID: h.id, Port: uint16(before + i)}
		if err := a.sim.Register(h.group(s), x); err != nil {
			return err
		}
		h.ledger.Record([]ledger.Entry{{
			Group:  elb.Group{Key: s, Name: h.group(s)},
			Facts:  elb.Facts{ARN: a.sim.GroupARN(h.group(s)), Name: h.group(s), TargetType: "instance", Protocol: "HTTP"},
			Target: x, Run: run(h, before+i), Phase: ledger.Registered, BootID: bootID,
		}})
	}
	return nil
}

func run(h *host, port int) target.Run {
	return target.Run{ID: fmt.Sprintf("%s/%d", h.id, port), Name: fmt.Sprint(port)}
}

// Start starts every host, with its containers on ports from first on, 0 for none.
func (a *Account) Start(first int) {
	for _, h := range a.hosts {
		a.StartHost(h, first)
	}
}

// StartHost starts one host.
func (a *Account) StartHost(h *host, first int) {
	h.serve(first)
	a.ended.Go(func() { _ = h.reg.Run(a.ctx) }) // its only error is connect's, which has none
}

// Stop ends every host.
func (a *Account) Stop() {
	a.cancel()
	a.ended.Wait()
}

// serve makes the ports from first on wanted, 0: none.
func (h *host) serve(first int) {
	for i, s := range services {
		h.ports[s] = 0
		if first > 0 {
			h.ports[s] = first + i
		}
	}
	h.apply()
}

// replace makes another port of one service wanted.
func (h *host) replace(service string, port int) {
	h.ports[service] = port
	h.apply()
}

// apply has the registrar make the host's ports true.
func (h *host) apply() {
	before := h.desired.Wants
	h.desired.Seq++
	h.desired.Wants = map[string][]target.Want{}
	h.desired.Groups = nil
	for _, s := range services {
		h.desired.Groups = append(h.desired.Groups, elb.Group{Key: s, Name: h.group(s)})
		h.desired.Wants[s] = []target.Want{}
		port := h.ports[s]
		if port > 0 {
			h.desired.Wants[s] = []target.Want{{
				Group: s, Run: run(h, port), Port: 80, HostPort4: uint16(port), HostPort6: uint16(port), Dynamic: true,
			}}
		}
		for _, w := range before[s] {
			if w.HostPort4 != uint16(port) {
				h.removal.due(w.HostPort4, time.Now())
			}
		}
	}
	h.reg.Apply(h.desired)
}

// expect has the host wait for that many writes.
func (h *host) expect(writes int) { h.missing.Store(int32(writes)) }

// called counts a call, and whether it brought its host to what is wanted.
func (a *Account) called(c elbsim.Call) {
	write := c.Action == "RegisterTargets" || c.Action == "DeregisterTargets"
	fromForeign := len(c.Targets) == 1 && c.Targets[0].ID == foreign
	rejected := c.Outcome == "Throttling"
	a.tally.add(c.Time, kind{write: write, rejected: rejected, foreign: fromForeign})
	if !write || fromForeign {
		return
	}
	var index int
	if _, err := fmt.Sscanf(c.Targets[0].ID, "i-%x", &index); err != nil || index < 1 || index > len(a.hosts) {
		return
	}
	h := a.hosts[index-1]
	h.removal.called(&c, h.pacer.Interval())
	for range c.Targets {
		if c.Outcome == "ok" && h.missing.Add(-1) == 0 {
			h.exactAt.Store(int64(time.Since(a.begun)))
		}
	}
}

func (t *tally) add(at time.Time, k kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.from.IsZero() {
		return
	}
	second := int(at.Sub(t.from) / time.Second)
	for len(t.seconds) <= second {
		t.seconds = append(t.seconds, 0)
	}
	if second >= 0 {
		t.seconds[second]++
	}
	t.counts[k]++
}

// begin starts counting from now on, at zero.
func (t *tally) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.from, t.seconds, t.counts = time.Now(), nil, map[kind]int{}
}

// Result is what one run of a scenario showed.
type Result struct {
	Scenario string        `json:"scenario"`
	Policy   string        `json:"policy"`
	Hosts    int           `json:"hosts"`
	Peers    string        `json:"peers"` // known or unknown
	Needed   int           `json:"needed_writes"`
	Least    time.Duration `json:"least"`   // in which the account's limits allow the calls that were needed
	Took     time.Duration `json:"took"`    // until the last host was exact
	Took99   time.Duration `json:"took_99"` // until 99 % of the hosts were
	Writes   int           `json:"writes"`  // calls, the rejected ones included
	Rejected int           `json:"rejected_writes"`
	Looks    int           `json:"describes"`
	LooksRej int           `json:"rejected_describes"`
	Peak     float64       `json:"peak_per_second"` // calls a second, in the busiest 10 s
	Foreign  int           `json:"foreign_calls"`
	Served   int           `json:"foreign_accepted"`
	Unserved int           `json:"hosts_not_exact"`
	Removals int           `json:"removals"` // those that were tried
	// Longest is the longest wait of a removal for its first attempt, and Interval its host's pacer's then; see removals.
	Longest  time.Duration `json:"longest_removal"`
	Interval time.Duration `json:"longest_removal_interval"`
	Late     int           `json:"late_removals"` // that waited for longer than their interval
	Real     time.Duration `json:"real"`
}

// least is the shortest time in which the account lets through so many writes and looks: 20 writes at once and then 4
// a second, 40 calls of any kind at once and then 10 a second.
func least(writes, looks int) time.Duration {
	return max(time.Duration(writes-20)*time.Second/4, time.Duration(writes+looks-40)*time.Second/10, time.Second)
}

// Wait lets time pass until every host is exact, or for most at most, and sums up.
func (a *Account) Wait(r *Result, from time.Time, most time.Duration) {
	for time.Since(from) < most {
		left := 0
		for _, h := range a.hosts {
			if h.missing.Load() > 0 {
				left++
			}
		}
		if r.Unserved = left; left == 0 {
			break
		}
		time.Sleep(time.Second)
	}
	took := make([]time.Duration, 0, len(a.hosts))
	for _, h := range a.hosts {
		if h.missing.Load() > 0 {
			took = append(took, most)
			continue
		}
		took = append(took, time.Duration(h.exactAt.Load())-from.Sub(a.begun))
	}
	slices.Sort(took)
	r.Took, r.Took99 = took[len(took)-1], took[len(took)*99/100]
	a.Count(r)
}

// Count sums up the calls since the tally began.
func (a *Account) Count(r *Result) {
	t := &a.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, n := range t.counts {
		switch {
		case k.foreign:
			r.Foreign += n
			if !k.rejected {
				r.Served += n
			}
			continue
		case k.write:
			r.Writes += n
			if k.rejected {
				r.Rejected += n
			}
		default:
			r.Looks += n
			if k.rejected {
				r.LooksRej += n
			}
		}
	}
	var window, most uint32
	for i, n := range t.seconds {
		window += n
		if i >= 10 {
			window -= t.seconds[i-10]
		}
		most = max(most, window)
	}
	r.Peak = float64(most) / 10
	for _, h := range a.hosts {
		h.removal.sum(r)
	}
}

// spread calls f for each host at a random moment within d, and returns when all were called.
func (a *Account) spread(d time.Duration, f func(*host)) {
	type moment struct {
		h  *host
		at time.Duration
	}
	moments := make([]moment, len(a.hosts))
	for i, h := range a.hosts {
		moments[i] = moment{h, rand.N(d)}
	}
	slices.SortFunc(moments, func(x, y moment) int { return int(x.at - y.at) })
	begun := time.Now()
	for _, m := range moments {
		time.Sleep(m.at - time.Since(begun))
		f(m.h)
	}
}
