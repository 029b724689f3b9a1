package registrar_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
)

// answering is an API whose answers to looks go through change.
type answering struct {
	elb.API
	change func(*elbv2.DescribeTargetHealthInput, *elbv2.DescribeTargetHealthOutput)
}

func (a answering) DescribeTargetHealth(ctx context.Context, in *elbv2.DescribeTargetHealthInput, o ...func(*elbv2.Options)) (*elbv2.DescribeTargetHealthOutput, error) {
	out, err := a.API.DescribeTargetHealth(ctx, in, o...)
	if err == nil {
		a.change(in, out)
	}
	return out, err
}

// startWith starts a registrar whose API is what through makes of the world's.
func (w *world) startWith(o registrar.Options, through func(elb.API) elb.API) {
	w.t.Helper()
	if o.BootID == "" {
		o.BootID = boot
	}
	w.reg = registrar.New(func(ctx context.Context) (elb.API, elb.Self, error) {
		api, self, err := w.connect(ctx)
		return through(api), self, err
	}, w.ledger, o)
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

// mostLooks bounds the looks at one group in an hour: 12 are ordinary.
const mostLooks = 60

// looksInAnHour is how often a group is looked at in the next hour.
func (w *world) looksInAnHour() int {
	before := len(w.calls("DescribeTargetHealth"))
	w.after(time.Hour)
	return len(w.calls("DescribeTargetHealth")) - before
}

// The answer to RegisterTargets is lost, the container ends, and no answer about its target names that target. It is asked
// about less and less often, and a look at the whole group, in which it is absent, settles it.
func TestRegistrar_targetThatNoAnswerNames(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startWith(registrar.Options{}, func(api elb.API) elb.API {
			return answering{api, func(in *elbv2.DescribeTargetHealthInput, out *elbv2.DescribeTargetHealthOutput) {
				if len(in.Targets) > 0 {
					out.TargetHealthDescriptions = nil
				}
			}}
		})
		w.fault(elbsim.Fault{Kind: elbsim.FaultLost, Action: "RegisterTargets", Times: 1})
		w.want("web", 1)
		w.after(10 * time.Second)
		w.want()
		w.after(2 * time.Minute)
		if n := w.looksInAnHour(); n > mostLooks {
			t.Errorf("%d looks in an hour; want at most %d", n, mostLooks)
		}
		w.registered("web")
	}, web())
}

// It is the same with a target that is wanted, and registered: it stays so, and nobody registers it again and again.
func TestRegistrar_wantedTargetThatNoAnswerNames(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startWith(registrar.Options{}, func(api elb.API) elb.API {
			return answering{api, func(in *elbv2.DescribeTargetHealthInput, out *elbv2.DescribeTargetHealthOutput) {
				if len(in.Targets) > 0 {
					out.TargetHealthDescriptions = nil
				}
			}}
		})
		w.want("web", 1)
		w.after(10 * time.Minute)
		writes := len(w.writes())
		if n := w.looksInAnHour(); n > mostLooks {
			t.Errorf("%d looks in an hour; want at most %d", n, mostLooks)
		}
		w.registered("web", 1)
		if n := len(w.writes()) - writes; n > 0 {
			t.Errorf("%d writes in an hour in which nothing changed", n)
		}
	}, web())
}

// A removal that was accepted, and of whose target no answer says anything: the whole group is looked at, and it is forgotten.
func TestRegistrar_removalThatNoAnswerShows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startWith(registrar.Options{}, func(api elb.API) elb.API {
			return answering{api, func(in *elbv2.DescribeTargetHealthInput, out *elbv2.DescribeTargetHealthOutput) {
				if len(in.Targets) > 0 {
					out.TargetHealthDescriptions = nil
				}
			}}
		})
		w.want("web", 1)
		w.after(2 * time.Minute)
		w.want()
		w.after(time.Hour)
		if e := w.ledger.Entries(); len(e) > 0 {
			t.Errorf("the ledger still has %+v", e)
		}
	}, web())
}

// An IPv6 address has many spellings, all of one target.
func TestRegistrar_addressInAnotherSpelling(t *testing.T) {
	address := netip.MustParseAddr("fd00::a")
	inWorld(t, func(t *testing.T, w *world) {
		w.know = func(self *elb.Self) { self.Address6 = address }
		w.startWith(registrar.Options{}, func(api elb.API) elb.API {
			return answering{api, func(_ *elbv2.DescribeTargetHealthInput, out *elbv2.DescribeTargetHealthOutput) {
				for i := range out.TargetHealthDescriptions {
					if x := out.TargetHealthDescriptions[i].Target; *x.Id == address.String() {
						spelt := address.StringExpanded()
						x.Id = &spelt
					}
				}
			}}
		})
		w.fault(elbsim.Fault{Kind: elbsim.FaultLost, Action: "RegisterTargets", Times: 1})
		w.want("web", 1)
		w.after(10 * time.Second)
		w.want()
		w.after(2 * time.Minute)
		if n := w.looksInAnHour(); n > mostLooks {
			t.Errorf("%d looks in an hour; want at most %d", n, mostLooks)
		}
		if left := w.sim.Registered("web"); len(left) > 0 {
			t.Errorf("%v is still registered", left)
		}
	}, elbsim.Group{Name: "web", Type: "ip", IPAddressType: "ipv6", Protocol: "HTTP"})
}
