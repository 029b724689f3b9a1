package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/client"
	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
	"berth/pkg/target"
)

func TestProgress_judge(t *testing.T) {
	run := judgedRun("web-1")
	older := run
	older.StartedAt = run.StartedAt.Add(-time.Hour)
	row := func(st status.State, change ...func(*status.Row)) status.Row {
		r := status.Row{Run: run, Group: "web", ContainerPort: target.PortProto{Port: 8080}, State: st, Why: "because"}
		for _, c := range change {
			c(&r)
		}
		return r
	}
	at := func(r *status.Row) { r.Target = target.Target{ID: judgedInstance, Port: 32768} }
	in := func(group string) func(*status.Row) { return func(r *status.Row) { r.Group = group } }
	old := func(r *status.Row) { r.Run = older }
	acted := status.GroupV1{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 5}
	behind := status.GroupV1{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 4}
	untried := status.GroupV1{Keys: []string{"web"}, State: registrar.StateWaiting}
	other := status.GroupV1{Keys: []string{"api"}, State: registrar.StateWaiting}
	left := status.GroupV1{Keys: []string{}, Name: "old", State: registrar.StateWaiting}
	denied := status.GroupV1{Keys: []string{"web"}, State: registrar.StateDenied, Tried: true}
	elsewhere := status.GroupV1{Keys: []string{"api"}, State: registrar.StateOK, Tried: true, Seq: 1}

	tests := map[string]struct {
		goal   goal
		group  string
		rows   []status.Row
		groups []status.GroupV1
		want   outcome
		why    string
	}{
		"registered":                      {goalRegistered, "", []status.Row{row(status.Initial, at)}, nil, reached, "initial in web"},
		"registered, unhealthy":           {goalRegistered, "", []status.Row{row(status.Unhealthy, at)}, nil, reached, "unhealthy in web"},
		"registering":                     {goalRegistered, "", []status.Row{row(status.Registering)}, nil, pending, "registering in web: because"},
		"blocked may be unblocked":        {goalRegistered, "", []status.Row{row(status.Blocked)}, nil, pending, "blocked in web"},
		"one of two":                      {goalRegistered, "", []status.Row{row(status.Healthy, at), row(status.NotYet, in("api"))}, nil, pending, "not_yet in api"},
		"one of two, the other not asked": {goalRegistered, "web", []status.Row{row(status.Healthy, at), row(status.NotYet, in("api"))}, nil, reached, "healthy in web"},
		"refused":                         {goalRegistered, "", []status.Row{row(status.Registering), row(status.Refused, in("api"))}, nil, never, "refused in api"},
		"ignored":                         {goalHealthy, "", []status.Row{row(status.Ignored, in(""))}, nil, never, "because"},
		"ignored in one":                  {goalHealthy, "", []status.Row{row(status.Healthy, at), row(status.Ignored, in("api"))}, nil, reached, "healthy in web"},
		"healthy":                         {goalHealthy, "", []status.Row{row(status.Healthy, at)}, nil, reached, "healthy in web"},
		"healthy in two":                  {goalHealthy, "", []status.Row{row(status.Healthy, at), row(status.Healthy, at, in("api"))}, nil, reached, "healthy in api, web"},
		"initial is not healthy":          {goalHealthy, "", []status.Row{row(status.Initial, at)}, nil, pending, "initial in web"},
		"the old run drains":              {goalHealthy, "", []status.Row{row(status.Draining, at, old), row(status.Healthy, at)}, nil, reached, "healthy in web"},
		"drained by hand":                 {goalHealthy, "", []status.Row{row(status.Drained)}, nil, pending, "drained in web"},
		"group of a whole":                {goalHealthy, "web", []status.Row{row(status.Refused, in(""))}, nil, never, "refused: because"},

		"still wanted":             {goalDrained, "", []status.Row{row(status.Healthy, at)}, []status.GroupV1{acted}, pending, "nothing drains it"},
		"leaving":                  {goalDrained, "", []status.Row{row(status.Leaving, at)}, []status.GroupV1{acted}, pending, "leaving in web"},
		"draining":                 {goalDrained, "", []status.Row{row(status.Draining, at)}, []status.GroupV1{acted}, pending, "draining in web"},
		"drained":                  {goalDrained, "", []status.Row{row(status.Drained)}, []status.GroupV1{acted}, reached, "nothing of it"},
		"stopped and gone":         {goalDrained, "", []status.Row{row(status.Leaving)}, []status.GroupV1{acted}, reached, "nothing of it"},
		"not acted on":             {goalDrained, "", []status.Row{row(status.Drained)}, []status.GroupV1{behind}, pending, "web has not acted"},
		"not tried":                {goalDrained, "", []status.Row{row(status.Drained)}, []status.GroupV1{untried}, pending, "web has not acted"},
		"another not tried":        {goalDrained, "", []status.Row{row(status.Drained)}, []status.GroupV1{acted, other}, reached, "nothing of it"},
		"one that left not tried":  {goalDrained, "", []status.Row{row(status.Drained)}, []status.GroupV1{acted, left}, pending, "old has not acted"},
		"a group that cannot act":  {goalDrained, "", []status.Row{row(status.Drained)}, []status.GroupV1{denied}, reached, "nothing of it"},
		"another group is behind":  {goalDrained, "", []status.Row{row(status.Drained)}, []status.GroupV1{acted, elsewhere}, reached, "nothing of it"},
		"no group named, one late": {goalDrained, "", []status.Row{row(status.Drained, in(""))}, []status.GroupV1{acted, elsewhere}, pending, "api has not acted"},
		"the old run still drains": {goalDrained, "", []status.Row{row(status.Drained), row(status.Draining, at, old)}, []status.GroupV1{acted}, pending, "draining"},
		"never in a group":         {goalDrained, "", []status.Row{row(status.Ignored, in(""))}, []status.GroupV1{acted}, reached, "nothing of it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &progress{Container: "web-1"}
			other := row(status.Refused)
			other.Run = judgedRun("web-number-two")
			s := &status.V1{At: judgedStart, Seq: 5, Connected: true, Rows: append(tt.rows, other), Groups: tt.groups}
			if err := p.judge(s, tt.goal, tt.group); err != nil {
				t.Fatal(err)
			}
			if p.Outcome != tt.want || !strings.Contains(p.Why, tt.why) {
				t.Errorf("got %v, %q; want %v, %q", p.Outcome, p.Why, tt.want, tt.why)
			}
		})
	}
}

// Seq goes on while a group catches up: it need not catch up with what came after.
func TestProgress_judge_drainedSeq(t *testing.T) {
	p := &progress{Container: "web-1"}
	see := func(seq, groupSeq uint64, st status.State) outcome {
		err := p.judge(&status.V1{
			Seq: seq, Connected: true, Rows: []status.Row{{Run: judgedRun("web-1"), Group: "web", State: st}},
			Groups: []status.GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: groupSeq}},
		}, goalDrained, "")
		if err != nil {
			t.Fatal(err)
		}
		return p.Outcome
	}
	for i, step := range []struct {
		seq, groupSeq uint64
		state         status.State
		want          outcome
	}{
		{5, 4, status.Drained, pending},
		{9, 4, status.Drained, pending},
		{10, 9, status.Healthy, pending}, // undrained meanwhile
		{11, 9, status.Drained, pending},
		{20, 11, status.Drained, reached},
	} {
		if got := see(step.seq, step.groupSeq, step.state); got != step.want {
			t.Errorf("step %d: got %v; want %v", i, got, step.want)
		}
	}
}

func TestProgress_judge_absent(t *testing.T) {
	now := judgedStart
	there := []status.Row{{Run: judgedRun("web-1"), Group: "web", State: status.Registering}}
	see := func(p *progress, g goal, rows []status.Row, after time.Duration) outcome {
		now = now.Add(after)
		if err := p.judge(&status.V1{At: now, Seq: 1, Connected: true, Rows: rows}, g, ""); err != nil {
			t.Fatal(err)
		}
		return p.Outcome
	}
	p := &progress{Container: "web-1"}
	for i, step := range []struct {
		rows  []status.Row
		after time.Duration
		want  outcome
	}{
		{nil, 0, pending},
		{nil, absentGrace - 1, pending},
		{there, 1, pending},
		{nil, time.Hour, pending},
		{nil, absentGrace - 1, pending},
		{nil, 1, never},
	} {
		if got := see(p, goalHealthy, step.rows, step.after); got != step.want {
			t.Errorf("step %d: got %v, %q; want %v", i, got, p.Why, step.want)
		}
	}
	if !strings.Contains(p.Why, "is gone") {
		t.Errorf("got %q; want that it is gone", p.Why)
	}

	// An agent that has just been started says nothing of anybody, for as long as Docker needs: that is no absence.
	p = &progress{Container: "web-1"}
	see(p, goalHealthy, there, 0)
	see(p, goalHealthy, nil, 1)
	for range 2 {
		now = now.Add(time.Hour)
		if err := p.judge(&status.V1{At: now}, goalHealthy, ""); err != nil || p.Outcome != pending || !strings.Contains(p.Why, "has not seen Docker's containers yet") {
			t.Fatalf("before the first snapshot: %v, %v (%s); want it to be waited for", err, p.Outcome, p.Why)
		}
	}
	if got := see(p, goalHealthy, nil, 1); got != pending {
		t.Errorf("missing in the first snapshot: got %v; want %v, the time begins", got, pending)
	}
	if got := see(p, goalHealthy, nil, absentGrace); got != never {
		t.Errorf("missing ever since: got %v; want %v", got, never)
	}

	p = &progress{Container: "web-1"}
	see(p, goalDrained, there, 0)
	if got := see(p, goalDrained, nil, 0); got != reached {
		t.Errorf("seen, then removed: got %v; want drained", got)
	}
	p = &progress{Container: "typo"}
	see(p, goalDrained, there, 0)
	if got := see(p, goalDrained, there, absentGrace); got != never {
		t.Errorf("never seen: got %v; want never: a typo is not drained", got)
	}
}

// Until the agent knows what is registered, nothing is drained, nor gone with its targets.
func TestProgress_judge_agentStarts(t *testing.T) {
	drained := []status.Row{{Run: judgedRun("web-1"), Group: "web", State: status.Drained}}
	untaken := []status.GroupV1{{Keys: []string{"web"}, State: registrar.StateWaiting}}
	acted := []status.GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 3}}
	for _, rows := range [][]status.Row{drained, nil} {
		p := &progress{Container: "web-1", seen: true}
		for _, step := range []struct {
			s    status.V1
			want outcome
		}{
			{status.V1{Seq: 3, Groups: untaken}, pending},
			{status.V1{Seq: 3, Connected: true, Groups: untaken}, pending},
			{status.V1{Seq: 3, Connected: true, Groups: acted}, reached},
		} {
			step.s.Rows = rows
			if err := p.judge(&step.s, goalDrained, ""); err != nil || p.Outcome != step.want {
				t.Errorf("%d rows, connected %v: %s (%s), %v; want %s", len(rows), step.s.Connected, p.Outcome, p.Why, err, step.want)
			}
		}
	}
}

func TestProgress_judge_ambiguous(t *testing.T) {
	a, b := judgedRun("a"), judgedRun("b")
	a.ID, b.ID = "abcd1"+strings.Repeat("0", 59), "abcd2"+strings.Repeat("0", 59)
	s := &status.V1{Rows: []status.Row{{Run: a, State: status.Healthy}, {Run: b, State: status.Healthy}}}
	var ambiguous *AmbiguousError
	if err := (&progress{Container: "abcd"}).judge(s, goalHealthy, ""); !errors.As(err, &ambiguous) {
		t.Errorf("got %v; want an AmbiguousError", err)
	}
	if err := (&progress{Container: "abcd1"}).judge(s, goalHealthy, ""); err != nil {
		t.Errorf("more of it: got %v; want nil", err)
	}
}

func TestAdvice(t *testing.T) {
	r := &status.Row{Reason: "Target.Timeout", Change: "open the security group"}
	const ports = "32768 to 60999"
	if got, want := advice(r, ports), r.Change+" (Docker picks ports 32768 to 60999 on this host)"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
	if got := advice(r, ""); got != r.Change {
		t.Errorf("got %q; want no range where it is not known", got)
	}
	r.Reason = "Target.ResponseCodeMismatch"
	if got := advice(r, ports); got != r.Change {
		t.Errorf("got %q; want no range where it is not the trouble", got)
	}
}

func TestWait_reached(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, []target.Want{w}, nil, registered(w, "initial", "Elb.InitialHealthChecking"))
	go func() {
		<-a.asked // it waits, and follows
		a.show(2, []target.Want{w}, nil, registered(w, "healthy", ""))
	}()
	code, out, stderr := a.run(t.Context(), "wait", "web-1", "--for", "healthy")
	if code != 0 || out != "web-1: healthy in web\n" {
		t.Errorf("got %d %q; want 0", code, out)
	}
	if want := "web-1: initial in web: the load balancer is running its first health checks"; !strings.Contains(stderr, want) {
		t.Errorf("progress: got %q; want it to contain %q", stderr, want)
	}
}

func TestWait_several(t *testing.T) {
	a := newShownAgent(t)
	one, two := testWant("web-1", 32768), testWant("web-10", 32769)
	a.show(1, []target.Want{one, two}, nil, registered(one, "healthy", ""), registered(two, "initial", ""))
	code, out, _ := a.run(t.Context(), "wait", "web-1", "web-10", "web-1", "--for", "registered", "--json")
	var got waitResult
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || !got.Reached || got.For != goalRegistered {
		t.Fatalf("got %d %s, %v; want reached", code, out, err)
	}
	if len(got.Containers) != 2 || got.Containers[1].Outcome != reached || len(got.Containers[1].Rows) != 1 {
		t.Errorf("got %+v; want both, once", got.Containers)
	}
}

func TestWait_timeout(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, []target.Want{w}, nil, registered(w, "unhealthy", "Target.Timeout"))
	code, out, stderr := a.run(t.Context(), "wait", "web-1", "--timeout", "50ms", "--json")
	if code != exitFailure {
		t.Errorf("got %d; want %d", code, exitFailure)
	}
	for _, want := range []string{"not healthy after 50ms", "Target.Timeout", "security group"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("got %q; want it to contain %q", stderr, want)
		}
	}
	var got waitResult
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Reached || got.Containers[0].Outcome != pending {
		t.Errorf("--json: got %s, %v", out, err)
	}
}

func TestWait_never(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, nil, []discovery.Decision{decide(w, discovery.Refused, "its port is bound to 127.0.0.1 alone", "publish it with -p 8080")})
	code, out, stderr := a.run(t.Context(), "wait", "web-1")
	if code != exitNever || out != "" || !strings.Contains(stderr, "can never be healthy: refused in web: its port is bound to 127.0.0.1 alone; publish it") {
		t.Errorf("got %d %q %q; want %d and why", code, out, stderr, exitNever)
	}
}

func TestWait_drained(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	drained := []discovery.Decision{decide(w, discovery.Drained, "root drained it", "")}
	leaving := registered(w, "draining", "")
	leaving.Phase, leaving.Wants = ledger.Removing, nil
	a.show(1, nil, drained, leaving)
	go func() {
		<-a.asked
		a.show(2, nil, drained)
	}()
	code, out, stderr := a.run(t.Context(), "wait", "web-1", "--for=drained")
	if code != 0 || out != "web-1: nothing of it is registered\n" || !strings.Contains(stderr, "draining in web: root drained it; ") {
		t.Errorf("got %d %q %q; want 0", code, out, stderr)
	}
}

func TestWait_usage(t *testing.T) {
	for name, args := range map[string][]string{
		"no container": {"wait"}, "goal": {"wait", "x", "--for", "happy"},
		"timeout": {"wait", "x", "--timeout", "0s"}, "duration": {"wait", "x", "--timeout", "soon"},
	} {
		if code, _, stderr := runCommand(t.Context(), nil, args...); code != exitUsage || stderr == "" {
			t.Errorf("%s: got %d %q; want %d", name, code, stderr, exitUsage)
		}
	}
}

func TestWait_interrupted(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, []target.Want{w}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-a.asked
		cancel()
	}()
	code, _, stderr := a.run(ctx, "wait", "web-1")
	if code != exitFailure || !strings.Contains(stderr, "interrupted") {
		t.Errorf("got %d %q; want %d", code, stderr, exitFailure)
	}
}

// The agent is upgraded while somebody waits: waiting goes on.
func TestWait_agentRestarts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "berth.sock")
	w := testWant("web-1", 32768)
	first, end := beginAgent(t, socket, w, "initial")
	done := make(chan func(), 1)
	go func() {
		<-first.asked
		end()
		_, end := beginAgent(t, socket, w, "healthy")
		done <- end
	}()
	code, out, stderr := first.run(t.Context(), "wait", "web-1")
	(<-done)()
	if code != 0 || out != "web-1: healthy in web\n" {
		t.Errorf("got %d %q %q; want 0", code, out, stderr)
	}
}

// An agent answers before it has listed Docker's containers: that a container has no row then does not say that it is gone.
func TestWait_agentListsLate(t *testing.T) {
	w := testWant("web-1", 32768)
	drained := []discovery.Decision{decide(w, discovery.Drained, "root drained it", "")}
	removing := registered(w, "draining", "")
	removing.Phase, removing.Wants = ledger.Removing, nil
	for name, test := range map[goal]struct {
		before, after func(*shownAgent)
		want          string
	}{
		goalHealthy: {
			func(a *shownAgent) { a.show(1, []target.Want{w}, nil, registered(w, "initial", "")) },
			func(a *shownAgent) { a.show(2, []target.Want{w}, nil, registered(w, "healthy", "")) },
			"web-1: healthy in web\n",
		},
		goalDrained: {
			func(a *shownAgent) { a.show(1, nil, drained, removing) },
			func(a *shownAgent) { a.show(2, nil, drained) },
			"web-1: nothing of it is registered\n",
		},
	} {
		t.Run(string(name), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "berth.sock")
			first := &shownAgent{asked: make(chan struct{}, 100), socket: socket}
			second := &shownAgent{asked: make(chan struct{}, 100), socket: socket}
			test.before(first)
			end := first.serve(t)
			restarted := make(chan func(), 1)
			go func() {
				<-first.asked
				end()
				restarted <- second.serve(t)
			}()
			var out strings.Builder
			stderr := noticingWriter{text: "has not seen Docker's containers yet", then: func() { test.after(second) }}
			code := execute(t.Context(), []string{"wait", "web-1", "--for", string(name)}, &environment{
				stdin: strings.NewReader(""), stdout: &out, stderr: &stderr,
				getenv: func(k string) string { return map[string]string{"BERTH_CONTROL_SOCKET": socket}[k] },
			})
			(<-restarted)()
			if code != 0 || out.String() != test.want {
				t.Errorf("got %d %q %q; want 0 %q, as the second agent has it", code, out.String(), stderr.String(), test.want)
			}
		})
	}
}

// noticingWriter keeps what is written, and does something once a text has been.
type noticingWriter struct {
	strings.Builder
	text string
	then func()
}

func (w *noticingWriter) Write(p []byte) (int, error) {
	n, err := w.Builder.Write(p)
	if w.then != nil && strings.Contains(w.String(), w.text) {
		w.then()
		w.then = nil
	}
	return n, err
}

// On a terminal progress is one line, not wider than the terminal, that is gone in the end.
func TestReporter_say_terminal(t *testing.T) {
	master, tty := terminal(t, 40)
	c := newReporter(&environment{stderr: tty, getenv: func(string) string { return "" }})
	c.say("web-1", strings.Repeat("long ", 30), time.Now().Add(time.Minute))
	c.clear()
	buf := make([]byte, 4096)
	n, err := master.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(buf[:n], []byte("\r"))
	if len(line) != 39 || !bytes.HasPrefix(line, []byte("web-1: long")) {
		t.Errorf("got %q; want one line of 39 columns", line)
	}
}

func TestReporter_say_oncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := newReporter(&environment{stderr: &out, getenv: func(string) string { return "" }})
		for _, what := range []string{"a", "a", "b", "b", "a"} {
			c.say("web-1", what, time.Now())
		}
		if want := "web-1: a\nweb-1: b\nweb-1: a\n"; out.String() != want {
			t.Errorf("got %q; want %q", out.String(), want)
		}
	})
}

func TestBusy(t *testing.T) {
	if !busy(fmt.Errorf("ask: %w", &client.APIError{Status: 503})) || busy(&client.APIError{Status: 400}) || busy(errors.New("x")) {
		t.Error("busy is for 503 alone")
	}
}
