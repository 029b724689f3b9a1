package model

import (
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/target"
	"berth/test/exact"
)

const (
	// patience is how long something wrong may stay that the agent could have known of, though nobody told it.
	patience = 2 * time.Minute
	// prompt is how long a target may stay that the watcher no longer wants, or be missing that it wants, while AWS
	// answers: a few calls and the host's own pace.
	prompt = 5 * time.Second
	// doubt is for how long after a call without a good answer that may take longer: what the call does may come 30 s
	// after its timeout of 3 s, and a look that is begun 10 s after the next write says whether it has.
	doubt = 47 * time.Second
	// moment is less than any wait in the agent, and more than the same instant.
	moment = time.Millisecond
)

// problem writes down what must not be.
func (w *world) problem(format string, args ...any) {
	if len(w.problems) < 5 {
		w.problems = append(w.problems, fmt.Sprintf("%s: ", clock(time.Now()))+fmt.Sprintf(format, args...))
	}
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// truth is which container has which place now, for those that may be served. A container that was told to stop may be
// again when it has outlived that by so much; and, where that is for short, when the agent that runs cannot know when that was.
func (w *world) truth(outlived time.Duration) map[place]string {
	out := map[place]string{}
	for _, id := range w.engine.IDs() {
		f, ok := w.engine.Facts(id)
		service := f.Labels[discovery.TargetsLabel]
		since, told := w.leaving[id]
		told = told && (outlived >= survive || !w.undated(since))
		switch {
		case !ok || !alive(f) || len(f.Published) == 0 || told && time.Since(since) < outlived,
			w.drains(id, f.Name), service == careful && !w.healthy[keyOf(id, f.StartedAt)]:
			continue
		}
		out[place{service, f.Published[0].HostPort}] = id
	}
	return out
}

// undated reports whether the agent that runs cannot know how long ago that time was: the clock was set between it and the
// agent's beginning, or so soon before and after it that the agent has not looked at the clock meanwhile; or the drains of
// that time could not be read.
func (w *world) undated(t time.Time) bool {
	if !t.After(w.lost) {
		return true
	}
	var before time.Time
	for _, at := range w.clockSet {
		switch {
		case !at.After(w.began) && !at.Before(t), !at.Before(t) && at.Sub(before) < 10*time.Second:
			return true
		case !at.After(t):
			before = at
		}
	}
	return false
}

// drains reports whether the operator has drained the container, its name, or the host.
func (w *world) drains(id, name string) bool { return w.drained[""] || w.drained[id] || w.names[name] }

func alive(f discovery.Facts) bool { return f.State == "running" || f.State == "paused" }

// note remembers who is served at this moment: before and after whatever happens. It returns who may be.
func (w *world) note() map[place]string {
	now, may := time.Now(), w.truth(survive-time.Second)
	for p := range may {
		w.served[p] = now
	}
	return may
}

// happens lets something happen to containers, and notes what the agent was told by it. It reports whether the agent has
// heard all of it: its stream was open before, and still is when there is no more to hear.
func (w *world) happens(f func()) (heard bool) {
	synctest.Wait()
	agent, stream, before := w.agent, w.agent.Stream(), map[string]discovery.Facts{}
	for _, id := range w.engine.IDs() {
		before[id], _ = w.engine.Facts(id)
	}
	f()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	after := w.agent.Stream()
	heard = !w.tampered && w.agent == agent && w.snapshot != nil && stream.Up && after.Up && stream.Since.Equal(after.Since)
	for id, f := range before {
		if alive(f) {
			w.tell(id, f, heard)
		}
	}
	return heard
}

// tell compares a container that ran with what it is now.
func (w *world) tell(id string, before discovery.Facts, heard bool) {
	key, now := keyOf(id, before.StartedAt), time.Now()
	f, there := w.engine.Facts(id)
	switch {
	case !there || !alive(f) || !f.StartedAt.Equal(before.StartedAt):
		if heard {
			w.told[key] = told{from: now, why: "its end"}
		}
	case w.told[key].why == stopSignal:
	case len(f.Published) > 0 && len(before.Published) == 0, f.State == "running" && before.State == "paused":
		delete(w.told, key)
	case !heard:
	case len(f.Published) == 0 && len(before.Published) > 0 && !w.joined[id]:
		w.told[key] = told{from: now, why: "the loss of its network"}
	case f.State == "paused" && before.State == "running":
		w.told[key] = told{from: now.Add(5*time.Second + moment), why: "its pause"}
	}
}

const stopSignal = "a stop signal"

// tellsToStop reports whether a signal tells a container to stop: its own, that of its label, or else of its group.
func tellsToStop(f discovery.Facts, signal int) bool {
	stop, _ := target.ParseSignal(f.StopSignal)
	switch label, labelled := f.Labels[discovery.StopSignalsLabel]; {
	case signal == 9, signal == 15, signal == stop:
		return true
	case labelled:
		return label == "INT" && signal == 2
	}
	return f.Labels[discovery.TargetsLabel] == careful && signal == 12
}

// signal sends a signal, and notes whether it tells the container to stop.
func (w *world) signal(id string, signal int) {
	f, _ := w.engine.Facts(id)
	tells := alive(f) && tellsToStop(f, signal)
	if tells {
		w.mu.Lock()
		delete(w.wanted, id)
		if _, before := w.leaving[id]; !before || !w.tampered { // a second signal that is not heard renews nothing
			w.leaving[id] = time.Now()
		}
		w.mu.Unlock()
	}
	if w.happens(func() { w.engine.Signal(id, signal) }) && tells {
		w.mu.Lock()
		w.told[keyOf(id, f.StartedAt)] = told{from: time.Now(), to: time.Now().Add(survive), why: stopSignal}
		w.mu.Unlock()
	}
}

// published takes in what is handed to the registrar. What is withheld is as it was.
func (w *world) published(wants map[string][]target.Want, unknown []string) {
	now := time.Now()
	if w.unknown != (len(unknown) > 0) {
		w.unknown, w.knownAt = len(unknown) > 0, now
	}
	for _, s := range services {
		_, there := wants[s]
		if w.withheld[s] && there {
			w.shown[s] = now
		}
		w.withheld[s] = !there
	}
	for service, list := range wants {
		wanted := map[place]bool{}
		for _, x := range list {
			wanted[place{service, x.HostPort4}] = true
		}
		for p, a := range w.asked {
			if p.service == service && a.wanted && !wanted[p] {
				w.asked[p] = asked{false, now}
				w.removals.due(p, now)
			}
		}
		for p := range wanted {
			if !w.asked[p].wanted {
				w.asked[p] = asked{true, now}
				delete(w.removals.waiting, p)
			}
		}
	}
}

// called judges every call as it is made.
func (w *world) called(c elbsim.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case c.Outcome == "ok":
	case c.Action == "DescribeTargetGroups" && c.Outcome == "TargetGroupNotFound" && len(w.misnamed) > 0:
		return // nothing waits for it
	default:
		w.failed = time.Now()
	}
	if slices.Contains(refusals, c.Outcome) {
		w.throttled = time.Now()
	}
	if c.Outcome == "Throttling" {
		w.throttled = time.Now()
		w.seldom = w.seldom || c.Action == "DescribeTargetHealth"
	}
	service := ""
	for _, s := range services {
		if len(c.Groups) == 1 && strings.Contains(c.Groups[0], "/"+s+"/") {
			service = s
		}
	}
	if w.unknown || time.Since(w.knownAt) < moment {
		clear(w.removals.waiting) // what may be of those is kept
	}
	w.removals.called(&c, service, func(p place, o overdue) {
		w.problem("%v was removed at %s, which was due at %s, after a throttled %s at %s", p, clock(c.Time), clock(o.since), o.before, clock(o.at))
	})
	if c.Action != "RegisterTargets" && c.Action != "DeregisterTargets" {
		return
	}
	if others := exact.Foreign(&c, ours); len(others) > 0 || service == "" {
		w.problem("%s of %v in %q, of which %v are not ours", c.Action, c.Targets, service, others)
		return
	}
	may, must := w.truth(survive-time.Second), w.truth(survive+patience)
	for _, x := range c.Targets {
		p := place{service, x.Port}
		// What is sent is decided when it is sent: it is what the watcher wants, not what it has wanted.
		a := w.asked[p]
		if a.wanted != (c.Action == "RegisterTargets") && c.Time.Sub(a.since) > moment {
			w.problem("%s of %v at %s; that it is wanted: %v since %s", c.Action, p, clock(c.Time), a.wanted, clock(a.since))
		}
		if time.Now().Before(w.askew) {
			continue
		}
		_, allowed := may[p]
		id, needed := must[p]
		switch {
		case c.Action == "RegisterTargets" && !allowed && time.Since(w.served[p]) > 5*time.Second && w.hears():
			w.problem("registered %v, which nobody has served since %s", p, clock(w.served[p]))
		case c.Action == "DeregisterTargets" && needed && w.steady(id, x.Port) && !w.withheld[service]:
			w.problem("deregistered %v though %s serves it and nothing has happened to it", p, id[56:])
		}
	}
}

// hears reports whether the agent has heard for a while of all that happens.
func (w *world) hears() bool {
	return w.agent.Stream().Up && time.Since(w.hearing) > 5*time.Second
}

// steady reports whether a container runs, unpaused, the agent has known it with this port, and nothing has happened to
// it since.
func (w *world) steady(id string, port uint16) bool {
	f, _ := w.engine.Facts(id)
	known, ok := w.wanted[id]
	return ok && f.State == "running" && known.port == port && time.Since(known.since) > 30*time.Second
}

// pass lets time pass, and looks every few seconds.
func (w *world) pass(d time.Duration) {
	for ; d > 0 && !w.wrong(); d -= prompt {
		time.Sleep(min(d, prompt))
		synctest.Wait()
		w.check()
	}
}

// check looks at what is wanted and registered now.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	may, now := w.note(), time.Now()
	if w.snapshot != nil {
		for _, wants := range w.snapshot.Wants {
			for _, x := range wants {
				w.checkWant(x)
			}
		}
	}
	// A stream is opened soon after it has ended, where there is an engine; and later, where there was none for long.
	if stream := w.agent.Stream(); !stream.Up && !stream.Since.IsZero() && !w.engineUp.IsZero() {
		away := max(0, w.engineUp.Sub(stream.Since))
		if blind := now.Sub(laterOf(w.engineUp, stream.Since)); blind > min(31*time.Second, 2*away+2200*time.Millisecond) {
			w.problem("no stream for %s, though the engine was away for no more than %s: %s", blind, away, stream.Err)
		}
	}
	// Nothing is published before the first full list, and what nobody has answered for since the agent began is kept.
	if w.tampered || w.unknown || !w.agent.Stream().Up || w.snapshot == nil {
		w.calm = laterOf(w.calm, now)
		w.hearing = laterOf(w.hearing, now)
	}
	if w.snapshot == nil {
		w.failed = now // it makes no call before it knows what to make true
	}
	for _, s := range services {
		w.checkGroup(s, may)
	}
}

// checkWant looks at one port that is wanted: not of a run that the agent was told is over, or about to be, not of one
// that was never healthy where it has to be, and not of one that is drained.
func (w *world) checkWant(x target.Want) {
	now, key := time.Now(), keyOf(x.Run.ID, x.Run.StartedAt)
	t, was := w.told[key]
	if w.drains(x.Run.ID, x.Run.Name) {
		w.problem("%s:%d is wanted, and it is drained", x.Run.Name, x.HostPort4)
	}
	if x.Group == careful && !w.healthy[key] {
		w.problem("%s:%d is wanted, and it has not been healthy yet", x.Run.Name, x.HostPort4)
	}
	if was && !now.Before(t.from) && (t.to.IsZero() || now.Before(t.to)) &&
		(t.why != stopSignal || !w.undated(t.from)) { // its drain may have been among those that could not be read
		w.problem("%s:%d is wanted, though the agent was told of %s at %s", x.Run.Name, x.HostPort4, t.why, clock(t.from))
	}
	if w.withheld[x.Group] {
		return // the registrar does not know of it
	}
	if f, _ := w.engine.Facts(x.Run.ID); f.StartedAt.Equal(x.Run.StartedAt) && w.wanted[x.Run.ID].port != x.HostPort4 {
		w.wanted[x.Run.ID] = wanted{x.HostPort4, now}
	}
}

// checkGroup looks at what is registered in a group: soon what the watcher wants and nothing else, where AWS answers;
// and nothing for long that nobody serves, where the agent could know; and what is not ours, always.
func (w *world) checkGroup(s string, may map[place]string) {
	now, registered, asked, served := time.Now(), exact.Registered(w.sim, s), exact.Targets{}, exact.Targets{}
	for p, a := range w.asked {
		if p.service == s && a.wanted {
			asked[s] = append(asked[s], p.target())
		}
	}
	for p := range may {
		if p.service == s {
			served[s] = append(served[s], p.target())
		}
	}
	settled := now.Sub(w.failed) > doubt && now.Sub(w.throttled) > time.Hour && !w.withheld[s] && s != w.withhold
	diff := exact.Compare(registered, asked, others(s))
	for _, x := range diff.Gone {
		w.problem("%v is gone, which is not ours", x)
	}
	for _, x := range diff.Stale {
		p := place{s, x.Target.Port}
		if !ours(x.Target) {
			w.problem("%v is registered, which is not ours", x)
		}
		if a := w.asked[p]; settled && !w.unknown && now.Sub(laterOf(laterOf(a.since, w.knownAt), w.shown[s])) > prompt {
			w.problem("%v is registered; it is not wanted since %s, and AWS is well since %s", p, clock(a.since), clock(w.failed))
		}
	}
	for _, x := range exact.Compare(registered, served, others(s)).Stale {
		p := place{s, x.Target.Port}
		if s != w.withhold && now.Sub(laterOf(w.served[p], w.calm)) > patience {
			w.problem("%v is registered, and nobody has served it since %s", p, clock(w.served[p]))
		}
	}
	if w.unserved[s] || !w.byHand.IsZero() && (now.Sub(laterOf(w.byHand, w.failed)) < 10*time.Minute || w.seldom) || !settled {
		return // it is found by looking
	}
	for _, x := range diff.Missing {
		p := place{s, x.Target.Port}
		if a := w.asked[p]; now.Sub(a.since) > prompt {
			w.problem("%v is not registered; it is wanted since %s, and AWS is well since %s", p, clock(a.since), clock(w.failed))
		}
	}
}

// quiesce ends all that is wrong, lets time pass, and compares what is registered with what runs.
func (w *world) quiesce() {
	w.engine.Heal()
	w.engine.Up()
	w.engineIs(true)
	w.straighten()
	w.sim.ClearFaults()
	w.pass(reading)
	w.undrain()
	for _, id := range w.engine.IDs() {
		w.health(id, discovery.HealthHealthy)
	}
	w.mu.Lock()
	w.withhold = ""
	calm := 45 * time.Minute
	if w.seldom {
		calm = 9 * time.Hour // a host whose looks were throttled verifies less often, at worst every six hours and a third
	}
	w.mu.Unlock()
	w.pass(time.Minute)
	w.nameWell()
	w.engine.Cut() // what was left out is published again with the next change; this makes one
	w.pass(doubt + 2*prompt)
	time.Sleep(calm)
	synctest.Wait()
	w.check()
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.leaving) // who runs now is a survivor
	want, left := exact.Targets{}, exact.Targets{}
	for p, id := range w.truth(0) {
		if f, _ := w.engine.Facts(id); p.service != "" && f.State == "running" {
			want[p.service] = append(want[p.service], p.target())
		}
	}
	for _, s := range services {
		left[s] = others(s)[s]
	}
	if err := exact.Compare(exact.Registered(w.sim, services...), want, left).Err(); err != nil {
		w.problem("when all is quiet: %v", err)
	}
}
