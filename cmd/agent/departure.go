package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"berth/pkg/client"
	"berth/pkg/registrar"
	"berth/pkg/status"
	"berth/pkg/target"
)

// How long a load balancer goes on sending requests to a target that it reports as gone. An Application Load Balancer
// takes some seconds. A Network Load Balancer takes minutes: its data plane learns of it late.
// https://github.com/kubernetes-sigs/aws-load-balancer-controller/issues/2366
const (
	settleALB = 10 * time.Second
	settleNLB = 180 * time.Second
)

// departurePhase is how far a container, or the host, has come on its way out.
type departurePhase string

const (
	leavingPhase  departurePhase = "leaving"  // the load balancer still has it
	drainingPhase departurePhase = "draining" // it is deregistered; open requests end, or new ones still come
	gonePhase     departurePhase = "gone"     // nothing is sent to it any more
	overduePhase  departurePhase = "overdue"  // deregistered, and the longest wait is over
	stuckPhase    departurePhase = "stuck"    // it cannot be deregistered
)

// over reports whether nothing more is to be waited for.
func (p departurePhase) over() bool { return p == gonePhase || p == overduePhase || p == stuckPhase }

// departure is a container, or the host, on its way out of its target groups.
type departure struct {
	name   string // as it was named on the command line
	run    target.Run
	host   bool
	whole  bool   // it is over as soon as one of its groups refuses to let go
	told   bool   // a refusal is its end as soon as all groups have acted
	seq    uint64 // discovery's, from which its wants are gone
	begun  time.Time
	latest time.Time // when it is waited for no longer
	// sight is when the agent must know what is registered, for it to be waited for any longer; zero: at latest.
	sight  time.Time
	settle *time.Duration

	phase       departurePhase
	why, change string
	had         bool            // something of it was, or was about to be, registered
	keys        map[string]bool // its target groups
	outAt       time.Time       // since when no load balancer has it but those that refused; zero: one has
	refusing    bool            // some refused
	blind       bool            // the agent does not know yet what is registered
}

// concernsRow reports whether a row is about what departs.
func (d *departure) concernsRow(r *status.Row) bool {
	if d.host {
		return r.State != status.Unclaimed && r.State != status.Ignored && r.State != status.Refused
	}
	return r.Run.ID == d.run.ID
}

// before looks at what there was before the drain.
func (d *departure) before(s *status.V1) {
	d.keys = map[string]bool{}
	for i := range s.Rows {
		if r := &s.Rows[i]; d.concernsRow(r) && (r.State.Wanted() || r.Target.ID != "") {
			d.had = true
			d.keys[r.Group] = true
		}
	}
}

// judge brings the departure up to date.
func (d *departure) judge(s *status.V1, now time.Time) {
	registered, draining, blocked, all := d.look(s)
	d.change, d.blind = "", unseen(s) != ""
	if blocked != nil && (d.whole || all) {
		d.phase, d.why, d.change = stuckPhase, describe(blocked), blocked.Change
		return
	}
	waiting := d.behind(s)
	if registered != nil || waiting != "" {
		d.outAt = time.Time{}
		d.phase, d.why = leavingPhase, waiting
		if registered != nil {
			d.why, d.change = describe(registered), registered.Change
		}
		if !now.Before(d.patience()) {
			d.phase = stuckPhase
		}
		return
	}
	if d.outAt.IsZero() || d.refusing && blocked == nil { // what was refused has gone, too
		d.outAt = now
	}
	d.refusing = blocked != nil
	d.await(s, draining, now)
	if blocked != nil && (d.phase.over() || d.told) { // the rest has been waited for
		d.phase, d.why, d.change = stuckPhase, describe(blocked), blocked.Change
	}
}

// await says how far what has been deregistered has come. draining is some of it that still drains; nil: none does.
func (d *departure) await(s *status.V1, draining *status.Row, now time.Time) {
	settled := d.outAt.Add(d.settling(s))
	switch {
	case !d.had:
		d.phase, d.why = gonePhase, "nothing of it was registered"
	case draining == nil && !now.Before(settled):
		d.phase, d.why = gonePhase, "the load balancer has let go of it"
	case !now.Before(d.latest):
		d.phase, d.why = overduePhase, fmt.Sprintf("deregistered %s ago, and the longest wait is over", now.Sub(d.outAt).Round(time.Second))
		if draining != nil {
			d.why += " while the load balancer still lets its open requests end"
		}
	case draining != nil:
		d.phase, d.why = drainingPhase, "deregistered; the load balancer lets its open requests end"
	default:
		d.phase, d.why = drainingPhase, "deregistered; the load balancer may still send requests for a moment"
	}
}

// look finds a row that a load balancer still has, one that is draining, and one that cannot be removed, whatever becomes of
// the others. all reports that every group which had something of it refuses.
func (d *departure) look(s *status.V1) (registered, draining, blocked *status.Row, all bool) {
	refusing := map[string]bool{}
	for i := range s.Rows {
		r := &s.Rows[i]
		if !d.concernsRow(r) {
			continue
		}
		if r.Target.ID != "" || r.State.Wanted() {
			d.had = true
			d.keys[r.Group] = true
		}
		g := groupNamed(s, r.Group)
		switch {
		case g != nil && g.State == registrar.StateGone: // and its targets with it
		case r.State.Wanted(), r.State == status.Leaving && r.Target.ID != "":
			if d.refused(g) {
				blocked = r
				refusing[r.Group] = true
			} else {
				registered = r
			}
		case r.State == status.Draining:
			draining = r
		}
	}
	return registered, draining, blocked, len(refusing) == len(d.keys)
}

// refused reports whether a group has acted on the drain, and could not: only a person can change that.
func (d *departure) refused(g *status.GroupV1) bool {
	return g != nil && g.Seq >= d.seq && (g.State == registrar.StateDenied || g.State == registrar.StateMisconfigured)
}

// label is what messages call it.
func (d *departure) label() string { return shownAs(d.name, d.run.ID, d.run.Name) }

// patience is when a departure is over that has not begun at the load balancer.
func (d *departure) patience() time.Time {
	if d.blind && !d.sight.IsZero() {
		return d.sight
	}
	return d.latest
}

// unseen says why the agent does not know yet what is registered, as after its start; empty: it does.
func unseen(s *status.V1) string {
	switch {
	case s.Seq == 0:
		return "the agent has not seen Docker's containers yet"
	case !s.Connected:
		return "the agent waits for the instance's identity and AWS credentials, and does not know yet what is registered"
	default:
		return ""
	}
}

// behind says what may still be registered though no row shows it, or be about to be; empty: nothing is. Of the
// concerned groups each has to have acted on seq, unless it is in trouble: then it shows what it still has. One that has
// never been tried may not: it concerns everybody if it has left the configuration, and who is on no row.
func behind(s *status.V1, seq uint64, onNoRow bool, concerned func(*status.GroupV1) bool) string {
	if why := unseen(s); why != "" {
		return why
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		untried, left := !g.Tried && g.Seq == 0, len(g.Keys) == 0
		if untried && (left || onNoRow) || !left && concerned(g) && (untried || g.Seq < seq && (g.State == registrar.StateOK || !g.Tried)) {
			return "target group " + g.Label() + " has not acted on it yet"
		}
	}
	return ""
}

// behind is that of the departure's own groups.
func (d *departure) behind(s *status.V1) string {
	var rows []status.Row
	for i := range s.Rows {
		if r := &s.Rows[i]; r.Group != "" && d.concernsRow(r) {
			rows = append(rows, s.Rows[i])
		}
	}
	return behind(s, d.seq, len(rows) == 0, func(g *status.GroupV1) bool {
		return d.host || concerns(rows, g) || slices.ContainsFunc(g.Keys, func(k string) bool { return d.keys[k] })
	})
}

// settling is how long the load balancers of its groups go on sending.
func (d *departure) settling(s *status.V1) time.Duration {
	if d.settle != nil {
		return *d.settle
	}
	longest := time.Duration(0)
	for key := range d.keys {
		protocol := ""
		if g := groupNamed(s, key); g != nil {
			protocol = g.Protocol
		}
		longest = max(longest, settlingOf(protocol))
	}
	return longest
}

// settlingOf is how long load balancers go on sending to what has left a group of this protocol. Empty: not known.
func settlingOf(protocol string) time.Duration {
	switch protocol {
	case "HTTP", "HTTPS", "":
		return settleALB
	default:
		return settleNLB
	}
}

func groupNamed(s *status.V1, label string) *status.GroupV1 {
	for i := range s.Groups {
		if g := &s.Groups[i]; slices.Contains(g.Keys, label) || g.Label() == label {
			return g
		}
	}
	return nil
}

// departures are several that are waited for together.
type departures struct {
	report *reporter
	all    []*departure
	// enough says when a departure need not be waited for any longer; nil: when its phase is over.
	enough func(*departure) bool
	// ended is told of each such departure, once, and must not block. May be nil.
	ended func(*departure)
	// more is received from while others wait: a departure that ends for reasons of its own. May be nil.
	more <-chan *departure
}

// follow asks the agent until every departure is over, or ctx ends. An agent that is restarted meanwhile is waited for,
// for as long as the last departure would be.
func (ds *departures) follow(ctx context.Context, api *client.Client) error {
	open := slices.Clone(ds.all)
	query := client.StatusQuery{Follow: ds.keys()}
	for len(open) > 0 {
		s, err := api.Status(ctx, query)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			latest := slices.MaxFunc(open, func(a, b *departure) int { return a.latest.Compare(b.latest) }).latest
			if time.Now().After(latest) {
				return err
			}
			query.After = ""
			ds.report.say("agent", "the agent does not answer; trying again: "+err.Error(), latest)
		default:
			ds.report.forget("agent")
			open = ds.judge(open, &s)
			query = client.StatusQuery{Follow: ds.keys(), After: s.Revision, Timeout: min(pollWait, ds.soon(open))}
		}
		if len(open) == 0 {
			return nil
		}
		select {
		case d := <-ds.more:
			open = slices.DeleteFunc(open, func(o *departure) bool { return o == d })
		case <-time.After(pollPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// judge returns those that are still to be waited for.
func (ds *departures) judge(open []*departure, s *status.V1) []*departure {
	now := time.Now()
	return slices.DeleteFunc(open, func(d *departure) bool {
		d.judge(s, now)
		ds.report.say(d.label(), d.why, d.latest)
		if !d.phase.over() && (ds.enough == nil || !ds.enough(d)) {
			return false
		}
		if ds.ended != nil {
			ds.report.clear()
			ds.ended(d)
		}
		return true
	})
}

// soon is when the next departure may be over by time alone: what no change of the status announces.
func (ds *departures) soon(open []*departure) time.Duration {
	soon := pollWait
	for _, d := range open {
		soon = min(soon, time.Until(d.patience()))
		if !d.outAt.IsZero() && d.phase == drainingPhase {
			soon = min(soon, 500*time.Millisecond)
		}
	}
	return max(soon, pollPause)
}

func (ds *departures) keys() []string {
	var keys []string
	for _, d := range ds.all {
		for key := range d.keys {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// sentence is why and what to change.
func (d *departure) sentence() string { return joined(d.why, d.change) }
