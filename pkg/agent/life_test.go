package agent

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"berth/internal/elbsim"
	"berth/internal/latest"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/host"
)

// lifeFixture is a host in fake time: its metadata service, its notices, a watcher with one container, and life between
// them. Call it inside a bubble.
type lifeFixture struct {
	*testing.T
	sim      *elbsim.Sim
	seen     latest.Value[discovery.Snapshot]
	draining atomic.Bool
	advice   bool
	stop     func()
}

func newLifeFixture(t *testing.T, sim *elbsim.Sim, store discovery.DrainStore, advice bool) *lifeFixture {
	t.Helper()
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	f := &lifeFixture{T: t, sim: sim, advice: advice}
	engine := enginetest.New()
	engine.Run(enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	notices := host.New(zap.NewNop(), host.Options{Transport: sim.HTTPClient().Transport})
	w, err := discovery.New(engine, store, f.seen.Set, discovery.Options{Rules: []discovery.Rule{{Group: "web"}}, Generation: 1, BootID: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	l := &life{
		notices: notices.Snapshot, seen: f.seen.Get, drains: w, onAdvice: func() bool { return f.advice },
		draining: f.draining.Store, bootID: "boot-1", log: zap.NewNop(), known: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	for _, run := range []func(context.Context) error{notices.Run, w.Run, l.run} {
		go func() { ended <- run(ctx) }()
	}
	f.stop = func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
		}
	}
	<-l.known
	f.settle(time.Second)
	return f
}

// settle lets so much time pass, and everything come to rest.
func (f *lifeFixture) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want fails the test unless the host is drained for these causes, and the container wanted exactly where there are none.
func (f *lifeFixture) want(when string, causes ...string) {
	f.Helper()
	s, _ := f.seen.Get()
	var got []string
	for _, d := range s.Drains {
		if d.Container == "" {
			got = append(got, d.Cause)
		}
	}
	slices.Sort(got)
	slices.Sort(causes)
	if !slices.Equal(got, causes) {
		f.Errorf("%s: drained for %v; want %v", when, got, causes)
	}
	if wanted := len(s.Wants["web"]) == 1; wanted != (len(causes) == 0) {
		f.Errorf("%s: the container is wanted: %v; want %v", when, wanted, len(causes) == 0)
	}
	if draining := f.draining.Load(); draining != (len(causes) > 0) {
		f.Errorf("%s: the pacer is told that the host drains: %v; want %v", when, draining, len(causes) > 0)
	}
}

func (f *lifeFixture) set(path, value string) {
	f.Helper()
	err := f.sim.SetMetadata("", path, value)
	if value == "" {
		err = f.sim.DeleteMetadata("", path)
	}
	if err != nil {
		f.Fatal(err)
	}
}

// memory is a DrainStore that outlives a watcher.
type memory struct{ drains []discovery.Drain }

func (m *memory) Load() ([]discovery.Drain, error)    { return slices.Clone(m.drains), nil }
func (m *memory) SetAside() (string, error)           { m.drains = nil; return "aside", nil }
func (m *memory) Save(drains []discovery.Drain) error { m.drains = slices.Clone(drains); return nil }

func spotAt(at time.Time) string {
	return fmt.Sprintf(`{"action": "terminate", "time": %q}`, at.UTC().Format(time.RFC3339))
}

func TestLife_spot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLifeFixture(t, elbsim.New(elbsim.Config{}), nil, false)
		defer func() { f.stop() }()
		f.want("at first")
		f.set(elbsim.PathSpotAction, spotAt(time.Now().Add(2*time.Minute)))
		f.settle(3 * time.Second)
		f.want("3 s after the notice", "spot")
		f.settle(30 * time.Second)
		f.set(elbsim.PathSpotAction, "")
		// Its time is in a minute and a half: ten minutes after that it has ended.
		f.settle(11 * time.Minute)
		f.want("11 min after the notice has gone", "spot")
		f.settle(time.Minute)
		f.want("12 min after the notice has gone")
	})
}

func TestLife_lifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLifeFixture(t, elbsim.New(elbsim.Config{}), nil, false)
		defer func() { f.stop() }()
		for _, state := range []string{"Standby", "Terminated", "Detached", "Warmed:Stopped"} {
			f.set(elbsim.PathLifecycleState, state)
			f.settle(6 * time.Second)
			f.want(state, "lifecycle")
			f.set(elbsim.PathLifecycleState, "InService")
			f.settle(6 * time.Second)
			f.want("InService after " + state)
		}
		// Nonsense and errors change nothing, in either direction.
		f.set(elbsim.PathLifecycleState, "Standby")
		f.settle(6 * time.Second)
		if _, err := f.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "IMDS", Code: "InternalError"}); err != nil {
			t.Fatal(err)
		}
		f.set(elbsim.PathLifecycleState, "InService")
		f.settle(time.Hour)
		f.want("while the service fails", "lifecycle")
		f.sim.ClearFaults()
		f.settle(6 * time.Second)
		f.want("when it answers again")
	})
}

func TestLife_rebalanceAndMaintenance(t *testing.T) {
	for _, advice := range []bool{false, true} {
		t.Run(fmt.Sprint("on_rebalance ", advice), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newLifeFixture(t, elbsim.New(elbsim.Config{}), nil, advice)
				defer func() { f.stop() }()
				f.set(elbsim.PathMaintenance, `[{"Code": "system-reboot", "State": "active", "NotBefore": "21 Jan 2026 09:00:43 GMT"}]`)
				f.settle(6 * time.Second)
				f.want("maintenance")
				f.set(elbsim.PathRebalance, `{"noticeTime": "2026-01-02T03:04:05Z"}`)
				f.settle(6 * time.Second)
				if advice {
					f.want("advice", "rebalance")
				} else {
					f.want("advice")
				}
				f.set(elbsim.PathRebalance, "")
				f.settle(6 * time.Second)
				f.want("advice withdrawn")
			})
		})
	}
}

// What an agent has begun its successor goes on with, as far as it still holds.
func TestLife_restart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, store := elbsim.New(elbsim.Config{}), &memory{}
		f := newLifeFixture(t, sim, store, false)
		f.set(elbsim.PathSpotAction, spotAt(time.Now().Add(2*time.Minute)))
		f.set(elbsim.PathLifecycleState, "Standby")
		f.settle(6 * time.Second)
		f.want("before the restart", "lifecycle", "spot")
		f.stop()

		// The successor sees neither notice any more: Standby is over at once, spot ten minutes later.
		f.set(elbsim.PathSpotAction, "")
		f.set(elbsim.PathLifecycleState, "InService")
		f = newLifeFixture(t, sim, store, false)
		f.want("after the restart", "spot")
		f.settle(9 * time.Minute)
		f.want("9 min later", "spot")
		f.settle(time.Minute)
		f.want("10 min later")
		f.stop()

		// With the metadata service silent a drain for the lifecycle holds on.
		f.set(elbsim.PathLifecycleState, "Standby")
		f = newLifeFixture(t, sim, store, false)
		f.want("again", "lifecycle")
		f.stop()
		if _, err := sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "IMDS", Code: "InternalError"}); err != nil {
			t.Fatal(err)
		}
		f = newLifeFixture(t, sim, store, false)
		f.settle(time.Hour)
		f.want("an hour without an answer", "lifecycle")
		f.stop()
	})
}

// What an earlier boot has left holds nobody.
func TestLife_earlierBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		for _, cause := range causes {
			store.drains = append(store.drains, discovery.Drain{ID: discovery.DrainID(cause, ""), Cause: cause, Boot: "boot-0", Since: time.Now()})
		}
		f := newLifeFixture(t, elbsim.New(elbsim.Config{}), store, true)
		defer func() { f.stop() }()
		f.want("at first")
	})
}

// The drains of the host keep when they began on the clock that nobody sets: they can be dated anew when the other is set.
func TestLife_wanted_since(t *testing.T) {
	at := time.Now()
	l := &life{onAdvice: func() bool { return true }}
	drains := l.wanted(&host.Snapshot{Notices: []host.Notice{{Kind: host.Spot, At: at}, {Kind: host.Lifecycle, At: at}}})
	for cause, d := range drains {
		if d.Since != at { // with the reading of that clock
			t.Errorf("%s since %s; want %s", cause, d.Since, at)
		}
	}
	if len(drains) != 2 {
		t.Errorf("got %v; want both", drains)
	}
}
