package agent

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

const (
	// readyWithin is when systemd is told that the agent is up, whatever it still waits for: what is ordered after it
	// must not wait for AWS.
	readyWithin = 30 * time.Second
	// readyEvery is how often what the agent waits for is read until then, at most.
	readyEvery = 100 * time.Millisecond
	// statusEvery is how often the status is read after that, at most, and how often one that counts seconds is.
	statusEvery = time.Second
)

// outlook is what the service manager may be told at one moment, and how one hears of another.
type outlook struct {
	waiting string // what the agent waits for; empty: every group was tried once
	status  string // one line
	counts  bool   // the status counts seconds, and so is another one soon
	// Each closes when it has news: Docker's containers, the target groups, the connection to Docker, the host.
	docker, aws, stream, host <-chan struct{}
}

// notifier tells the service manager how the agent does (sd_notify(3)): READY=1 once, STATUS= when it changes, and
// WATCHDOG=1 as long as the agent's loops turn.
type notifier struct {
	send     func(state string) error
	watchdog time.Duration // the unit's WatchdogSec; 0: nobody watches
	alive    func() error  // nil: every loop turns
	outlook  func() outlook
	log      *zap.Logger

	ready   bool
	said    string // the last status
	stuck   bool   // a loop does not turn: said once
	unheard bool   // what is sent does not arrive: said once
}

// notify is the notifier of this agent. Where no service manager listens it does nothing until ctx ends.
func (a *Agent) notify(ctx context.Context) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		<-ctx.Done()
		return nil
	}
	log := a.log.Named("systemd")
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog is not served", zap.Error(err)) // WATCHDOG_USEC is no number
	}
	n := &notifier{
		send: func(state string) error {
			_, err := daemon.SdNotify(false, state)
			return err
		},
		watchdog: watchdog, alive: a.server.Alive, outlook: a.outlook, log: log,
	}
	return n.run(ctx)
}

// outlook asks for the channels first: what changes while the rest is read is heard of.
func (a *Agent) outlook() outlook {
	var o outlook
	_, o.docker = a.seen.Get()
	_, o.aws = a.registrar.Snapshot()
	_, o.stream = a.watcher.StreamChange()
	_, o.host = a.notices.Snapshot()
	s := a.server.Status()
	o.waiting, o.status = a.server.Readiness().Waiting(), s.Summary()
	o.counts = s.Host.IdentityErr != "" // it says for how long
	return o
}

// run returns when ctx ends, after it has said that the agent stops.
func (n *notifier) run(ctx context.Context) error {
	late := time.After(readyWithin)
	var proof <-chan time.Time
	if n.watchdog > 0 {
		// Thrice, so that one that comes late costs nothing.
		ticker := time.NewTicker(n.watchdog / 3)
		defer ticker.Stop()
		proof = ticker.C
	}
	var o outlook
	var read time.Time
	again := time.After(0)
	news := func() { // read it soon, and listen to nobody until then
		every := readyEvery
		if n.ready {
			every = statusEvery
		}
		o, again = outlook{}, time.After(time.Until(read.Add(every)))
	}
	for {
		select {
		case <-ctx.Done():
			n.tell(daemon.SdNotifyStopping, "STATUS=stopping; the targets stay registered")
			return nil
		case <-late:
			if !n.ready {
				now := n.outlook()
				n.log.Warn("not everything could be tried yet", zap.String("waiting_for", now.waiting))
				n.up(now)
			}
		case <-proof:
			n.prove()
		case <-again:
			o, read, again = n.outlook(), time.Now(), nil
			n.say(o)
			if o.counts {
				again = time.After(statusEvery)
			}
		case <-o.docker:
			news()
		case <-o.aws:
			news()
		case <-o.stream:
			news()
		case <-o.host:
			news()
		}
	}
}

// say tells what is new.
func (n *notifier) say(o outlook) {
	switch {
	case !n.ready && o.waiting == "":
		n.up(o)
	case o.status != n.said:
		n.said = o.status
		n.tell("STATUS=" + o.status)
	}
}

// up says that the agent has started. From then on the status is read less often.
func (n *notifier) up(o outlook) {
	n.ready, n.said = true, o.status
	n.tell(daemon.SdNotifyReady, "STATUS="+o.status)
}

// prove tells the watchdog that the agent's loops turn, and nothing if one does not: systemd then has the agent write
// down what each goroutine does (SIGABRT) and starts it anew.
func (n *notifier) prove() {
	if err := n.alive(); err != nil {
		if !n.stuck {
			n.log.Error("the watchdog is told nothing any more", zap.Error(err))
		}
		n.stuck = true
		return
	}
	n.stuck = false
	n.tell(daemon.SdNotifyWatchdog)
}

// tell sends lines. A status is one line whatever is in it.
func (n *notifier) tell(lines ...string) {
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], "\n", " ")
	}
	err := n.send(strings.Join(lines, "\n"))
	if err != nil && !n.unheard {
		n.log.Warn("systemd does not take what it is told", zap.Error(err))
	}
	n.unheard = err != nil
}
