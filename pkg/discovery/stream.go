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
	at    time.Time // of an event: when it happened, on our clock
	info  EngineInfo
	past  bool // of streamUp: what has happened before has been told already
	err   error
	again bool // of streamDown: it ended soon after it was opened, as several did before it
}

// sinceSlack is how far before the last event a new stream begins. Docker answers a request before it subscribes, so
// that a stream and a list taken after one another could both miss a change; and events of one moment may arrive out
// of order. What is repeated is recognised.
const sinceSlack = 2 * time.Second

// stable is how long a stream has to live for the next one to be opened as soon as can be. Whatever ends streams sooner is
// asked for a list each time, and therefore a little later each time, by nearMax at most.
const stable = 5 * time.Second

// nearMax bounds the wait after a stream that had opened, and while connecting fails at once and costs nobody anything: the
// socket is missing, nobody listens, or systemd says that the engine is stopped. An engine that comes back is noticed soon.
const nearMax = 2 * time.Second

// manyShort is how many short streams in a row are each worth a line in the log. The next one is said to be one of many, and
// after that only outages are said, each kind once, until a stream lasts.
const manyShort = 3

// reopening is how long to wait before the next stream.
type reopening struct {
	least, most time.Duration
	refused     int // failures to open, in a row
	brief       int // streams that opened and soon ended, in a row
}

// after returns the wait after a session. A stream that opened ends the back-off of those that did not: its end is no failure
// to open.
func (r *reopening) after(end ended) time.Duration {
	var known *EngineError
	most := r.most
	if !end.opened.IsZero() || errors.As(end.err, &known) && !errors.Is(end.err, errors.ErrUnsupported) {
		most = min(nearMax, most)
	}
	n := r.refused
	switch {
	case end.opened.IsZero():
		r.refused++
	case time.Since(end.opened) >= stable:
		r.refused, r.brief, n = 0, 0, 0
	default:
		n = r.brief
		r.refused, r.brief = 0, r.brief+1
	}
	return backoff.Delay(r.least, n, most)
}

// ended is a session that is over.
type ended struct {
	opened time.Time // when the stream was open; zero: it never was
	last   time.Time // of the last event, on our clock
	err    error     // why it ended
}

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
	since := time.Now().Add(-w.opts.Timing.StopSurvivor) // on our clock, as all below
	wait := reopening{least: w.opts.ReconnectMin, most: w.opts.ReconnectMax}
	for {
		end := w.session(ctx, since)
		if ctx.Err() != nil {
			return
		}
		if end.last.After(since) {
			since = end.last.Add(-sinceSlack)
		}
		if oldest := time.Now().Add(-w.opts.Timing.StopSurvivor); since.Before(oldest) {
			since = oldest
		}
		delay := wait.after(end)
		again := !end.opened.IsZero() && wait.brief > manyShort
		if !w.tell(ctx, streamEvent{kind: streamDown, err: end.err, again: again}) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

func (w *Watcher) tell(ctx context.Context, e streamEvent) bool {
	select {
	case w.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// session opens one stream and hands on what it brings until it ends.
func (w *Watcher) session(ctx context.Context, since time.Time) (end ended) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	info, err := w.ping(ctx)
	if err != nil {
		return end.because(err)
	}
	opening := time.AfterFunc(w.opts.ConnectTimeout, func() {
		cancel(fmt.Errorf("open event stream: no answer within %s", w.opts.ConnectTimeout))
	})
	from, steady := w.clock.docker(since)
	messages, failed := w.engine.Events(ctx, from)
	if !opening.Stop() {
		return end.because(context.Cause(ctx))
	}
	select {
	case <-w.reopen: // meant for the stream before
	default:
	}
	past, known := w.past(ctx, from)
	select {
	case err := <-failed: // some clients say so a moment later
		return end.because(fmt.Errorf("open event stream: %w", err))
	default:
	}
	for _, e := range past {
		if !w.bring(ctx, e, &end) {
			return end.because(context.Cause(ctx))
		}
	}
	// What an engine dates later than now, since its clock was set back, only the stream tells.
	if !w.tell(ctx, streamEvent{kind: streamUp, info: info, past: known && steady}) {
		return end.because(ctx.Err())
	}
	begun := time.Now()
	end.opened = begun
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
			if !w.bring(ctx, e, &end) {
				return end.because(context.Cause(ctx))
			}
		case err := <-failed:
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return end.because(fmt.Errorf("read event stream: %w", err))
		case <-w.reopen:
			return end.because(errSwallowed)
		case <-ctx.Done():
			return end.because(context.Cause(ctx))
		}
	}
}

func (e ended) because(err error) ended {
	e.err = err
	return e
}

// bring hands on one event. What has just arrived is new, whatever its date says: only what Docker dates to a moment that this
// process knows of, and what a stream tells first of all, may be old.
func (w *Watcher) bring(ctx context.Context, e Event, end *ended) bool {
	at, known := w.clock.ours(e.Time)
	replayed := end.opened.IsZero() || time.Since(end.opened) < 20*w.opts.Replay
	if e.Time.IsZero() || !known && !replayed {
		at = time.Now()
	}
	end.last = maxTime(end.last, at)
	return w.tell(ctx, streamEvent{event: e, at: at})
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
