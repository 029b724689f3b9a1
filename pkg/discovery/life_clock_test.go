package discovery

import (
	"testing"
	"testing/synctest"
	"time"
)

// settable is an engine whose clock is set.
type settable struct {
	Engine
	by time.Duration
}

func (s *settable) Clock() time.Time { return time.Now().Add(s.by).Round(0) }

// clockLife is a life of a container that has run for ten minutes, on a host whose clock has just been set.
type clockLife struct {
	*life
	engine *settable
	clock  *dockerClock
	timing Timing
}

// steps are how clocks are set: forward, back, and back across all that is known of the container.
var steps = []time.Duration{time.Hour, 5 * time.Minute, -5 * time.Minute, -time.Hour}

// afterStep calls f with a life of which this process knows all, after each step of the clock.
func afterStep(t *testing.T, f func(t *testing.T, l *clockLife)) {
	for _, step := range steps {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine := &settable{by: 3 * time.Hour}
				l := &clockLife{life: newLife("web-1"), engine: engine, clock: newDockerClock(engine, 10*time.Minute), timing: Timing{}.withDefaults()}
				time.Sleep(time.Hour)
				l.tell(ActionStart, "")
				l.answer("running", engine.Clock())
				time.Sleep(10 * time.Minute)
				l.seenRunning(time.Now())
				time.Sleep(time.Second)
				l.clock.look()
				engine.by += step
				f(t, l)
			})
		})
	}
}

func (l *clockLife) c() circumstances { return circumstances{now: time.Now(), timing: l.timing} }

// tell has the container's stream bring an event now.
func (l *clockLife) tell(action, signal string) heard {
	at, _ := l.clock.ours(l.engine.Clock())
	return l.hear(Event{Action: action, Container: l.id, Signal: signal, Time: at}, l.c())
}

// answer has an inspection answer now.
func (l *clockLife) answer(state string, started time.Time) (stopAt time.Time) {
	since, _ := l.clock.ours(started)
	return l.accept(Facts{ID: l.id, State: state, StartedAt: started}, since, time.Now(), l.c(), nil)
}

// What a stream brings is new, whatever the clock showed before: a stop signal takes the run out.
func TestLife_clockSet_stopSignal(t *testing.T) {
	afterStep(t, func(t *testing.T, l *clockLife) {
		time.Sleep(10 * time.Minute)
		if h := l.tell(ActionKill, "15"); !h.stopAt.Equal(time.Now()) {
			t.Errorf("got %+v; want it to be taken out", h)
		}
	})
}

// So does a death, without an inspection that has to answer first.
func TestLife_clockSet_death(t *testing.T) {
	afterStep(t, func(t *testing.T, l *clockLife) {
		time.Sleep(10 * time.Minute)
		if h := l.tell(ActionDie, ""); !h.changed || l.running() {
			t.Errorf("got %+v; want it to be taken out", h)
		}
	})
}

// A start after a death is another run's, which an inspection has to tell about.
func TestLife_clockSet_start(t *testing.T) {
	for _, later := range []time.Duration{2 * time.Second, 30 * time.Minute} {
		afterStep(t, func(t *testing.T, l *clockLife) {
			l.tell(ActionDie, "")
			l.answer("exited", l.facts.StartedAt)
			time.Sleep(later)
			if h := l.tell(ActionStart, ""); !h.ask {
				t.Errorf("%s after the death: got %+v; want an inspection", later, h)
			}
			l.answer("running", l.engine.Clock())
			time.Sleep(time.Second)
			if h := l.tell(ActionKill, "15"); h.stopAt.IsZero() {
				t.Errorf("a stop signal of the next run: got %+v; want it to be taken out", h)
			}
		})
	}
}

// A list that is begun after all else that is known counts.
func TestLife_clockSet_list(t *testing.T) {
	for _, later := range []time.Duration{time.Second, time.Minute, 30 * time.Minute} {
		afterStep(t, func(t *testing.T, l *clockLife) {
			time.Sleep(later)
			if s := (&state{}); s.newer(l.life, time.Now()) {
				t.Errorf("%s later: the list does not count", later)
			}
		})
	}
}

// What comes late is old news all the same: what happened before the clock was set is told after it.
func TestLife_clockSet_oldNews(t *testing.T) {
	afterStep(t, func(t *testing.T, l *clockLife) {
		before := l.engine.Clock()
		l.clock.look()
		at, known := l.clock.ours(before.Add(-l.engine.by + 3*time.Hour).Add(-time.Minute)) // as the clock showed it then
		if !known || time.Since(at) < 59*time.Second || time.Since(at) > time.Minute+time.Second {
			t.Fatalf("a minute before the step: got %s ago, known %t", time.Since(at), known)
		}
		l.seenRunning(time.Now())
		if h := l.hear(Event{Action: ActionDie, Container: l.id, Time: at}, l.c()); h.changed || !l.running() {
			t.Errorf("got %+v; want it to be old news", h)
		}
	})
}
