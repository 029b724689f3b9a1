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
	// readyEvery is how often the agent is asked until then.
	readyEvery = 100 * time.Millisecond
	// statusEvery is how often systemd is given another status at most.
	statusEvery = time.Second
)

// notifier tells the service manager how the agent does (sd_notify(3)): READY=1 once, STATUS= when it changes, and
// WATCHDOG=1 as long as the agent's loops turn.
type notifier struct {
	send     func(state string) error
	watchdog time.Duration // the unit's WatchdogSec; 0: nobody watches
	alive    func() error  // nil: every loop turns
	waiting  func() string // what the agent waits for; empty: every group was tried once
	status   func() string // one line
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
		watchdog: watchdog,
		alive:    a.server.Alive,
		waiting:  func() string { return a.server.Readiness().Waiting() },
		status: func() string {
			s := a.server.Status()
			return s.Summary()
		},
		log: log,
	}
	return n.run(ctx)
}

// run returns when ctx ends, after it has said that the agent stops.
func (n *notifier) run(ctx context.Context) error {
	late := time.After(readyWithin)
	turn := time.NewTicker(readyEvery)
	defer turn.Stop()
	var proof <-chan time.Time
	if n.watchdog > 0 {
		// Thrice, so that one that comes late costs nothing.
		ticker := time.NewTicker(n.watchdog / 3)
		defer ticker.Stop()
		proof = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			n.tell(daemon.SdNotifyStopping, "STATUS=stopping; the targets stay registered")
			return nil
		case <-late:
			if !n.ready {
				n.log.Warn("not everything could be tried yet", zap.String("waiting_for", n.waiting()))
				n.up(turn)
			}
		case <-proof:
			n.prove()
		case <-turn.C:
			if !n.ready && n.waiting() == "" {
				n.up(turn)
				continue
			}
			if status := n.status(); status != n.said {
				n.said = status
				n.tell("STATUS=" + status)
			}
		}
	}
}

// up says that the agent has started. From then on the status is looked at less often.
func (n *notifier) up(turn *time.Ticker) {
	n.ready, n.said = true, n.status()
	n.tell(daemon.SdNotifyReady, "STATUS="+n.said)
	turn.Reset(statusEvery)
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
