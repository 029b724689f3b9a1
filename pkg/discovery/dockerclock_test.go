package discovery

import (
	"testing"
	"testing/synctest"
	"time"
)

// What the clock showed when is known for as long as this process looks at it.
func TestDockerClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &settable{by: 30 * 24 * time.Hour}
		c := newDockerClock(engine, 10*time.Minute)
		type moment struct{ ours, shown time.Time }
		var all []moment
		pass := func(d time.Duration) moment {
			time.Sleep(d)
			c.look()
			m := moment{time.Now(), engine.Clock()}
			all = append(all, m)
			return m
		}
		for _, step := range []time.Duration{0, -time.Hour, 2 * time.Hour, -30 * time.Minute, 0, time.Minute, -24 * time.Hour} {
			before := engine.Clock()
			pass(time.Second)
			engine.by += step
			after := pass(time.Second)
			from, steady := c.docker(after.ours.Add(-1500 * time.Millisecond))
			if want := before.Add(500 * time.Millisecond); from.After(want) || step >= 0 && !from.Equal(want) || steady != (step == 0) {
				t.Errorf("after a step of %s: begins at %s, steady %t; want %s or earlier", step, from, steady, want)
			}
			pass(3 * time.Second)
			pass(5 * time.Second)
		}
		for i, m := range all {
			twice := false // the clock has shown it again
			for _, later := range all[i+1:] {
				twice = twice || !later.shown.After(m.shown)
			}
			at, known := c.ours(m.shown)
			if !known || twice && at.Before(m.ours) || !twice && at.Sub(m.ours).Abs() > time.Millisecond {
				t.Errorf("%d: what it showed at %s: got %s, known %t, shown twice %t", i, m.ours, at, known, twice)
			}
		}
		if _, known := c.ours(engine.Clock().Add(25 * time.Hour)); known {
			t.Error("a time that it never showed is known")
		}
		old := newDockerClock(engine, 10*time.Minute)
		if at, known := old.ours(engine.Clock().Add(time.Hour)); known || !at.Equal(time.Now().Add(-10*time.Minute)) {
			t.Errorf("a time from before this process: got %s, known %t", at, known)
		}
		if at, known := old.ours(time.Time{}); !known || !at.IsZero() {
			t.Errorf("what never happened: got %s, known %t", at, known)
		}
		for range 1000 {
			engine.by += time.Second
			c.look()
		}
		if n := len(c.reigns); n > reignsMost {
			t.Errorf("%d settings are remembered", n)
		}
	})
}

// The clock is set forward by less than passes between two looks: what was dated just before that may have been at two times,
// and is not taken for older than it is.
func TestDockerClock_ours_stepBetweenLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &settable{}
		c := newDockerClock(engine, 10*time.Minute)
		time.Sleep(4 * time.Second)
		happened, dated := time.Now(), engine.Clock()
		time.Sleep(10 * time.Millisecond)
		engine.by += 3 * time.Second
		time.Sleep(500 * time.Millisecond)
		c.look()
		if at, known := c.ours(dated); !known || at.Sub(happened).Abs() > time.Millisecond {
			t.Errorf("it happened at %s: got %s, known %t", happened, at, known)
		}
	})
}

// Each step of the clock is told once to whoever looks, also if what Docker has dated showed it first.
func TestDockerClock_look_seenByOthersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &settable{}
		c := newDockerClock(engine, 10*time.Minute)
		for _, step := range []time.Duration{-time.Hour, 10 * time.Minute} {
			time.Sleep(time.Second)
			engine.by += step
			c.ours(engine.Clock())
			c.docker(time.Now())
		}
		if step := c.look(); step != -50*time.Minute {
			t.Errorf("got %s; want both steps", step)
		}
		if step := c.look(); step != 0 {
			t.Errorf("looked again: got %s; want that nothing was set", step)
		}
	})
}

// Drains are dated anew when the clock was set, whoever has noticed it: a later agent knows what the clock shows then alone.
func TestState_clockSet_heardFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &settable{}
		w, err := New(engine, nil, func(*Snapshot) {}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := newState(w)
		s.putDrain(Drain{ID: "a", Container: "a", Cause: CauseStopSignal, Hold: HoldRun, Since: s.now()})
		s.step()
		<-w.saves
		time.Sleep(time.Second)
		engine.by = -time.Hour
		w.clock.ours(engine.Clock()) // an event comes
		s.step()
		select {
		case sv := <-w.saves:
			if len(sv.drains) != 1 {
				t.Errorf("saved: %+v; want the drain", sv.drains)
			}
		default:
			t.Error("the drains on disk keep the old clock's dates")
		}
	})
}
