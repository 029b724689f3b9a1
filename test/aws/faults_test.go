package aws

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/test/exact"
	"berth/test/harness"
	"berth/test/rig"
)

var (
	faultsFor  = flag.Duration("faults.for", 15*time.Second, "how long calls fail while containers come and go")
	faultsSeed = flag.Uint64("faults.seed", 0, "what happens; 0: something else each time")
)

// recovery is how long after the faults' end everything must be exact, for good.
const recovery = 90 * time.Second

// late is how long after its call the latest effect comes.
const late = 8 * time.Second

// oneInFive are faults that strike one call in five, of any kind. Each is asked only about calls that those before it let
// through, so that the shares are a little more than what they come to.
var oneInFive = []elbsim.Fault{
	{Kind: elbsim.FaultError, Code: "InternalFailure", Share: 0.035},
	{Kind: elbsim.FaultError, Code: "ServiceUnavailable", Share: 0.035},
	{Kind: elbsim.FaultError, Code: "Throttling", Share: 0.03},
	{Kind: elbsim.FaultReset, Share: 0.025},
	{Kind: elbsim.FaultHang, Share: 0.01},
	{Kind: elbsim.FaultLost, Share: 0.02},
	{Kind: elbsim.FaultLost, Reset: true, Share: 0.02},
	{Kind: elbsim.FaultTruncate, Share: 0.02},
	{Kind: elbsim.FaultLate, Delay: elbsim.Duration(late / 2), Share: 0.015},
	{Kind: elbsim.FaultLate, Delay: elbsim.Duration(late), Share: 0.015},
}

// wrong is a time in which a target was registered and should not have been, or the other way round.
type wrong struct {
	exact.Place
	missing  bool
	from, to time.Time
}

// watch compares what is registered with what should be, all the time.
type watch struct {
	rig    *rig.Rig
	groups []string

	mu      sync.Mutex // guards all below
	want    map[exact.Place]bool
	since   map[exact.Place]wrong
	wrongs  []wrong
	samples int
}

// should says whether a container's targets should be registered from now on.
func (w *watch) should(be bool, places ...exact.Place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range places {
		if be {
			w.want[p] = true
		} else {
			delete(w.want, p)
		}
	}
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	want := exact.Targets{}
	for p := range w.want {
		want[p.Group] = append(want[p.Group], p.Target)
	}
	now, diff := time.Now(), exact.Compare(w.rig.Registered(w.groups...), want, nil)
	w.samples++
	missing := map[exact.Place]bool{} // what is wrong now: missing, or stale
	for _, p := range diff.Missing {
		missing[p] = true
	}
	for _, p := range diff.Stale {
		missing[p] = false
	}
	for p, s := range w.since {
		if is, still := missing[p]; !still || is != s.missing { // right again, or wrong in the other way
			s.to = now
			w.wrongs = append(w.wrongs, s)
			delete(w.since, p)
		}
	}
	for p, is := range missing {
		if _, known := w.since[p]; !known {
			w.since[p] = wrong{Place: p, missing: is, from: now}
		}
	}
}

func (w *watch) run(stop <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			w.look()
		}
	}
}

// lives lets containers come and go, one thing after the other.
type lives struct {
	*testing.T
	rig    *rig.Rig
	watch  *watch
	random *rand.Rand
	up     []*life
	done   map[string]int
}

type life struct {
	*harness.Container
	groups    []string
	places    []exact.Place
	restarted bool // once is enough: what dies again and again is registered later each time
}

func (l *lives) start() {
	groups := [][]string{{"web"}, {"api"}, {"web", "api"}}[l.random.IntN(3)]
	c := &life{Container: l.rig.Engine.Run(l, harness.Spec{Labels: l.rig.In(groups...)}), groups: groups}
	l.arrived(c)
	l.up = append(l.up, c)
}

func (l *lives) arrived(c *life) {
	at := rig.TargetsOf(l, c.Container)[0]
	c.places = nil
	for _, g := range c.groups {
		c.places = append(c.places, exact.Place{Group: g, Target: at})
	}
	l.watch.should(true, c.places...)
}

// step lets one thing happen.
func (l *lives) step() {
	i := l.random.IntN(len(l.up))
	c := l.up[i]
	what := "run"
	switch {
	case len(l.up) >= 10:
		what = "remove"
	case len(l.up) > 5:
		what = []string{"run", "stop", "remove", "restart"}[l.random.IntN(4)]
	}
	if what == "restart" && c.restarted {
		what = "stop"
	}
	l.done[what]++
	switch what {
	case "run":
		l.start()
		return
	case "restart":
		l.watch.should(false, c.places...)
		c.Restart(l)
		c.restarted = true
		l.arrived(c)
		return
	}
	l.watch.should(false, c.places...)
	if what == "stop" {
		c.Stop(l)
	}
	c.Remove(l)
	l.up = slices.Delete(l.up, i, i+1)
}

// One call in five fails, in every way there is (make faults: for two minutes), while containers come and go on a real engine. No target is wrong for
// longer than the failed calls explain, and all is exact soon after the last fault, for good.
func TestFaults(t *testing.T) {
	t.Parallel()
	if *faultsSeed == 0 {
		*faultsSeed = uint64(time.Now().UnixNano())
	}
	r := rig.New(t, rig.Options{
		Groups: []elbsim.Group{{Name: "web"}, {Name: "api"}},
		Sim:    elbsim.Config{Seed: *faultsSeed, Latency: 30 * time.Millisecond, RecordLimit: 100_000},
	})
	agent := r.StartReady(t)
	w := &watch{rig: r, groups: []string{"web", "api"}, want: map[exact.Place]bool{}, since: map[exact.Place]wrong{}}
	l := &lives{T: t, rig: r, watch: w, random: rand.New(rand.NewPCG(*faultsSeed, 1)), done: map[string]int{}}
	for range 6 {
		l.start()
	}
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { w.run(stop) })
	defer watching.Wait()
	end := sync.OnceFunc(func() { close(stop) })
	defer end()
	harness.Eventually(t, harness.Patience, "exact before anything fails", w.exact)

	r.Sim.ResetCalls()
	for _, f := range oneInFive {
		if _, err := r.Sim.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	for begun := time.Now(); time.Since(begun) < *faultsFor; {
		l.step()
	}
	r.Sim.ClearFaults()
	ended := time.Now()
	harness.Eventually(t, recovery, "exact after the last fault", w.exact)
	first := time.Since(ended)
	// What is late comes still. A long run waits for all that could; a short one for the last effect, and until that is mended.
	quiet := late + 2*time.Second
	if thorough() {
		quiet = recovery
	}
	for time.Since(ended) < quiet {
		time.Sleep(50 * time.Millisecond)
	}
	harness.Eventually(t, max(time.Until(ended.Add(recovery)), time.Second), "exact after the last late effect", w.exact)
	end()
	watching.Wait()
	if err := w.exact(); err != nil {
		t.Errorf("%v after the last fault: %v", time.Since(ended).Round(time.Second), err)
	}
	w.report(t, ended, first)
	t.Logf("happened: %v, in %v of faults; -faults.seed=%d", l.done, *faultsFor, *faultsSeed)
	if status := agent.Status(t); !status.Readiness.Ready {
		t.Errorf("berth is not ready: %s", status.Readiness.Waiting())
	}
}

// exact returns nil if all that is registered should be, and nothing else.
func (w *watch) exact() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.since) == 0 && w.samples > 0 {
		return nil
	}
	return fmt.Errorf("wrong: %v", slices.Collect(maps.Keys(w.since)))
}

// report checks that every time in which a target was wrong is explained, and shows what there was.
func (w *watch) report(t *testing.T, ended time.Time, first time.Duration) {
	t.Helper()
	calls := w.rig.Sim.Calls()
	struck, outcomes := 0, map[string]int{}
	during := 0
	for _, c := range calls {
		if c.Time.After(ended) {
			continue
		}
		during++
		if c.Fault != "" {
			struck++
			outcomes[c.Outcome]++
		}
	}
	t.Logf("%d calls while there were faults, %d of them struck (%.0f %%): %v", during, struck, 100*float64(struck)/float64(max(during, 1)), outcomes)
	last := ended
	var times []time.Duration
	for _, x := range w.wrongs {
		times = append(times, x.to.Sub(x.from))
		if x.to.After(last) {
			last = x.to
		}
		if gap := w.unexplained(x, calls); gap > patience() {
			t.Errorf("%v in %s was wrong (missing: %v) for %v, of which no failed call explains %v:\n%s", x.Target, x.Group, x.missing,
				x.to.Sub(x.from).Round(time.Millisecond), gap.Round(time.Millisecond), history(calls, x))
		}
	}
	slices.Sort(times)
	if len(times) == 0 {
		t.Fatal("nothing was ever wrong: the watch sees nothing")
	}
	q := func(p float64) time.Duration { return times[int(p*float64(len(times)-1))].Round(time.Millisecond) }
	t.Logf("%d changes of targets were behind: median %v, 90 %% %v, 99 %% %v, most %v", len(times), q(0.5), q(0.9), q(0.99), q(1))
	t.Logf("after the last fault: exact after %v, for good after %v", first.Round(time.Millisecond), last.Sub(ended).Round(time.Millisecond))
	if last.Sub(ended) > recovery {
		t.Errorf("it took %v; want %v", last.Sub(ended), recovery)
	}
}

// thorough reports whether the run is a long one, which is alone on its machine.
func thorough() bool { return *faultsFor >= time.Minute }

// patience is what a change may take where no call fails: the engine's own time, an inspection, the host's own rate of a
// registration a second, on a machine with more to do than it can.
func patience() time.Duration {
	if thorough() {
		return 5 * time.Second
	}
	return 10 * time.Second
}

// unexplained returns the longest part of a wrong time that no failed call explains.
//
// A failed call of the group keeps the next of its kind away for 1, 2, 4, 8, 16, 20 s; one whose outcome is not known takes
// 3 s to fail. One that takes effect late is put right when its doubt is over, 30 s after it failed, by a look, which may be
// struck itself, and a call. A throttled call of any group keeps all calls of the host away, for as long as that doubles to.
func (w *watch) unexplained(x wrong, calls []elbsim.Call) time.Duration {
	type span struct{ from, to time.Time }
	var spans []span
	arn := w.rig.Sim.GroupARN(w.rig.Group(x.Group))
	row := map[string]int{} // failures of an action in a row
	throttled := 0
	slices.SortStableFunc(calls, func(a, b elbsim.Call) int { return a.Time.Compare(b.Time) })
	for _, c := range calls {
		ours := slices.Contains(c.Groups, arn)
		if c.Outcome == "Throttling" {
			throttled++
			spans = append(spans, span{c.Time, c.Time.Add(min(60*time.Second, time.Second<<min(throttled, 6)))})
		} else if throttled > 0 {
			throttled--
		}
		switch {
		case !ours:
		case c.Fault == "":
			row[c.Action] = 0
		case c.Outcome == "late":
			spans = append(spans, span{c.Time, c.Time.Add(3*time.Second + 30*time.Second + 10*time.Second)})
			fallthrough
		default:
			row[c.Action]++
			hold := min(20*time.Second, time.Second<<min(row[c.Action]-1, 5))
			spans = append(spans, span{c.Time, c.Time.Add(3*time.Second + hold)})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(a.from.Compare(b.from), a.to.Compare(b.to)) })
	var gap time.Duration
	at := x.from
	for _, s := range spans {
		if s.from.After(x.to) {
			break
		}
		gap = max(gap, s.from.Sub(at))
		if s.to.After(at) {
			at = s.to
		}
	}
	return max(gap, x.to.Sub(at))
}

// history shows the calls about a wrong target.
func history(calls []elbsim.Call, x wrong) string {
	var b strings.Builder
	for _, c := range calls {
		if c.Time.After(x.from.Add(-45*time.Second)) && c.Time.Before(x.to.Add(time.Second)) && (slices.Contains(c.Targets, x.Target) || c.Outcome == "Throttling") {
			fmt.Fprintf(&b, "%+.3fs %s %s\n", c.Time.Sub(x.from).Seconds(), c.Action, c.Outcome)
		}
	}
	return b.String()
}
