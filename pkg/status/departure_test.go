package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"berth/pkg/host"
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
		next   time.Duration // when that may change by itself
	}
	const never = -1
	ok := group(registrar.StateOK, "HTTP", 2)
	for _, test := range []struct {
		name   string
		before *V1
		settle *time.Duration
		looks  []look
	}{
		{"ALB", seen(ok, row(Healthy)), nil, []look{
			{0, seen(group(registrar.StateOK, "HTTP", 1), row(Healthy)), LeavingPhase, 120 * second},
			{1 * second, seen(ok, row(Leaving)), LeavingPhase, 120 * second},
			{2 * second, seen(ok, row(Draining)), DrainingPhase, 120 * second},
			{9 * second, seen(ok, drained), DrainingPhase, 12 * second}, // gone, and not settled
			{12 * second, seen(ok, drained), GonePhase, never},
		}},
		{"NLB", seen(group(registrar.StateOK, "TCP", 2), row(Healthy)), nil, []look{
			{0, seen(group(registrar.StateOK, "TCP", 2), drained), DrainingPhase, 120 * second},
			{119 * second, seen(group(registrar.StateOK, "TCP", 2), drained), DrainingPhase, 120 * second},
			{120 * second, seen(group(registrar.StateOK, "TCP", 2), drained), OverduePhase, 180 * second},
		}},
		{"settled at once", seen(ok, row(Healthy)), new(time.Duration), []look{{0, seen(ok, drained), GonePhase, never}}},
		{"a long deregistration delay", seen(ok, row(Healthy)), nil, []look{
			{60 * second, seen(ok, row(Draining)), DrainingPhase, 120 * second},
			{120 * second, seen(ok, row(Draining)), OverduePhase, never},
		}},
		{"nothing was registered", seen(ok, drained), nil, []look{{0, seen(ok, drained), GonePhase, never}}},
		{"the group has not acted", seen(ok, row(Registering)), nil, []look{
			{0, seen(group(registrar.StateOK, "HTTP", 1), drained), LeavingPhase, 120 * second},
			{120 * second, seen(group(registrar.StateOK, "HTTP", 1), drained), StuckPhase, never},
		}},
		{"denied", seen(ok, row(Healthy)), nil, []look{
			// Of what it was denied before the drain nothing follows.
			{0, seen(group(registrar.StateDenied, "HTTP", 1), row(Leaving)), LeavingPhase, 120 * second},
			{1 * second, seen(group(registrar.StateDenied, "HTTP", 2), row(Leaving)), StuckPhase, never},
		}},
		{"throttled for long", seen(ok, row(Healthy)), nil, []look{
			{0, seen(group(registrar.StateThrottled, "HTTP", 1), row(Leaving)), LeavingPhase, 120 * second},
			{120 * second, seen(group(registrar.StateThrottled, "HTTP", 1), row(Leaving)), StuckPhase, never},
		}},
		{"the target group is gone", seen(ok, row(Healthy)), new(time.Duration), []look{
			{0, seen(group(registrar.StateGone, "HTTP", 1), row(Leaving)), GonePhase, never},
		}},
		{"registered again behind our back", seen(ok, row(Healthy)), nil, []look{
			{0, seen(ok, drained), DrainingPhase, 10 * second},
			{5 * second, seen(ok, row(Leaving)), LeavingPhase, 120 * second},
			{11 * second, seen(ok, drained), DrainingPhase, 21 * second},
			{21 * second, seen(ok, drained), GonePhase, never},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			begun := time.Now()
			d := RunDeparture("web-1", run, DepartureOptions{Before: test.before, Seq: 2, Latest: begun.Add(120 * second), Settle: test.settle})
			for _, l := range test.looks {
				phase, next := d.Judge(l.status, begun.Add(l.at))
				if phase != l.want {
					t.Errorf("after %v: %s (%s); want %s", l.at, phase, d.Reason().Why, l.want)
				}
				want := time.Time{}
				if l.next != never {
					want = begun.Add(l.next)
				}
				if !next.Equal(want) {
					t.Errorf("after %v: %s until %v after the drain; want %v", l.at, phase, next.Sub(begun), l.next)
				}
			}
		})
	}
}

// EC2 takes a spot instance back when it has said. Whoever waits is told 10 s before that, also where the notice comes during the
// wait, or is taken back.
func TestDeparture_spot(t *testing.T) {
	begun := time.Now()
	after := func(d time.Duration) time.Time { return begun.Add(d) }
	for name, test := range map[string]struct {
		longest time.Duration // from begun; 0: none
		kind    host.Kind
		deadline,
		want time.Duration // from begun; 0: none
	}{
		"sooner than the longest wait": {120 * time.Second, host.Spot, 60 * time.Second, 50 * time.Second},
		"later":                        {30 * time.Second, host.Spot, 60 * time.Second, 30 * time.Second},
		"too late for that":            {120 * time.Second, host.Spot, 12 * time.Second, 5 * time.Second},
		"past":                         {120 * time.Second, host.Spot, -time.Second, 120 * time.Second},
		"another notice":               {120 * time.Second, host.Maintenance, 60 * time.Second, 120 * time.Second},
		"waited for without end":       {0, host.Spot, 60 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := DepartureOptions{Seq: 1}
			want := time.Time{}
			if test.longest > 0 {
				o.Latest, want = after(test.longest), after(test.want)
			}
			plain := &V1{Seq: 1, Connected: true, Groups: []GroupV1{{Keys: []string{"web"}, Tried: true, State: registrar.StateOK, Protocol: "TCP", Seq: 1}}}
			before, seen := *plain, *plain
			before.Rows = []Row{{Run: judgedRun("web-1"), Group: "web", State: Healthy, Target: target.Target{ID: judgedInstance, Port: 1}}}
			seen.Host.Notices = []host.Notice{{Kind: test.kind, Deadline: after(test.deadline)}}
			o.Before = &before
			d := HostDeparture(o)
			if phase, _ := d.Judge(plain, begun); phase != DrainingPhase || !d.Latest().Equal(o.Latest) {
				t.Errorf("without a notice: %s until %v; want draining until %v", phase, d.Latest(), o.Latest)
			}
			d.Judge(&seen, after(time.Second))
			if !d.Latest().Equal(want) {
				t.Errorf("waits for %v; want %v", d.Latest().Sub(begun), test.want)
			}
			if want.IsZero() {
				return
			}
			if phase, _ := d.Judge(&seen, want.Add(-1)); phase != DrainingPhase {
				t.Errorf("just before: %s; want draining", phase)
			}
			phase, _ := d.Judge(&seen, want)
			if phase != OverduePhase || strings.Contains(d.Reason().Why, "EC2 is about to take the instance back") != (test.want < test.longest) {
				t.Errorf("then: %s: %s; want overdue, and why", phase, d.Reason().Why)
			}
			if d.Judge(plain, after(1)); !d.Latest().Equal(o.Latest) {
				t.Errorf("when the notice is gone it waits until %v; want %v", d.Latest(), o.Latest)
			}
		})
	}
}

// An agent that does not know what is registered is given no time beyond that of a spot notice.
func TestDeparture_spotBlind(t *testing.T) {
	begun := time.Now()
	d := HostDeparture(DepartureOptions{Seq: 1, Latest: begun.Add(2 * time.Minute), Sight: begun.Add(time.Minute)})
	seen := &V1{Host: Host{Notices: []host.Notice{{Kind: host.Spot, Deadline: begun.Add(40 * time.Second)}}}}
	if phase, next := d.Judge(seen, begun); phase != LeavingPhase || !next.Equal(begun.Add(30*time.Second)) {
		t.Errorf("%s until %v; want leaving until 30 s after the beginning", phase, next.Sub(begun))
	}
	if phase, _ := d.Judge(seen, begun.Add(30*time.Second)); phase != StuckPhase || !d.Blind() {
		t.Errorf("%s, blind %t; want stuck, blind", phase, d.Blind())
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
	container := func(o DepartureOptions) *Departure { return RunDeparture("web-1", run, o) }
	for _, test := range []struct {
		name  string
		make  func(DepartureOptions) *Departure
		ends  Refusal
		looks []DeparturePhase // right after the drain, when the one has gone, and when that has settled
	}{
		{"the host", HostDeparture, RefusalEndsLast, []DeparturePhase{LeavingPhase, DrainingPhase, StuckPhase}},
		{"a container", container, RefusalEndsLast, []DeparturePhase{LeavingPhase, DrainingPhase, StuckPhase}},
		{"the host, deregistered", HostDeparture, RefusalEndsActed, []DeparturePhase{LeavingPhase, StuckPhase, StuckPhase}},
		{"a container, or not at all", container, RefusalEndsAtOnce, []DeparturePhase{StuckPhase, StuckPhase, StuckPhase}},
		{"the host, and it may be mended", HostDeparture, RefusalEndsNothing, []DeparturePhase{LeavingPhase, LeavingPhase, LeavingPhase}},
	} {
		t.Run(test.name, func(t *testing.T) {
			begun := time.Now()
			d := test.make(DepartureOptions{Before: before, Seq: 2, Latest: begun.Add(2 * time.Minute), Refusal: test.ends})
			for i, s := range []*V1{both, one, one} {
				if phase, _ := d.Judge(s, begun.Add(time.Duration(i)*(settleALB+time.Second))); phase != test.looks[i] {
					t.Errorf("look %d: %s (%s); want %s", i+1, phase, d.Reason().Why, test.looks[i])
				}
			}
			if change := d.Reason().Change; change != "change web" {
				t.Errorf("what to change is %q; want that of the group that was denied", change)
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
	d := HostDeparture(DepartureOptions{
		Before: seen(registrar.StateOK, row("api", Healthy, 1), row("web", Healthy, 2)), Seq: 2, Latest: begun.Add(2 * time.Minute),
	})
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
		if phase, _ := d.Judge(look.s, begun.Add(look.at)); phase != look.want {
			t.Errorf("after %v: %s (%s); want %s", look.at, phase, d.Reason().Why, look.want)
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
	late := GroupV1{Keys: []string{"api"}, State: registrar.StateOK, Protocol: "HTTP", Seq: 1, Tried: true}
	type look struct {
		at     time.Duration
		status *V1
		want   DeparturePhase
	}
	seeing := func(o DepartureOptions) *Departure {
		o.Sight = o.Latest.Add(-80 * time.Second)
		return RunDeparture("web-1", run, o)
	}
	container := func(o DepartureOptions) *Departure { return RunDeparture("web-1", run, o) }
	for name, test := range map[string]struct {
		before *V1
		make   func(DepartureOptions) *Departure
		looks  []look
	}{
		"known from before": {&V1{Seq: 1, Rows: []Row{registering}}, container, []look{
			{0, unlisted, LeavingPhase},
			{time.Second, unconnected, LeavingPhase},
			{20 * time.Second, untried, LeavingPhase},
			{21 * time.Second, going, LeavingPhase},
			{22 * time.Second, gone, DrainingPhase},
			{33 * time.Second, gone, GonePhase},
		}},
		"drained before, by an earlier agent": {&V1{Seq: 1, Rows: []Row{drained}}, container, []look{
			{0, unconnected, LeavingPhase},
			{20 * time.Second, untried, LeavingPhase},
			{21 * time.Second, going, LeavingPhase},
			{22 * time.Second, gone, DrainingPhase},
		}},
		"the host": {unlisted, HostDeparture, []look{
			{0, unconnected, LeavingPhase},
			{20 * time.Second, untried, LeavingPhase},
			{21 * time.Second, gone, GonePhase},
		}},
		"another group is new": {going, container, []look{
			{0, besideNew, DrainingPhase},
			{11 * time.Second, besideNew, GonePhase},
		}},
		"another group is new, and it is on no row": {unlisted, container, []look{
			{0, &V1{Seq: 2, Connected: true, Groups: besideNew.Groups}, LeavingPhase},
			{time.Second, &V1{Seq: 2, Connected: true, Groups: gone.Groups}, GonePhase},
		}},
		"restarted while it settles": {going, container, []look{
			{0, gone, DrainingPhase},
			{5 * time.Second, unconnected, LeavingPhase},
			{12 * time.Second, gone, DrainingPhase},
			{23 * time.Second, gone, GonePhase},
		}},
		"the host, and a group that is on no row": {unlisted, HostDeparture, []look{
			{0, &V1{Seq: 2, Connected: true, Rows: gone.Rows, Groups: []GroupV1{acted, late}}, LeavingPhase},
			{time.Second, &V1{Seq: 2, Connected: true, Rows: gone.Rows, Groups: []GroupV1{acted}}, GonePhase},
		}},
		"never, and it must be known soon": {unconnected, seeing, []look{
			{39 * time.Second, unconnected, LeavingPhase},
			{40 * time.Second, unconnected, StuckPhase},
			{41 * time.Second, going, LeavingPhase}, // known after all: then it is worth waiting
			{119 * time.Second, going, LeavingPhase},
		}},
		"never": {unconnected, container, []look{
			{119 * time.Second, unconnected, LeavingPhase},
			{120 * time.Second, unconnected, StuckPhase},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			d := test.make(DepartureOptions{Before: test.before, Seq: 2, Latest: begun.Add(2 * time.Minute)})
			for _, l := range test.looks {
				if phase, _ := d.Judge(l.status, begun.Add(l.at)); phase != l.want {
					t.Errorf("after %v: %s (%s); want %s", l.at, phase, d.Reason().Why, l.want)
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
	rows = append(rows, Row{Group: "drawn", State: Draining, Run: judgedRun("db"), Target: target.Target{ID: judgedInstance, Port: 4}}, Row{Run: target.Run{Name: "db"}, State: Drained})
	before := &V1{Rows: rows, Groups: []GroupV1{{Keys: []string{"web", "web-old"}}, {Keys: []string{"api"}}, {Keys: []string{"dns"}}}}
	for name, test := range map[string]struct {
		d    *Departure
		want []string
	}{
		"a run":                    {RunDeparture("web-1", mine, DepartureOptions{}), []string{"web"}},
		"a name that none bears":   {RunDeparture("db", target.Run{Name: "db"}, DepartureOptions{}), []string{"drawn"}},
		"a name":                   {NamedDeparture("web-22", ""), []string{"api"}},
		"a name elsewhere":         {NamedDeparture("web-22", "web"), nil},
		"the host":                 {HostDeparture(DepartureOptions{}), []string{"api", "drawn", "web"}},
		"a target":                 {TargetDeparture("dns", rows[2].Target), []string{"dns"}},
		"a target, by another key": {TargetDeparture("web-old", rows[0].Target), []string{"web"}},
		"a target elsewhere":       {TargetDeparture("api", rows[2].Target), nil},
	} {
		test.d.Judge(before, judgedStart)
		if got := test.d.Groups(); !slices.Equal(got, test.want) {
			t.Errorf("%s: groups %v; want %v", name, got, test.want)
		}
	}
}

// Where nobody says from which Seq on the host is drained, the departure begins with the first status that shows a drain
// of the host, and once more if that has ended meanwhile.
func TestDeparture_hostUntilDrained(t *testing.T) {
	begun := time.Now()
	row := Row{Run: judgedRun("web-1"), Group: "web", State: Healthy, Target: target.Target{ID: judgedInstance, Port: 32768}}
	seen := func(seq, acted uint64, drained bool, rows ...Row) *V1 {
		s := &V1{
			Seq: seq, Connected: true, Rows: rows, Drains: []DrainV1{{Container: row.Run.ID}},
			Groups: []GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Protocol: "HTTP", Seq: acted, Tried: true}},
		}
		if drained {
			s.Drains = append(s.Drains, DrainV1{})
		}
		return s
	}
	d := HostDeparture(DepartureOptions{Before: seen(1, 1, false, row), Latest: begun.Add(2 * time.Minute), Refusal: RefusalEndsNothing})
	for _, look := range []struct {
		at   time.Duration
		s    *V1
		want DeparturePhase
		next time.Duration
	}{
		{0, &V1{}, LeavingPhase, 2 * time.Minute},
		{1 * time.Second, seen(2, 2, false), LeavingPhase, 2 * time.Minute}, // nothing is there, but may be again
		{2 * time.Second, seen(3, 2, true), LeavingPhase, 2 * time.Minute},
		{3 * time.Second, seen(4, 3, true), DrainingPhase, 13 * time.Second}, // it has acted on the drain, if not on all since
		{4 * time.Second, seen(5, 5, false), LeavingPhase, 2 * time.Minute},
		{5 * time.Second, seen(6, 5, true), LeavingPhase, 2 * time.Minute},
		{6 * time.Second, seen(6, 6, true), DrainingPhase, 16 * time.Second},
		{16 * time.Second, seen(6, 6, true), GonePhase, 0},
	} {
		phase, next := d.Judge(look.s, begun.Add(look.at))
		if phase != look.want {
			t.Errorf("after %v: %s (%s); want %s", look.at, phase, d.Reason().Why, look.want)
		}
		if look.next == 0 != next.IsZero() || look.next > 0 && !next.Equal(begun.Add(look.next)) {
			t.Errorf("after %v: %s until %v; want %v", look.at, phase, next.Sub(begun), look.next)
		}
	}
}

// What a group refuses before the host is drained is no refusal to let go of it.
func TestDeparture_hostRefusedBeforeDrained(t *testing.T) {
	begun := time.Now()
	seen := func(state State, drains ...DrainV1) *V1 {
		return &V1{
			Seq: 2, Connected: true, Drains: drains, Groups: []GroupV1{{Keys: []string{"web"}, State: registrar.StateDenied, Seq: 2, Tried: true}},
			Rows: []Row{{Run: judgedRun("web-1"), Group: "web", State: state, Target: target.Target{ID: judgedInstance, Port: 32768}}},
		}
	}
	d := HostDeparture(DepartureOptions{Latest: begun.Add(2 * time.Minute)})
	if phase, _ := d.Judge(seen(Healthy), begun); phase != LeavingPhase {
		t.Errorf("before the drain: %s (%s); want %s", phase, d.Reason().Why, LeavingPhase)
	}
	if phase, _ := d.Judge(seen(Leaving, DrainV1{}), begun); phase != StuckPhase {
		t.Errorf("drained: %s (%s); want %s", phase, d.Reason().Why, StuckPhase)
	}
}

// A target that is to go has no Seq: what its group has refused before the agent was asked says nothing. It is not gone
// because its group is not served any more, nor because the agent does not know.
func TestDeparture_target(t *testing.T) {
	begun, at := time.Now(), target.Target{ID: judgedInstance, Port: 32768}
	seen := func(state string, rows ...Row) *V1 {
		return &V1{Seq: 1, Connected: true, Rows: rows, Groups: []GroupV1{
			{Keys: []string{"web"}, State: state, Protocol: "HTTP", Seq: 1, Tried: true}, {Keys: []string{"new"}, State: registrar.StateWaiting},
		}}
	}
	row := func(s State) Row { return Row{Group: "web", State: s, Target: at} }
	left := &V1{Seq: 2, Connected: true, Groups: []GroupV1{{Keys: []string{}, Name: "web-prod", State: registrar.StateOK, Tried: true}}}
	sameName := &V1{Seq: 2, Connected: true, Rows: []Row{row(Unclaimed)}, Groups: []GroupV1{{Keys: []string{}, Name: "web", State: registrar.StateOK, Tried: true}}}
	for name, test := range map[string]struct {
		s    *V1
		want DeparturePhase
	}{
		"unclaimed":                      {seen(registrar.StateOK, row(Unclaimed)), LeavingPhase},
		"unclaimed, and denied":          {seen(registrar.StateDenied, row(Unclaimed)), LeavingPhase},
		"claimed meanwhile":              {seen(registrar.StateOK, row(Healthy)), LeavingPhase},
		"about to be claimed":            {seen(registrar.StateOK, row(Registering)), LeavingPhase},
		"leaving":                        {seen(registrar.StateOK, row(Leaving)), LeavingPhase},
		"draining":                       {seen(registrar.StateOK, row(Draining)), DrainingPhase},
		"gone":                           {seen(registrar.StateOK), DrainingPhase},
		"its group is gone, says AWS":    {seen(registrar.StateGone, row(Unclaimed)), LeavingPhase},
		"the group is served no more":    {left, LeavingPhase},
		"the group left, by its name":    {sameName, LeavingPhase},
		"the agent does not know (yet)":  {&V1{Seq: 1, Groups: seen(registrar.StateOK).Groups}, LeavingPhase},
		"another target of the group is": {seen(registrar.StateOK, Row{Group: "web", State: Unclaimed, Target: target.Target{ID: judgedInstance, Port: 1}}), DrainingPhase},
	} {
		d := TargetDeparture("web", at)
		d.Judge(seen(registrar.StateOK, row(Unclaimed)), begun)
		if phase, _ := d.Judge(test.s, begun.Add(24*time.Hour)); phase != test.want {
			t.Errorf("%s: %s (%s); want %s", name, phase, d.Reason().Why, test.want)
		}
	}
}
