package discovery

import (
	"maps"
	"slices"
	"time"

	"berth/pkg/target"
)

// startSlack is how long after StartedAt a start event may still announce the same run.
const startSlack = 30 * time.Second

// life is what the watcher remembers of one container: the facts of the last inspection, and what was heard since. It
// belongs to the watcher's loop. Its methods ask nobody anything.
//
// All times are on this process's monotonic clock, those of events and of a run's beginning translated from Docker's
// (clock.go). A stream begins a little in the past, so old news arrives after new. Inspections and lists are younger than the
// moment they were begun. What an event says about the past of something known to be alive later (aliveAt) is old news: it
// takes nothing out.
type life struct {
	id           string
	facts        *Facts    // of the last accepted inspection; nil: none yet. Never changed in place
	since        time.Time // when the run in facts began
	asOf         time.Time // when that inspection was begun
	aliveAt      time.Time // the latest moment at which an inspection or a list is known to have seen it running
	heardAt      time.Time // of the latest event
	listed       bool      // a list showed it running
	ended        bool      // the run in memory is over
	disconnected bool
	shown        []uint16 // the host ports that the latest list shows; nil: it is older than the inspection
	shownAt      time.Time
	pausedAt     time.Time
	unpausedAt   time.Time
	pausedOut    bool      // the pause has lasted long enough to take it out
	startedAt    time.Time // the latest start heard of
	startDated   time.Time // and its date
	endedAt      time.Time // the latest end heard of, by whichever event
	stoppedAt    time.Time // the latest stop heard of: somebody asked for it
	crashes      int       // in a row, since a person stopped or started it
	wasHealthy   bool
	admitted     map[string]bool
	alsoStops    target.Signals // what else tells it to stop, as its labels and groups say
	signals      []heardSignal  // since the last inspection: which run they are of, and what they mean, it will say
	inspection   inspection
}

// heardSignal is the latest signal of one kind.
type heardSignal struct {
	number int
	at     time.Time
}

// heard is what follows from an event.
type heard struct {
	changed bool      // the wanted set may have changed
	ask     bool      // an inspection is needed
	newer   bool      // inspections begun earlier no longer count
	settled bool      // no inspection is needed any more
	stopAt  time.Time // it was told to stop, then
	overAt  time.Time // every run that began at or before is over
	forget  bool      // the container is gone for good
	delay   time.Duration
}

// circumstances are what a life has to know of its surroundings to understand an event.
type circumstances struct {
	now      time.Time
	timing   Timing
	stopping bool      // a stop signal's drain holds the run in memory
	dated    time.Time // the event's time as Docker wrote it
}

func newLife(id string) *life { return &life{id: id} }

func (l *life) run() target.Run {
	if l.facts == nil {
		return target.Run{ID: l.id}
	}
	return target.Run{ID: l.id, Name: l.facts.Name, StartedAt: l.facts.StartedAt}
}

// running reports whether the run in memory goes on, as far as is known.
func (l *life) running() bool {
	return l.facts != nil && !l.ended && alive(l.facts.State)
}

// alive reports whether a state of Docker's means that the container's processes exist.
func alive(state string) bool { return state == "running" || state == "paused" }

// unknown reports whether the container is there, nobody knows more, and nothing says that it is about to go: what is
// registered for it must stay.
func (l *life) unknown() bool {
	return l.facts == nil && l.listed && !l.ended && !l.signalled()
}

func (l *life) signalled() bool {
	for _, s := range l.signals {
		if stops(s.number, "") {
			return true
		}
	}
	return false
}

// container is the life as Resolve sees it.
func (l *life) container() Container {
	return Container{
		Facts: l.facts, Ended: l.ended, Disconnected: l.disconnected, PausedAt: l.pausedAt,
		Begun: l.since, Crashes: l.crashes, WasHealthy: l.wasHealthy, Admitted: l.admitted,
	}
}

// hear takes in one event that has not been seen before.
func (l *life) hear(e Event, c circumstances) heard {
	if e.Time.After(l.heardAt) {
		l.heardAt = e.Time
	}
	if e.Action == ActionDestroy {
		return heard{changed: true, settled: true, forget: true, overAt: e.Time}
	}
	if e.Action == ActionKill {
		return l.hearKill(e, c)
	}
	if e.Time.Before(l.aliveAt) || l.running() && e.Time.Before(l.since) {
		return heard{ask: l.running()}
	}
	switch e.Action {
	case ActionStart:
		return l.hearStart(e, c)
	case ActionDie:
		l.count(e, c)
		return l.end(e.Time) //mutant:inspects-on-die
	case ActionStop:
		l.crashes, l.stoppedAt = 0, maxTime(l.stoppedAt, e.Time)
		if c.stopping && l.running() {
			return l.end(e.Time)
		}
		return heard{ask: l.running(), newer: true}
	case ActionPause, ActionUnpause:
		return l.hearPause(e, c)
	case ActionHealthy, ActionUnhealthy:
		return l.hearHealth(e)
	case ActionConnect, ActionDisconnect:
		return l.hearNetwork(e, c)
	case ActionRename:
		return heard{ask: l.running(), newer: true}
	}
	return heard{}
}

func (l *life) hearStart(e Event, c circumstances) heard {
	before := l.startedAt
	if e.Time.After(before) {
		l.startedAt, l.startDated = e.Time, c.dated
	}
	l.signals = signalsAfter(l.signals, e.Time)
	over := false
	switch {
	case l.facts == nil:
		over = true // whatever is registered for it is of an earlier run
	case !l.ended:
		// The run in memory has announced its start before, or cannot be announced so late: this is another one's.
		announced := !before.IsZero() && !before.Before(l.since)
		over = announced && e.Time.After(before) || e.Time.Sub(l.since) > startSlack
	}
	if over {
		l.ended = true
	}
	return heard{changed: over, ask: true, newer: true}
}

// hearKill notes a signal. It takes the run out if it is a stop signal, and if it is this run's.
func (l *life) hearKill(e Event, c circumstances) heard {
	n, ok := target.ParseSignal(e.Signal)
	if !ok {
		return heard{ask: l.running(), newer: true}
	}
	if l.facts != nil && c.now.Sub(e.Time) >= c.timing.survivor(l.facts) {
		return heard{} // whoever lives on after so long is a survivor
	}
	if l.facts != nil && !l.stops(n, l.facts) { //mutant:acts-on-hup
		return heard{}
	}
	// It is kept until the next inspection, also when it is taken for the run in memory: a later run may have begun
	// without our knowing, and then it is that one's.
	l.signal(n, e.Time)
	switch {
	case !l.running():
		return heard{changed: l.facts == nil, newer: stops(n, "")}
	case e.Time.Before(l.since):
		return heard{ask: true} // of an earlier run
	}
	return heard{changed: true, newer: true, stopAt: e.Time}
}

// stops reports whether signal n tells the container to stop.
func (l *life) stops(n int, f *Facts) bool { return stops(n, f.StopSignal) || l.alsoStops.Has(n) }

// signal keeps the latest of each kind: at most 64, however many a container gets.
func (l *life) signal(n int, at time.Time) {
	for i := range l.signals {
		if l.signals[i].number == n {
			l.signals[i].at = maxTime(l.signals[i].at, at)
			return
		}
	}
	l.signals = append(l.signals, heardSignal{n, at})
}

// count counts a death that nobody asked for, and forgets earlier ones after a long run or a death that was asked for. Who
// ends with exit code 0 has not crashed: it may have been told to by a signal that is nobody's stop signal.
func (l *life) count(e Event, c circumstances) {
	if !l.running() && !l.endedAt.IsZero() && !l.startedAt.After(l.endedAt) {
		return // stop has said it before die
	}
	asked := c.stopping
	for _, s := range l.signals {
		// Where StopSignal is not known, any signal may have been the one.
		asked = asked || (l.facts == nil || l.stops(s.number, l.facts)) && !s.at.After(e.Time)
	}
	began := l.startedAt
	if l.running() && !l.since.After(e.Time) {
		began = l.since
	}
	asked = asked || !began.IsZero() && !l.stoppedAt.Before(began) // stop, and then die
	if asked || !began.IsZero() && e.Time.Sub(began) >= c.timing.CrashReset {
		l.crashes = 0
	}
	if !asked && e.ExitCode != "0" {
		l.crashes = min(l.crashes+1, 64)
	}
}

// end ends the run in memory.
func (l *life) end(at time.Time) heard {
	l.ended, l.listed, l.disconnected, l.shown = true, false, false, nil
	l.endedAt = maxTime(l.endedAt, at)
	l.pausedAt, l.pausedOut = time.Time{}, false
	l.signals = signalsAfter(l.signals, at)
	return heard{changed: true, newer: true, settled: true, overAt: at}
}

func (l *life) hearPause(e Event, c circumstances) heard {
	if e.Action == ActionPause {
		if e.Time.Before(l.unpausedAt) {
			return heard{ask: l.running(), newer: true}
		}
		if l.pausedAt.IsZero() {
			l.pausedAt = e.Time
		}
		return heard{changed: true, newer: true}
	}
	l.unpausedAt = e.Time
	if !l.pausedOut {
		l.pausedAt = time.Time{} // nothing comes back in: it was a moment, or all of it went unheard
	}
	return heard{changed: true, ask: l.running(), newer: true}
}

func (l *life) hearHealth(e Event) heard {
	if !l.running() {
		return heard{newer: true}
	}
	if e.Action == ActionHealthy {
		return heard{ask: true, newer: true}
	}
	facts := *l.facts
	facts.Health = HealthUnhealthy
	l.facts = &facts
	return heard{changed: true, newer: true}
}

func (l *life) hearNetwork(e Event, c circumstances) heard {
	switch {
	case !l.running(), c.stopping:
		// Before the start, after the death, or on the way out: start and die say all there is to say.
		return heard{newer: true}
	case e.Action == ActionConnect:
		return heard{ask: true, newer: true}
	case l.facts.Networks > 1:
		// Which network carries the published ports is not known, and another one may take them over.
		return heard{ask: true, newer: true}
	}
	l.disconnected = true
	// A container that exits by itself is disconnected before its die: then nobody needs to ask.
	return heard{changed: true, ask: true, newer: true, delay: 250 * time.Millisecond}
}

// begun is when a run began that Docker dates so, if its start was heard: that is known better than what the date means.
func (l *life) begun(dated time.Time) (time.Time, bool) {
	d := l.startDated.Sub(dated)
	return l.startedAt.Add(-d), !l.startDated.IsZero() && d >= 0 && d <= startSlack
}

// accept takes in an inspection of a run since the given time, which was begun at another and which nothing newer
// contradicts. It returns the time of a stop signal that this run has got, or zero.
func (l *life) accept(f Facts, since, began time.Time, c circumstances, admitted map[string]bool) (stopAt time.Time) {
	same := l.facts != nil && l.facts.StartedAt.Equal(f.StartedAt)
	wasPaused := l.pausedAt
	if !same {
		l.since = since
		l.wasHealthy, l.pausedAt = false, time.Time{}
		if f.Restarts == 0 {
			l.crashes = 0 // a person started it, or the engine when it was started itself
		}
		l.admitted = maps.Clone(admitted)
	}
	l.facts, l.asOf = &f, began
	l.ended, l.disconnected, l.listed, l.shown = !alive(f.State), false, false, nil
	if !l.ended && began.After(l.aliveAt) {
		l.aliveAt = began
	}
	switch {
	case f.State != "paused":
		l.pausedAt = time.Time{}
	case !wasPaused.IsZero():
		l.pausedAt = wasPaused
	case len(l.admitted) > 0:
		l.pausedAt = began // the moment's grace is for those that are in
	default:
		l.pausedAt = l.since
	}
	l.pausedOut = l.pausedOut && !l.pausedAt.IsZero()
	l.wasHealthy = l.wasHealthy || f.Health == HealthHealthy
	for _, s := range l.signals {
		if !s.at.Before(l.since) && l.stops(s.number, &f) && s.at.After(stopAt) {
			stopAt = s.at
		}
	}
	l.signals = nil
	if l.ended || c.now.Sub(stopAt) >= c.timing.survivor(&f) {
		return time.Time{}
	}
	return stopAt
}

// admit notes that this run is wanted in group.
func (l *life) admit(group string) {
	if l.admitted[group] {
		return
	}
	if l.admitted == nil {
		l.admitted = make(map[string]bool, 1)
	}
	l.admitted[group] = true
}

// seenRunning takes in a list's line that was read at or after the given time.
func (l *life) seenRunning(at time.Time) {
	l.aliveAt = maxTime(l.aliveAt, at)
	if l.facts == nil {
		l.listed, l.ended = true, false
	}
}

// withdraw takes the container out if a list has shown, after all else that is known of it, that it has lost a host port.
// It is for when no inspection answers: one would say more, and a list may be a moment behind.
func (l *life) withdraw() (changed bool) {
	if !l.running() || l.disconnected || l.shown == nil || l.heardAt.After(l.shownAt) {
		return false
	}
	for _, port := range hostPorts(l.facts) {
		if !slices.Contains(l.shown, port) {
			l.disconnected = true
			return true
		}
	}
	return false
}

func signalsAfter(signals []heardSignal, at time.Time) []heardSignal {
	var kept []heardSignal
	for _, s := range signals {
		if s.at.After(at) {
			kept = append(kept, s)
		}
	}
	return kept
}

func maxTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
