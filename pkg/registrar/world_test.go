package registrar_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	instance = "i-0123456789abcdef0"
	other    = "i-0fedcba9876543210"
	region   = "eu-central-1"
	account  = "123456789012"
	boot     = "boot-1"
)

// world is a registrar, the real SDK client, and all of AWS in fake time. What is wanted is said by ports.
type world struct {
	t       *testing.T
	sim     *elbsim.Sim
	ledger  *ledger.Ledger
	reg     *registrar.Registrar
	logs    *observer.ObservedLogs
	dry     bool
	peers   int
	metrics *registrar.Metrics
	know    func(*elb.Self) // what is known of the host at first; nil: all but its VPC
	groups  []elb.Group
	d       registrar.Desired
	stop    func()
}

// inWorld runs f in a bubble with an account of the named groups, each of which the configuration names by itself.
func inWorld(t *testing.T, f func(t *testing.T, w *world), groups ...elbsim.Group) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, ledger: ledger.NewMemory()}
		w.sim = elbsim.New(elbsim.Config{Region: region, Account: account, Instance: elbsim.Instance{ID: instance}})
		if err := w.sim.AddInstance(elbsim.Instance{ID: other, PrivateIP: "10.0.0.11"}); err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			w.addGroup(g)
			w.groups = append(w.groups, elb.Group{Key: g.Name, Name: g.Name, Source: "/etc/berth/berth.yaml:7"})
		}
		f(t, w)
		if w.stop != nil {
			w.stop()
		}
	})
}

func web() elbsim.Group { return elbsim.Group{Name: "web"} }
func api() elbsim.Group { return elbsim.Group{Name: "api"} }

func (w *world) addGroup(g elbsim.Group) string {
	w.t.Helper()
	arn, err := w.sim.AddGroup(g)
	if err != nil {
		w.t.Fatal(err)
	}
	return arn
}

func (w *world) connect(ctx context.Context) (elb.API, elb.Self, error) {
	api := elb.NewAPI(aws.Config{
		Region: region, HTTPClient: w.sim.HTTPClient(),
		Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", "")),
	})
	self := wholeSelf()
	if w.know != nil {
		w.know(&self)
	}
	return api, self, ctx.Err()
}

func wholeSelf() elb.Self {
	return elb.Self{InstanceID: instance, Region: region, Account: account, Address4: netip.MustParseAddr("10.0.0.10")}
}

// start starts a registrar on the world's ledger, as a fresh process would.
func (w *world) start() {
	w.t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	w.logs = logs
	log := zap.New(core)
	if testing.Verbose() {
		log = zap.New(zapcore.NewTee(core, zaptest.NewLogger(w.t).Core()))
	}
	w.reg = registrar.New(w.connect, w.ledger, registrar.Options{Log: log, BootID: boot, DryRun: w.dry, Peers: w.peers, Metrics: w.metrics})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.reg.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run ended with %v", err)
		}
		w.stop = nil
	}
}

// want makes the ports of one container each wanted: want("web", 1, 2). Groups that are not named want nothing.
// Each port is of a container of its own name, "c1", unless run says otherwise.
func (w *world) want(specs ...any) {
	w.t.Helper()
	wants := map[string][]target.Want{}
	for _, g := range w.groups {
		wants[g.Key] = []target.Want{}
	}
	var key string
	for _, s := range specs {
		switch s := s.(type) {
		case string:
			key = s
		case int:
			wants[key] = append(wants[key], wanted(key, uint16(s), fmt.Sprint("c", s)))
		case target.Want:
			s.Group = key
			wants[key] = append(wants[key], s)
		default:
			w.t.Fatalf("want(%T)", s)
		}
	}
	w.d.Groups, w.d.Wants = w.groups, wants
	w.apply()
}

func (w *world) apply() {
	w.d.Seq++
	w.reg.Apply(w.d)
}

func wanted(group string, port uint16, container string) target.Want {
	return target.Want{Group: group, Run: run(container), Port: 80, HostPort4: port, HostPort6: port, Dynamic: true}
}

func run(container string) target.Run {
	return target.Run{ID: container, Name: container, StartedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// after lets fake time pass, and everything settle.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// registered checks which ports of this instance a group has.
func (w *world) registered(group string, ports ...int) {
	w.t.Helper()
	got := []int{}
	for _, x := range w.sim.Registered(group) {
		if x.ID == instance {
			got = append(got, int(x.Port))
		}
	}
	if diff := cmp.Diff(append([]int{}, ports...), got); diff != "" {
		w.t.Errorf("registered in %s after %s (-want +got):\n%s\n%s", group, time.Since(epoch), diff, strings.Join(w.calls(), "\n"))
	}
}

// epoch is when synctest's clock begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// calls are the calls so far, as "RegisterTargets web 1 2" or "DescribeTargetHealth web" for a look at all of it.
func (w *world) calls(actions ...string) []string {
	var out []string
	for _, c := range w.sim.Calls() {
		var b strings.Builder
		b.WriteString(c.Action)
		for _, g := range c.Groups {
			b.WriteByte(' ')
			if parts := strings.Split(g, "/"); len(parts) == 3 {
				g = parts[1]
			}
			b.WriteString(g)
		}
		for _, x := range c.Targets {
			fmt.Fprintf(&b, " %d", x.Port)
		}
		if len(actions) == 0 {
			out = append(out, b.String())
		}
		for _, a := range actions {
			if c.Action == a {
				out = append(out, b.String())
			}
		}
	}
	return out
}

func (w *world) writes() []string { return w.calls("RegisterTargets", "DeregisterTargets") }

func (w *world) called(want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.writes()); diff != "" {
		w.t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func (w *world) credentialsErr() string {
	problem, _ := w.reg.CredentialsErr()
	return problem
}

func (w *world) group(key string) registrar.GroupStatus {
	w.t.Helper()
	s, _ := w.reg.Snapshot()
	for _, g := range s.Groups {
		for _, k := range g.Keys {
			if k == key {
				return g
			}
		}
	}
	w.t.Fatalf("no status of group %q in %+v", key, s)
	return registrar.GroupStatus{}
}

func (w *world) fault(f elbsim.Fault) {
	w.t.Helper()
	if _, err := w.sim.AddFault(f); err != nil {
		w.t.Fatal(err)
	}
}

// foreign registers what is not ours: another instance's target, and ports of our instance.
func (w *world) foreign(group string, ports ...int) {
	w.t.Helper()
	targets := []target.Target{{ID: other, Port: 1}}
	for _, p := range ports {
		targets = append(targets, target.Target{ID: instance, Port: uint16(p)})
	}
	if err := w.sim.Register(group, targets...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) foreignStands(group string) {
	w.t.Helper()
	for _, x := range w.sim.Registered(group) {
		if x == (target.Target{ID: other, Port: 1}) {
			return
		}
	}
	w.t.Errorf("another instance's target is gone from %s", group)
}
