package discovery

import (
	"context"
	"time"
)

// Historian is an Engine that can say what has happened, and that this was all of it. A stream tells the past too, but not
// where it ends: on a machine with more to do than it can, there is no telling a pause in it from its end.
type Historian interface {
	// Past returns the events since a time (inclusive) that the engine still remembers, up to about now, in order and
	// filtered as those of Events are.
	Past(ctx context.Context, since time.Time) ([]Event, error)
}

// past returns what has happened since, and whether that is known: else the stream has to tell it.
func (w *Watcher) past(ctx context.Context, since time.Time) (past []Event, known bool) {
	h, ok := w.engine.(Historian)
	if !ok {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, w.opts.PingTimeout)
	defer cancel()
	past, err := h.Past(ctx, since)
	return past, err == nil
}
