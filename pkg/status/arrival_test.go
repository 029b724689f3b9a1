package status

import (
	"strings"
	"testing"
	"time"

	"berth/pkg/registrar"
	"berth/pkg/target"
)

// drained is the goal of a departure, in tables beside those of an arrival.
const drained Goal = "drained"

// awaited judges what `berth wait` does.
func awaited(ref, group string, goal Goal) func(*V1, time.Time) (Outcome, Reason, time.Time) {
	if goal != drained {
		a := NamedArrival(ref, group, goal, "")
		return func(s *V1, now time.Time) (Outcome, Reason, time.Time) {
			outcome, next := a.Judge(s, now)
			return outcome, a.Reason(), next
		}
	}
	d := NamedDeparture(ref, group)
	return func(s *V1, now time.Time) (Outcome, Reason, time.Time) {
		phase, next := d.Judge(s, now)
		outcomes := map[DeparturePhase]Outcome{GonePhase: Reached, UnknownPhase: Never, LeavingPhase: Pending, DrainingPhase: Pending}
		return outcomes[phase], d.Reason(), next
	}
}

func TestAwaited(t *testing.T) {
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
	deleted := GroupV1{Keys: []string{"web"}, State: registrar.StateGone, Tried: true, Seq: 5}
	elsewhere := GroupV1{Keys: []string{"api"}, State: registrar.StateOK, Tried: true, Seq: 1}

	tests := map[string]struct {
		goal   Goal
		group  string
		rows   []Row
		groups []GroupV1
		want   Outcome
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
		"its date is of a later clock":    {GoalHealthy, "", []Row{row(Draining, at), row(Healthy, at, old)}, nil, Reached, "healthy in web"},
		"and it is about to leave":        {GoalHealthy, "", []Row{row(Leaving, at), row(Initial, at, old)}, nil, Pending, "initial in web"},
		"the old run drains":              {GoalHealthy, "", []Row{row(Draining, at, old), row(Healthy, at)}, nil, Reached, "healthy in web"},
		"drained by hand":                 {GoalHealthy, "", []Row{row(Drained)}, nil, Pending, "drained in web"},
		"group of a whole":                {GoalHealthy, "web", []Row{row(Refused, in(""))}, nil, Never, "refused: because"},

		"still wanted":             {drained, "", []Row{row(Healthy, at)}, []GroupV1{acted}, Pending, "nothing drains it"},
		"leaving, denied":          {drained, "", []Row{row(Leaving, at)}, []GroupV1{denied}, Pending, "leaving in web"},
		"the target group is gone": {drained, "", []Row{row(Leaving, at)}, []GroupV1{deleted}, Pending, "leaving in web"},
		"wanted in a group gone":   {drained, "", []Row{row(Blocked)}, []GroupV1{deleted}, Pending, "nothing drains it"},
		"draining, not acted on":   {drained, "", []Row{row(Draining, at)}, []GroupV1{behind}, Pending, "draining in web"},
		"leaving elsewhere":        {drained, "api", []Row{row(Leaving, at), row(Drained, in("api"))}, []GroupV1{acted}, Reached, "nothing of it"},
		"leaving":                  {drained, "", []Row{row(Leaving, at)}, []GroupV1{acted}, Pending, "leaving in web"},
		"draining":                 {drained, "", []Row{row(Draining, at)}, []GroupV1{acted}, Pending, "draining in web"},
		"drained":                  {drained, "", []Row{row(Drained)}, []GroupV1{acted}, Reached, "nothing of it"},
		"stopped and gone":         {drained, "", []Row{row(Leaving)}, []GroupV1{acted}, Reached, "nothing of it"},
		"not acted on":             {drained, "", []Row{row(Drained)}, []GroupV1{behind}, Pending, "web has not acted"},
		"not tried":                {drained, "", []Row{row(Drained)}, []GroupV1{untried}, Pending, "web has not acted"},
		"another not tried":        {drained, "", []Row{row(Drained)}, []GroupV1{acted, other}, Reached, "nothing of it"},
		"one that left not tried":  {drained, "", []Row{row(Drained)}, []GroupV1{acted, left}, Pending, "old has not acted"},
		"a group that cannot act":  {drained, "", []Row{row(Drained)}, []GroupV1{denied}, Reached, "nothing of it"},
		"another group is behind":  {drained, "", []Row{row(Drained)}, []GroupV1{acted, elsewhere}, Reached, "nothing of it"},
		"no group named, one late": {drained, "", []Row{row(Drained, in(""))}, []GroupV1{acted, elsewhere}, Pending, "api has not acted"},
		"the old run still drains": {drained, "", []Row{row(Drained), row(Draining, at, old)}, []GroupV1{acted}, Pending, "draining"},
		"never in a group":         {drained, "", []Row{row(Ignored, in(""))}, []GroupV1{acted}, Reached, "nothing of it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			other := row(Refused)
			other.Run = judgedRun("web-number-two")
			s := &V1{At: judgedStart, Seq: 5, Connected: true, Rows: append(tt.rows, other), Groups: tt.groups}
			got, reason, next := awaited("web-1", tt.group, tt.goal)(s, judgedStart)
			if got != tt.want || !strings.Contains(reason.Why, tt.why) {
				t.Errorf("got %v, %q; want %v, %q", got, reason.Why, tt.want, tt.why)
			}
			if !next.IsZero() {
				t.Errorf("it may change at %v; want never by itself", next)
			}
		})
	}
}

// Seq goes on while a group catches up: it need not catch up with what came after.
func TestNamedDeparture_seq(t *testing.T) {
	judge := awaited("web-1", "", drained)
	see := func(seq, groupSeq uint64, st State) Outcome {
		s := &V1{
			Seq: seq, Connected: true, Groups: []GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: groupSeq}},
		}
		if st != "" {
			s.Rows = []Row{{Run: judgedRun("web-1"), Group: "web", State: st}}
		}
		outcome, _, _ := judge(s, judgedStart)
		return outcome
	}
	for i, step := range []struct {
		seq, groupSeq uint64
		state         State // empty: it is removed
		want          Outcome
	}{
		{5, 4, Drained, Pending},
		{9, 4, Drained, Pending},
		{10, 9, Healthy, Pending}, // undrained meanwhile
		{11, 9, Drained, Pending},
		{20, 11, Drained, Reached},
		{21, 20, Registering, Pending},
		{22, 20, "", Pending}, // the group may be about to register it
		{22, 21, "", Pending},
		{23, 22, "", Reached},
	} {
		if got := see(step.seq, step.groupSeq, step.state); got != step.want {
			t.Errorf("step %d: got %v; want %v", i, got, step.want)
		}
	}
}

func TestAwaited_absent(t *testing.T) {
	now := judgedStart
	there := []Row{{Run: judgedRun("web-1"), Group: "web", State: Registering}}
	judge := awaited("web-1", "", GoalHealthy)
	see := func(rows []Row, after time.Duration) Outcome {
		now = now.Add(after)
		outcome, _, _ := judge(&V1{Seq: 1, Connected: true, Rows: rows}, now)
		return outcome
	}
	for i, step := range []struct {
		rows  []Row
		after time.Duration
		want  Outcome
	}{
		{nil, 0, Pending},
		{nil, absentGrace - 1, Pending},
		{there, 1, Pending},
		{nil, time.Hour, Pending},
		{nil, absentGrace - 1, Pending},
		{nil, 1, Never},
	} {
		if got := see(step.rows, step.after); got != step.want {
			t.Errorf("step %d: got %v; want %v", i, got, step.want)
		}
	}
	if _, reason, _ := judge(&V1{Seq: 1, Connected: true}, now); !strings.Contains(reason.Why, "is gone") {
		t.Errorf("got %q; want that it is gone", reason.Why)
	}

	// An agent that has just been started says nothing of anybody, for as long as Docker needs: that is no absence.
	judge = awaited("web-1", "", GoalHealthy)
	see(there, 0)
	see(nil, 1)
	for range 2 {
		now = now.Add(time.Hour)
		got, reason, next := judge(&V1{}, now)
		if got != Pending || !strings.Contains(reason.Why, "has not seen Docker's containers yet") || !next.IsZero() {
			t.Fatalf("before the first snapshot: %v (%s) until %v; want it to be waited for", got, reason.Why, next)
		}
	}
	if got := see(nil, 1); got != Pending {
		t.Errorf("missing in the first snapshot: got %v; want %v, the time begins", got, Pending)
	}
	if _, _, next := judge(&V1{Seq: 1}, now); !next.Equal(now.Add(absentGrace)) {
		t.Errorf("missing: it is never from %v on; want %v", next, now.Add(absentGrace))
	}
	if got := see(nil, absentGrace); got != Never {
		t.Errorf("missing ever since: got %v; want %v", got, Never)
	}

	judge = awaited("web-1", "", drained)
	see(there, 0)
	if got := see(nil, 0); got != Reached {
		t.Errorf("seen, then removed: got %v; want drained", got)
	}
	judge = awaited("typo", "", drained)
	see(there, 0)
	if got := see(there, absentGrace); got != Never {
		t.Errorf("never seen: got %v; want never: a typo is not drained", got)
	}
}

// Until the agent knows what is registered, nothing is drained, nor gone with its targets.
func TestNamedDeparture_agentStarts(t *testing.T) {
	out := []Row{{Run: judgedRun("web-1"), Group: "web", State: Drained}}
	untaken := []GroupV1{{Keys: []string{"web"}, State: registrar.StateWaiting}}
	acted := []GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 3}}
	for _, rows := range [][]Row{out, nil} {
		judge := awaited("web-1", "", drained)
		judge(&V1{Seq: 2, Rows: out}, judgedStart)
		for _, step := range []struct {
			s    V1
			want Outcome
		}{
			{V1{Seq: 3, Groups: untaken}, Pending},
			{V1{Seq: 3, Connected: true, Groups: untaken}, Pending},
			{V1{Seq: 3, Connected: true, Groups: acted}, Reached},
		} {
			step.s.Rows = rows
			if got, reason, _ := judge(&step.s, judgedStart); got != step.want {
				t.Errorf("%d rows, connected %v: %s (%s); want %s", len(rows), step.s.Connected, got, reason.Why, step.want)
			}
		}
	}
}

// The beginning of several ids names none of them: whatever becomes of them, nothing has arrived or left.
func TestAwaited_ambiguous(t *testing.T) {
	a, b := judgedRun("a"), judgedRun("b")
	a.ID, b.ID = "abcd1"+strings.Repeat("0", 59), "abcd2"+strings.Repeat("0", 59)
	s := &V1{Seq: 1, Connected: true, Rows: []Row{{Run: a, State: Healthy}, {Run: b, State: Healthy}}}
	for ref, want := range map[string]Outcome{"abcd": Pending, "abcd1": Reached} {
		if got, reason, _ := awaited(ref, "", GoalHealthy)(s, judgedStart); got != want {
			t.Errorf("%s: got %s (%s); want %s", ref, got, reason.Why, want)
		}
	}
}

// The host has arrived when each of the groups has a healthy target of it, whosever port it is.
func TestHostArrival(t *testing.T) {
	row := func(group string, s State) Row { return Row{Run: judgedRun("web-1"), Group: group, State: s} }
	for name, tt := range map[string]struct {
		groups []string
		rows   []Row
		want   Outcome
	}{
		"no group is required":    {nil, []Row{row("web", Healthy)}, Pending},
		"nothing is registered":   {[]string{"web"}, nil, Pending},
		"none is healthy":         {[]string{"web"}, []Row{row("web", Initial), row("web", Unhealthy)}, Pending},
		"another group's":         {[]string{"web"}, []Row{row("api", Healthy)}, Pending},
		"one of two is":           {[]string{"web"}, []Row{row("web", Unhealthy), row("web", Healthy)}, Reached},
		"one of two groups has":   {[]string{"api", "web"}, []Row{row("web", Healthy)}, Pending},
		"both groups have":        {[]string{"api", "web"}, []Row{row("web", Healthy), row("api", Healthy)}, Reached},
		"the rest is not its way": {[]string{"web"}, []Row{row("web", Healthy), row("api", Blocked)}, Reached},
	} {
		a := HostArrival(tt.groups)
		if got, next := a.Judge(&V1{Rows: tt.rows}, judgedStart); got != tt.want || !next.IsZero() {
			t.Errorf("%s: got %s (%s) until %v; want %s, and no time", name, got, a.Reason().Why, next, tt.want)
		}
	}
}

// Whoever is let back in waits for all groups that can act, and for an agent that knows what there is.
func TestWantsArrival(t *testing.T) {
	group := func(key, state string, seq uint64, tried bool) GroupV1 {
		return GroupV1{Keys: []string{key}, State: state, Seq: seq, Tried: tried}
	}
	ok := group("web", registrar.StateOK, 5, true)
	for name, tt := range map[string]struct {
		s    V1
		want Outcome
	}{
		"all have acted":         {V1{Seq: 6, Connected: true, Groups: []GroupV1{ok, group("api", registrar.StateOK, 6, true)}}, Reached},
		"one has not":            {V1{Seq: 6, Connected: true, Groups: []GroupV1{ok, group("api", registrar.StateOK, 4, true)}}, Pending},
		"one cannot":             {V1{Seq: 6, Connected: true, Groups: []GroupV1{ok, group("api", registrar.StateDenied, 4, true)}}, Reached},
		"one has not been tried": {V1{Seq: 6, Connected: true, Groups: []GroupV1{ok, group("api", registrar.StateWaiting, 0, false)}}, Pending},
		"it does not know yet":   {V1{Seq: 6, Groups: []GroupV1{ok}}, Pending},
		"it has just started":    {V1{Connected: true}, Pending},
	} {
		a := WantsArrival(5)
		if got, next := a.Judge(&tt.s, judgedStart); got != tt.want || !next.IsZero() {
			t.Errorf("%s: got %s (%s) until %v; want %s, and no time", name, got, a.Reason().Why, next, tt.want)
		}
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
