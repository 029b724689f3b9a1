package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscreds "github.com/aws/aws-sdk-go-v2/credentials"
	"pgregory.net/rapid"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
	"berth/test/memdisk"
)

// Agents that are killed: the real registrar, the real SDK client and the real ledger, on a disk in memory and on the
// load balancers that elbsim plays. A kill cuts the process off from both at one instant. What it does after that has
// no effect; what it has sent before may have one, now or later.

// instants are the moments at which a process touches the world outside, in order. One of them is its last.
type instants struct {
	mu     sync.Mutex
	n      int
	killAt int // the instant that is the last one; negative: none of them
	dead   context.Context
	kill   context.CancelFunc
	last   string // what the process was about to do, or had just done, when it was killed
}

func newInstants(killAt int) *instants {
	i := &instants{killAt: killAt}
	i.dead, i.kill = context.WithCancel(context.Background())
	return i
}

// pass reports whether the process lives on after this instant.
func (i *instants) pass(what string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dead.Err() != nil {
		return false
	}
	n := i.n
	i.n++
	if n == i.killAt {
		i.last = fmt.Sprintf("instant %d, %s", n, what)
		i.kill()
		return false
	}
	return true
}

// wire is the process's network: the way to elbsim, as long as the process lives.
type wire struct {
	*instants
	sim   http.RoundTripper
	late  time.Duration // how long a call that left with the process's last breath is under way
	calls *sync.WaitGroup
}

var errKilled = errors.New("the process was killed")

// RoundTrip is http.RoundTripper's. Each call is three instants: before it is sent, when it has left, and when it has
// taken effect and its reply has not been read.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if !w.pass("before a call") {
		return nil, errKilled
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	send := func(ctx context.Context) (*http.Response, error) {
		sent := r.Clone(ctx)
		sent.Body = io.NopCloser(bytes.NewReader(body))
		return w.sim.RoundTrip(sent)
	}
	if !w.pass("a call has left") {
		w.calls.Go(func() {
			time.Sleep(w.late)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second) // nobody hears the reply
			defer cancel()
			if reply, err := send(ctx); err == nil {
				reply.Body.Close()
			}
		})
		return nil, errKilled
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(w.dead, cancel)()
	reply, err := send(ctx)
	if !w.pass("a call was answered") {
		if err == nil {
			reply.Body.Close()
		}
		return nil, errKilled
	}
	return reply, err
}

// crashWorld is what outlives the processes: AWS, the disk, and what is to be found there in the end.
type crashWorld struct {
	sim     *elbsim.Sim
	disk    *memdisk.Disk
	groups  []elb.Group
	foreign map[string][]target.Target
	ever    map[string]map[uint16]bool // what was ever wanted, by group
	orphans sync.WaitGroup             // calls that have outlived their process
	checked uint64                     // calls of the record that were looked at
	ended   []time.Time                // of each process
}

const (
	crashInstance = "i-0123456789abcdef0"
	crashOther    = "i-0fedcba9876543210"
	crashDoubt    = 30 * time.Second // how long a write whose outcome is unknown may still take effect
)

// newCrashWorld has two groups. In each there are targets that are not ours: another instance's on a port that ours
// uses too, and our instance's on a port that no container has.
func newCrashWorld() (*crashWorld, error) {
	w := &crashWorld{
		disk: memdisk.New(), foreign: map[string][]target.Target{}, ever: map[string]map[uint16]bool{},
		sim: elbsim.New(elbsim.Config{
			Region: "eu-central-1", Account: "123456789012", Instance: elbsim.Instance{ID: crashInstance}, RecordLimit: 100000,
		}),
	}
	err := w.sim.AddInstance(elbsim.Instance{ID: crashOther, PrivateIP: "10.0.0.11"})
	for _, name := range []string{"api", "web"} {
		_, addErr := w.sim.AddGroup(elbsim.Group{Name: name})
		w.groups = append(w.groups, elb.Group{Key: name, Name: name})
		w.foreign[name] = []target.Target{{ID: crashInstance, Port: 9}, {ID: crashOther, Port: 1}}
		err = errors.Join(err, addErr, w.sim.Register(name, w.foreign[name]...))
		w.ever[name] = map[uint16]bool{}
	}
	return w, err
}

// crashWant is what is wanted: by group, the ports and the container that each is of.
type crashWant map[string]map[uint16]string

// ports is a crashWant whose ports are of one container each: "web 1 2 api 3", with "2'" for the next container that
// has port 2.
func ports(spec string) crashWant {
	out := crashWant{"api": {}, "web": {}}
	group := ""
	for _, word := range strings.Fields(spec) {
		var port uint16
		if _, err := fmt.Sscanf(word, "%d", &port); err != nil {
			group = word
			continue
		}
		out[group][port] = word
	}
	return out
}

// desired is the crashWant as discovery would publish it.
func (w *crashWorld) desired(seq uint64, want crashWant) registrar.Desired {
	d := registrar.Desired{Seq: seq, Generation: 1, Groups: w.groups, Wants: map[string][]target.Want{}}
	for group, ports := range want {
		d.Wants[group] = []target.Want{}
		for port, container := range ports {
			w.ever[group][port] = true
			run := target.Run{ID: container, Name: container, StartedAt: time.Date(2000, 1, 1, 0, 0, len(container), 0, time.UTC)}
			d.Wants[group] = append(d.Wants[group], target.Want{Group: group, Run: run, Port: 80, HostPort4: port, Dynamic: true})
			d.Allotted = append(d.Allotted, target.Allotment{Run: run, HostPort: port})
		}
	}
	return d
}

// scene is what is wanted from a time of a life on; or else a look at what there is then.
type scene struct {
	at   time.Duration
	want crashWant
	look func()
}

// crashProcess is one life of an agent.
type crashProcess struct {
	scenes []scene
	length time.Duration
	killAt int                      // the instant at which it is killed; it is killed at the end of its length at the latest
	late   time.Duration            // of a call that leaves with its last breath
	torn   bool                     // the machine goes down with it: what was not synced is lost, or torn
	disk   map[int]ledger.DiskFault // by the number of the disk's operation
}

// live runs one life and returns at which instant it was killed, "" if at none. What is on the disk then is what the
// next one finds.
func (p crashProcess) live(w *crashWorld, rng *rand.Rand) (killed string, err error) {
	life := newInstants(p.killAt)
	disk := w.disk
	n := 0
	disk.On(func(op, _ string) error {
		if !life.pass("before the disk's " + op) {
			disk.Mu.Lock()
			disk.Crashed = true
			disk.Mu.Unlock()
			return errKilled
		}
		life.mu.Lock()
		n++
		fault := p.disk[n]
		life.mu.Unlock()
		time.Sleep(fault.Hang)
		return fault.Err
	})
	kept, err := ledger.Open(ledger.MemDir, "boot-1", ledger.WithRoom(ledger.Options{FS: disk}, 2<<10))
	if err == nil {
		p.run(w, life, kept)
		_ = kept.Close() // its disk is gone
		ledger.AwaitWriter(kept)
	}
	disk.Mu.Lock()
	disk.Crashed = true
	disk.Mu.Unlock()
	if p.torn {
		w.disk = disk.Crash(rng)
	} else {
		w.disk = disk.Survives()
	}
	if err != nil && life.last == "" {
		return "", fmt.Errorf("open the ledger: %w", err)
	}
	return life.last, w.check()
}

// run runs the registrar until it is killed.
func (p crashProcess) run(w *crashWorld, life *instants, ledger *ledger.Ledger) {
	client := &http.Client{Transport: &wire{instants: life, sim: w.sim.TransportFor(crashInstance), late: p.late, calls: &w.orphans}}
	self := elb.Self{
		InstanceID: crashInstance, Region: "eu-central-1", Account: "123456789012", Address4: netip.MustParseAddr("10.0.0.10"),
	}
	api := elb.NewAPI(aws.Config{
		Region: self.Region, HTTPClient: client, Credentials: awscreds.NewStaticCredentialsProvider("AKIDTEST", "secret", ""),
	})
	reg := registrar.New(func(ctx context.Context) (elb.API, elb.Self, error) { return api, self, ctx.Err() }, ledger, registrar.Options{BootID: "boot-1", WriteTimeout: writeTimeout})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = reg.Run(ctx) // connect gives no error
	}()
	begun := time.Now()
	sleep := func(until time.Duration) {
		select {
		case <-life.dead.Done():
		case <-time.After(time.Until(begun.Add(until))):
		}
	}
	for i, s := range p.scenes {
		if sleep(s.at); life.dead.Err() != nil {
			break
		}
		if s.look != nil {
			synctest.Wait()
			s.look()
			continue
		}
		reg.Apply(w.desired(uint64(i+1), s.want))
	}
	sleep(p.length)
	life.kill()
	w.ended = append(w.ended, time.Now())
	stop()
	<-ended
}

// check looks at every call that was made since: none names what is not ours.
func (w *crashWorld) check() error {
	for _, call := range w.sim.Calls() {
		if call.ID < w.checked || call.Action != elb.OpRegister && call.Action != elb.OpDeregister {
			continue
		}
		w.checked = call.ID + 1
		group := elb.Short(call.Groups[0])
		for _, t := range call.Targets {
			if t.ID != crashInstance || !w.ever[group][t.Port] {
				return fmt.Errorf("%s in %s names %s, which is not ours", call.Action, group, t)
			}
		}
	}
	for group, targets := range w.foreign {
		registered := w.sim.Registered(group)
		for _, t := range targets {
			if !slices.Contains(registered, t) {
				return fmt.Errorf("%s is gone from %s", t, group)
			}
		}
	}
	return nil
}

// differs returns what is registered and should not be, and what should be and is not.
func (w *crashWorld) differs(want crashWant) (stale, missing []string) {
	for group, foreign := range w.foreign {
		registered := w.sim.Registered(group)
		for _, t := range registered {
			if want[group][t.Port] == "" && !slices.Contains(foreign, t) {
				stale = append(stale, group+" "+t.String())
			}
		}
		for port := range want[group] {
			if t := (target.Target{ID: crashInstance, Port: port}); !slices.Contains(registered, t) {
				missing = append(missing, group+" "+t.String())
			}
		}
	}
	return stale, missing
}

// held returns nil if the ledger on the disk holds what is wanted, as registered, and nothing else.
func (w *crashWorld) held(want crashWant) error {
	entries, err := ledger.EntriesOn(w.disk)
	if err != nil {
		return err
	}
	var got, expected []string
	for _, e := range entries {
		got = append(got, fmt.Sprint(elb.Short(e.ARN()), " ", e.Target.Port, " ", e.Phase, " ", e.Run.ID))
	}
	for group, ports := range want {
		for port, container := range ports {
			expected = append(expected, fmt.Sprint(group, " ", port, " ", ledger.Registered, " ", container))
		}
	}
	slices.Sort(got)
	slices.Sort(expected)
	if !slices.Equal(got, expected) {
		return fmt.Errorf("the ledger holds %q; want %q", got, expected)
	}
	return nil
}

const (
	writeTimeout = 3 * time.Second
	// healed is how long after a restart at most something may be registered that should not be: a registration that
	// an earlier life had sent may land late, and is found when the doubt about it ends.
	healed = 45 * time.Second
	// settled is how long after a restart everything is as it should be, whatever happened before: the first look at a
	// group is spread over ten minutes where the ledger says what is in it.
	settled = 15 * time.Minute
)

// recovers runs a life that nothing happens to, and checks what it makes of what it finds. After lives on an unsound
// disk, what they registered and could not write down may be left.
func (w *crashWorld) recovers(want crashWant, unsound bool) error {
	var errs []error
	at := func(when time.Duration, mayMiss func() []string) scene {
		return scene{at: when, look: func() {
			stale, missing := w.differs(want)
			late := mayMiss()
			missing = slices.DeleteFunc(missing, func(m string) bool { return slices.Contains(late, m) })
			if len(stale) > 0 && !unsound || len(missing) > 0 && (!unsound || when == settled) {
				errs = append(errs, fmt.Errorf("%v after the restart %q are registered that should not be, and %q are not", when, stale, missing))
			}
		}}
	}
	_, violated := crashProcess{
		scenes: []scene{{want: want}, at(healed, w.unheard), at(settled, func() []string { return nil })}, length: settled, killAt: -1,
	}.live(w, nil)
	return errors.Join(errors.Join(errs...), violated, w.held(want))
}

// unheard are the targets of removals that were in flight when a process ended, or had just been answered. No removal
// waits for the disk: the ledger may know nothing of them. Should such a target be wanted again at once, only the first
// look finds it missing, and the processes since may have ended before theirs.
func (w *crashWorld) unheard() []string {
	var out []string
	for _, c := range w.sim.CallsOf(elb.OpDeregister) {
		inFlight := func(end time.Time) bool {
			ago := end.Sub(c.Time)
			return ago >= -crashDoubt && ago <= writeTimeout+ledger.LongestLinger // a call may arrive after its process has ended
		}
		if !slices.ContainsFunc(w.ended, inFlight) {
			continue
		}
		for _, t := range c.Targets {
			out = append(out, elb.Short(c.Groups[0])+" "+t.String())
		}
	}
	return out
}

func calls(sim *elbsim.Sim) string {
	var b strings.Builder
	for _, c := range sim.Calls() {
		fmt.Fprintf(&b, "%s %s %v %v → %s, effect %s\n", c.Time.Format("04:05.000"), c.Action, c.Groups, c.Targets, c.Outcome, c.EffectAt.Format("04:05.000"))
	}
	return b.String()
}

// crashScenes have everything in them that makes a registrar write: containers come and go, two by two; a port passes
// to another container of the group, to another group, and back.
var crashScenes = []scene{
	{want: ports("web 1 2 api 3")},
	{at: 2 * time.Second, want: ports("web 2 4 api 3")},
	{at: 4 * time.Second, want: ports("web 2' 4")},
	{at: 6 * time.Second, want: ports("web 4 5 api 3'")},
	{at: 15 * time.Second, want: ports("web 4 api 5 3'")},
}

// An agent is killed at every instant of a life in which everything happens, one instant after the other.
func TestCrash_everyInstant(t *testing.T) {
	late := elbsim.Duration(20 * time.Second)
	troubles := map[string][]elbsim.Fault{
		"sound": nil,
		"replies lost": {
			{Kind: elbsim.FaultLost, Action: elb.OpRegister, Skip: 1, Times: 2},
			{Kind: elbsim.FaultLost, Action: elb.OpDeregister, Skip: 1, Times: 1, Reset: true},
		},
		"effects late": {
			{Kind: elbsim.FaultLate, Action: elb.OpRegister, Skip: 1, Times: 2, Delay: late},
			{Kind: elbsim.FaultLate, Action: elb.OpDeregister, Skip: 1, Times: 1, Delay: late},
		},
	}
	afters := map[string]struct {
		want crashWant
		torn bool
	}{
		"others wanted":              {ports("web 1 2 6 api 4"), false},
		"others wanted, disk torn":   {ports("web 1 2 6 api 4"), true},
		"the same wanted":            {ports("web 4 api 5 3'"), false},
		"nothing wanted, disk torn ": {ports(""), true},
	}
	if testing.Short() {
		delete(troubles, "sound")
		delete(troubles, "replies lost")
	}
	for trouble, faults := range troubles {
		for name, after := range afters {
			t.Run(trouble+", "+name, func(t *testing.T) {
				t.Parallel()
				for killAt := 0; ; killAt++ {
					killed := ""
					synctest.Test(t, func(t *testing.T) { killed = crashOnce(t, killAt, faults, after.want, after.torn) })
					if t.Failed() {
						return
					}
					if killed == "" {
						if killAt < 60 {
							t.Errorf("a life of %d instants: not all of it happened", killAt)
						}
						return
					}
				}
			})
		}
	}
}

func crashOnce(t *testing.T, killAt int, faults []elbsim.Fault, want crashWant, torn bool) (killed string) {
	w, err := newCrashWorld()
	for _, f := range faults {
		_, faultErr := w.sim.AddFault(f)
		err = errors.Join(err, faultErr)
	}
	if err != nil {
		t.Fatal(err)
	}
	killed, err = crashProcess{
		scenes: crashScenes, length: 25 * time.Second, killAt: killAt, late: 2 * time.Second, torn: torn,
	}.live(w, rand.New(rand.NewPCG(uint64(killAt), 1)))
	if err == nil {
		err = w.recovers(want, false)
	}
	w.orphans.Wait()
	if err != nil {
		t.Errorf("killed at %s: %v\n%s", killed, err, calls(w.sim))
	}
	return killed
}

// crashLives are random lives, one after the other, and what is wanted in the end.
type crashLives struct {
	lives []crashProcess
	fault [][]elbsim.Fault // that begin with each life
	down  []time.Duration  // after each life
	want  crashWant
}

// unsound reports whether a disk refused to take what it was given. An agent goes on then, and what it registers
// meanwhile is not known to the next one.
func (c crashLives) unsound() bool {
	return slices.ContainsFunc(c.lives, func(p crashProcess) bool { return len(p.disk) > 0 })
}

func anyCrashLives() *rapid.Generator[crashLives] {
	seconds := func(t *rapid.T, what string, of ...float64) time.Duration {
		return time.Duration(rapid.SampledFrom(of).Draw(t, what) * float64(time.Second))
	}
	want := rapid.Custom(func(t *rapid.T) crashWant {
		out := crashWant{"api": {}, "web": {}}
		for port := range uint16(6) {
			group := rapid.SampledFrom([]string{"", "web", "web", "api"}).Draw(t, "group")
			if group != "" { // a port is one container's, and in one group
				out[group][port+1] = fmt.Sprint(port+1, rapid.SampledFrom([]string{"", "'"}).Draw(t, "run"))
			}
		}
		return out
	})
	fault := rapid.Custom(func(t *rapid.T) elbsim.Fault {
		return elbsim.Fault{
			Kind: rapid.SampledFrom([]elbsim.FaultKind{
				elbsim.FaultLost, elbsim.FaultLate, elbsim.FaultLate, elbsim.FaultHang, elbsim.FaultReset, elbsim.FaultTruncate, elbsim.FaultError,
			}).Draw(t, "kind"),
			Action: rapid.SampledFrom([]string{elb.OpRegister, elb.OpDeregister, elb.OpDescribeHealth}).Draw(t, "action"),
			Code:   rapid.SampledFrom([]string{"InternalFailure", "Throttling", "AccessDenied"}).Draw(t, "code"),
			Skip:   rapid.IntRange(0, 3).Draw(t, "skip"), Times: rapid.IntRange(1, 3).Draw(t, "times"),
			Delay: elbsim.Duration(seconds(t, "delay", .5, 4, 25)), Reset: rapid.Bool().Draw(t, "reset"),
		}
	})
	disk := rapid.Custom(func(t *rapid.T) ledger.DiskFault {
		return ledger.DiskFault{Err: rapid.SampledFrom([]error{syscall.ENOSPC, syscall.EIO, memdisk.ErrShort}).Draw(t, "error"), Hang: seconds(t, "hang", 0, .5, 3)}
	})
	life := rapid.Custom(func(t *rapid.T) crashProcess {
		p := crashProcess{
			killAt: rapid.IntRange(-10, 150).Draw(t, "kill at"), late: seconds(t, "late", .1, 2, 25), torn: rapid.Bool().Draw(t, "torn"),
		}
		for range rapid.IntRange(1, 6).Draw(t, "scenes") {
			p.scenes = append(p.scenes, scene{at: p.length, want: want.Draw(t, "want")})
			p.length += seconds(t, "pause", 0, .1, 1, 3, 12, 40, 120)
		}
		if rapid.IntRange(0, 4).Draw(t, "disk") == 0 {
			p.disk = rapid.MapOfN(rapid.IntRange(10, 60), disk, 1, 6).Draw(t, "disk faults")
		}
		return p
	})
	return rapid.Custom(func(t *rapid.T) crashLives {
		c := crashLives{lives: rapid.SliceOfN(life, 1, 4).Draw(t, "lives"), want: want.Draw(t, "in the end")}
		for range c.lives {
			c.fault = append(c.fault, rapid.SliceOfN(fault, 0, 3).Draw(t, "faults"))
			c.down = append(c.down, seconds(t, "down", 0, 0, 3, 60))
		}
		return c
	})
}

// Whatever happens, whenever the agents are killed: the last one makes it exact, and none touches what is not ours.
func TestCrash_anyLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := anyCrashLives().Draw(rt, "lives")
		seed := rapid.Uint64().Draw(rt, "seed")
		var failure error
		var said string
		synctest.Test(t, func(*testing.T) {
			var w *crashWorld
			if w, failure = newCrashWorld(); failure != nil {
				return
			}
			defer func() {
				w.orphans.Wait()
				said = calls(w.sim)
			}()
			for i, life := range c.lives {
				for _, f := range c.fault[i] {
					if _, failure = w.sim.AddFault(f); failure != nil {
						return
					}
				}
				var killed string
				if killed, failure = life.live(w, rand.New(rand.NewPCG(seed, uint64(i)))); failure != nil {
					failure = fmt.Errorf("life %d, killed at %s: %w", i+1, killed, failure)
					return
				}
				time.Sleep(c.down[i])
			}
			w.sim.ClearFaults()
			failure = w.recovers(c.want, c.unsound())
		})
		if failure != nil {
			rt.Fatalf("%v\n%s", failure, said)
		}
	})
}

// An agent is killed at every instant of a life in which a target was deregistered, which took no effect, and was then
// refused: the next one still takes the target out.
func TestCrash_refused(t *testing.T) {
	scenes := []scene{
		{want: ports("web 1 2")},
		{at: 2 * time.Second, want: ports("web 2")},
		{at: 4 * time.Second, want: ports("web 1 2")},
		{at: 6 * time.Second, want: ports("web 2")},
	}
	for _, torn := range []bool{false, true} {
		for killAt := 0; ; killAt++ {
			killed, refused := "", 0
			synctest.Test(t, func(t *testing.T) {
				w, err := newCrashWorld()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: elb.OpRegister, Code: "AccessDenied", Skip: 1}); err != nil {
					t.Fatal(err)
				}
				killed, err = crashProcess{
					scenes: scenes, length: 8 * time.Second, killAt: killAt, late: time.Second, torn: torn,
				}.live(w, rand.New(rand.NewPCG(uint64(killAt), 1)))
				w.orphans.Wait()
				refused = len(w.sim.CallsOf(elb.OpRegister)) - 1
				w.sim.ClearFaults()
				err = errors.Join(err, w.sim.Register("web", target.Target{ID: crashInstance, Port: 1}))
				if registered := len(w.sim.CallsOf(elb.OpRegister)) > 0; err == nil && registered {
					err = w.recovers(ports("web 2"), false)
				}
				if err != nil {
					t.Errorf("killed at %s: %v\n%s", killed, err, calls(w.sim))
				}
			})
			if t.Failed() {
				return
			}
			if killed == "" {
				if killAt < 12 || refused < 1 {
					t.Errorf("a life of %d instants and %d refused calls: not all of it happened", killAt, refused)
				}
				break
			}
		}
	}
}
