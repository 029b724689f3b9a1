package status

import (
	"fmt"
	"slices"
	"time"

	"berth/pkg/registrar"
	"berth/pkg/target"
)

// GroupOf returns the group that a key names; nil where there is none.
func GroupOf(s *registrar.Snapshot, key string) *registrar.GroupStatus {
	for i := range s.Groups {
		if slices.Contains(s.Groups[i].Keys, key) {
			return &s.Groups[i]
		}
	}
	return nil
}

// How long a load balancer goes on sending requests to a target that it reports as gone. An Application Load Balancer
// takes some seconds. A Network Load Balancer takes minutes: its data plane learns of it late.
// https://github.com/kubernetes-sigs/aws-load-balancer-controller/issues/2366
const (
	settleALB = 10 * time.Second
	settleNLB = 180 * time.Second
)

// DeparturePhase is how far a container, or the host, has come on its way out.
type DeparturePhase string

// The phases.
const (
	LeavingPhase  DeparturePhase = "leaving"  // the load balancer still has it
	DrainingPhase DeparturePhase = "draining" // it is deregistered; open requests end, or new ones still come
	GonePhase     DeparturePhase = "gone"     // nothing is sent to it any more
	OverduePhase  DeparturePhase = "overdue"  // deregistered, and the longest wait is over
	StuckPhase    DeparturePhase = "stuck"    // it cannot be deregistered
)

// Over reports whether nothing more is to be waited for.
func (p DeparturePhase) Over() bool { return p == GonePhase || p == OverduePhase || p == StuckPhase }

// Departure is a container, or the host, on its way out of its target groups.
type Departure struct {
	Name   string // as it was named on the command line
	Run    target.Run
	Host   bool
	Whole  bool   // it is over as soon as one of its groups refuses to let go
	Told   bool   // a refusal is its end as soon as all groups have acted
	Seq    uint64 // discovery's, from which its wants are gone
	Begun  time.Time
	Latest time.Time // when it is waited for no longer
	// sight is when the agent must know what is registered, for it to be waited for any longer; zero: at latest.
	Sight  time.Time
	Settle *time.Duration

	Phase       DeparturePhase
	Why, Change string
	had         bool            // something of it was, or was about to be, registered
	Keys        map[string]bool // its target groups
	OutAt       time.Time       // since when no load balancer has it but those that refused; zero: one has
	refusing    bool            // some refused
	Blind       bool            // the agent does not know yet what is registered
}

// concernsRow reports whether a row is about what departs.
func (d *Departure) concernsRow(r *Row) bool {
	if d.Host {
		return r.State != Unclaimed && r.State != Ignored && r.State != Refused
	}
	return r.Run.ID == d.Run.ID
}

// Before looks at what there was before the drain.
func (d *Departure) Before(s *V1) {
	d.Keys = map[string]bool{}
	for i := range s.Rows {
		if r := &s.Rows[i]; d.concernsRow(r) && (r.State.Wanted() || r.Target.ID != "") {
			d.had = true
			d.Keys[r.Group] = true
		}
	}
}

// Judge brings the departure up to date.
func (d *Departure) Judge(s *V1, now time.Time) {
	registered, draining, blocked, all := d.look(s)
	d.Change, d.Blind = "", unseen(s) != ""
	if blocked != nil && (d.Whole || all) {
		d.Phase, d.Why, d.Change = StuckPhase, describe(blocked), blocked.Change
		return
	}
	waiting := d.behind(s)
	if registered != nil || waiting != "" {
		d.OutAt = time.Time{}
		d.Phase, d.Why = LeavingPhase, waiting
		if registered != nil {
			d.Why, d.Change = describe(registered), registered.Change
		}
		if !now.Before(d.Patience()) {
			d.Phase = StuckPhase
		}
		return
	}
	if d.OutAt.IsZero() || d.refusing && blocked == nil { // what was refused has gone, too
		d.OutAt = now
	}
	d.refusing = blocked != nil
	d.await(s, draining, now)
	if blocked != nil && (d.Phase.Over() || d.Told) { // the rest has been waited for
		d.Phase, d.Why, d.Change = StuckPhase, describe(blocked), blocked.Change
	}
}

// await says how far what has been deregistered has come. draining is some of it that still drains; nil: none does.
func (d *Departure) await(s *V1, draining *Row, now time.Time) {
	settled := d.OutAt.Add(d.settling(s))
	switch {
	case !d.had:
		d.Phase, d.Why = GonePhase, "nothing of it was registered"
	case draining == nil && !now.Before(settled):
		d.Phase, d.Why = GonePhase, "the load balancer has let go of it"
	case !now.Before(d.Latest):
		d.Phase, d.Why = OverduePhase, fmt.Sprintf("deregistered %s ago, and the longest wait is over", now.Sub(d.OutAt).Round(time.Second))
		if draining != nil {
			d.Why += " while the load balancer still lets its open requests end"
		}
	case draining != nil:
		d.Phase, d.Why = DrainingPhase, "deregistered; the load balancer lets its open requests end"
	default:
		d.Phase, d.Why = DrainingPhase, "deregistered; the load balancer may still send requests for a moment"
	}
}

// look finds a row that a load balancer still has, one that is draining, and one that cannot be removed, whatever becomes of
// the others. all reports that every group which had something of it refuses.
func (d *Departure) look(s *V1) (registered, draining, blocked *Row, all bool) {
	refusing := map[string]bool{}
	for i := range s.Rows {
		r := &s.Rows[i]
		if !d.concernsRow(r) {
			continue
		}
		if r.Target.ID != "" || r.State.Wanted() {
			d.had = true
			d.Keys[r.Group] = true
		}
		g := GroupNamed(s, r.Group)
		switch {
		case g != nil && g.State == registrar.StateGone: // and its targets with it
		case r.State.Wanted(), r.State == Leaving && r.Target.ID != "":
			if d.refused(g) {
				blocked = r
				refusing[r.Group] = true
			} else {
				registered = r
			}
		case r.State == Draining:
			draining = r
		}
	}
	return registered, draining, blocked, len(refusing) == len(d.Keys)
}

// refused reports whether a group has acted on the drain, and could not: only a person can change that.
func (d *Departure) refused(g *GroupV1) bool {
	return g != nil && g.Seq >= d.Seq && (g.State == registrar.StateDenied || g.State == registrar.StateMisconfigured)
}

// Label is what messages call it.
func (d *Departure) Label() string { return shownAs(d.Name, d.Run.ID, d.Run.Name) }

// Patience is when a departure is over that has not begun at the load balancer.
func (d *Departure) Patience() time.Time {
	if d.Blind && !d.Sight.IsZero() {
		return d.Sight
	}
	return d.Latest
}

// unseen says why the agent does not know yet what is registered, as after its start; empty: it does.
func unseen(s *V1) string {
	switch {
	case s.Seq == 0:
		return "the agent has not seen Docker's containers yet"
	case !s.Connected:
		return "the agent waits for the instance's identity and AWS credentials, and does not know yet what is registered"
	default:
		return ""
	}
}

// Behind says what may still be registered though no row shows it, or be about to be; empty: nothing is. Of the
// concerned groups each has to have acted on seq, unless it is in trouble: then it shows what it still has. One that has
// never been tried may not: it concerns everybody if it has left the configuration, and who is on no row.
func Behind(s *V1, seq uint64, onNoRow bool, concerned func(*GroupV1) bool) string {
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
func (d *Departure) behind(s *V1) string {
	var rows []Row
	for i := range s.Rows {
		if r := &s.Rows[i]; r.Group != "" && d.concernsRow(r) {
			rows = append(rows, s.Rows[i])
		}
	}
	return Behind(s, d.Seq, len(rows) == 0, func(g *GroupV1) bool {
		return d.Host || concerns(rows, g) || slices.ContainsFunc(g.Keys, func(k string) bool { return d.Keys[k] })
	})
}

// settling is how long the load balancers of its groups go on sending.
func (d *Departure) settling(s *V1) time.Duration {
	if d.Settle != nil {
		return *d.Settle
	}
	longest := time.Duration(0)
	for key := range d.Keys {
		protocol := ""
		if g := GroupNamed(s, key); g != nil {
			protocol = g.Protocol
		}
		longest = max(longest, SettlingOf(protocol))
	}
	return longest
}

// SettlingOf is how long load balancers go on sending to what has left a group of this protocol. Empty: not known.
func SettlingOf(protocol string) time.Duration {
	switch protocol {
	case "HTTP", "HTTPS", "":
		return settleALB
	default:
		return settleNLB
	}
}

// GroupNamed returns the group of that key or label; nil where there is none.
func GroupNamed(s *V1, label string) *GroupV1 {
	for i := range s.Groups {
		if g := &s.Groups[i]; slices.Contains(g.Keys, label) || g.Label() == label {
			return g
		}
	}
	return nil
}

// Sentence is why and what to change.
func (d *Departure) Sentence() string { return Joined(d.Why, d.Change) }
