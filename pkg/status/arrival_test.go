package status

import (
	"errors"
	"strings"
	"testing"
	"time"

	"berth/pkg/registrar"
	"berth/pkg/target"
)

func TestProgress_judge(t *testing.T) {
	run := judgedRun("web-1")
	older := run
	older.StartedAt = run.StartedAt.Add(-time.Hour)
	row := func(st State, change ...func(*Row)) Row {
		r := Row{Run: run, Group: "web", ContainerPort: target.PortProto{Port: 8080}, State: st, Why: "because"}
		for _, c := range change {
			c(&r)
		}
		return r
	}
	at := func(r *Row) { r.Target = target.Target{ID: judgedInstance, Port: 32768} }
	in := func(group string) func(*Row) { return func(r *Row) { r.Group = group } }
	old := func(r *Row) { r.Run = older }
	acted := GroupV1{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 5}
	behind := GroupV1{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 4}
	untried := GroupV1{Keys: []string{"web"}, State: registrar.StateWaiting}
	other := GroupV1{Keys: []string{"api"}, State: registrar.StateWaiting}
	left := GroupV1{Keys: []string{}, Name: "old", State: registrar.StateWaiting}
	denied := GroupV1{Keys: []string{"web"}, State: registrar.StateDenied, Tried: true}
	elsewhere := GroupV1{Keys: []string{"api"}, State: registrar.StateOK, Tried: true, Seq: 1}

	tests := map[string]struct {
		goal   Goal
		group  string
		rows   []Row
		groups []GroupV1
		want   outcome
		why    string
	}{
		"registered":                      {GoalRegistered, "", []Row{row(Initial, at)}, nil, Reached, "initial in web"},
		"registered, unhealthy":           {GoalRegistered, "", []Row{row(Unhealthy, at)}, nil, Reached, "unhealthy in web"},
		"registering":                     {GoalRegistered, "", []Row{row(Registering)}, nil, Pending, "registering in web: because"},
		"blocked may be unblocked":        {GoalRegistered, "", []Row{row(Blocked)}, nil, Pending, "blocked in web"},
		"one of two":                      {GoalRegistered, "", []Row{row(Healthy, at), row(NotYet, in("api"))}, nil, Pending, "not_yet in api"},
		"one of two, the other not asked": {GoalRegistered, "web", []Row{row(Healthy, at), row(NotYet, in("api"))}, nil, Reached, "healthy in web"},
		"refused":                         {GoalRegistered, "", []Row{row(Registering), row(Refused, in("api"))}, nil, Never, "refused in api"},
		"ignored":                         {GoalHealthy, "", []Row{row(Ignored, in(""))}, nil, Never, "because"},
		"ignored in one":                  {GoalHealthy, "", []Row{row(Healthy, at), row(Ignored, in("api"))}, nil, Reached, "healthy in web"},
		"healthy":                         {GoalHealthy, "", []Row{row(Healthy, at)}, nil, Reached, "healthy in web"},
		"healthy in two":                  {GoalHealthy, "", []Row{row(Healthy, at), row(Healthy, at, in("api"))}, nil, Reached, "healthy in api, web"},
		"initial is not healthy":          {GoalHealthy, "", []Row{row(Initial, at)}, nil, Pending, "initial in web"},
		"the old run drains":              {GoalHealthy, "", []Row{row(Draining, at, old), row(Healthy, at)}, nil, Reached, "healthy in web"},
		"drained by hand":                 {GoalHealthy, "", []Row{row(Drained)}, nil, Pending, "drained in web"},
		"group of a whole":                {GoalHealthy, "web", []Row{row(Refused, in(""))}, nil, Never, "refused: because"},

		"still wanted":             {GoalDrained, "", []Row{row(Healthy, at)}, []GroupV1{acted}, Pending, "nothing drains it"},
		"leaving":                  {GoalDrained, "", []Row{row(Leaving, at)}, []GroupV1{acted}, Pending, "leaving in web"},
		"draining":                 {GoalDrained, "", []Row{row(Draining, at)}, []GroupV1{acted}, Pending, "draining in web"},
		"drained":                  {GoalDrained, "", []Row{row(Drained)}, []GroupV1{acted}, Reached, "nothing of it"},
		"stopped and gone":         {GoalDrained, "", []Row{row(Leaving)}, []GroupV1{acted}, Reached, "nothing of it"},
		"not acted on":             {GoalDrained, "", []Row{row(Drained)}, []GroupV1{behind}, Pending, "web has not acted"},
		"not tried":                {GoalDrained, "", []Row{row(Drained)}, []GroupV1{untried}, Pending, "web has not acted"},
		"another not tried":        {GoalDrained, "", []Row{row(Drained)}, []GroupV1{acted, other}, Reached, "nothing of it"},
		"one that left not tried":  {GoalDrained, "", []Row{row(Drained)}, []GroupV1{acted, left}, Pending, "old has not acted"},
		"a group that cannot act":  {GoalDrained, "", []Row{row(Drained)}, []GroupV1{denied}, Reached, "nothing of it"},
		"another group is behind":  {GoalDrained, "", []Row{row(Drained)}, []GroupV1{acted, elsewhere}, Reached, "nothing of it"},
		"no group named, one late": {GoalDrained, "", []Row{row(Drained, in(""))}, []GroupV1{acted, elsewhere}, Pending, "api has not acted"},
		"the old run still drains": {GoalDrained, "", []Row{row(Drained), row(Draining, at, old)}, []GroupV1{acted}, Pending, "draining"},
		"never in a group":         {GoalDrained, "", []Row{row(Ignored, in(""))}, []GroupV1{acted}, Reached, "nothing of it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Progress{Container: "web-1"}
			other := row(Refused)
			other.Run = judgedRun("web-number-two")
			s := &V1{At: judgedStart, Seq: 5, Connected: true, Rows: append(tt.rows, other), Groups: tt.groups}
			if err := p.Judge(s, tt.goal, tt.group); err != nil {
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
	p := &Progress{Container: "web-1"}
	see := func(seq, groupSeq uint64, st State) outcome {
		err := p.Judge(&V1{
			Seq: seq, Connected: true, Rows: []Row{{Run: judgedRun("web-1"), Group: "web", State: st}},
			Groups: []GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: groupSeq}},
		}, GoalDrained, "")
		if err != nil {
			t.Fatal(err)
		}
		return p.Outcome
	}
	for i, step := range []struct {
		seq, groupSeq uint64
		state         State
		want          outcome
	}{
		{5, 4, Drained, Pending},
		{9, 4, Drained, Pending},
		{10, 9, Healthy, Pending}, // undrained meanwhile
		{11, 9, Drained, Pending},
		{20, 11, Drained, Reached},
	} {
		if got := see(step.seq, step.groupSeq, step.state); got != step.want {
			t.Errorf("step %d: got %v; want %v", i, got, step.want)
		}
	}
}

func TestProgress_judge_absent(t *testing.T) {
	now := judgedStart
	there := []Row{{Run: judgedRun("web-1"), Group: "web", State: Registering}}
	see := func(p *Progress, g Goal, rows []Row, after time.Duration) outcome {
		now = now.Add(after)
		if err := p.Judge(&V1{At: now, Seq: 1, Connected: true, Rows: rows}, g, ""); err != nil {
			t.Fatal(err)
		}
		return p.Outcome
	}
	p := &Progress{Container: "web-1"}
	for i, step := range []struct {
		rows  []Row
		after time.Duration
		want  outcome
	}{
		{nil, 0, Pending},
		{nil, absentGrace - 1, Pending},
		{there, 1, Pending},
		{nil, time.Hour, Pending},
		{nil, absentGrace - 1, Pending},
		{nil, 1, Never},
	} {
		if got := see(p, GoalHealthy, step.rows, step.after); got != step.want {
			t.Errorf("step %d: got %v, %q; want %v", i, got, p.Why, step.want)
		}
	}
	if !strings.Contains(p.Why, "is gone") {
		t.Errorf("got %q; want that it is gone", p.Why)
	}

	// An agent that has just been started says nothing of anybody, for as long as Docker needs: that is no absence.
	p = &Progress{Container: "web-1"}
	see(p, GoalHealthy, there, 0)
	see(p, GoalHealthy, nil, 1)
	for range 2 {
		now = now.Add(time.Hour)
		if err := p.Judge(&V1{At: now}, GoalHealthy, ""); err != nil || p.Outcome != Pending || !strings.Contains(p.Why, "has not seen Docker's containers yet") {
			t.Fatalf("before the first snapshot: %v, %v (%s); want it to be waited for", err, p.Outcome, p.Why)
		}
	}
	if got := see(p, GoalHealthy, nil, 1); got != Pending {
		t.Errorf("missing in the first snapshot: got %v; want %v, the time begins", got, Pending)
	}
	if got := see(p, GoalHealthy, nil, absentGrace); got != Never {
		t.Errorf("missing ever since: got %v; want %v", got, Never)
	}

	p = &Progress{Container: "web-1"}
	see(p, GoalDrained, there, 0)
	if got := see(p, GoalDrained, nil, 0); got != Reached {
		t.Errorf("seen, then removed: got %v; want drained", got)
	}
	p = &Progress{Container: "typo"}
	see(p, GoalDrained, there, 0)
	if got := see(p, GoalDrained, there, absentGrace); got != Never {
		t.Errorf("never seen: got %v; want never: a typo is not drained", got)
	}
}

// Until the agent knows what is registered, nothing is drained, nor gone with its targets.
func TestProgress_judge_agentStarts(t *testing.T) {
	drained := []Row{{Run: judgedRun("web-1"), Group: "web", State: Drained}}
	untaken := []GroupV1{{Keys: []string{"web"}, State: registrar.StateWaiting}}
	acted := []GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 3}}
	for _, rows := range [][]Row{drained, nil} {
		p := &Progress{Container: "web-1", seen: true}
		for _, step := range []struct {
			s    V1
			want outcome
		}{
			{V1{Seq: 3, Groups: untaken}, Pending},
			{V1{Seq: 3, Connected: true, Groups: untaken}, Pending},
			{V1{Seq: 3, Connected: true, Groups: acted}, Reached},
		} {
			step.s.Rows = rows
			if err := p.Judge(&step.s, GoalDrained, ""); err != nil || p.Outcome != step.want {
				t.Errorf("%d rows, connected %v: %s (%s), %v; want %s", len(rows), step.s.Connected, p.Outcome, p.Why, err, step.want)
			}
		}
	}
}

func TestProgress_judge_ambiguous(t *testing.T) {
	a, b := judgedRun("a"), judgedRun("b")
	a.ID, b.ID = "abcd1"+strings.Repeat("0", 59), "abcd2"+strings.Repeat("0", 59)
	s := &V1{Rows: []Row{{Run: a, State: Healthy}, {Run: b, State: Healthy}}}
	var ambiguous *AmbiguousError
	if err := (&Progress{Container: "abcd"}).Judge(s, GoalHealthy, ""); !errors.As(err, &ambiguous) {
		t.Errorf("got %v; want an AmbiguousError", err)
	}
	if err := (&Progress{Container: "abcd1"}).Judge(s, GoalHealthy, ""); err != nil {
		t.Errorf("more of it: got %v; want nil", err)
	}
}

func TestAdvice(t *testing.T) {
	r := &Row{Reason: "Target.Timeout", Change: "open the security group"}
	const ports = "32768 to 60999"
	if got, want := Advice(r, ports), r.Change+" (Docker picks ports 32768 to 60999 on this host)"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
	if got := Advice(r, ""); got != r.Change {
		t.Errorf("got %q; want no range where it is not known", got)
	}
	r.Reason = "Target.ResponseCodeMismatch"
	if got := Advice(r, ports); got != r.Change {
		t.Errorf("got %q; want no range where it is not the trouble", got)
	}
}
