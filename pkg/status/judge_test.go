package status

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"berth/pkg/registrar"
	"berth/pkg/target"
)

// drawStatus draws what an agent may say of two containers in three groups, at any moment of its life.
func drawStatus(t *rapid.T) *V1 {
	s := &V1{Seq: rapid.Uint64Range(0, 4).Draw(t, "seq"), Connected: rapid.Bool().Draw(t, "connected")}
	if rapid.Bool().Draw(t, "host drain") {
		s.Drains = append(s.Drains, DrainV1{})
	}
	for _, key := range []string{"web", "api", "dns"} {
		if rapid.IntRange(0, 9).Draw(t, "no "+key) == 0 {
			continue
		}
		g := GroupV1{
			Keys: []string{key}, Tried: rapid.IntRange(0, 5).Draw(t, "untried") > 0, Seq: rapid.Uint64Range(0, 4).Draw(t, "acted"),
			Protocol: rapid.SampledFrom([]string{"", "HTTP", "TCP"}).Draw(t, "protocol"),
			State: rapid.SampledFrom([]string{
				registrar.StateOK, registrar.StateOK, registrar.StateDenied, registrar.StateGone, registrar.StateThrottled,
			}).Draw(t, "state"),
		}
		if rapid.IntRange(0, 9).Draw(t, "left") == 0 {
			g.Keys, g.Name = nil, key
		}
		s.Groups = append(s.Groups, g)
	}
	for range rapid.IntRange(0, 3).Draw(t, "rows") {
		r := Row{
			Run: judgedRun(rapid.SampledFrom([]string{"web-1", "web-22"}).Draw(t, "run")), Why: "because",
			Group: rapid.SampledFrom([]string{"web", "api", "dns", ""}).Draw(t, "group"),
			State: rapid.SampledFrom(States()).Draw(t, "row"),
		}
		if r.State.AtLoadBalancer() || r.State == Draining || r.State == Unclaimed || rapid.Bool().Draw(t, "has a target") {
			r.Target = target.Target{ID: judgedInstance, Port: 32768}
		}
		s.Rows = append(s.Rows, r)
	}
	return s
}

// judged is one answer of a judge.
type judged struct {
	answer string
	reason Reason
	next   time.Time
}

// drawJudge draws a departure or an arrival that begins at a time.
func drawJudge(t *rapid.T, begun time.Time) func(*V1, time.Time) judged {
	o := DepartureOptions{
		Seq:     rapid.Uint64Range(0, 3).Draw(t, "drained at"),
		Refusal: rapid.SampledFrom([]Refusal{RefusalEndsLast, RefusalEndsActed, RefusalEndsAtOnce, RefusalEndsNothing}).Draw(t, "refusal"),
	}
	second := func(most int, name string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Second
	}
	if rapid.Bool().Draw(t, "ends") {
		o.Latest = begun.Add(second(240, "latest"))
	}
	if rapid.Bool().Draw(t, "must see") {
		o.Sight = begun.Add(second(60, "sight"))
	}
	if rapid.Bool().Draw(t, "settles as told") {
		settle := second(30, "settle")
		o.Settle = &settle
	}
	if rapid.Bool().Draw(t, "known before") {
		o.Before = drawStatus(t)
	}
	departure := func(d *Departure) func(*V1, time.Time) judged {
		return func(s *V1, now time.Time) judged {
			phase, next := d.Judge(s, now)
			return judged{string(phase), d.Reason(), next}
		}
	}
	arrival := func(a *Arrival) func(*V1, time.Time) judged {
		return func(s *V1, now time.Time) judged {
			outcome, next := a.Judge(s, now)
			return judged{string(outcome), a.Reason(), next}
		}
	}
	group := rapid.SampledFrom([]string{"", "web"}).Draw(t, "in")
	return rapid.SampledFrom([]func(*V1, time.Time) judged{
		departure(RunDeparture("web-1", judgedRun("web-1"), o)),
		departure(HostDeparture(o)),
		departure(NamedDeparture("web-1", group)),
		departure(TargetDeparture("web", target.Target{ID: judgedInstance, Port: 32768})),
		arrival(NamedArrival("web-1", group, GoalHealthy, "")),
		arrival(NamedArrival("web-1", group, GoalRegistered, "")),
		arrival(HostArrival([]string{"web"})),
		arrival(WantsArrival(3)),
	}).Draw(t, "judge")
}

// Whoever waits for a newer status or for the time that a judge names misses nothing: between now and then, and for ever
// where none is named, the answer for that status stays as it is. Asking again changes nothing.
func TestJudges_next(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := judgedStart
		judge := drawJudge(t, now)
		for range rapid.IntRange(1, 6).Draw(t, "statuses") {
			s := drawStatus(t)
			first := judge(s, now)
			if again := judge(s, now); again != first {
				t.Fatalf("asked twice at once: %+v, then %+v", first, again)
			}
			if !first.next.IsZero() && !first.next.After(now) {
				t.Fatalf("%+v at %v: next is not in the future", first, now)
			}
			// Several times, so that an answer that depends on how often one asks is found, too.
			for range rapid.IntRange(0, 3).Draw(t, "times") {
				most := 400 * time.Second
				if !first.next.IsZero() {
					most = first.next.Sub(now) - 1
				}
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, "passes")))
				if later := judge(s, now); later.answer != first.answer || !later.next.Equal(first.next) {
					t.Fatalf("%+v, and %v after the beginning, before it may change: %+v", first, now.Sub(judgedStart), later)
				}
			}
			if rapid.Bool().Draw(t, "time is up") && !first.next.IsZero() {
				now = first.next
				if later := judge(s, now); later.answer == first.answer {
					t.Fatalf("%+v, and just so when it may change: %+v", first, later)
				}
			}
		}
	})
}
