package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/server"
	"berth/pkg/target"
)

// A departure goes on as the load balancer says, for as long as is settled, and no longer than it may.
func TestDeparture_judge(t *testing.T) {
	run := testRun("web-1")
	at := target.Target{ID: testInstance, Port: 32768}
	row := func(s server.State) server.Row {
		return server.Row{Run: run, Group: "web", State: s, Target: at, Why: "because"}
	}
	group := func(state, protocol string, seq uint64) server.GroupV1 {
		return server.GroupV1{Keys: []string{"web"}, State: state, Protocol: protocol, Seq: seq, Tried: true}
	}
	status := func(g server.GroupV1, rows ...server.Row) *server.StatusV1 {
		return &server.StatusV1{Seq: 2, Connected: true, Groups: []server.GroupV1{g}, Rows: rows}
	}
	drained := server.Row{Run: run, Group: "web", State: server.Drained}
	second := time.Second
	type look struct {
		at     time.Duration // after the drain
		status *server.StatusV1
		want   departurePhase
	}
	ok := group(registrar.StateOK, "HTTP", 2)
	for _, test := range []struct {
		name   string
		before *server.StatusV1
		settle *time.Duration
		looks  []look
	}{
		{"ALB", status(ok, row(server.Healthy)), nil, []look{
			{0, status(group(registrar.StateOK, "HTTP", 1), row(server.Healthy)), leavingPhase},
			{1 * second, status(ok, row(server.Leaving)), leavingPhase},
			{2 * second, status(ok, row(server.Draining)), drainingPhase},
			{9 * second, status(ok, drained), drainingPhase}, // gone, and not settled
			{12 * second, status(ok, drained), gonePhase},
		}},
		{"NLB", status(group(registrar.StateOK, "TCP", 2), row(server.Healthy)), nil, []look{
			{0, status(group(registrar.StateOK, "TCP", 2), drained), drainingPhase},
			{119 * second, status(group(registrar.StateOK, "TCP", 2), drained), drainingPhase},
			{120 * second, status(group(registrar.StateOK, "TCP", 2), drained), overduePhase},
		}},
		{"settled at once", status(ok, row(server.Healthy)), new(time.Duration), []look{{0, status(ok, drained), gonePhase}}},
		{"a long deregistration delay", status(ok, row(server.Healthy)), nil, []look{
			{60 * second, status(ok, row(server.Draining)), drainingPhase},
			{120 * second, status(ok, row(server.Draining)), overduePhase},
		}},
		{"nothing was registered", status(ok, drained), nil, []look{{0, status(ok, drained), gonePhase}}},
		{"the group has not acted", status(ok, row(server.Registering)), nil, []look{
			{0, status(group(registrar.StateOK, "HTTP", 1), drained), leavingPhase},
			{120 * second, status(group(registrar.StateOK, "HTTP", 1), drained), stuckPhase},
		}},
		{"denied", status(ok, row(server.Healthy)), nil, []look{
			// Of what it was denied before the drain nothing follows.
			{0, status(group(registrar.StateDenied, "HTTP", 1), row(server.Leaving)), leavingPhase},
			{1 * second, status(group(registrar.StateDenied, "HTTP", 2), row(server.Leaving)), stuckPhase},
		}},
		{"throttled for long", status(ok, row(server.Healthy)), nil, []look{
			{0, status(group(registrar.StateThrottled, "HTTP", 1), row(server.Leaving)), leavingPhase},
			{120 * second, status(group(registrar.StateThrottled, "HTTP", 1), row(server.Leaving)), stuckPhase},
		}},
		{"the target group is gone", status(ok, row(server.Healthy)), new(time.Duration), []look{
			{0, status(group(registrar.StateGone, "HTTP", 1), row(server.Leaving)), gonePhase},
		}},
		{"registered again behind our back", status(ok, row(server.Healthy)), nil, []look{
			{0, status(ok, drained), drainingPhase},
			{5 * second, status(ok, row(server.Leaving)), leavingPhase},
			{11 * second, status(ok, drained), drainingPhase},
			{21 * second, status(ok, drained), gonePhase},
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
	run := testRun("web-1")
	row := func(group string, s server.State, port uint16) server.Row {
		return server.Row{Run: run, Group: group, State: s, Target: target.Target{ID: testInstance, Port: port}, Why: "because", Change: "change " + group}
	}
	group := func(key, state string) server.GroupV1 {
		return server.GroupV1{Keys: []string{key}, State: state, Protocol: "HTTP", Seq: 2, Tried: true}
	}
	groups := []server.GroupV1{group("api", registrar.StateOK), group("web", registrar.StateDenied)}
	before := &server.StatusV1{Seq: 2, Connected: true, Groups: groups, Rows: []server.Row{row("api", server.Healthy, 1), row("web", server.Healthy, 2)}}
	both := &server.StatusV1{Seq: 2, Connected: true, Groups: groups, Rows: []server.Row{row("api", server.Leaving, 1), row("web", server.Leaving, 2)}}
	one := &server.StatusV1{Seq: 2, Connected: true, Groups: groups, Rows: []server.Row{row("api", server.Drained, 0), row("web", server.Leaving, 2)}}
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
			for i, s := range []*server.StatusV1{both, one, one} {
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
	run, begun := testRun("web-1"), time.Now()
	row := func(group string, s server.State, port uint16) server.Row {
		return server.Row{Run: run, Group: group, State: s, Target: target.Target{ID: testInstance, Port: port}}
	}
	status := func(web string, rows ...server.Row) *server.StatusV1 {
		return &server.StatusV1{Seq: 2, Connected: true, Rows: rows, Groups: []server.GroupV1{
			{Keys: []string{"api"}, State: registrar.StateOK, Protocol: "HTTP", Seq: 2, Tried: true},
			{Keys: []string{"web"}, State: web, Protocol: "HTTP", Seq: 2, Tried: true},
		}}
	}
	d := departure{host: true, seq: 2, begun: begun, latest: begun.Add(2 * time.Minute)}
	d.before(status(registrar.StateOK, row("api", server.Healthy, 1), row("web", server.Healthy, 2)))
	for _, look := range []struct {
		at   time.Duration
		s    *server.StatusV1
		want departurePhase
	}{
		{time.Second, status(registrar.StateDenied, row("web", server.Leaving, 2)), drainingPhase},
		{9 * time.Second, status(registrar.StateOK), drainingPhase},
		{12 * time.Second, status(registrar.StateOK), drainingPhase},
		{20 * time.Second, status(registrar.StateOK), gonePhase},
	} {
		if d.judge(look.s, begun.Add(look.at)); d.phase != look.want {
			t.Errorf("after %v: %s (%s); want %s", look.at, d.phase, d.why, look.want)
		}
	}
}

// An agent that has just been started does not know what is registered: that no row shows a target is no departure, and
// the time to settle begins when the groups have acted.
func TestDeparture_judge_agentStarts(t *testing.T) {
	run := testRun("web-1")
	drained := server.Row{Run: run, Group: "web", State: server.Drained}
	registering := server.Row{Run: run, Group: "web", State: server.Registering}
	leaving := server.Row{Run: run, Group: "web", State: server.Leaving, Target: target.Target{ID: testInstance, Port: 32768}}
	untaken := server.GroupV1{Keys: []string{"web"}, State: registrar.StateWaiting}
	acted := server.GroupV1{Keys: []string{"web"}, State: registrar.StateOK, Protocol: "HTTP", Seq: 2, Tried: true}
	unlisted := &server.StatusV1{}
	unconnected := &server.StatusV1{Seq: 2, Groups: []server.GroupV1{untaken}, Rows: []server.Row{drained}}
	untried := &server.StatusV1{Seq: 2, Connected: true, Groups: []server.GroupV1{untaken}, Rows: []server.Row{drained}}
	going := &server.StatusV1{Seq: 2, Connected: true, Groups: []server.GroupV1{acted}, Rows: []server.Row{leaving}}
	gone := &server.StatusV1{Seq: 2, Connected: true, Groups: []server.GroupV1{acted}, Rows: []server.Row{drained}}
	besideNew := &server.StatusV1{
		Seq: 2, Connected: true, Rows: gone.Rows,
		Groups: []server.GroupV1{acted, {Keys: []string{"new"}, State: registrar.StateWaiting}},
	}
	type look struct {
		at     time.Duration
		status *server.StatusV1
		want   departurePhase
	}
	for name, test := range map[string]struct {
		before *server.StatusV1
		d      departure
		looks  []look
	}{
		"known from before": {&server.StatusV1{Seq: 1, Rows: []server.Row{registering}}, departure{run: run}, []look{
			{0, unlisted, leavingPhase},
			{time.Second, unconnected, leavingPhase},
			{20 * time.Second, untried, leavingPhase},
			{21 * time.Second, going, leavingPhase},
			{22 * time.Second, gone, drainingPhase},
			{33 * time.Second, gone, gonePhase},
		}},
		"drained before, by an earlier agent": {&server.StatusV1{Seq: 1, Rows: []server.Row{drained}}, departure{run: run}, []look{
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
			{0, &server.StatusV1{Seq: 2, Connected: true, Groups: besideNew.Groups}, leavingPhase},
			{time.Second, &server.StatusV1{Seq: 2, Connected: true, Groups: gone.Groups}, gonePhase},
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
	mine, other := testRun("web-1"), testRun("web-22")
	rows := []server.Row{
		{Run: mine, Group: "web", State: server.Healthy, Target: target.Target{ID: testInstance, Port: 1}},
		{Run: other, Group: "api", State: server.Healthy, Target: target.Target{ID: testInstance, Port: 2}},
		{Group: "dns", State: server.Unclaimed, Target: target.Target{ID: testInstance, Port: 3}},
	}
	one, all := &departure{run: mine}, &departure{host: true}
	one.before(&server.StatusV1{Rows: rows})
	all.before(&server.StatusV1{Rows: rows})
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
