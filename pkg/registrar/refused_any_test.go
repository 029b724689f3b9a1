package registrar

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
	"berth/test/memdisk"
)

// refusing is an API that refuses every write after a while.
type refusing struct {
	elb.API
	after time.Duration
	err   error
	named int    // targets
	sees  func() // when a registration is sent; may be nil
}

func (a *refusing) RegisterTargets(_ context.Context, in *elbv2.RegisterTargetsInput, _ ...func(*elbv2.Options)) (*elbv2.RegisterTargetsOutput, error) {
	a.named += len(in.Targets)
	if a.sees != nil {
		a.sees()
	}
	time.Sleep(a.after)
	return nil, a.err
}

func (a *refusing) DeregisterTargets(_ context.Context, in *elbv2.DeregisterTargetsInput, _ ...func(*elbv2.Options)) (*elbv2.DeregisterTargetsOutput, error) {
	a.named += len(in.Targets)
	time.Sleep(a.after)
	return nil, a.err
}

// refusals are errors that the SDK returns for calls that certainly took no effect.
func refusals() map[string]error {
	out := map[string]error{
		"not sent":       &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED},
		"no credentials": &elb.CredentialsError{Err: errors.New("none")},
	}
	for code, status := range map[string]int{
		"Throttling": 400, "RequestLimitExceeded": 503, "AccessDenied": 403, "ExpiredToken": 403, "TargetGroupNotFound": 400, "TooManyTargets": 400,
		"InvalidTarget": 400, "ValidationError": 400,
	} {
		out[code] = &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
			Err:      &smithy.GenericAPIError{Code: code, Message: "refused"},
		}
	}
	return out
}

// anyKnown is what may be known of one target, and whether it is wanted.
type anyKnown struct {
	state     State // DoubtUntil and WrittenAt: since the beginning
	known     bool
	otherBoot bool // the ledger has it of another boot
	unclaimed bool
	wanted    bool
	lapses    bool // it is not wanted any more when the call is under way
}

func anyKnownTarget() *rapid.Generator[anyKnown] {
	return rapid.Custom(func(t *rapid.T) anyKnown {
		k := anyKnown{wanted: rapid.Bool().Draw(t, "wanted"), lapses: rapid.Bool().Draw(t, "lapses")}
		switch rapid.IntRange(0, 5).Draw(t, "known") {
		case 0:
		case 1:
			k.unclaimed = true
		case 2:
			k.otherBoot = true
		default:
			k.known = true
			s := State{
				Phase:  rapid.SampledFrom([]ledger.Phase{ledger.Intended, ledger.Registered, ledger.Removing, ledger.Removing}).Draw(t, "phase"),
				Health: rapid.SampledFrom([]string{"", "initial", "healthy", "draining"}).Draw(t, "health"),
				Reason: rapid.SampledFrom([]string{"", "Elb.InitialHealthChecking"}).Draw(t, "reason"),
				Since:  time.Unix(rapid.Int64Range(1, 1e9).Draw(t, "since"), 0),
				Run:    target.Run{ID: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "run")},
			}
			if rapid.Bool().Draw(t, "written") {
				s.WrittenAt = time.Unix(rapid.Int64Range(1, 1e9).Draw(t, "written at"), 0)
			}
			if s.Phase == ledger.Removing {
				s.Settled = rapid.Bool().Draw(t, "settled")
				s.Found = s.Settled && rapid.Bool().Draw(t, "found")
			}
			if !s.Settled && rapid.Bool().Draw(t, "doubt") {
				s.DoubtUntil = time.Unix(rapid.Int64Range(1, 2e9).Draw(t, "doubt until"), 0)
				s.DoubtOf = rapid.SampledFrom([]pacer.Class{pacer.ClassNone, pacer.ClassDeregister, pacer.ClassRegister}).Draw(t, "doubt of")
			}
			k.state = s
		}
		return k
	})
}

const refusedARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web-prod/0123456789abcdef"

var refusedSelf = elb.Self{InstanceID: "i-0123456789abcdef0", Region: "eu-west-1", Account: "123456789012"}

// ledgerOn opens this boot's ledger on d.
func ledgerOn(t *testing.T, d *memdisk.Disk) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open("/state", "boot-1", ledger.Options{FS: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the ledger: %v", err)
		}
	})
	l.Claim(refusedSelf)
	return l
}

// entriesOn returns what whoever opens the ledger on d next finds there.
func entriesOn(t *testing.T, d *memdisk.Disk) []ledger.Entry {
	t.Helper()
	l, err := ledger.Open("/state", "boot-1", ledger.Options{FS: d.Survives()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Entries()
}

// A call that was refused changes nothing of what is known about its targets: in the reconciler, in the ledger, on disk.
func TestReconciler_refusedChangesNothing(t *testing.T) {
	errs := refusals()
	named := 0
	rapid.Check(t, func(rt *rapid.T) {
		targets := rapid.SliceOfN(anyKnownTarget(), 1, 6).Draw(rt, "targets")
		class := rapid.SampledFrom([]pacer.Class{pacer.ClassRegister, pacer.ClassRegister, pacer.ClassDeregister}).Draw(rt, "class")
		ip := rapid.Bool().Draw(rt, "ip")
		shutdown := rapid.IntRange(0, 7).Draw(rt, "shutdown") == 0
		api := &refusing{
			after: rapid.SampledFrom([]time.Duration{0, time.Millisecond, 20 * time.Millisecond, 2 * time.Second}).Draw(rt, "reply after"),
			err:   errs[rapid.SampledFrom(slices.Sorted(maps.Keys(errs))).Draw(rt, "refusal")],
		}
		lapse := rapid.SampledFrom([]time.Duration{0, 10 * time.Millisecond, 30 * time.Millisecond}).Draw(rt, "lapse")
		disk := rapid.SampledFrom([]time.Duration{0, 20 * time.Millisecond}).Draw(rt, "disk")
		var diff string
		synctest.Test(t, func(t *testing.T) {
			diff = refuse(t, targets, class, ip, shutdown, api, lapse, disk)
		})
		if diff != "" {
			rt.Fatal(diff)
		}
		named += api.named
	})
	if named == 0 {
		t.Error("no call was refused")
	}
}

func refuse(t *testing.T, known []anyKnown, class pacer.Class, ip, shutdown bool, api *refusing, lapse, sync time.Duration) string {
	d := memdisk.New()
	kept := ledgerOn(t, d)
	reg := New(nil, kept, Options{BootID: "boot-1"})
	reg.env.calls = elb.New(api, reg.calls)
	in := &input{
		seq: 1, self: refusedSelf, keys: []string{"web"}, group: elb.Group{Key: "web", Name: "web-prod"},
		facts: elb.Facts{ARN: refusedARN, Name: "web-prod", TargetType: "instance", Protocol: "HTTP"},
	}
	if ip {
		in.facts.TargetType = "ip"
	}
	lapsed := *in
	lapsed.seq = 2
	for i, k := range known {
		run := k.state.Run
		if run.ID == "" {
			run.ID = "c"
		}
		want := target.Want{Group: "web", Run: run, Port: 80, HostPort4: uint16(i + 1)}
		if k.wanted {
			in.wants = append(in.wants, want)
			if !k.lapses {
				lapsed.wants = append(lapsed.wants, want)
			}
		}
	}

	x := func(i int) target.Target { return target.Target{ID: refusedSelf.InstanceID, Port: uint16(i + 1)} }
	if ip {
		address := netip.MustParseAddr("10.0.0.10")
		in.self.Address4, lapsed.self.Address4 = address, address
		x = func(i int) target.Target { return target.Target{ID: address.String(), Port: uint16(i + 1)} }
	}
	var before []ledger.Entry
	for i, k := range known {
		if k.otherBoot {
			intended := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			before = append(before, ledger.Entry{
				Group: in.group, Facts: in.facts, Target: x(i), Run: target.Run{ID: "other boot"}, BootID: "boot-0",
				Phase: ledger.Registered, Intended: intended, Confirmed: intended,
			})
		}
	}
	kept.Record(before)
	r := newReconciler(refusedARN, reg.env, before)
	r.unclaimed = map[target.Target]elb.Sighting{}
	r.set(in)
	r.take()
	for i, k := range known {
		switch {
		case k.known && k.wanted && (k.state.Phase == ledger.Registered || k.state.Phase == ledger.Intended):
			s := k.state
			s.Run = claimant(r.want[x(i)])
			r.learn(x(i), s)
		case k.known:
			r.learn(x(i), k.state)
		case k.unclaimed:
			r.unclaimed[x(i)] = elb.Sighting{Health: "healthy"}
		}
	}
	time.Sleep(time.Hour)
	d.On(func(op, _ string) error {
		if op == "datasync" {
			time.Sleep(sync)
		}
		return nil
	})

	remove, add := Outstanding(r.want, r.have, r.cond)
	have, unclaimed, entries := maps.Clone(r.have), maps.Clone(r.unclaimed), kept.Entries()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if shutdown {
		cancel()
	}
	if lapse > 0 {
		time.AfterFunc(lapse, func() { r.set(&lapsed) })
	}
	permit := reg.env.pacer.Ask(class, false)
	<-permit.Ready()
	switch {
	case class == pacer.ClassRegister && len(add) > 0:
		r.register(ctx, permit, add)
	case class == pacer.ClassDeregister && len(remove) > 0:
		r.deregister(ctx, permit, remove)
	default:
		permit.Drop()
	}
	time.Sleep(time.Minute) // until all is on disk
	return cmp.Diff(have, r.have) + cmp.Diff(unclaimed, r.unclaimed) + cmp.Diff(entries, kept.Entries()) + cmp.Diff(entries, append([]ledger.Entry{}, entriesOn(t, d)...))
}

// What else becomes known while a registration waits for the disk, or is under way, stays known when it comes to nothing.
func TestReconciler_meanwhile(t *testing.T) {
	// The disk takes 20 ms, and the reply as long. What the disk knows already is sent at once.
	const inTheLedger, underWay, sentAtOnce = 10 * time.Millisecond, 30 * time.Millisecond, 10 * time.Millisecond
	x := target.Target{ID: refusedSelf.InstanceID, Port: 1}
	wants := func(run string) []target.Want {
		if run == "" {
			return nil
		}
		return []target.Want{{Group: "web", Run: target.Run{ID: run}, Port: 80, HostPort4: 1}}
	}
	for _, tt := range []struct {
		name    string
		before  State
		at      time.Duration
		want    string // from then on: the run; empty: none
		prune   bool   // then, too
		accept  bool
		phase   ledger.Phase
		run     string
		entered ledger.Phase
	}{
		{"its claim passes before it is sent", State{}, inTheLedger, "b", false, true, ledger.Registered, "b", ledger.Registered},
		{"its claim passes while it is under way", State{}, underWay, "b", false, true, ledger.Registered, "b", ledger.Registered},
		{"its claim passes, and it is refused", State{Phase: ledger.Intended, Run: target.Run{ID: "a"}}, sentAtOnce, "b", false, false, ledger.Intended, "b", ledger.Intended},
		{"it is pruned before it is sent", State{}, inTheLedger, "", true, true, ledger.Registered, "", ledger.Registered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := memdisk.New()
				kept := ledgerOn(t, d)
				reg := New(nil, kept, Options{BootID: "boot-1"})
				api := &refusing{after: 20 * time.Millisecond, err: refusals()["AccessDenied"]}
				if tt.accept {
					api.err = nil
				}
				reg.env.calls = elb.New(api, reg.calls)
				if tt.accept && tt.at == inTheLedger && tt.want != "" {
					api.sees = func() {
						if e := kept.Entries(); len(e) != 1 || e[0].Run.ID != tt.want {
							t.Errorf("when it is sent the ledger has %+v; want it for %q", e, tt.want)
						}
					}
				}
				r := newReconciler(refusedARN, reg.env, nil)
				in := input{
					seq: 1, self: refusedSelf, keys: []string{"web"}, group: elb.Group{Key: "web", Name: "web-prod"},
					facts: elb.Facts{ARN: refusedARN, Name: "web-prod", TargetType: "instance", Protocol: "HTTP"}, wants: wants("a"),
				}
				next := in
				next.seq, next.wants = 2, wants(tt.want)
				r.unclaimed = map[target.Target]elb.Sighting{}
				r.set(&in)
				r.take()
				if tt.before.Phase != "" {
					r.learn(x, tt.before)
				}
				if tt.prune {
					r.unclaimed[x] = elb.Sighting{Health: "healthy"}
				}
				time.Sleep(time.Hour)
				d.On(func(op, _ string) error {
					if op == "datasync" {
						time.Sleep(20 * time.Millisecond)
					}
					return nil
				})
				time.AfterFunc(tt.at, func() {
					if tt.prune {
						r.pruning.Store(&[]target.Target{x})
					}
					r.set(&next)
				})
				permit := reg.env.pacer.Ask(pacer.ClassRegister, false)
				<-permit.Ready()
				r.register(t.Context(), permit, []target.Target{x})
				time.Sleep(time.Minute)
				if s := r.have[x]; s.Phase != tt.phase || s.Run.ID != tt.run {
					t.Errorf("known: %+v; want it %s for %q", s, tt.phase, tt.run)
				}
				if e := entriesOn(t, d); len(e) != 1 || e[0].Phase != tt.entered || e[0].Run.ID != tt.run {
					t.Errorf("on disk: %+v; want it %s for %q", e, tt.entered, tt.run)
				}
			})
		})
	}
}
