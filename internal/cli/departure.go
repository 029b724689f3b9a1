package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"berth/pkg/client"
	"berth/pkg/status"
)

// departures are several that are waited for together.
type departures struct {
	report *reporter
	all    []*status.Departure
	// enough says when a departure need not be waited for any longer; nil: when its phase is over.
	enough func(*status.Departure) bool
	// ended is told of each such departure, once, and must not block. May be nil.
	ended func(*status.Departure)
	// silence is how long the agent may say nothing before it counts as gone, an *silentError; zero: as long as the last
	// departure is waited for.
	silence time.Duration
	// more is received from while others wait: a departure that ends for reasons of its own. May be nil.
	more <-chan *status.Departure
}

// silentError says that an agent which has answered before answers no more.
type silentError struct {
	since time.Time
	err   error
}

func (e *silentError) Error() string {
	return fmt.Sprintf("the agent is silent since %s: %v", e.since.Format(time.TimeOnly), e.err)
}

// Unwrap returns what the last question led to.
func (e *silentError) Unwrap() error { return e.err }

// follow asks the agent until every departure is over, or ctx ends. An agent that is restarted meanwhile is waited for,
// for as long as the last departure would be, or for silence.
func (ds *departures) follow(ctx context.Context, api *client.Client) error {
	open := slices.Clone(ds.all)
	query := client.StatusQuery{Follow: ds.groups()}
	heard := time.Now()
	for len(open) > 0 {
		s, err := ds.ask(ctx, api, query, heard)
		if err == nil || busy(err) {
			heard = time.Now()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && ds.silence > 0 && time.Since(heard) >= ds.silence:
			return &silentError{heard, err}
		case err != nil:
			latest := slices.MaxFunc(open, func(a, b *status.Departure) int { return a.Latest().Compare(b.Latest()) }).Latest()
			if time.Now().After(latest) {
				return err
			}
			query.After = ""
			ds.report.say("agent", "the agent does not answer; trying again: "+err.Error(), latest)
		default:
			ds.report.forget("agent")
			var next time.Time
			open, next = ds.judge(open, &s)
			query = client.StatusQuery{Follow: ds.groups(), After: s.Revision, Timeout: waitUntil(next)}
		}
		if len(open) == 0 {
			return nil
		}
		select {
		case d := <-ds.more:
			open = slices.DeleteFunc(open, func(o *status.Departure) bool { return o == d })
		case <-time.After(pollPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// ask asks once, for no longer than the agent may be silent.
func (ds *departures) ask(ctx context.Context, api *client.Client, query client.StatusQuery, heard time.Time) (status.V1, error) {
	if ds.silence > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, heard.Add(ds.silence))
		defer cancel()
	}
	return api.Status(ctx, query)
}

// judge returns those that are still to be waited for, and when the first of them may be over by time alone: zero is never.
func (ds *departures) judge(open []*status.Departure, s *status.V1) (left []*status.Departure, next time.Time) {
	now := time.Now()
	left = slices.DeleteFunc(open, func(d *status.Departure) bool {
		phase, change := d.Judge(s, now)
		ds.report.say(d.Label(), d.Reason().Why, d.Latest())
		if !phase.Over() && (ds.enough == nil || !ds.enough(d)) {
			next = status.Sooner(next, change)
			return false
		}
		if ds.ended != nil {
			ds.report.clear()
			ds.ended(d)
		}
		return true
	})
	return left, next
}

func (ds *departures) groups() []string {
	var keys []string
	for _, d := range ds.all {
		keys = append(keys, d.Groups()...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// waitUntil is how long one question waits for a change, where the answer may change by time alone at next; zero: it does
// not.
func waitUntil(next time.Time) time.Duration {
	if next.IsZero() {
		return pollWait
	}
	return min(pollWait, max(time.Until(next), pollPause))
}
