package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// manager is the service manager's end: what it was told, and after which time.
type manager struct {
	began time.Time
	told  []string
	at    []time.Duration
	err   error
}

func (m *manager) send(state string) error {
	m.told, m.at = append(m.told, state), append(m.at, time.Since(m.began))
	return m.err
}

// when returns when it was first told exactly this; -1: never.
func (m *manager) when(state string) time.Duration {
	if i := slices.Index(m.told, state); i >= 0 {
		return m.at[i]
	}
	return -1
}

func (m *manager) count(state string) (n int) {
	for _, s := range m.told {
		if s == state {
			n++
		}
	}
	return n
}

// telling is an agent whose groups tell of news.
type telling struct {
	mu              sync.Mutex // guards all below
	status, waiting string
	counts          bool
	news            chan struct{}
	read            int // times
}

func (a *telling) outlook() outlook {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read++
	if a.news == nil {
		a.news = make(chan struct{})
	}
	return outlook{waiting: a.waiting, status: a.status, counts: a.counts, aws: a.news}
}

// after has the agent change after d, and tell of it.
func (a *telling) after(d time.Duration, change func()) {
	time.AfterFunc(d, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		change()
		if a.news != nil {
			close(a.news)
			a.news = nil
		}
	})
}

// notified runs a notifier for d of fake time, changed by prepare, which may start what happens meanwhile.
func notified(t *testing.T, d time.Duration, prepare func(*notifier, *manager, *telling)) (*manager, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	m := &manager{}
	synctest.Test(t, func(t *testing.T) {
		m.began = time.Now()
		a := &telling{status: "1 target in 1 group"}
		n := &notifier{send: m.send, alive: func() error { return nil }, outlook: a.outlook, log: zap.New(core)}
		prepare(n, m, a)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		if err := n.run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return m, logs
}

func TestNotifier_readyWhenEveryGroupWasTried(t *testing.T) {
	m, logs := notified(t, time.Minute, func(_ *notifier, _ *manager, a *telling) {
		a.waiting, a.status = "target_group web: not tried yet", "waiting for target_group web: not tried yet"
		a.after(5*time.Second, func() { a.waiting, a.status = "", "waiting for " })
	})
	if got := m.when("STATUS=waiting for target_group web: not tried yet"); got < 0 || got > time.Second {
		t.Errorf("told what it waits for after %v; want at once", got)
	}
	ready := "READY=1\nSTATUS=waiting for "
	if got := m.when(ready); got < 5*time.Second || got > 6*time.Second {
		t.Errorf("ready after %v; want 5s. Told: %q", got, m.told)
	}
	if got := m.count(ready); got != 1 {
		t.Errorf("ready was told %d times; want once", got)
	}
	if logs.Len() != 0 {
		t.Errorf("log has %v; want nothing", logs.All())
	}
}

func TestNotifier_readyAfterHalfAMinuteAtTheLatest(t *testing.T) {
	m, logs := notified(t, 2*time.Minute, func(_ *notifier, _ *manager, a *telling) {
		a.waiting, a.status = "docker: not reached yet", "0 targets, waiting for docker:\nnot reached yet"
	})
	const ready = "READY=1\nSTATUS=0 targets, waiting for docker: not reached yet" // a status is one line
	if got := m.when(ready); got != readyWithin {
		t.Errorf("ready after %v; want %v. Told: %q", got, readyWithin, m.told)
	}
	if logs.FilterField(zap.String("waiting_for", "docker: not reached yet")).Len() != 1 {
		t.Errorf("log has %v; want one line about what it waits for", logs.All())
	}
}

func TestNotifier_statusIsCurrentAndNotRepeated(t *testing.T) {
	const began, changed = "READY=1\nSTATUS=1 target in 1 group", "STATUS=2 targets in 1 group"
	var a *telling
	m, _ := notified(t, time.Hour, func(_ *notifier, _ *manager, told *telling) {
		a = told
		a.after(10*time.Minute, func() { a.status = "2 targets in 1 group" })
	})
	if a.read != 2 {
		t.Errorf("the status was read %d times; want twice: nobody told of more", a.read)
	}
	want := []string{began, changed, "STOPPING=1\nSTATUS=stopping; the targets stay registered"}
	if !slices.Equal(m.told, want) {
		t.Errorf("told %q; want %q", m.told, want)
	}
	if got := m.when(changed); got > 10*time.Minute+statusEvery {
		t.Errorf("another status was told after %v; want 10m and at most %v more", got, statusEvery)
	}
}

// News that come thick and fast are read once a second: a burst of containers is no burst of messages.
func TestNotifier_newsInABurst(t *testing.T) {
	var a *telling
	m, _ := notified(t, time.Minute, func(_ *notifier, _ *manager, told *telling) {
		a = told
		for i := range 1000 {
			a.after(10*time.Second+time.Duration(i)*time.Millisecond, func() { a.status = fmt.Sprint(i+2, " targets in 1 group") })
		}
	})
	if last := "STATUS=1001 targets in 1 group"; m.count(last) != 1 || len(m.told) > 5 {
		t.Errorf("told %q; want the last status once, and few before it", m.told)
	}
}

// Each half of what the agent knows tells of its own news.
func TestNotifier_newsOfEach(t *testing.T) {
	for name, of := range map[string]func(*outlook, <-chan struct{}){
		"containers":           func(o *outlook, news <-chan struct{}) { o.docker = news },
		"target groups":        func(o *outlook, news <-chan struct{}) { o.aws = news },
		"connection to Docker": func(o *outlook, news <-chan struct{}) { o.stream = news },
		"host":                 func(o *outlook, news <-chan struct{}) { o.host = news },
	} {
		m, _ := notified(t, time.Hour, func(n *notifier, _ *manager, a *telling) {
			n.outlook = func() outlook {
				o := a.outlook()
				news := o.aws
				o.aws = nil
				of(&o, news)
				return o
			}
			a.after(10*time.Minute, func() { a.status = "2 targets in 1 group" })
		})
		if m.count("STATUS=2 targets in 1 group") != 1 {
			t.Errorf("%s: told %q; want the status that they changed", name, m.told)
		}
	}
}

// A status that says for how long something lasts is another one each second, though nobody has news.
func TestNotifier_statusCounts(t *testing.T) {
	m, _ := notified(t, 10*time.Second, func(n *notifier, m *manager, a *telling) {
		a.counts, a.waiting = true, "identity"
		n.outlook = func() outlook {
			a.status = fmt.Sprintf("waiting for identity, for %s", time.Since(m.began).Round(time.Second))
			return a.outlook()
		}
	})
	if m.count("STATUS=waiting for identity, for 5s") != 1 || m.count("STATUS=waiting for identity, for 6s") != 1 {
		t.Errorf("told %q; want each second once", m.told)
	}
}

func TestNotifier_watchdog(t *testing.T) {
	const stuckAfter, proof = 10 * time.Minute, "WATCHDOG=1"
	m, logs := notified(t, 20*time.Minute, func(n *notifier, m *manager, _ *telling) {
		n.watchdog = 30 * time.Second
		n.alive = func() error {
			if time.Since(m.began) >= stuckAfter {
				return errors.New("watcher has not turned for 31s")
			}
			return nil
		}
	})
	last := time.Duration(0)
	for i, state := range m.told {
		if state != proof {
			continue
		}
		if gap := m.at[i] - last; gap > 15*time.Second {
			t.Errorf("%v between two proofs of life; want half of the watchdog's 30s at most", gap)
		}
		last = m.at[i]
	}
	if last >= stuckAfter || last < stuckAfter-15*time.Second {
		t.Errorf("the last proof came after %v; want just before %v", last, stuckAfter)
	}
	if logs.FilterMessage("the watchdog is told nothing any more").Len() != 1 {
		t.Errorf("log has %v; want one line about the loop that does not turn", logs.All())
	}
}

func TestNotifier_noWatchdogNoProof(t *testing.T) {
	m, _ := notified(t, time.Hour, func(*notifier, *manager, *telling) {})
	if m.count("WATCHDOG=1") != 0 {
		t.Errorf("told %q; want no WATCHDOG=1 where nobody watches", m.told)
	}
}

func TestNotifier_deafManagerIsLoggedOnce(t *testing.T) {
	m, logs := notified(t, time.Hour, func(n *notifier, m *manager, _ *telling) {
		n.watchdog, m.err = 3*time.Second, errors.New("no buffer space available")
	})
	if len(m.told) < 1000 || logs.Len() != 1 {
		t.Errorf("%d sends failed and the log has %d lines; want many and one", len(m.told), logs.Len())
	}
}
