package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"berth/internal/backoff"
)

type streamKind uint8

const (
	streamMessage streamKind = iota
	streamUp
	streamDown
)

// streamEvent is what the stream goroutine tells the loop, in the order in which it happened.
type streamEvent struct {
	kind  streamKind
	event Event
	info  EngineInfo
	past  bool // of streamUp: what has happened before has been told already
	err   error
}

// sinceSlack is how far before the last event a new stream begins. Docker answers a request before it subscribes, so
// that a stream and a list taken after one another could both miss a change; and events of one moment may arrive out
// of order. What is repeated is recognised.
const sinceSlack = 2 * time.Second

// stable is how long a stream has to live for the next one to be opened quickly.
const stable = 30 * time.Second

// nearMax bounds the wait while connecting fails at once and costs nobody anything: the socket is missing, nobody
// listens, or systemd says that the engine is stopped. An engine that comes back is noticed soon.
const nearMax = 2 * time.Second

// errSwallowed ends a stream that is open and silent though something happened.
var errSwallowed = errors.New("the stream has swallowed an event")

// reopenStream ends the present stream, if there is one.
func (w *Watcher) reopenStream() {
	select {
	case w.reopen <- struct{}{}:
	default:
	}
}

// streams keeps an event stream open until ctx ends.
func (w *Watcher) streams(ctx context.Context) {
	// The first stream goes back as far as a stop signal counts: a container may have been told to stop while no agent
	// was watching. Docker remembers 256 events at most.
	since := time.Now().Add(-w.opts.Timing.StopSurvivor)
	for failures := 0; ; failures++ {
		began := time.Now()
		last, err := w.session(ctx, since)
		if ctx.Err() != nil {
			return
		}
		if last.After(since) {
			since = last.Add(-sinceSlack)
		}
		if oldest := time.Now().Add(-w.opts.Timing.StopSurvivor); since.Before(oldest) {
			since = oldest
		}
		if time.Since(began) >= stable {
			failures = 0
		}
		if !w.tell(ctx, streamEvent{kind: streamDown, err: err}) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff.Delay(w.opts.ReconnectMin, failures, w.longestWait(err))):
		}
	}
}

func (w *Watcher) longestWait(err error) time.Duration {
	var e *EngineError
	if errors.As(err, &e) && !errors.Is(err, errors.ErrUnsupported) {
		return min(nearMax, w.opts.ReconnectMax)
	}
	return w.opts.ReconnectMax
}

func (w *Watcher) tell(ctx context.Context, e streamEvent) bool {
	select {
	case w.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// session opens one stream and hands on what it brings until it ends. It returns the time of the last event, as Docker
// counts it, and why the stream ended.
func (w *Watcher) session(ctx context.Context, since time.Time) (last time.Time, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	info, err := w.ping(ctx)
	if err != nil {
		return last, err
	}
	opening := time.AfterFunc(w.opts.ConnectTimeout, func() {
		cancel(fmt.Errorf("open event stream: no answer within %s", w.opts.ConnectTimeout))
	})
	messages, failed := w.engine.Events(ctx, since)
	if !opening.Stop() {
		return last, context.Cause(ctx)
	}
	select {
	case err := <-failed:
		return last, fmt.Errorf("open event stream: %w", err)
	case <-w.reopen: // meant for the stream before
	default:
	}
	past, known := w.past(ctx, since)
	for _, e := range past {
		if e.Time.After(last) {
			last = e.Time
		}
		if !w.tell(ctx, streamEvent{event: e}) {
			return last, context.Cause(ctx)
		}
	}
	if !w.tell(ctx, streamEvent{kind: streamUp, info: info, past: known}) {
		return last, ctx.Err()
	}
	begun := time.Now()
	var heard atomic.Int64 // nanoseconds after that, when the last event came: no step of the clock makes it silent, or not
	guarded := make(chan struct{})
	go func() {
		defer close(guarded)
		w.guard(ctx, func() time.Duration { return time.Since(begun) - time.Duration(heard.Load()) }, cancel)
	}()
	defer func() { cancel(nil); <-guarded }()
	for {
		select {
		case e := <-messages:
			heard.Store(int64(time.Since(begun)))
			if e.Time.After(last) {
				last = e.Time
			}
			if !w.tell(ctx, streamEvent{event: e}) {
				return last, context.Cause(ctx)
			}
		case err := <-failed:
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return last, fmt.Errorf("read event stream: %w", err)
		case <-w.reopen:
			return last, errSwallowed
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
	}
}

func (w *Watcher) ping(ctx context.Context) (EngineInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opts.PingTimeout)
	defer cancel()
	info, err := w.engine.Ping(ctx)
	if err != nil {
		return EngineInfo{}, fmt.Errorf("ping docker: %w", err)
	}
	return info, nil
}

// guard pings the engine while the stream is silent, and ends the stream when two pings in a row fail: an engine that
// hangs ends no stream by itself. A stream that brings events proves itself; not asking then also keeps from waking
// an engine that is shutting down, whose last events still arrive when its socket is systemd's again.
func (w *Watcher) guard(ctx context.Context, silent func() time.Duration, end context.CancelCauseFunc) {
	ticker := time.NewTicker(w.opts.PingInterval)
	defer ticker.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if silent() < w.opts.PingInterval {
			failures = 0
			continue
		}
		_, err := w.ping(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			continue
		}
		if failures++; failures == 2 {
			end(err)
			return
		}
	}
}
