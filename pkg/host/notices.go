package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	// AWS gives two minutes at best and asks to poll every 5 s; every second counts for what is in flight.
	spotInterval  = 2 * time.Second
	eventInterval = 5 * time.Second
	// lifecycleRetry and lifecyclePatience bound how long a starting agent waits to learn that it may register.
	lifecycleRetry    = time.Second
	lifecyclePatience = 30 * time.Second
	// spotAfterlife is how long a spot notice that is gone still counts: an instance that EC2 stopped and started, or
	// took back late, must not be served in between.
	spotAfterlife = 10 * time.Minute
)

// The metadata items of notices.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
const (
	spotPath        = "spot/instance-action"
	lifecyclePath   = "autoscaling/target-lifecycle-state"
	rebalancePath   = "events/recommendations/rebalance"
	maintenancePath = "events/maintenance/scheduled"
)

// pollSpot keeps the spot notice true.
func (n *Notices) pollSpot(ctx context.Context) {
	var gone time.Time // when the notice in force was first not there any more
	tick := time.NewTicker(spotInterval)
	defer tick.Stop()
	for {
		if found, ok := look(ctx, n, n.spotIMDS, Spot, spotPath, parseSpot); ok {
			gone = n.spotSeen(found, gone)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// spotSeen takes over one answer, and returns since when the notice in force is gone (zero: it is not).
func (n *Notices) spotSeen(found []Notice, gone time.Time) time.Time {
	if len(found) > 0 {
		n.replace(Spot, found)
		return time.Time{}
	}
	s, _ := n.Snapshot()
	i := slices.IndexFunc(s.Notices, func(x Notice) bool { return x.Kind == Spot })
	if i < 0 {
		return time.Time{}
	}
	if gone.IsZero() {
		gone = time.Now()
	}
	end := gone
	if d := s.Notices[i].Deadline; d.After(end) {
		end = d
	}
	if latest := gone.Add(spotAfterlife); end.After(latest) {
		end = latest // a deadline that far away is a clock that is wrong
	}
	if time.Now().Before(end.Add(spotAfterlife)) {
		return gone
	}
	n.replace(Spot, nil)
	return time.Time{}
}

// pollEvents keeps the other notices true.
func (n *Notices) pollEvents(ctx context.Context) {
	if !n.firstLifecycle(ctx) {
		return
	}
	tick := time.NewTicker(eventInterval)
	defer tick.Stop()
	for {
		if found, ok := look(ctx, n, n.eventIMDS, Rebalance, rebalancePath, parseRebalance); ok {
			n.replace(Rebalance, found)
		}
		if found, ok := look(ctx, n, n.eventIMDS, Maintenance, maintenancePath, parseMaintenance); ok {
			n.replace(Maintenance, found)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n.lookLifecycle(ctx)
	}
}

// lookLifecycle reports whether the state was read.
func (n *Notices) lookLifecycle(ctx context.Context) bool {
	found, ok := look(ctx, n, n.eventIMDS, Lifecycle, lifecyclePath, parseLifecycle)
	if ok {
		n.replace(Lifecycle, found)
		if s, _ := n.Snapshot(); !s.LifecycleRead {
			n.change(func(s *Snapshot) { s.LifecycleRead = true })
		}
	}
	return ok
}

// firstLifecycle reads the lifecycle state before anything may be registered, for as long as that can wait. It
// reports false if ctx ended.
func (n *Notices) firstLifecycle(ctx context.Context) bool {
	deadline := time.Now().Add(lifecyclePatience)
	for !n.lookLifecycle(ctx) && time.Now().Before(deadline) {
		t := time.NewTimer(lifecycleRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
	if ctx.Err() != nil {
		return false
	}
	n.change(func(s *Snapshot) { s.LifecycleKnown = true })
	return true
}

// look asks for one item and parses it. It reports false if there was no answer, or none that can be understood: that
// is never a notice, nor the end of one.
func look(ctx context.Context, n *Notices, m *metadata, kind Kind, path string, parse func(string) ([]Notice, error)) ([]Notice, bool) {
	content, found, err := m.get(ctx, path)
	var notices []Notice
	if err == nil && found {
		if notices, err = parse(content); err != nil {
			err = fmt.Errorf("understand instance metadata %s: %w", path, err)
		}
	}
	if ctx.Err() != nil {
		return nil, false // the question was cut off: its error says nothing
	}
	n.outcome(string(kind), err)
	return notices, err == nil
}

// replace puts the notices of one kind in the place of those before, and publishes if that is a change. A notice that
// was there before keeps the time at which it was first seen.
func (n *Notices) replace(kind Kind, found []Notice) {
	old, _ := n.Snapshot()
	before := slices.DeleteFunc(slices.Clone(old.Notices), func(x Notice) bool { return x.Kind != kind })
	for i := range found {
		if j := slices.IndexFunc(before, found[i].same); j >= 0 {
			found[i].At = before[j].At
		} else if found[i].At.IsZero() {
			found[i].At = time.Now()
		}
	}
	if slices.EqualFunc(before, found, Notice.same) {
		return
	}
	n.change(func(s *Snapshot) {
		s.Notices = append(slices.DeleteFunc(s.Notices, func(x Notice) bool { return x.Kind == kind }), found...)
		slices.SortStableFunc(s.Notices, func(a, b Notice) int { return order(a.Kind) - order(b.Kind) })
	})
	for _, x := range found {
		if !slices.ContainsFunc(before, x.same) {
			n.log.Warn("notice", zap.String("kind", string(kind)), zap.String("action", x.Action), zap.Time("deadline", x.Deadline))
		}
	}
	if len(found) == 0 {
		n.log.Info("notice ended", zap.String("kind", string(kind)))
	}
}

func order(k Kind) int {
	return slices.Index([]Kind{Spot, Lifecycle, Rebalance, Maintenance}, k)
}

// parseSpot reads {"action": "terminate", "time": "2026-09-18T08:22:00Z"}. Any action counts, a time is not needed:
// hibernation begins at once.
func parseSpot(s string) ([]Notice, error) {
	var v struct {
		Action string    `json:"action"`
		Time   *jsonTime `json:"time"`
	}
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return nil, err
	}
	if v.Action == "" {
		return nil, errors.New("no action in it")
	}
	return []Notice{{Kind: Spot, Action: v.Action, Deadline: v.Time.time()}}, nil
}

// parseLifecycle reads the target lifecycle state: where the instance is going, not where it is.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
func parseLifecycle(s string) ([]Notice, error) {
	warmed, isWarmed := strings.CutPrefix(s, "Warmed:")
	switch {
	case s == "InService":
		return nil, nil
	case s == "Terminated", s == "Detached", s == "Standby", isWarmed && warmed != "":
		return []Notice{{Kind: Lifecycle, Action: s}}, nil
	}
	return nil, fmt.Errorf("unknown state %.40q", s)
}

// parseRebalance reads {"noticeTime": "2026-10-27T08:22:00Z"}.
func parseRebalance(s string) ([]Notice, error) {
	var v struct {
		NoticeTime *jsonTime `json:"noticeTime"`
	}
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return nil, err
	}
	return []Notice{{Kind: Rebalance, At: v.NoticeTime.time()}}, nil
}

// parseMaintenance reads a list of events, of which those that are completed or cancelled do not count.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_scheduled_events.html
func parseMaintenance(s string) ([]Notice, error) {
	var events []struct {
		Code, State string
		NotBefore   *jsonTime
	}
	if err := json.Unmarshal([]byte(s), &events); err != nil {
		return nil, err
	}
	var out []Notice
	for _, e := range events {
		if e.State == "active" {
			out = append(out, Notice{Kind: Maintenance, Action: e.Code, Deadline: e.NotBefore.time()})
		}
	}
	return out, nil
}

// jsonTime is a time in one of the two forms that the metadata service uses. One that cannot be read is no time: what
// the notice says otherwise still holds.
type jsonTime time.Time

// UnmarshalJSON never fails.
func (t *jsonTime) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	for _, form := range []string{time.RFC3339, "2 Jan 2006 15:04:05 MST"} {
		if v, err := time.Parse(form, s); err == nil {
			*t = jsonTime(v.UTC())
			break
		}
	}
	return nil
}

func (t *jsonTime) time() time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Time(*t)
}
