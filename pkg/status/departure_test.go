package status

import (
	"strings"
	"testing"
	"time"

	"berth/pkg/registrar"
	"berth/pkg/target"
)

const judgedInstance = "i-0123456789abcdef0"

var judgedStart = time.Now().Add(-210 * time.Minute).Truncate(time.Second)

// judgedRun is a run of a container with an id of its own for each length of a name.
func judgedRun(name string) target.Run {
	return target.Run{ID: strings.Repeat(string("0123456789abcdef"[len(name)%16]), 64), Name: name, StartedAt: judgedStart}
}

// A departure goes on as the load balancer says, for as long as is settled, and no longer than it may.
func TestDeparture_judge(t *testing.T) {
	run := judgedRun("web-1")
	at := target.Target{ID: judgedInstance, Port: 32768}
	row := func(s State) Row {
		return Row{Run: run, Group: "web", State: s, Target: at, Why: "because"}
	}
	group := func(state, protocol string, seq uint64) GroupV1 {
		return GroupV1{Keys: []string{"web"}, State: state, Protocol: protocol, Seq: seq, Tried: true}
	}
	seen := func(g GroupV1, rows ...Row) *V1 {
		return &V1{Seq: 2, Connected: true, Groups: []GroupV1{g}, Rows: rows}
	}
	drained := Row{Run: run, Group: "web", State: Drained}
	second := time.Second
	type look struct {
		at     time.Duration // after the drain
		status *V1
		want   DeparturePhase
	}
	ok := group(registrar.StateOK, "HTTP", 2)
	for _, test := range []struct {
		name   string
		before *V1
		settle *time.Duration
		looks  []look
	}{
		{"ALB", seen(ok, row(Healthy)), nil, []look{
			{0, seen(group(registrar.StateOK, "HTTP", 1), row(Healthy)), LeavingPhase},
			{1 * second, seen(ok, row(Leaving)), LeavingPhase},
			{2 * second, seen(ok, row(Draining)), DrainingPhase},
			{9 * second, seen(ok, drained), DrainingPhase}, // gone, and not settled
			{12 * second, seen(ok, drained), GonePhase},
		}},
		{"NLB", seen(group(registrar.StateOK, "TCP", 2), row(Healthy)), nil, []look{
			{0, seen(group(registrar.StateOK, "TCP", 2), drained), DrainingPhase},
			{119 * second, seen(group(registrar.StateOK, "TCP", 2), drained), DrainingPhase},
			{120 * second, seen(group(registrar.StateOK, "TCP", 2), drained), OverduePhase},
		}},
		{"settled at once", seen(ok, row(Healthy)), new(time.Duration), []look{{0, seen(ok, drained), GonePhase}}},
		{"a long deregistration delay", seen(ok, row(Healthy)), nil, []look{
			{60 * second, seen(ok, row(Draining)), DrainingPhase},
			{120 * second, seen(ok, row(Draining)), OverduePhase},
		}},
		{"nothing was registered", seen(ok, drained), nil, []look{{0, seen(ok, drained), GonePhase}}},
		{"the group has not acted", seen(ok, row(Registering)), nil, []look{
			{0, seen(group(registrar.StateOK, "HTTP", 1), drained), LeavingPhase},
			{120 * second, seen(group(registrar.StateOK, "HTTP", 1), drained), StuckPhase},
		}},
		{"denied", seen(ok, row(Healthy)), nil, []look{
			// Of what it was denied before the drain nothing follows.
			{0, seen(group(registrar.StateDenied, "HTTP", 1), row(Leaving)), LeavingPhase},
			{1 * second, seen(group(registrar.StateDenied, "HTTP", 2), row(Leaving)), StuckPhase},
		}},
		{"throttled for long", seen(ok, row(Healthy)), nil, []look{
			{0, seen(group(registrar.StateThrottled, "HTTP", 1), row(Leaving)), LeavingPhase},
			{120 * second, seen(group(registrar.StateThrottled, "HTTP", 1), row(Leaving)), StuckPhase},
		}},
		{"the target group is gone", seen(ok, row(Healthy)), new(time.Duration), []look{
			{0, seen(group(registrar.StateGone, "HTTP", 1), row(Leaving)), GonePhase},
		}},
		{"registered again behind our back", seen(ok, row(Healthy)), nil, []look{
			{0, seen(ok, drained), DrainingPhase},
			{5 * second, seen(ok, row(Leaving)), LeavingPhase},
			{11 * second, seen(ok, drained), DrainingPhase},
			{21 * second, seen(ok, drained), GonePhase},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			begun := time.Now()
			d := &Departure{Name: "web-1", Run: run, Seq: 2, Begun: begun, Latest: begun.Add(120 * second), Settle: test.settle}
			d.Before(test.before)
			for _, l := range test.looks {
				d.Judge(l.status, begun.Add(l.at))
				if d.Phase != l.want {
					t.Errorf("after %v: %s (%s); want %s", l.at, d.Phase, d.Why, l.want)
				}
			}
		})
	}
}

// A group that is denied keeps nobody from waiting for the others: the host goes on to serve until they have let go. One
// container that is to be stopped only if all let go is spared the wait.
func TestDeparture_oneGroupDenied(t *testing.T) {
	run := judgedRun("web-1")
	row := func(group string, s State, port uint16) Row {
		return Row{Run: run, Group: group, State: s, Target: target.Target{ID: judgedInstance, Port: port}, Why: "because", Change: "change " + group}
	}
	group := func(key, state string) GroupV1 {
		return GroupV1{Keys: []string{key}, State: state, Protocol: "HTTP", Seq: 2, Tried: true}
	}
	groups := []GroupV1{group("api", registrar.StateOK), group("web", registrar.StateDenied)}
	before := &V1{Seq: 2, Connected: true, Groups: groups, Rows: []Row{row("api", Healthy, 1), row("web", Healthy, 2)}}
	both := &V1{Seq: 2, Connected: true, Groups: groups, Rows: []Row{row("api", Leaving, 1), row("web", Leaving, 2)}}
	one := &V1{Seq: 2, Connected: true, Groups: groups, Rows: []Row{row("api", Drained, 0), row("web", Leaving, 2)}}
	for _, test := range []struct {
		name  string
		d     Departure
		looks []DeparturePhase // right after the drain, when the one has gone, and when that has settled
	}{
		{"the host", Departure{Host: true}, []DeparturePhase{LeavingPhase, DrainingPhase, StuckPhase}},
		{"a container", Departure{Run: run}, []DeparturePhase{LeavingPhase, DrainingPhase, StuckPhase}},
		{"the host, told", Departure{Host: true, Told: true}, []DeparturePhase{LeavingPhase, StuckPhase, StuckPhase}},
		{"a container, or not at all", Departure{Run: run, Whole: true}, []DeparturePhase{StuckPhase, StuckPhase, StuckPhase}},
	} {
		t.Run(test.name, func(t *testing.T) {
			begun := time.Now()
			d := test.d
			d.Seq, d.Begun, d.Latest = 2, begun, begun.Add(2*time.Minute)
			d.Before(before)
			for i, s := range []*V1{both, one, one} {
				d.Judge(s, begun.Add(time.Duration(i)*(settleALB+time.Second)))
				if d.Phase != test.looks[i] {
					t.Errorf("look %d: %s (%s); want %s", i+1, d.Phase, d.Why, test.looks[i])
				}
			}
			if d.Change != "change web" {
				t.Errorf("what to change is %q; want that of the group that was denied", d.Change)
			}
		})
	}
}

// What is refused at first and goes then is given as long to settle as the rest.
func TestDeparture_refusedAtFirst(t *testing.T) {
	run, begun := judgedRun("web-1"), time.Now()
	row := func(group string, s State, port uint16) Row {
		return Row{Run: run, Group: group, State: s, Target: target.Target{ID: judgedInstance, Port: port}}
	}
	seen := func(web string, rows ...Row) *V1 {
		return &V1{Seq: 2, Connected: true, Rows: rows, Groups: []GroupV1{
			{Keys: []string{"api"}, State: registrar.StateOK, Protocol: "HTTP", Seq: 2, Tried: true},
			{Keys: []string{"web"}, State: web, Protocol: "HTTP", Seq: 2, Tried: true},
		}}
	}
	d := Departure{Host: true, Seq: 2, Begun: begun, Latest: begun.Add(2 * time.Minute)}
	d.Before(seen(registrar.StateOK, row("api", Healthy, 1), row("web", Healthy, 2)))
	for _, look := range []struct {
		at   time.Duration
		s    *V1
		want DeparturePhase
	}{
		{time.Second, seen(registrar.StateDenied, row("web", Leaving, 2)), DrainingPhase},
		{9 * time.Second, seen(registrar.StateOK), DrainingPhase},
		{12 * time.Second, seen(registrar.StateOK), DrainingPhase},
		{20 * time.Second, seen(registrar.StateOK), GonePhase},
	} {
		if d.Judge(look.s, begun.Add(look.at)); d.Phase != look.want {
			t.Errorf("after %v: %s (%s); want %s", look.at, d.Phase, d.Why, look.want)
		}
	}
}

// An agent that has just been started does not know what is registered: that no row shows a target is no departure, and
// the time to settle begins when the groups have acted.
func TestDeparture_judge_agentStarts(t *testing.T) {
	run := judgedRun("web-1")
	drained := Row{Run: run, Group: "web", State: Drained}
	registering := Row{Run: run, Group: "web", State: Registering}
	leaving := Row{Run: run, Group: "web", State: Leaving, Target: target.Target{ID: judgedInstance, Port: 32768}}
	untaken := GroupV1{Keys: []string{"web"}, State: registrar.StateWaiting}
	acted := GroupV1{Keys: []string{"web"}, State: registrar.StateOK, Protocol: "HTTP", Seq: 2, Tried: true}
	unlisted := &V1{}
	unconnected := &V1{Seq: 2, Groups: []GroupV1{untaken}, Rows: []Row{drained}}
	untried := &V1{Seq: 2, Connected: true, Groups: []GroupV1{untaken}, Rows: []Row{drained}}
	going := &V1{Seq: 2, Connected: true, Groups: []GroupV1{acted}, Rows: []Row{leaving}}
	gone := &V1{Seq: 2, Connected: true, Groups: []GroupV1{acted}, Rows: []Row{drained}}
	besideNew := &V1{
		Seq: 2, Connected: true, Rows: gone.Rows,
		Groups: []GroupV1{acted, {Keys: []string{"new"}, State: registrar.StateWaiting}},
	}
	type look struct {
		at     time.Duration
		status *V1
		want   DeparturePhase
	}
	for name, test := range map[string]struct {
		before *V1
		d      Departure
		looks  []look
	}{
		"known from before": {&V1{Seq: 1, Rows: []Row{registering}}, Departure{Run: run}, []look{
			{0, unlisted, LeavingPhase},
			{time.Second, unconnected, LeavingPhase},
			{20 * time.Second, untried, LeavingPhase},
			{21 * time.Second, going, LeavingPhase},
			{22 * time.Second, gone, DrainingPhase},
			{33 * time.Second, gone, GonePhase},
		}},
		"drained before, by an earlier agent": {&V1{Seq: 1, Rows: []Row{drained}}, Departure{Run: run}, []look{
			{0, unconnected, LeavingPhase},
			{20 * time.Second, untried, LeavingPhase},
			{21 * time.Second, going, LeavingPhase},
			{22 * time.Second, gone, DrainingPhase},
		}},
		"the host": {unlisted, Departure{Host: true}, []look{
			{0, unconnected, LeavingPhase},
			{20 * time.Second, untried, LeavingPhase},
			{21 * time.Second, gone, GonePhase},
		}},
		"another group is new": {going, Departure{Run: run}, []look{
			{0, besideNew, DrainingPhase},
			{11 * time.Second, besideNew, GonePhase},
		}},
		"another group is new, and it is on no row": {unlisted, Departure{Run: run}, []look{
			{0, &V1{Seq: 2, Connected: true, Groups: besideNew.Groups}, LeavingPhase},
			{time.Second, &V1{Seq: 2, Connected: true, Groups: gone.Groups}, GonePhase},
		}},
		"restarted while it settles": {going, Departure{Run: run}, []look{
			{0, gone, DrainingPhase},
			{5 * time.Second, unconnected, LeavingPhase},
			{12 * time.Second, gone, DrainingPhase},
			{23 * time.Second, gone, GonePhase},
		}},
		"never": {unconnected, Departure{Run: run}, []look{
			{119 * time.Second, unconnected, LeavingPhase},
			{120 * time.Second, unconnected, StuckPhase},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			d := test.d
			d.Seq, d.Begun, d.Latest = 2, begun, begun.Add(2*time.Minute)
			d.Before(test.before)
			for _, l := range test.looks {
				if d.Judge(l.status, begun.Add(l.at)); d.Phase != l.want {
					t.Errorf("after %v: %s (%s); want %s", l.at, d.Phase, d.Why, l.want)
				}
			}
		})
	}
}

// Another container's rows are none of its business; the host's departure is everybody's but the unclaimed.
func TestDeparture_concerns(t *testing.T) {
	mine, other := judgedRun("web-1"), judgedRun("web-22")
	rows := []Row{
		{Run: mine, Group: "web", State: Healthy, Target: target.Target{ID: judgedInstance, Port: 1}},
		{Run: other, Group: "api", State: Healthy, Target: target.Target{ID: judgedInstance, Port: 2}},
		{Group: "dns", State: Unclaimed, Target: target.Target{ID: judgedInstance, Port: 3}},
	}
	one, all := &Departure{Run: mine}, &Departure{Host: true}
	one.Before(&V1{Rows: rows})
	all.Before(&V1{Rows: rows})
	if len(one.Keys) != 1 || !one.Keys["web"] {
		t.Errorf("one container: groups %v; want web", one.Keys)
	}
	if len(all.Keys) != 2 || all.Keys["dns"] {
		t.Errorf("the host: groups %v; want web and api", all.Keys)
	}
}
