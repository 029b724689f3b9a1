package elbsim

import (
	"cmp"
	"slices"
	"time"

	"berth/internal/elbsim/wire"
	"berth/pkg/target"
)

// What became of calls that got no AWS error: Call.Outcome is one of these or an error code.
const (
	outcomeOK        = "ok"
	outcomePending   = "pending"   // not answered yet
	outcomeReset     = "reset"     // connection reset, no effect
	outcomeHang      = "hang"      // no reply, no effect
	outcomeLost      = "lost"      // took effect, no reply
	outcomeLate      = "late"      // no reply, takes effect later
	outcomeTruncated = "truncated" // took effect, half a reply
	outcomeEmpty     = "empty"     // an empty reply, no effect
	outcomeLeft      = "left"      // the client gave up before the latency was over; takes effect all the same
)

// Call is one API call as the record has it.
type Call struct {
	ID      uint64            `json:"id"`
	Time    time.Time         `json:"time"` // of its arrival
	Service string            `json:"service"`
	Action  string            `json:"action"`
	Groups  []string          `json:"groups,omitempty"`  // ARNs or names, as sent
	Targets []target.Target   `json:"targets,omitempty"` // as sent; port 0: none
	Detail  map[string]string `json:"detail,omitempty"`
	Client  string            `json:"client,omitempty"` // the User-Agent, or the instance of HTTPClientFor
	// Outcome is what the client was told: ok, an error code, or how the reply failed (reset, hang, lost, late,
	// truncated, empty, left); pending while it waits.
	Outcome  string        `json:"outcome"`
	Message  string        `json:"message,omitempty"`
	Status   int           `json:"status,omitempty"` // HTTP; 0: no reply
	Duration time.Duration `json:"duration_ns"`
	Fault    string        `json:"fault,omitempty"` // the id of the fault that decided
	// EffectAt is when the call took effect, which may be later than its reply or without one; zero: it has not.
	EffectAt    time.Time `json:"effect_at,omitzero"`
	EffectError string    `json:"effect_error,omitempty"` // the code with which a late effect failed
}

// count is the key of Sim.Counts.
type count struct{ action, outcome string }

// record is a ring of the last calls, and counts of all.
type record struct {
	limit  int
	calls  []Call // call n lies at n % limit
	next   uint64
	first  uint64 // the oldest call that Calls returns
	counts map[count]uint64
}

func (r *record) begin(in *incoming, client string) uint64 {
	id := r.next
	r.next++
	if r.limit < 0 {
		return id
	}
	c := Call{
		ID: id, Time: in.arrived, Service: in.service.prefix, Action: in.action, Groups: in.subject.groups,
		Targets: in.subject.targetsOf(), Detail: in.subject.detail, Client: client, Outcome: outcomePending,
	}
	if len(r.calls) < r.limit {
		r.calls = append(r.calls, c)
	} else {
		r.calls[id%uint64(r.limit)] = c
	}
	r.first = max(r.first, r.next-min(r.next, uint64(r.limit)))
	return id
}

func (r *record) tally(c count) {
	if r.counts == nil {
		r.counts = map[count]uint64{}
	}
	r.counts[c]++
}

func (r *record) at(id uint64) *Call {
	if r.limit < 0 {
		return nil
	}
	if i := id % uint64(r.limit); i < uint64(len(r.calls)) && r.calls[i].ID == id {
		return &r.calls[i]
	}
	return nil
}

// took writes down that the call took effect, or failed to.
func (r *record) took(id uint64, at time.Time, err *wire.Error) {
	c := r.at(id)
	switch {
	case c == nil:
	case err == nil:
		c.EffectAt = at
	case c.Outcome != outcomePending:
		c.EffectError = err.Code
	}
}

func (r *record) end(id uint64, in *incoming, now time.Time, outcome string, status int) Call {
	// Only known actions count by name: clients must not be able to make the map grow.
	action := in.action
	if in.op.decode == nil {
		action = "unknown"
	}
	r.tally(count{action, outcome})
	c := r.at(id)
	if c == nil {
		return Call{
			ID: id, Time: in.arrived, Service: in.service.prefix, Action: in.action, Groups: in.subject.groups,
			Targets: in.subject.targetsOf(), Outcome: outcome, Status: status, Duration: now.Sub(in.arrived),
		}
	}
	c.Outcome, c.Status, c.Duration, c.Fault = outcome, status, now.Sub(in.arrived), in.fault.id
	if in.failed != nil && status != 0 {
		c.Message = in.failed.Message
	}
	return *c
}

// Calls returns the calls on record, oldest first, those in progress included.
func (s *Sim) Calls() []Call {
	s.lock()
	defer s.mu.Unlock()
	r := &s.record
	out := make([]Call, 0, r.next-r.first)
	for id := r.first; id < r.next; id++ {
		if c := r.at(id); c != nil {
			out = append(out, *c)
		}
	}
	return out
}

// CallsOf returns the calls of one action on record, oldest first.
func (s *Sim) CallsOf(action string) []Call {
	return slices.DeleteFunc(s.Calls(), func(c Call) bool { return c.Action != action })
}

// ResetCalls empties the record and the counts.
func (s *Sim) ResetCalls() {
	s.lock()
	defer s.mu.Unlock()
	s.record.first = s.record.next
	s.record.counts = nil
}

// Count is how many calls of an action had an outcome since the start or the last ResetCalls, whatever the record's
// limit.
type Count struct {
	Action  string `json:"action"`
	Outcome string `json:"outcome"`
	Calls   uint64 `json:"calls"`
}

// Counts returns how many calls there were, by action and outcome. Requests to IMDS count as action IMDS, with the
// HTTP status as outcome.
func (s *Sim) Counts() []Count {
	s.lock()
	defer s.mu.Unlock()
	out := make([]Count, 0, len(s.record.counts))
	for k, n := range s.record.counts {
		out = append(out, Count{k.action, k.outcome, n})
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Outcome, b.Outcome))
	})
	return out
}
