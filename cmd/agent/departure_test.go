package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/status"
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
	row := func(s status.State) status.Row {
		return status.Row{Run: run, Group: "web", State: s, Target: at, Why: "because"}
	}
	group := func(state, protocol string, seq uint64) status.GroupV1 {
		return status.GroupV1{Keys: []string{"web"}, State: state, Protocol: protocol, Seq: seq, Tried: true}
	}
	seen := func(g status.GroupV1, rows ...status.Row) *status.V1 {
		return &status.V1{Seq: 2, Connected: true, Groups: []status.GroupV1{g}, Rows: rows}
	}
	drained := status.Row{Run: run, Group: "web", State: status.Drained}
	second := time.Second
	type look struct {
		at     time.Duration // after the drain
		status *status.V1
		want   departurePhase
	}
	ok := group(registrar.StateOK, "HTTP", 2)
	for _, test := range []struct {
		name   string
		before *status.V1
		settle *time.Duration
		looks  []look
	}{
		{"ALB", seen(ok, row(status.Healthy)), nil, []look{
			{0, seen(group(registrar.StateOK, "HTTP", 1), row(status.Healthy)), leavingPhase},
			{1 * second, seen(ok, row(status.Leaving)), leavingPhase},
			{2 * second, seen(ok, row(status.Draining)), drainingPhase},
			{9 * second, seen(ok, drained), drainingPhase}, // gone, and not settled
			{12 * second, seen(ok, drained), gonePhase},
		}},
		{"NLB", seen(group(registrar.StateOK, "TCP", 2), row(status.Healthy)), nil, []look{
			{0, seen(group(registrar.StateOK, "TCP", 2), drained), drainingPhase},
			{119 * second, seen(group(registrar.StateOK, "TCP", 2), drained), drainingPhase},
			{120 * second, seen(group(registrar.StateOK, "TCP", 2), drained), overduePhase},
		}},
		{"settled at once", seen(ok, row(status.Healthy)), new(time.Duration), []look{{0, seen(ok, drained), gonePhase}}},
		{"a long deregistration delay", seen(ok, row(status.Healthy)), nil, []look{
			{60 * second, seen(ok, row(status.Draining)), drainingPhase},
			{120 * second, seen(ok, row(status.Draining)), overduePhase},
		}},
		{"nothing was registered", seen(ok, drained), nil, []look{{0, seen(ok, drained), gonePhase}}},
		{"the group has not acted", seen(ok, row(status.Registering)), nil, []look{
			{0, seen(group(registrar.StateOK, "HTTP", 1), drained), leavingPhase},
			{120 * second, seen(group(registrar.StateOK, "HTTP", 1), drained), stuckPhase},
		}},
		{"denied", seen(ok, row(status.Healthy)), nil, []look{
			// Of what it was denied before the drain nothing follows.
			{0, seen(group(registrar.StateDenied, "HTTP", 1), row(status.Leaving)), leavingPhase},
			{1 * second, seen(group(registrar.StateDenied, "HTTP", 2), row(status.Leaving)), stuckPhase},
		}},
		{"throttled for long", seen(ok, row(status.Healthy)), nil, []look{
			{0, seen(group(registrar.StateThrottled, "HTTP", 1), row(status.Leaving)), leavingPhase},
			{120 * second, seen(group(registrar.StateThrottled, "HTTP", 1), row(status.Leaving)), stuckPhase},
		}},
		{"the target group is gone", seen(ok, row(status.Healthy)), new(time.Duration), []look{
			{0, seen(group(registrar.StateGone, "HTTP", 1), row(status.Leaving)), gonePhase},
		}},
		{"registered again behind our back", seen(ok, row(status.Healthy)), nil, []look{
			{0, seen(ok, drained), drainingPhase},
			{5 * second, seen(ok, row(status.Leaving)), leavingPhase},
			{11 * second, seen(ok, drained), drainingPhase},
			{21 * second, seen(ok, drained), gonePhase},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			begun := time.Now()
			d := &departure{name: "web-1", run: run, seq: 2, begun: begun, latest: begun.Add(120 * second), settle: test.settle}
			d.before(test.before)
			for _, l := range test.looks {
				d.judge(l.status, begun.Add(l.at))
				if d.phase != l.want {
					t.Errorf("after %v: %s (%s); want %s", l.at, d.phase, d.why, l.want)
				}
			}
		})
	}
}

// A group that is denied keeps nobody from waiting for the others: the host goes on to serve until they have let go. One
// container that is to be stopped only if all let go is spared the wait.
func TestDeparture_oneGroupDenied(t *testing.T) {
	run := judgedRun("web-1")
	row := func(group string, s status.State, port uint16) status.Row {
		return status.Row{Run: run, Group: group, State: s, Target: target.Target{ID: judgedInstance, Port: port}, Why: "because", Change: "change " + group}
	}
	group := func(key, state string) status.GroupV1 {
		return status.GroupV1{Keys: []string{key}, State: state, Protocol: "HTTP", Seq: 2, Tried: true}
	}
	groups := []status.GroupV1{group("api", registrar.StateOK), group("web", registrar.StateDenied)}
	before := &status.V1{Seq: 2, Connected: true, Groups: groups, Rows: []status.Row{row("api", status.Healthy, 1), row("web", status.Healthy, 2)}}
	both := &status.V1{Seq: 2, Connected: true, Groups: groups, Rows: []status.Row{row("api", status.Leaving, 1), row("web", status.Leaving, 2)}}
	one := &status.V1{Seq: 2, Connected: true, Groups: groups, Rows: []status.Row{row("api", status.Drained, 0), row("web", status.Leaving, 2)}}
	for _, test := range []struct {
		name  string
		d     departure
		looks []departurePhase // right after the drain, when the one has gone, and when that has settled
	}{
		{"the host", departure{host: true}, []departurePhase{leavingPhase, drainingPhase, stuckPhase}},
		{"a container", departure{run: run}, []departurePhase{leavingPhase, drainingPhase, stuckPhase}},
		{"the host, told", departure{host: true, told: true}, []departurePhase{leavingPhase, stuckPhase, stuckPhase}},
		{"a container, or not at all", departure{run: run, whole: true}, []departurePhase{stuckPhase, stuckPhase, stuckPhase}},
	} {
		t.Run(test.name, func(t *testing.T) {
			begun := time.Now()
			d := test.d
			d.seq, d.begun, d.latest = 2, begun, begun.Add(2*time.Minute)
			d.before(before)
			for i, s := range []*status.V1{both, one, one} {
				d.judge(s, begun.Add(time.Duration(i)*(settleALB+time.Second)))
				if d.phase != test.looks[i] {
					t.Errorf("look %d: %s (%s); want %s", i+1, d.phase, d.why, test.looks[i])
				}
			}
			if d.change != "change web" {
				t.Errorf("what to change is %q; want that of the group that was denied", d.change)
			}
		})
	}
}

// What is refused at first and goes then is given as long to settle as the rest.
func TestDeparture_refusedAtFirst(t *testing.T) {
	run, begun := judgedRun("web-1"), time.Now()
	row := func(group string, s status.State, port uint16) status.Row {
		return status.Row{Run: run, Group: group, State: s, Target: target.Target{ID: judgedInstance, Port: port}}
	}
	seen := func(web string, rows ...status.Row) *status.V1 {
		return &status.V1{Seq: 2, Connected: true, Rows: rows, Groups: []status.GroupV1{
			{Keys: []string{"api"}, State: registrar.StateOK, Protocol: "HTTP", Seq: 2, Tried: true},
			{Keys: []string{"web"}, State: web, Protocol: "HTTP", Seq: 2, Tried: true},
		}}
	}
	d := departure{host: true, seq: 2, begun: begun, latest: begun.Add(2 * time.Minute)}
	d.before(seen(registrar.StateOK, row("api", status.Healthy, 1), row("web", status.Healthy, 2)))
	for _, look := range []struct {
		at   time.Duration
		s    *status.V1
		want departurePhase
	}{
		{time.Second, seen(registrar.StateDenied, row("web", status.Leaving, 2)), drainingPhase},
		{9 * time.Second, seen(registrar.StateOK), drainingPhase},
		{12 * time.Second, seen(registrar.StateOK), drainingPhase},
		{20 * time.Second, seen(registrar.StateOK), gonePhase},
	} {
		if d.judge(look.s, begun.Add(look.at)); d.phase != look.want {
			t.Errorf("after %v: %s (%s); want %s", look.at, d.phase, d.why, look.want)
		}
	}
}

// An agent that has just been started does not know what is registered: that no row shows a target is no departure, and
// the time to settle begins when the groups have acted.
func TestDeparture_judge_agentStarts(t *testing.T) {
	run := judgedRun("web-1")
	drained := status.Row{Run: run, Group: "web", State: status.Drained}
	registering := status.Row{Run: run, Group: "web", State: status.Registering}
	leaving := status.Row{Run: run, Group: "web", State: status.Leaving, Target: target.Target{ID: judgedInstance, Port: 32768}}
	untaken := status.GroupV1{Keys: []string{"web"}, State: registrar.StateWaiting}
	acted := status.GroupV1{Keys: []string{"web"}, State: registrar.StateOK, Protocol: "HTTP", Seq: 2, Tried: true}
	unlisted := &status.V1{}
	unconnected := &status.V1{Seq: 2, Groups: []status.GroupV1{untaken}, Rows: []status.Row{drained}}
	untried := &status.V1{Seq: 2, Connected: true, Groups: []status.GroupV1{untaken}, Rows: []status.Row{drained}}
	going := &status.V1{Seq: 2, Connected: true, Groups: []status.GroupV1{acted}, Rows: []status.Row{leaving}}
	gone := &status.V1{Seq: 2, Connected: true, Groups: []status.GroupV1{acted}, Rows: []status.Row{drained}}
	besideNew := &status.V1{
		Seq: 2, Connected: true, Rows: gone.Rows,
		Groups: []status.GroupV1{acted, {Keys: []string{"new"}, State: registrar.StateWaiting}},
	}
	type look struct {
		at     time.Duration
		status *status.V1
		want   departurePhase
	}
	for name, test := range map[string]struct {
		before *status.V1
		d      departure
		looks  []look
	}{
		"known from before": {&status.V1{Seq: 1, Rows: []status.Row{registering}}, departure{run: run}, []look{
			{0, unlisted, leavingPhase},
			{time.Second, unconnected, leavingPhase},
			{20 * time.Second, untried, leavingPhase},
			{21 * time.Second, going, leavingPhase},
			{22 * time.Second, gone, drainingPhase},
			{33 * time.Second, gone, gonePhase},
		}},
		"drained before, by an earlier agent": {&status.V1{Seq: 1, Rows: []status.Row{drained}}, departure{run: run}, []look{
			{0, unconnected, leavingPhase},
			{20 * time.Second, untried, leavingPhase},
			{21 * time.Second, going, leavingPhase},
			{22 * time.Second, gone, drainingPhase},
		}},
		"the host": {unlisted, departure{host: true}, []look{
			{0, unconnected, leavingPhase},
			{20 * time.Second, untried, leavingPhase},
			{21 * time.Second, gone, gonePhase},
		}},
		"another group is new": {going, departure{run: run}, []look{
			{0, besideNew, drainingPhase},
			{11 * time.Second, besideNew, gonePhase},
		}},
		"another group is new, and it is on no row": {unlisted, departure{run: run}, []look{
			{0, &status.V1{Seq: 2, Connected: true, Groups: besideNew.Groups}, leavingPhase},
			{time.Second, &status.V1{Seq: 2, Connected: true, Groups: gone.Groups}, gonePhase},
		}},
		"restarted while it settles": {going, departure{run: run}, []look{
			{0, gone, drainingPhase},
			{5 * time.Second, unconnected, leavingPhase},
			{12 * time.Second, gone, drainingPhase},
			{23 * time.Second, gone, gonePhase},
		}},
		"never": {unconnected, departure{run: run}, []look{
			{119 * time.Second, unconnected, leavingPhase},
			{120 * time.Second, unconnected, stuckPhase},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			d := test.d
			d.seq, d.begun, d.latest = 2, begun, begun.Add(2*time.Minute)
			d.before(test.before)
			for _, l := range test.looks {
				if d.judge(l.status, begun.Add(l.at)); d.phase != l.want {
					t.Errorf("after %v: %s (%s); want %s", l.at, d.phase, d.why, l.want)
				}
			}
		})
	}
}

// Another container's rows are none of its business; the host's departure is everybody's but the unclaimed.
func TestDeparture_concerns(t *testing.T) {
	mine, other := judgedRun("web-1"), judgedRun("web-22")
	rows := []status.Row{
		{Run: mine, Group: "web", State: status.Healthy, Target: target.Target{ID: judgedInstance, Port: 1}},
		{Run: other, Group: "api", State: status.Healthy, Target: target.Target{ID: judgedInstance, Port: 2}},
		{Group: "dns", State: status.Unclaimed, Target: target.Target{ID: judgedInstance, Port: 3}},
	}
	one, all := &departure{run: mine}, &departure{host: true}
	one.before(&status.V1{Rows: rows})
	all.before(&status.V1{Rows: rows})
	if len(one.keys) != 1 || !one.keys["web"] {
		t.Errorf("one container: groups %v; want web", one.keys)
	}
	if len(all.keys) != 2 || all.keys["dns"] {
		t.Errorf("the host: groups %v; want web and api", all.keys)
	}
}

// What a person waits for who asks about 500 containers.
func BenchmarkStatusCommand_500(b *testing.B) {
	a := newShownAgent(b)
	var wants []target.Want
	var targets []registrar.TargetStatus
	for i := range 500 {
		w := testWant("web", uint16(32768+i))
		w.Run.ID, w.Run.Name = strings.Repeat("0", 61)+string([]byte{'a' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)}), "web-"+time.Duration(i).String()
		wants = append(wants, w)
		targets = append(targets, registered(w, "healthy", ""))
	}
	a.show(1, wants, []discovery.Decision{}, targets...)
	env := &environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(k string) string {
		return map[string]string{"BERTH_CONTROL_SOCKET": a.socket}[k]
	}}
	for b.Loop() {
		if code := execute(b.Context(), []string{"status"}, env); code != 0 {
			b.Fatalf("exit code %d", code)
		}
	}
}
