package crash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/exact"
	"berth/test/harness"
	"berth/test/rig"
)

// doubt is how long a call of unknown outcome may be in doubt; what it did late is found and undone after that.
const doubt = 30 * time.Second

// foreign are targets that are not berth's: another instance's, and this instance's on ports that no container has.
var foreign = []target.Target{{ID: "i-0fffffffffffffff0", Port: 32768}, {ID: rig.Instance, Port: 9}, {ID: rig.Instance, Port: 80}}

// ours reports whether a target may be berth's.
func ours(t target.Target) bool { return t.ID == rig.Instance && !slices.Contains(foreign, t) }

// instants returns how many times berth is killed, in all lanes together: $BERTH_CRASH_INSTANTS, or 200.
func instants(t *testing.T) int {
	text := cmp.Or(os.Getenv("BERTH_CRASH_INSTANTS"), "200")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("BERTH_CRASH_INSTANTS: %q: must be a number of kills", text)
	}
	return n
}

// Berth is killed at random instants while containers are started, stopped, killed and restarted, while replies get
// lost and calls take effect late. Each time the next one makes the groups exact, and none ever names a target that is
// not berth's.
func TestKilledAtRandomInstants(t *testing.T) {
	engine := harness.StartEngine(t, harness.EngineOptions{})
	kills := instants(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range lanes {
		t.Run(fmt.Sprint("lane ", i+1), func(t *testing.T) {
			t.Parallel()
			l := newLane(t, &engine.Engine, rand.New(rand.NewPCG(seed, uint64(i))))
			agent := l.rig.Start(t)
			for l.kills < (kills+lanes-1-i)/lanes {
				agent = l.kill(t, agent)
				l.exact(t)
			}
			// Nothing that an agent has started may come to light later.
			harness.Eventually(t, 3*doubt, "the end of all doubts", func() error {
				if left := doubt + 5*time.Second - time.Since(l.born); left > 0 {
					return fmt.Errorf("the last agent is in doubt for %v more", left)
				}
				return nil
			})
			slices.Sort(l.took)
			t.Logf("%d kills, %d of them of an agent that had just started; %d writes, of them %d lost and %d late; exact after %v (median), %v (most)",
				l.kills, l.early, l.writes, l.outcomes["lost"], l.outcomes["late"], l.took[len(l.took)/2], l.took[len(l.took)-1])
			l.exact(t)
			agent.Stop(t)
		})
	}
}

// lane is one rig, its containers, and a row of agents.
type lane struct {
	rig      *rig.Rig
	crew     *crew
	rng      *rand.Rand
	born     time.Time // of the present agent
	kills    int
	early    int
	checked  uint64 // calls of the record that were looked at
	writes   int
	outcomes map[string]int  // of writes
	took     []time.Duration // from an agent's start until all was exact
}

func newLane(t *testing.T, engine *harness.Engine, rng *rand.Rand) *lane {
	seldom := elbsim.HealthCheck{Interval: 5 * time.Second, Path: "/healthz"}
	r := rig.New(t, rig.Options{
		Engine: engine,
		Groups: []elbsim.Group{{Name: "web", HealthCheck: seldom}, {Name: "api", HealthCheck: seldom}},
		Sim: elbsim.Config{
			RecordLimit: 100_000,
			Lags:        &elbsim.Lags{Register: 2 * time.Second, Deregister: 2 * time.Second, Describe: 2 * time.Second},
		},
		// A call that hangs holds its group up for so long; the shorter, the more happens in a minute.
		Config: "aws: {write_timeout: 1s}\n",
	})
	err := r.Sim.AddInstance(elbsim.Instance{ID: foreign[0].ID, PrivateIP: "10.0.0.99"})
	for _, key := range []string{"web", "api"} {
		err = errors.Join(err, r.Sim.Register(r.Group(key), foreign...))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &lane{rig: r, crew: newCrew(t, r, rand.New(rand.NewPCG(rng.Uint64(), 1))), rng: rng, outcomes: map[string]int{}, born: time.Now()}
}

// kill has containers come and go, kills the agent at some instant meanwhile, and returns the next one. Half of the
// time that one is killed as well, before it is done with what it has found, and so on.
func (l *lane) kill(t *testing.T, agent *rig.Agent) *rig.Agent {
	t.Helper()
	l.trouble(t)
	churned := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	go func() { churned <- l.crew.churn(ctx, 2) }()
	l.pause(ctx, 1200*time.Millisecond)
	agent.Kill(t)
	l.kills++
	next := l.rig.Start(t)
	for l.rng.IntN(2) == 0 {
		l.pause(ctx, 400*time.Millisecond)
		next.Kill(t)
		l.kills++
		l.early++
		next = l.rig.Start(t)
	}
	l.born = time.Now()
	if err := <-churned; err != nil {
		t.Fatal(err)
	}
	l.rig.Sim.ClearFaults() // calls under way still take effect
	return next
}

func (l *lane) pause(ctx context.Context, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(l.rng.Int64N(int64(most)))):
	}
}

// trouble makes some of the calls to come go wrong.
func (l *lane) trouble(t *testing.T) {
	t.Helper()
	var errs []error
	for _, f := range []elbsim.Fault{
		{Kind: elbsim.FaultLost, Reset: l.rng.IntN(2) == 0},
		{Kind: elbsim.FaultLate, Delay: elbsim.Duration(200*time.Millisecond + time.Duration(l.rng.Int64N(int64(2*time.Second))))},
	} {
		f.Action = []string{"RegisterTargets", "DeregisterTargets"}[l.rng.IntN(2)]
		f.Skip, f.Times = l.rng.IntN(3), 1
		_, err := l.rig.Sim.AddFault(f)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// exact waits until nothing is under way and both groups hold what they should and what is not berth's, and looks at
// every call that was made.
func (l *lane) exact(t *testing.T) {
	t.Helper()
	want, others := exact.Targets{}, exact.Targets{}
	for _, key := range []string{"web", "api"} {
		want[key], others[key] = l.crew.wanted(t, key), foreign
	}
	harness.Eventually(t, doubt+harness.Patience, "exact targets after a kill", func() error {
		return errors.Join(l.underWay(), exact.Compare(l.rig.Registered("web", "api"), want, others).Err())
	})
	l.took = append(l.took, time.Since(l.born))
	l.judge(t)
}

// underWay returns an error while a call is to take effect later.
func (l *lane) underWay() error {
	for _, c := range l.rig.Sim.Calls() {
		if c.Outcome == "pending" || c.Outcome == "late" && c.EffectAt.IsZero() && c.EffectError == "" {
			return fmt.Errorf("%s of %v is still to take effect", c.Action, c.Targets)
		}
	}
	return nil
}

// judge fails the test if a call since the last time names a target that is not berth's.
func (l *lane) judge(t *testing.T) {
	t.Helper()
	for _, c := range l.rig.Sim.Calls() {
		if c.ID < l.checked {
			continue
		}
		l.checked = c.ID + 1
		if c.Action != "RegisterTargets" && c.Action != "DeregisterTargets" {
			continue
		}
		l.writes++
		l.outcomes[c.Outcome]++
		if others := exact.Foreign(&c, ours); len(others) > 0 {
			t.Errorf("%s at %s names %v, which are not berth's", c.Action, c.Time.Format(time.TimeOnly), others)
		}
	}
}
