package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"berth/internal/backoff"
	"berth/pkg/status"
)

const (
	// reopenLeast and reopenMost bound the wait before a listener is opened again.
	reopenLeast = time.Second
	reopenMost  = 30 * time.Second
	// sayAgain is how long the same trouble of a listener is not logged again, if it comes and goes.
	sayAgain = time.Minute
)

// listener is one address with what is served on it. Whatever becomes of the socket, the agent goes on: it is opened
// again.
type listener struct {
	name      string // as Addr knows it
	key       string // of the configuration
	network   string
	address   string
	handler   http.Handler
	bodyBytes int64 // of a request
	limits    limits
	log       *zap.Logger
	// opener opens the socket. addr is what clients dial; cleanup is called when the socket is closed.
	opener func(ctx context.Context) (l net.Listener, addr net.Addr, cleanup func(), err error)

	mu           sync.Mutex // guards what follows
	net.Listener            // nil: it is not open
	addr         net.Addr
	cleanup      func()
	err          error // why clients are not answered; nil: they are
	since        time.Time
	said         string // the trouble that was logged last
	saidAt       time.Time
	unsaid       bool // the trouble in force was not logged
}

// open opens the socket unless it is open.
func (l *listener) open(ctx context.Context) error {
	l.mu.Lock()
	isOpen := l.Listener != nil
	l.mu.Unlock()
	if isOpen {
		return nil
	}
	opened, addr, cleanup, err := l.opener(ctx)
	if err != nil {
		if ctx.Err() == nil {
			l.answers(err)
		}
		return err
	}
	l.mu.Lock()
	l.Listener, l.addr, l.cleanup = opened, addr, cleanup
	l.mu.Unlock()
	l.answers(nil)
	return nil
}

// shut closes the socket.
func (l *listener) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Listener != nil {
		_ = l.Close() // it may be closed already
		l.cleanup()
	}
	l.Listener = nil
}

// where returns the address to dial; nil: it is not open.
func (l *listener) where() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Listener == nil {
		return nil
	}
	return l.addr
}

// serve answers clients until ctx ends or srv is shut down.
func (l *listener) serve(ctx context.Context, srv *http.Server) {
	again := backoff.Backoff{Least: reopenLeast, Most: reopenMost}
	for {
		if err := l.open(ctx); err == nil {
			begun := time.Now()
			l.mu.Lock()
			socket := newGate(l.Listener, l.limits, l.answers)
			l.mu.Unlock()
			l.log.Info("listening", zap.Stringer("address", l.where()))
			err := srv.Serve(socket)
			if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
				return
			}
			l.answers(err)
			l.shut()
			if time.Since(begun) > reopenMost {
				again.Reset()
			}
		}
		if !again.Sleep(ctx) {
			return
		}
	}
}

// answers records whether clients are answered: nil, or why not. It is logged when that begins, when it changes and when
// it ends; what comes and goes all the time once a minute.
func (l *listener) answers(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && l.err == nil:
		return
	case err == nil:
		if !l.unsaid {
			l.log.Info("clients are answered again", zap.Duration("after", time.Since(l.since)))
		}
	default:
		if l.err == nil {
			l.since = time.Now()
		}
		if text := err.Error(); text != l.said || (l.err == nil || l.unsaid) && time.Since(l.saidAt) >= sayAgain {
			l.log.Error("clients are not answered, trying again", zap.String("address", l.address), zap.Error(err))
			l.said, l.saidAt, l.unsaid = text, time.Now(), false
		} else if l.err == nil {
			l.unsaid = true
		}
	}
	l.err = err
}

// check is the line of readiness about a listener, while clients are not answered. It blocks nothing: the agent's work is
// not to be seen.
func (l *listener) check() (c status.Check, down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return status.Check{}, false
	}
	c = status.Check{Name: l.key, Detail: l.err.Error() + "; trying again" + status.Lasting(l.since)}
	switch {
	case errors.Is(l.err, syscall.EMFILE):
		c.Change = "raise the agent's limit of open files (LimitNOFILE= of berth.service)"
	case l.Listener == nil && l.network != "unix":
		c.Change = "free the address, or set " + l.key + " to another one or to off, and restart berth"
	}
	return c, true
}
