package status

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

// How long a load balancer goes on sending requests to a target that it reports as gone. An Application Load Balancer
// takes some seconds. A Network Load Balancer takes minutes: its data plane learns of it late.
// https://github.com/kubernetes-sigs/aws-load-balancer-controller/issues/2366
const (
	settleALB = 10 * time.Second
	settleNLB = 180 * time.Second
)

// SettlingOf is how long load balancers go on sending to what has left a group of this protocol. Empty: not known.
func SettlingOf(protocol string) time.Duration {
	switch protocol {
	case "HTTP", "HTTPS", "":
		return settleALB
	default:
		return settleNLB
	}
}

// How long before the time of a spot notice waits end: what is stopped then has Docker's own 10 s. What began too late for
// that is given the time of a call or two.
const (
	spotMargin = 10 * time.Second
	spotLeast  = 5 * time.Second
)

// WaitEnd is when a wait that began then, and is to end by latest, has to: where EC2 takes the instance back, 10 s before
// that. A notice whose time had come when the wait began says nothing any more.
func (s *V1) WaitEnd(begun, latest time.Time) time.Time {
	for _, n := range s.Host.Notices {
		if n.Kind != host.Spot || !n.Deadline.After(begun) {
			continue
		}
		end := n.Deadline.Add(-spotMargin)
		if least := begun.Add(spotLeast); end.Before(least) {
			end = least
		}
		if end.Before(latest) {
			latest = end
		}
	}
	return latest
}

// DeparturePhase is how far a departure has come.
type DeparturePhase string

// The phases.
const (
	LeavingPhase  DeparturePhase = "leaving"  // the load balancer still has it, or may have it soon
	DrainingPhase DeparturePhase = "draining" // it is deregistered; open requests end, or new ones still come
	GonePhase     DeparturePhase = "gone"     // nothing is sent to it any more
	OverduePhase  DeparturePhase = "overdue"  // deregistered, and the longest wait is over
	StuckPhase    DeparturePhase = "stuck"    // it cannot be deregistered
	UnknownPhase  DeparturePhase = "unknown"  // the agent knows no container of that name, and never did
)

// Over reports whether nothing more is to be waited for.
func (p DeparturePhase) Over() bool {
	return p == GonePhase || p == OverduePhase || p == StuckPhase || p == UnknownPhase
}

// Refusal says when a departure ends of which a group refuses to let go. Only a person can change that the group refuses;
// the other groups let go all the same.
type Refusal int

// The ways to take a refusal. In each of the first three a departure ends at once where every group refuses.
const (
	RefusalEndsLast    Refusal = iota // when the other groups have let go and have settled
	RefusalEndsActed                  // when the other groups have deregistered it
	RefusalEndsAtOnce                 // now: it is to leave all groups, or none
	RefusalEndsNothing                // never: somebody may yet mend it
)

// DepartureOptions say what a departure begins with and how long it may take.
type DepartureOptions struct {
	// Before is the status before the drain; nil: it is not known.
	Before *V1
	// Seq is discovery's, from which its wants are gone. 0: that of the first status which shows that they are.
	Seq uint64
	// Latest is when it is waited for no longer; zero: it is waited for until it is gone. A spot notice may end
	// the wait sooner: see V1.WaitEnd.
	Latest time.Time
	// Sight is when the agent must know what is registered, for the departure to be waited for any longer; zero: at Latest.
	Sight time.Time
	// Settle is how long load balancers go on sending to what has left; nil: as long as those of its groups do.
	Settle *time.Duration
	// Refusal says when a group's refusal is the end.
	Refusal Refusal
}

// Departure judges whether something has left the load balancer: a run of a container, a container by its name, the host,
// or one target of a group. It is the only judge of that. Each status is shown to it; what it remembers of them is since
// when no load balancer has what departs, and in which groups it was.
type Departure struct {
	subject
	o DepartureOptions

	seq      uint64          // from which its wants are gone; 0: they are not, as far as is known
	had      bool            // something of it was, or was about to be, registered
	groups   map[string]bool // where that was so
	begun    time.Time       // when it was first judged
	latest   time.Time       // when it is waited for no longer, with all that is known by now
	outAt    time.Time       // since when no load balancer has it but those that refused; zero: one has
	refusing bool            // some refused

	phase  DeparturePhase
	reason Reason
	blind  bool // the agent does not know yet what is registered
}

// RunDeparture is that of a run of a container. ref is what the container was called on the command line.
func RunDeparture(ref string, run target.Run, o DepartureOptions) *Departure {
	return newDeparture(subject{kind: aRun, named: named{ref: ref}, run: run}, o)
}

// HostDeparture is that of the whole host. Without a Seq it begins when a drain of the host is in force.
func HostDeparture(o DepartureOptions) *Departure { return newDeparture(subject{kind: theHost}, o) }

// NamedDeparture is that of whatever containers have a name, or an id or the beginning of one: in one group, or in all
// where group is empty. It begins when nothing of them is wanted. It is over when the load balancer reports nothing of them:
// no deadline ends it, and no time to settle is added.
func NamedDeparture(ref, group string) *Departure {
	return newDeparture(subject{kind: aName, named: named{ref: ref, group: group}}, DepartureOptions{
		Settle: new(time.Duration), Refusal: RefusalEndsNothing,
	})
}

// TargetDeparture is that of one target of a group, whoever registered it.
func TargetDeparture(group string, t target.Target) *Departure {
	return newDeparture(subject{kind: aTarget, key: group, target: t}, DepartureOptions{Refusal: RefusalEndsNothing})
}

func newDeparture(about subject, o DepartureOptions) *Departure {
	d := &Departure{subject: about, o: o, seq: o.Seq, latest: o.Latest, groups: map[string]bool{}, phase: LeavingPhase}
	if o.Before != nil {
		d.remember(d.rows(o.Before))
	}
	d.o.Before = nil
	return d
}

// Phase is what Judge last said.
func (d *Departure) Phase() DeparturePhase { return d.phase }

// Reason says why the departure is in its phase, and what to change.
func (d *Departure) Reason() Reason { return d.reason }

// Blind reports whether the agent did not know what is registered, when it was last asked.
func (d *Departure) Blind() bool { return d.blind }

// Latest is when the departure is waited for no longer; zero: it is waited for until it is gone.
func (d *Departure) Latest() time.Time { return d.latest }

// Groups are the groups that something of it was in, by their keys and in order.
func (d *Departure) Groups() []string { return SortedKeys(d.groups) }

// Judge says how far the departure has come by a status, and when that may change by time alone: whoever waits asks
// again with a newer status, or at next. A zero next says that only a newer status changes anything.
func (d *Departure) Judge(s *V1, now time.Time) (phase DeparturePhase, next time.Time) {
	d.blind = unseen(s) != ""
	if d.begun.IsZero() {
		d.begun = now
	}
	if !d.o.Latest.IsZero() {
		d.latest = s.WaitEnd(d.begun, d.o.Latest)
	}
	rows := d.rows(s)
	if d.kind == aName && len(rows) == 0 && !d.known {
		var final bool
		d.phase = LeavingPhase
		if d.reason, next, final = d.absent(s, now); final {
			d.phase = UnknownPhase
		}
		return d.phase, next
	}
	d.remember(rows)
	d.phase, d.reason, next = d.judge(s, rows, now)
	return d.phase, next
}

func (d *Departure) judge(s *V1, rows []*Row, now time.Time) (DeparturePhase, Reason, time.Time) {
	undrained := d.begin(s, rows)
	at := d.standing(s, rows)
	if at.blocked != nil && (d.o.Refusal == RefusalEndsAtOnce || at.everywhere) {
		return StuckPhase, reasonOf(at.blocked), time.Time{}
	}
	if why := cmp.Or(undrained, d.held(s, rows, &at)); why.Why != "" {
		d.outAt = time.Time{}
		if end := d.patience(); end.IsZero() || now.Before(end) {
			return LeavingPhase, why, end
		}
		return StuckPhase, why, time.Time{}
	}
	if d.outAt.IsZero() || d.refusing && at.blocked == nil { // what was refused has gone, too
		d.outAt = now
	}
	d.refusing = at.blocked != nil
	phase, why, next := d.await(s, at.draining, now)
	if at.blocked != nil && (phase.Over() || d.o.Refusal == RefusalEndsActed) { // the rest has been waited for
		return StuckPhase, reasonOf(at.blocked), time.Time{}
	}
	return phase, why, next
}

// remember takes in which groups have something of it.
func (d *Departure) remember(rows []*Row) {
	for _, r := range rows {
		if r.State.Wanted() || r.Target.ID != "" {
			d.had = true
			d.groups[r.Group] = true
		}
	}
}

// standing is where what departs stands in its groups. Each row is one of several, or nil.
type standing struct {
	registered *Row // a load balancer has it, or is about to
	draining   *Row
	blocked    *Row // it cannot be removed, whatever becomes of the others
	everywhere bool // every group that had something of it refuses
}

func (d *Departure) standing(s *V1, rows []*Row) standing {
	var at standing
	refusing := map[string]bool{}
	for _, r := range rows {
		g := GroupNamed(s, r.Group)
		switch {
		case g != nil && g.State == registrar.StateGone && (d.kind == aRun || d.kind == theHost):
			// And its targets with it, as far as somebody waits to stop something. It may have been another account that said
			// so: whoever asks whether a target is gone waits for more.
		case r.State.Wanted(), r.State == Unclaimed, r.State == Leaving && r.Target.ID != "":
			if d.refused(g) {
				at.blocked = r
				refusing[r.Group] = true
			} else {
				at.registered = r
			}
		case r.State == Draining:
			at.draining = r
		}
	}
	at.everywhere = len(refusing) == len(d.groups)
	return at
}

// refused reports whether a group has acted on the drain, and could not: only a person can change that.
func (d *Departure) refused(g *GroupV1) bool {
	return d.o.Refusal != RefusalEndsNothing && g != nil && d.seq > 0 && g.Seq >= d.seq &&
		(g.State == registrar.StateDenied || g.State == registrar.StateMisconfigured)
}

// held says what still holds it at the load balancer, or may; nothing: it is deregistered wherever it can be.
func (d *Departure) held(s *V1, rows []*Row, at *standing) Reason {
	if at.registered != nil {
		return reasonOf(at.registered)
	}
	why := Reason{Why: d.behind(s, rows)}
	if why.Why != "" && at.draining != nil && d.kind == aName { // that says more
		return reasonOf(at.draining)
	}
	return why
}

// begin takes in from which Seq on the wants are gone, where that was not said. It returns why they are not, if so.
func (d *Departure) begin(s *V1, rows []*Row) Reason {
	if d.o.Seq > 0 {
		return Reason{}
	}
	why := d.undrained(s, rows)
	switch {
	case why.Why != "":
		d.seq = 0
	case d.seq == 0:
		d.seq = s.Seq
	}
	return why
}

// undrained says why the departure has not begun, where it was not said from which Seq on it has.
func (d *Departure) undrained(s *V1, rows []*Row) Reason {
	switch d.kind {
	case theHost:
		if why := unseen(s); why != "" {
			return Reason{Why: why}
		}
		if !slices.ContainsFunc(s.Drains, func(v DrainV1) bool { return v.Host() }) {
			return Reason{Why: "nothing drains it"}
		}
	case aName:
		for _, r := range rows {
			if r.State.Wanted() {
				return Reason{Why: "nothing drains it: " + describe(r), Change: "run: berth drain " + d.ref}
			}
		}
	case aRun, aTarget: // somebody has asked for it to go
	}
	return Reason{}
}

// await says how far what has been deregistered has come. draining is some of it that still drains; nil: none does.
func (d *Departure) await(s *V1, draining *Row, now time.Time) (DeparturePhase, Reason, time.Time) {
	settled, latest := d.outAt.Add(d.settling(s)), d.latest
	late := !latest.IsZero() && !now.Before(latest)
	switch {
	case !d.had:
		return GonePhase, Reason{Why: d.gone("nothing of it was registered")}, time.Time{}
	case draining == nil && !now.Before(settled):
		return GonePhase, Reason{Why: d.gone("the load balancer has let go of it")}, time.Time{}
	case late && draining == nil:
		return OverduePhase, Reason{Why: d.overdue(now)}, settled
	case late:
		return OverduePhase, Reason{Why: d.overdue(now) + " while the load balancer still lets its open requests end"}, time.Time{}
	case draining != nil && d.kind == aName:
		return DrainingPhase, reasonOf(draining), latest
	case draining != nil:
		return DrainingPhase, Reason{Why: "deregistered; the load balancer lets its open requests end"}, latest
	default:
		return DrainingPhase, Reason{Why: "deregistered; the load balancer may still send requests for a moment"}, Sooner(settled, latest)
	}
}

func (d *Departure) overdue(now time.Time) string {
	why := "the longest wait is over"
	if d.latest.Before(d.o.Latest) {
		why = "EC2 is about to take the instance back"
	}
	return fmt.Sprintf("deregistered %s ago, and %s", now.Sub(d.outAt).Round(time.Second), why)
}

// gone is why it is gone. Of what was only named it is not known when that began, or whether it ever did.
func (d *Departure) gone(why string) string {
	switch {
	case d.kind != aName:
		return why
	case d.missing:
		return "it is gone, and so are its targets"
	default:
		return "nothing of it is registered"
	}
}

// patience is when a departure is over that has not begun at the load balancer; zero: never.
func (d *Departure) patience() time.Time {
	if d.blind {
		return Sooner(d.o.Sight, d.latest)
	}
	return d.latest
}

// behind says what of the departure may still be registered though no row shows it, or be about to be; empty: nothing is.
func (d *Departure) behind(s *V1, rows []*Row) string {
	if d.kind == aTarget {
		if why := unseen(s); why != "" || GroupNamed(s, d.key) != nil {
			return why
		}
		return "the agent serves no target group " + d.key + " any more"
	}
	onNoRow := !slices.ContainsFunc(rows, func(r *Row) bool { return r.Group != "" || d.kind == aName })
	return behind(s, d.seq, onNoRow, func(g *GroupV1) bool {
		return d.kind == theHost || slices.ContainsFunc(rows, func(r *Row) bool { return d.mayBeIn(r, g) }) ||
			slices.ContainsFunc(g.Keys, func(k string) bool { return d.groups[k] }) ||
			slices.ContainsFunc(g.Held, func(h registrar.Held) bool { return d.groups[h.Key] })
	})
}

// settling is how long the load balancers of its groups go on sending.
func (d *Departure) settling(s *V1) time.Duration {
	if d.o.Settle != nil {
		return *d.o.Settle
	}
	longest := time.Duration(0)
	for key := range d.groups {
		protocol := ""
		if g := GroupNamed(s, key); g != nil {
			protocol = g.Protocol
		}
		longest = max(longest, SettlingOf(protocol))
	}
	return longest
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

// behind says which group has not acted on seq; empty: none is behind. Of the concerned groups each has to have acted,
// unless it is in trouble: then it shows what it still has. One that has never been tried may not: it concerns everybody if
// it has left the configuration, and who is on no row.
func behind(s *V1, seq uint64, onNoRow bool, concerned func(*GroupV1) bool) string {
	if why := unseen(s); why != "" {
		return why
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		untried, unnamed, left := !g.Tried && g.Seq == 0, len(g.Keys) == 0, len(g.Keys)+len(g.Held) == 0
		if untried && (unnamed || onNoRow) || !left && concerned(g) && (untried || g.Seq < seq && (g.State == registrar.StateOK || !g.Tried)) {
			return "target group " + g.Label() + " has not acted on it yet"
		}
	}
	return ""
}

// Sooner is the earlier of two times that judges have named; zero is never.
func Sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
