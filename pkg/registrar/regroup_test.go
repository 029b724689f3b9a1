package registrar_test

import (
	"context"
	"strings"
	"testing"
	"time"

	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// renamed has the key web mean the group of another name, as a reload does.
func (w *world) renamed(name string) {
	w.groups = []elb.Group{{Key: "web", Name: name, Source: "/etc/berth/berth.yaml:7"}}
}

// The name of a group is mistyped and the configuration reloaded. The key is still configured, so its targets stay in the
// group that serves it, until the group of the new name is found. A want that ends leaves that group at once.
func TestRegistrar_reloadToANameThatDoesNotExist(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 1, 2, 3)
		w.renamed("wbe")
		w.want("web", 1, 2, 3)
		w.after(time.Hour)
		w.registered("web", 1, 2, 3)
		w.want("web", 1, 2)
		w.after(5 * time.Second)
		w.registered("web", 1, 2)
	}, web())
}

// It is the same where the agent is restarted with such a configuration.
func TestRegistrar_restartWithANameThatDoesNotExist(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 1, 2, 3)
		w.stop()
		w.renamed("wbe")
		w.start()
		w.want("web", 1, 2, 3)
		w.after(time.Hour)
		w.registered("web", 1, 2, 3)
	}, web())
}

// The new group exists, and AWS refuses the registrations there: the old one serves until it accepts them.
func TestRegistrar_reloadToAGroupThatRefuses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		w.start()
		w.want("web", 1, 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 1, 2, 3)
		id, err := w.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "AccessDenied", Status: 403})
		if err != nil {
			t.Fatal(err)
		}
		w.renamed("web2")
		w.want("web", 1, 2, 3)
		w.after(time.Hour)
		w.registered("web", 1, 2, 3)
		w.registered("web2")
		w.sim.RemoveFault(id)
		w.after(time.Hour)
		w.registered("web")
		w.registered("web2", 1, 2, 3)
	}, web())
}

// heldBy returns the status of the group that still has targets of key though the configuration names another one.
func (w *world) heldBy(key string) (g registrar.GroupStatus, why string) {
	w.t.Helper()
	s, _ := w.reg.Snapshot()
	for _, g := range s.Groups {
		for _, h := range g.Held {
			if h.Key == key {
				return g, h.Why
			}
		}
	}
	return registrar.GroupStatus{}, ""
}

// Whoever looks is told which group serves the key, and what the one that it names lacks. What starts meanwhile is served
// there, too. When the name is corrected no call is made.
func TestRegistrar_whileANameDoesNotExist(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.renamed("wbe")
		w.want("web", 1, 2, 3)
		w.after(time.Minute)
		w.registered("web", 1, 2, 3)
		g, why := w.heldBy("web")
		if g.Name != "web" || len(g.Keys) > 0 || g.State != registrar.StateOK || !strings.Contains(why, `"wbe"`) || !strings.Contains(why, "not found") {
			t.Errorf("held by %+v: %q; want the group web, ok, because wbe is not found", g, why)
		}
		if g := w.group("web"); g.State != registrar.StateGone || !strings.Contains(g.Change, "berth.yaml:7") || len(g.Held) > 0 {
			t.Errorf("status of the key: %+v; want it gone, naming the line", g)
		}
		before := len(w.writes())
		w.renamed("web")
		w.want("web", 1, 2, 3)
		w.after(time.Hour)
		w.registered("web", 1, 2, 3)
		if g, _ := w.heldBy("web"); len(w.writes()) > before || g.ARN != "" {
			t.Errorf("%d writes, held by %q; want none after the name was corrected", len(w.writes())-before, g.Name)
		}
	}, web())
}

// A key that is gone from the configuration holds nothing, and nor does one whose name was wrong before it went.
func TestRegistrar_removedKeyGoesAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, "api", 2)
		w.after(time.Minute)
		w.groups = []elb.Group{{Key: "web", Name: "wbe"}}
		w.want("web", 1)
		w.after(time.Second)
		w.registered("web", 1)
		w.registered("api")
		w.groups = []elb.Group{{Key: "other", Name: "wbe"}}
		w.want("other", 1)
		w.after(time.Second)
		w.registered("web")
	}, web(), api())
}

// A target leaves the group before when the new one has accepted it, and not a moment sooner.
func TestRegistrar_moveToAnotherGroup(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		w.start()
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.renamed("web2")
		w.want("web", 1, 2)
		w.after(5 * time.Second)
		w.called("RegisterTargets web 1 2", "RegisterTargets web2 1 2", "DeregisterTargets web 1 2")
		w.after(time.Hour)
		if g, _ := w.heldBy("web"); g.ARN != "" {
			t.Errorf("the group before is still held: %+v", g)
		}
		s, _ := w.reg.Snapshot()
		if len(s.Groups) != 1 {
			t.Errorf("%d groups in the status; want the new one alone", len(s.Groups))
		}
	}, web())
}

// What the new group does not take stays in the one before, alone: what it has taken leaves it, and nothing new comes in there.
// It is the same after a restart.
func TestRegistrar_moveOfAllButOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		arn := w.sim.GroupARN("web2")
		through := func(api elb.API) elb.API { return pickyIn{picky{api}, arn} }
		w.startWith(registrar.Options{}, through)
		w.want("web", 1, 2, 3)
		w.after(time.Minute)
		w.renamed("web2")
		w.want("web", 1, 2, 3)
		w.after(time.Minute)
		w.registered("web", 1)
		w.registered("web2", 2, 3)
		w.want("web", 1, 2, 3, 4)
		w.after(time.Minute)
		w.registered("web", 1)
		w.registered("web2", 2, 3, 4)
		w.stop()
		before := len(w.calls("DeregisterTargets"))
		w.startWith(registrar.Options{}, through)
		w.want("web", 1, 2, 3, 4, 5)
		w.after(time.Hour)
		w.registered("web", 1)
		w.registered("web2", 2, 3, 4, 5)
		if n := len(w.calls("DeregisterTargets")) - before; n > 0 {
			t.Errorf("%d removals after the restart; want none", n)
		}
		w.want("web", 2, 3, 4, 5)
		w.after(time.Second)
		w.registered("web")
	}, web())
}

// pickyIn is an API that refuses what names port 1 in one group alone.
type pickyIn struct {
	picky
	arn string
}

func (p pickyIn) RegisterTargets(ctx context.Context, in *elbv2.RegisterTargetsInput, o ...func(*elbv2.Options)) (*elbv2.RegisterTargetsOutput, error) {
	if *in.TargetGroupArn != p.arn {
		return p.API.RegisterTargets(ctx, in, o...)
	}
	return p.picky.RegisterTargets(ctx, in, o...)
}

// A wrong name is corrected to another wrong one, and then to another group, with restarts between: the targets are in the
// first until they are in the last.
func TestRegistrar_fromOneWrongNameToAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		w.start()
		w.want("web", 1, 2)
		w.after(time.Minute)
		for _, name := range []string{"wbe", "ewb"} {
			w.renamed(name)
			w.want("web", 1, 2)
			w.after(time.Hour)
			w.registered("web", 1, 2)
			w.stop()
			w.start()
			w.want("web", 1, 2)
			w.after(time.Hour)
			w.registered("web", 1, 2)
		}
		w.renamed("web2")
		w.want("web", 1, 2)
		w.after(10 * time.Second)
		w.called("RegisterTargets web 1 2", "RegisterTargets web2 1 2", "DeregisterTargets web 1 2")
	}, web())
}

// The ledger knows the key of each target, though it was renamed since, or is one of two that name the group.
func TestRegistrar_restartWithARenamedKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.groups = []elb.Group{{Key: "a", Name: "web"}, {Key: "b", Name: "web"}}
		w.start()
		w.want("a", 1, "b", 2)
		w.after(time.Minute)
		w.groups = []elb.Group{{Key: "a", Name: "web"}, {Key: "c", Name: "web"}}
		w.want("a", 1, "c", 2)
		w.after(time.Minute)
		w.stop()
		w.groups = []elb.Group{{Key: "a", Name: "web"}, {Key: "c", Name: "wbe"}}
		before := len(w.writes())
		w.start()
		w.want("a", 1, "c", 2)
		w.after(time.Hour)
		w.registered("web", 1, 2)
		if n := len(w.writes()) - before; n > 0 {
			t.Errorf("%d writes; want none", n)
		}
		w.groups = w.groups[:1]
		w.want("a", 1)
		w.after(time.Second)
		w.registered("web", 1)
	}, web())
}

// After a reboot the group before serves what is wanted now, and nothing else that it had.
func TestRegistrar_rebootWithANameThatDoesNotExist(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.stop()
		w.renamed("wbe")
		w.startWith(registrar.Options{BootID: "boot-2"}, func(api elb.API) elb.API { return api })
		w.want("web", 2, 3)
		w.after(time.Minute)
		w.registered("web", 2, 3)
	}, web())
}

// After a reboot in the middle of a move, what is wanted now goes to the new group alone.
func TestRegistrar_rebootDuringAMove(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		arn := w.sim.GroupARN("web2")
		through := func(api elb.API) elb.API { return pickyIn{picky{api}, arn} }
		w.startWith(registrar.Options{}, through)
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.renamed("web2")
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.registered("web", 1)
		w.stop()
		before := len(w.writes())
		w.startWith(registrar.Options{BootID: "boot-2"}, through)
		w.want("web", 3, 4)
		w.after(time.Minute)
		w.registered("web")
		w.registered("web2", 3, 4)
		for _, call := range w.writes()[before:] {
			if strings.HasPrefix(call, "RegisterTargets web ") {
				t.Errorf("%s: the group before takes in what is new", call)
			}
		}
	}, web())
}

// Two keys change groups with each other. Each target is in its old group until it is in the new one, and in no other after.
func TestRegistrar_keysThatChangeGroups(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, "api", 2)
		w.after(time.Minute)
		w.groups = []elb.Group{{Key: "web", Name: "api"}, {Key: "api", Name: "web"}}
		w.want("web", 1, "api", 2)
		w.after(10 * time.Second)
		w.registered("web", 2)
		w.registered("api", 1)
		s, _ := w.reg.Snapshot()
		for _, g := range s.Groups {
			if len(g.Held) > 0 || len(g.Targets) == 0 {
				t.Errorf("status %+v; want nothing held", g)
			}
		}
	}, web(), api())
}

// A key whose wants were not computed keeps what it has where it was.
func TestRegistrar_moveWithoutWants(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2)
		w.after(time.Minute)
		w.stop()
		w.renamed("wbe")
		w.start()
		w.want("web", 1, 2)
		delete(w.d.Wants, "web")
		w.apply()
		w.after(time.Hour)
		w.registered("web", 1, 2)
	}, web())
}

func TestSnapshot_Emptied(t *testing.T) {
	in := func(n int, phase ledger.Phase) (out []registrar.TargetStatus) {
		for i := range n {
			out = append(out, registrar.TargetStatus{Target: target.Target{ID: instance, Port: uint16(i + 1)}, Phase: phase})
		}
		return out
	}
	web := registrar.GroupStatus{ARN: "arn:web", Name: "web-prod", Facts: elb.Facts{ARN: "arn:web", Name: "web-prod"}}
	named, held := web, web
	named.Keys, named.Targets = []string{"web", "www"}, in(2, ledger.Registered)
	held.Held, held.Targets = []registrar.Held{{Key: "web"}}, in(1, ledger.Intended)
	leaving := named
	leaving.Targets = in(2, ledger.Removing)
	both := []elb.Group{{Key: "web", Name: "web-prod"}, {Key: "www", ARN: "arn:web"}}
	wrong := []elb.Group{{Key: "web", Name: "wbe"}}
	for name, c := range map[string]struct {
		was         registrar.GroupStatus
		before, now []elb.Group
		want        []registrar.Emptied
	}{
		"as before":             {named, both, both[:1], nil},
		"another key":           {named, both, []elb.Group{{Key: "new", ARN: "arn:web"}}, nil},
		"all keys are gone":     {named, both, nil, []registrar.Emptied{{Name: "web-prod", ARN: "arn:web", Targets: 2}}},
		"one moves, one goes":   {named, both, wrong, []registrar.Emptied{{Name: "web-prod", ARN: "arn:web", Targets: 2, Until: []string{"web"}}}},
		"it is held already":    {held, wrong, wrong, []registrar.Emptied{{Name: "web-prod", ARN: "arn:web", Targets: 1, Until: []string{"web"}}}},
		"it is held no more":    {held, wrong, []elb.Group{{Key: "new", Name: "new"}}, []registrar.Emptied{{Name: "web-prod", ARN: "arn:web", Targets: 1}}},
		"nothing is left in it": {leaving, both, nil, nil},
		"it was named no more":  {named, wrong[:0], nil, nil},
	} {
		s := registrar.Snapshot{Groups: []registrar.GroupStatus{c.was}}
		if diff := cmp.Diff(c.want, s.Emptied(c.before, c.now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
