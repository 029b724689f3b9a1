package registrar_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// picky is an API that refuses every registration that names port 1.
type picky struct{ elb.API }

func (p picky) RegisterTargets(ctx context.Context, in *elbv2.RegisterTargetsInput, o ...func(*elbv2.Options)) (*elbv2.RegisterTargetsOutput, error) {
	return choosy{p.API, func(port int32) bool { return port == 1 }}.RegisterTargets(ctx, in, o...)
}

// choosy is an API that refuses every registration that names a bad port.
type choosy struct {
	elb.API
	bad func(port int32) bool
}

func (c choosy) RegisterTargets(ctx context.Context, in *elbv2.RegisterTargetsInput, o ...func(*elbv2.Options)) (*elbv2.RegisterTargetsOutput, error) {
	for _, x := range in.Targets {
		if c.bad(*x.Port) {
			return nil, &smithyhttp.ResponseError{
				Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusBadRequest}},
				Err:      &smithy.GenericAPIError{Code: "InvalidTarget", Message: fmt.Sprint("port ", *x.Port)},
			}
		}
	}
	return c.API.RegisterTargets(ctx, in, o...)
}

// AWS refuses one target, and has for hours when another one is wanted. The refused one is on hold, alone: the other, which
// nobody has tried yet, goes at once.
func TestReconciler_refusedTargetHoldsNobodyElseUp(t *testing.T) {
	for _, peers := range []int{0, 1000} {
		t.Run(fmt.Sprintf("%d peers", peers), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.startWith(registrar.Options{Peers: peers}, func(api elb.API) elb.API { return picky{api} })
				w.want("web", 1)
				w.after(6 * time.Hour)
				w.registered("web")
				w.want("web", 1, 2)
				w.after(5 * time.Second)
				w.registered("web", 2)
			}, web())
		})
	}
}

// One bad target among many keeps none of the others waiting for its next attempt.
func TestReconciler_badTargetAmongGoodOnes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startWith(registrar.Options{Peers: 1000}, func(api elb.API) elb.API { return picky{api} })
		w.after(time.Hour)
		w.want("web", 1, 2, 3, 4, 5, 6, 7, 8, 9)
		w.after(20 * time.Second)
		w.registered("web", 2, 3, 4, 5, 6, 7, 8, 9)
		if g := w.group("web"); g.State != registrar.StateMisconfigured || g.Err == "" || g.RetryAt.IsZero() || g.Seq != w.d.Seq {
			t.Errorf("status %+v; want it misconfigured, with the refusal and the next attempt", g)
		}
		w.want("web", 2, 3, 4, 5, 6, 7, 8, 9)
		w.after(time.Second)
		if g := w.group("web"); g.State != registrar.StateOK {
			t.Errorf("status %s: %s; want ok, since nobody wants the bad target any more", g.State, g.Err)
		}
	}, web())
}

// When all are refused it is not the targets. They are not asked for one by one again and again, and all come in soon after
// the first that is accepted.
func TestReconciler_allTargetsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id, err := w.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "InvalidTarget", Status: 400})
		if err != nil {
			t.Fatal(err)
		}
		w.start()
		specs, ports := []any{"web"}, []int{}
		for p := range 50 {
			specs, ports = append(specs, p+1), append(ports, p+1)
		}
		w.want(specs...)
		w.after(2 * time.Minute)
		if n := len(w.calls("RegisterTargets")); n < 10 || n > 40 {
			t.Errorf("%d attempts in the first two minutes; want about one in 5 to 10 s", n)
		}
		w.after(time.Hour)
		before := len(w.calls("RegisterTargets"))
		w.after(time.Hour)
		if n := len(w.calls("RegisterTargets")) - before; n == 0 || n > 30 {
			t.Errorf("%d attempts in an hour; want about one in 2.5 to 5 min", n)
		}
		w.sim.RemoveFault(id)
		w.after(6 * time.Minute)
		w.registered("web", ports...)
	}, web())
}

// manyRefused has 50 targets refused for two days and goes on as f says, which knows the longest hold of one. The port good is
// taken.
func manyRefused(t *testing.T, f func(w *world, longest time.Duration, good, attempts *atomic.Int32)) {
	t.Helper()
	for peers, longest := range map[int]time.Duration{0: 5 * time.Minute, 1000: 50 * time.Minute} {
		inWorld(t, func(_ *testing.T, w *world) {
			var good, attempts atomic.Int32
			w.startWith(registrar.Options{Peers: peers}, func(api elb.API) elb.API {
				return choosy{api, func(port int32) bool {
					attempts.Add(1) // a call is refused for its first target
					return port != good.Load()
				}}
			})
			specs := []any{"web"}
			for p := range 50 {
				specs = append(specs, p+1)
			}
			w.want(specs...)
			w.after(48 * time.Hour)
			f(w, longest, &good, &attempts)
		}, web())
	}
}

// One of many that are refused is accepted. The others, which are still bad, are not tried one a second.
func TestReconciler_oneOfManyIsAccepted(t *testing.T) {
	manyRefused(t, func(w *world, _ time.Duration, good, attempts *atomic.Int32) {
		good.Store(10)
		for len(w.sim.Registered("web")) == 0 {
			w.after(time.Second)
		}
		attempts.Store(0)
		w.after(2 * time.Minute)
		if n := attempts.Load(); n == 0 || n > 20 {
			w.t.Errorf("%d registrations in the two minutes after one was accepted; want some, less and less often", n)
		}
	})
}

// All but one of many that are refused are gone: that one does not go on waiting for its turn among them.
func TestReconciler_oneOfManyIsLeft(t *testing.T) {
	manyRefused(t, func(w *world, longest time.Duration, good, _ *atomic.Int32) {
		good.Store(10)
		w.want("web", 10)
		begun := time.Now()
		for len(w.sim.Registered("web")) == 0 && time.Since(begun) < 24*time.Hour {
			w.after(time.Minute)
		}
		if took := time.Since(begun); took > 3*longest+time.Minute {
			w.t.Errorf("it is accepted after %v; want three times the longest wait at most", took)
		}
	})
}

// unremovable is an API that refuses every deregistration that names port 1.
type unremovable struct{ elb.API }

func (u unremovable) DeregisterTargets(ctx context.Context, in *elbv2.DeregisterTargetsInput, o ...func(*elbv2.Options)) (*elbv2.DeregisterTargetsOutput, error) {
	for _, x := range in.Targets {
		if *x.Port == 1 {
			return nil, &smithyhttp.ResponseError{
				Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusBadRequest}},
				Err:      &smithy.GenericAPIError{Code: "InvalidTarget", Message: "port 1"},
			}
		}
	}
	return u.API.DeregisterTargets(ctx, in, o...)
}

// It is the same for removals.
func TestReconciler_refusedRemovalHoldsNobodyElseUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startWith(registrar.Options{Peers: 1000}, func(api elb.API) elb.API { return unremovable{api} })
		w.want("web", 1, 2, 3)
		w.after(time.Minute)
		w.want("web", 2, 3)
		w.after(6 * time.Hour)
		w.registered("web", 1, 2, 3)
		w.want("web", 3)
		w.after(time.Second)
		w.registered("web", 1, 3)
	}, web())
}

// A deregistration is answered with 200 and takes no effect. Until a look has shown that the target is gone, it is known as
// ours; a registration of the same target that AWS refuses in the meantime changes nothing about that.
func TestReconciler_refusedCallForgetsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1)
		w.after(2 * time.Minute)
		w.want()
		w.after(2 * time.Second)
		w.registered("web")
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "Throttling", Status: 400})
		w.want("web", 1)
		w.after(time.Second)
		w.want()
		w.after(time.Second)
		if n := len(w.ledger.Entries()); n != 1 {
			t.Errorf("%d entries in the ledger; want the one of the target that may still be there", n)
		}
		if err := w.sim.Register("web", target.Target{ID: instance, Port: 1}); err != nil { // as if it had never left
			t.Fatal(err)
		}
		w.after(time.Hour)
		w.registered("web")
	}, web())
}
