package model

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

// action is one step of a run.
type action struct {
	what  string
	which int
	wait  time.Duration // afterwards
}

// weights say how often each thing is done.
var weights = []struct {
	times int
	what  []string
}{
	{4, []string{"run"}},
	{2, []string{"start", "stop", "restart", "term", "hup", "swap"}},
	{1, []string{"again", "stop waiting", "int", "usr2", "stop with int"}},
	{2, []string{"clock back", "clock forward"}},
	{1, []string{"cut often", "down and up often"}},
	{1, []string{"die", "remove", "flap", "quit", "pause", "unpause", "disconnect", "connect", "join", "leave"}},
	{1, []string{"drain", "drain the host", "undrain", "undrain", "unhealthy", "healthy", "healthy", "healthy"}},
	{1, []string{"cut", "tamper", "fail inspects", "fail list", "hang inspect", "down", "reboot", "reboot unannounced", "restart agent"}},
	{2, []string{"straight", "heal", "up", "api down", "stale inspection", "stale list", "dies unseen"}},
	{1, []string{"drain name", "replace"}},
	{2, []string{"replace drained", "restart agent, drains unread"}},
	{1, []string{"aws lost", "aws fails", "aws throttles", "by hand", "withhold", "publish all"}},
	{2, []string{"aws late", "aws well", "late and stopped", "stopped in the queue", "stopped when throttled", "removed when throttled"}},
	{1, []string{"aws refuses", "refused and drained", "misname", "misname and restart", "name well"}},
	{1, []string{"log hangs", "log goes on"}},
}

var (
	things = sync.OnceValue(func() []string {
		var names []string
		for _, w := range weights {
			for range w.times {
				names = append(names, w.what...)
			}
		}
		return names
	})
	waits = []time.Duration{
		0, 0, 0, 10 * time.Millisecond, time.Second, 5 * time.Second, 40 * time.Second, 40 * time.Second, 3 * time.Minute,
	}
)

func drawActions(t *rapid.T) []action {
	one := rapid.Custom(func(t *rapid.T) action {
		return action{
			what: rapid.SampledFrom(things()).Draw(t, "what"), which: draw(t, 20, "which"), wait: rapid.SampledFrom(waits).Draw(t, "wait"),
		}
	})
	n := 1 + draw(t, 24, "length")
	return rapid.SliceOfN(one, n, n).Draw(t, "actions")
}

// draw draws evenly from 0 to n-1; rapid's own ranges prefer what is small.
func draw(t *rapid.T, n int, label string) int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return rapid.SampledFrom(all).Draw(t, label)
}

// play plays the actions and returns what went wrong, and what was done.
func play(actions []action, seed uint64) (problems, log []string) {
	w := newWorld(seed)
	synctest.Wait()
	for range 1 + w.rand.IntN(4) {
		w.run()
	}
	time.Sleep(time.Minute)
	for _, a := range actions {
		w.mu.Lock()
		w.log = append(w.log, fmt.Sprintf("%s %s %d, then %s", clock(time.Now()), a.what, a.which, a.wait))
		w.note()
		w.mu.Unlock()
		w.do(a)
		synctest.Wait()
		w.check()
		w.pass(a.wait)
		if w.wrong() {
			break
		}
	}
	if !w.wrong() {
		w.quiesce()
	}
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problems, w.log
}

func (w *world) wrong() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.problems) > 0
}

func (w *world) container(n int) string {
	ids := w.engine.IDs()
	if len(ids) == 0 {
		return ""
	}
	return ids[n%len(ids)]
}

// run runs another container, if there are not too many, and returns its id.
func (w *world) run() string {
	ids := w.engine.IDs()
	if len(ids) >= 20 {
		return ids[w.rand.IntN(len(ids))]
	}
	return w.runFor([...]string{"web", "web", "api", careful, ""}[w.rand.IntN(5)])
}

// runFor runs another container for a service; "" is none of them.
func (w *world) runFor(service string) string {
	labels := map[string]string{discovery.TargetsLabel: service}
	if service == "" {
		labels = nil // somebody else's application, which takes ports all the same
	} else if w.rand.IntN(3) == 0 {
		labels[discovery.StopSignalsLabel] = "INT"
	}
	return w.create("", labels)
}

// create runs a container of that name; empty: one of its own.
func (w *world) create(name string, labels map[string]string) string {
	id := w.engine.Create(enginetest.Spec{
		Name: name, Labels: labels, Ports: []string{"8080"}, StopSignal: [...]string{"", "SIGQUIT"}[w.rand.IntN(2)], Healthcheck: labels[discovery.TargetsLabel] == careful,
	})
	if w.rand.IntN(2) == 0 {
		w.join(id)
	}
	w.engine.Start(id)
	return id
}

func (w *world) touch(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wanted, id)
}

func (w *world) do(a action) {
	id := w.container(a.which)
	switch a.what {
	case "hup":
		w.signal(id, 1)
	case "term":
		w.signal(id, 15)
	case "quit":
		w.signal(id, 3) // tells those to stop whose StopSignal it is
	case "int":
		w.signal(id, 2) // tells those to stop whose label says so
	case "usr2":
		w.signal(id, 12) // those whose group says so
	case "clock back", "clock forward", "cut often", "down and up often":
		w.often(a.what)
	case "stale inspection", "stale list", "dies unseen", "late and stopped", "stopped in the queue", "stopped when throttled",
		"removed when throttled", "refused and drained":
		w.together(a.what, id)
	case "cut", "tamper", "straight", "fail inspects", "fail list", "hang inspect", "heal", "up", "restart agent",
		"restart agent, drains unread", "withhold", "publish all", "misname", "misname and restart", "name well":
		w.misbehave(a.what, id)
	case "log hangs":
		w.stderr.hang()
	case "log goes on":
		w.stderr.goOn()
	case "drain":
		w.drain(id)
	case "drain name":
		w.drainName(id)
	case "replace drained": // as deploy tools do
		w.drainName(id)
		w.touch(id)
		w.happens(func() { w.live("replace", id) })
	case "drain the host":
		w.drain("")
	case "undrain":
		w.undrain()
	case "healthy":
		w.health(id, discovery.HealthHealthy)
	case "unhealthy":
		w.health(id, discovery.HealthUnhealthy)
	case "down", "api down", "reboot", "reboot unannounced":
		w.happens(func() { w.misbehave(a.what, id) })
	case "run", "start", "again", "stop waiting", "stop with int", "restart", "swap", "replace", "flap", "stop", "die", "remove", "pause", "unpause",
		"disconnect", "connect", "join", "leave":
		if a.what != "run" {
			w.touch(id)
		}
		w.happens(func() { w.live(a.what, id) })
	default:
		w.aws(a.what)
	}
}

// drain drains a container, or the host.
func (w *world) drain(id string) {
	if id == "" && len(w.engine.IDs()) == 0 {
		return
	}
	w.mu.Lock()
	w.note()
	delete(w.wanted, id)
	if id == "" {
		clear(w.wanted)
	}
	if !w.drained[id] {
		w.unsaved(func() { delete(w.drained, id) })
	}
	w.drained[id] = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// It waits for a publication, which may be long in coming where Docker has not answered yet. The drain holds anyway.
	_, _ = w.agent.Drain(ctx, discovery.Drain{Container: id, Cause: discovery.CauseOperator, Hold: discovery.HoldKeep})
}

// unsaved has a drain that cannot be saved yet end with the agent: whoever asked for it was told so.
func (w *world) unsaved(end func()) {
	if w.store.unread() {
		w.ends = append(w.ends, end)
	}
}

// drainName drains a container by its name.
func (w *world) drainName(id string) {
	f, ok := w.engine.Facts(id)
	if !ok {
		return
	}
	w.mu.Lock()
	w.note()
	delete(w.wanted, id)
	if !w.names[f.Name] {
		w.unsaved(func() { delete(w.names, f.Name) })
	}
	w.names[f.Name] = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = w.agent.Drain(ctx, discovery.Drain{Container: id, Name: f.Name, Cause: discovery.CauseOperator}) // as above
}

// undrain ends all drains of the operator's. What was drained before an agent that cannot read it yet is ended when it can.
func (w *world) undrain() {
	if w.store.unread() {
		return
	}
	w.mu.Lock()
	var drains []string
	for id := range w.drained {
		drains = append(drains, discovery.DrainID(discovery.CauseOperator, id))
	}
	for name := range w.names {
		drains = append(drains, discovery.NameDrainID(discovery.CauseOperator, name))
	}
	clear(w.drained)
	clear(w.names)
	w.mu.Unlock()
	slices.Sort(drains)
	for _, id := range drains {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, _ = w.agent.Undrain(ctx, id) // those of removed containers are gone
		cancel()
	}
}

// health has the HEALTHCHECK of a container report something, if it has one.
func (w *world) health(id string, h discovery.Health) {
	f, _ := w.engine.Facts(id)
	if f.Labels[discovery.TargetsLabel] != careful || !alive(f) {
		return
	}
	w.touch(id)
	if h == discovery.HealthHealthy {
		w.mu.Lock()
		w.healthy[keyOf(id, f.StartedAt)] = true
		w.mu.Unlock()
	}
	w.happens(func() { w.engine.SetHealth(id, h) })
}

// live has something happen to a container that is its own affair.
func (w *world) live(what, id string) {
	switch what {
	case "run":
		w.run()
	case "start":
		w.restart(id, func() {})
	case "again":
		w.startedBy(w.engine.StartAgain, id)
	case "stop waiting":
		w.engine.StopWaiting(id)
	case "stop with int":
		w.engine.StopWith(id, 2, 130)
	case "restart":
		w.restart(id, func() { w.engine.Stop(id) })
	case "swap":
		w.restart(id, func() { w.engine.Stop(id); w.run() }) // which gets the port that has just become free
	case "replace":
		f, ok := w.engine.Facts(id)
		w.engine.Remove(id)
		if ok {
			w.create(f.Name, f.Labels)
		}
	case "flap":
		for range 2 + w.rand.IntN(8) {
			w.restart(id, func() { w.engine.Stop(id) })
		}
	case "stop":
		w.engine.Stop(id)
	case "die":
		w.engine.Die(id, 1)
	case "remove":
		w.engine.Remove(id)
	case "pause":
		w.engine.Pause(id)
	case "unpause":
		w.engine.Unpause(id)
	case "disconnect":
		w.engine.Disconnect(id)
	case "connect":
		w.engine.Connect(id)
	case "join":
		w.join(id)
	case "leave":
		w.engine.Leave(id, "second")
	}
}

// restart starts a container after something else.
func (w *world) restart(id string, first func()) {
	first()
	w.startedBy(w.engine.Start, id)
}

// startedBy starts a container, by hand or by its restart policy.
func (w *world) startedBy(start func(id string), id string) {
	w.mu.Lock()
	if f, _ := w.engine.Facts(id); !alive(f) {
		delete(w.leaving, id)
	}
	w.mu.Unlock()
	start(id)
}

// join puts a container into a second network: that the first is gone says nothing any more of its ports.
func (w *world) join(id string) {
	w.mu.Lock()
	w.joined[id] = true
	w.mu.Unlock()
	w.engine.Join(id, "second")
}
