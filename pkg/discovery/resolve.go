package discovery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/pkg/target"
)

// Timing is the part of the decision that is time. The zero value of a field means its default.
type Timing struct {
	// PauseGrace is how long a paused container stays wanted: docker commit and checkpoints pause for a moment, and
	// taking a target out costs a deregistration delay. Default 5 s.
	PauseGrace time.Duration
	// CrashWait is how long a container must have run before it is registered after its first death that nobody asked
	// for; each further one doubles it, up to CrashWaitMax. Defaults 10 s and 5 min.
	CrashWait, CrashWaitMax time.Duration
	// CrashReset is the run after which earlier deaths are forgotten. Default 10 min.
	CrashReset time.Duration
	// StopSurvivor is how long after a stop signal a container that runs on counts as a survivor; at least its
	// StopTimeout and 5 s. Raising it keeps survivors out for longer, lowering it risks that a container which takes
	// its time to stop is registered again meanwhile. Default 10 min.
	StopSurvivor time.Duration
}

func (t Timing) withDefaults() Timing {
	return Timing{
		PauseGrace:   cmp.Or(t.PauseGrace, 5*time.Second),
		CrashWait:    cmp.Or(t.CrashWait, 10*time.Second),
		CrashWaitMax: cmp.Or(t.CrashWaitMax, 5*time.Minute),
		CrashReset:   cmp.Or(t.CrashReset, 10*time.Minute),
		StopSurvivor: cmp.Or(t.StopSurvivor, 10*time.Minute),
	}
}

// crashWait is how long a container has to run before it is registered after so many deaths in a row.
func (t Timing) crashWait(crashes int) time.Duration {
	if crashes == 0 {
		return 0
	}
	wait := t.CrashWait
	for range crashes - 1 {
		if wait >= t.CrashWaitMax {
			break
		}
		wait *= 2
	}
	return min(wait, t.CrashWaitMax)
}

// survivor is how long after its stop signal a container counts as a survivor.
func (t Timing) survivor(f *Facts) time.Duration {
	return max(t.StopSurvivor, f.StopTimeout+5*time.Second)
}

// Container is what Resolve is told about one container: what the last inspection said, and what has been heard since.
type Container struct {
	*Facts
	// Begun is StartedAt on the clock of Input.Now, which nobody sets; zero: StartedAt is.
	Begun time.Time
	// Ended reports whether that run is over, whatever State says: it died, or a new run's inspection is awaited.
	Ended bool
	// Disconnected reports whether its network was taken away after the inspection.
	Disconnected bool
	// PausedAt is since when it is paused; zero: it is not.
	PausedAt time.Time
	// Crashes counts the deaths in a row that nobody asked for.
	Crashes int
	// WasHealthy reports whether its HEALTHCHECK has passed in this run.
	WasHealthy bool
	// Admitted are the groups in which this run has been wanted before: what holds a run back before it comes in, its
	// health and the deaths of earlier runs, is behind it.
	Admitted map[string]bool
}

func (c *Container) run() target.Run {
	return target.Run{ID: c.ID, Name: c.Name, StartedAt: c.StartedAt}
}

// begun is when the run began, on the clock of Input.Now.
func (c *Container) begun() time.Time {
	if c.Begun.IsZero() {
		return c.StartedAt
	}
	return c.Begun
}

// running reports whether the container runs, paused or not.
func (c *Container) running() bool {
	return !c.Ended && (c.State == "running" || c.State == "paused")
}

// Input is all that Resolve looks at.
type Input struct {
	Containers []Container // in any order
	Rules      []Rule      // one for each group
	Drains     []Drain
	// DrainsUnread reports that drains of before could not be read yet: nothing is wanted that they may be about, and nothing
	// is given up for their sake.
	DrainsUnread bool
	Timing       Timing
	Now          time.Time
}

// Resolution is what follows from an Input.
type Resolution struct {
	// Wants has a key for each rule's group. Values are in order.
	Wants     map[string][]target.Want
	Decisions []Decision // in order; Since is set only where the input tells it
	Allotted  []target.Allotment
	// Shadowed are the ids of containers whose host port belongs to a later run of another one: what is known of them
	// is out of date, and asking again is worth it.
	Shadowed []string
	// Undecided are the ids of containers that would be wanted were it not for DrainsUnread: what is registered for them
	// stays.
	Undecided []string
	// Next is when the same input will resolve differently because of the time alone; zero: never.
	Next time.Time
}

// Resolve says what should be registered, and why or why not for every port. It is pure: the same input gives the same
// resolution, whatever the order of containers, rules and drains.
//
// | the container is                              | verdict  |
// |-----------------------------------------------|----------|
// | opted out, unasked for, left alone, not running | ignored |
// | asking for what cannot be done                | refused  |
// | drained, or on a draining host                | drained  |
// | told to stop; paused; disconnected; unhealthy | leaving  |
// | crashing; not healthy yet; its port taken over | not_yet |
// | none of these                                 | wanted   |
func Resolve(in Input) Resolution {
	r := newResolver(in)
	for i := range r.containers {
		r.container(&r.containers[i])
	}
	r.heldNames()
	for _, wants := range r.out.Wants {
		slices.SortFunc(wants, compareWants)
	}
	slices.SortFunc(r.out.Decisions, compareDecisions)
	slices.SortFunc(r.out.Allotted, compareAllotments)
	return r.out
}

type resolver struct {
	in         Input
	containers []Container
	rules      map[string]*Rule
	groups     []string // the rules' groups, sorted
	hostDrain  *Drain
	drains     map[string][]*Drain // by container
	held       map[string]*Drain   // by the name that is held
	borne      map[string]bool     // names of running containers that are held
	owners     owners
	out        Resolution
}

func newResolver(in Input) *resolver {
	in.Timing = in.Timing.withDefaults()
	r := &resolver{
		in:         in,
		containers: slices.Clone(in.Containers),
		rules:      make(map[string]*Rule, len(in.Rules)),
		drains:     make(map[string][]*Drain, len(in.Drains)),
		held:       make(map[string]*Drain),
		borne:      make(map[string]bool),
		out:        Resolution{Wants: make(map[string][]target.Want, len(in.Rules))},
	}
	slices.SortFunc(r.containers, func(a, b Container) int { return a.run().Compare(b.run()) })
	for i := range in.Rules {
		rule := &in.Rules[i]
		r.rules[rule.Group] = rule
		r.groups = append(r.groups, rule.Group)
		r.out.Wants[rule.Group] = nil
	}
	slices.Sort(r.groups)
	for i := range in.Drains {
		d := &in.Drains[i]
		switch {
		case d.Host():
			r.hostDrain = earlier(r.hostDrain, d)
		case d.Container != "":
			r.drains[d.Container] = append(r.drains[d.Container], d)
		}
		if d.Name != "" {
			r.held[d.Name] = earlier(r.held[d.Name], d)
		}
	}
	r.owners = newOwners(r.containers)
	return r
}

// earlier returns the drain that began first: the one to name of several, and a stable choice.
func earlier(a, b *Drain) *Drain {
	if a == nil || cmp.Or(b.Since.Compare(a.Since), strings.Compare(b.ID, a.ID)) < 0 {
		return b
	}
	return a
}

// covers reports whether d takes this run out, given that it is about the container.
func (d *Drain) covers(run target.Run) bool {
	if d.Hold != HoldRun {
		return true
	}
	if d.StartedAt.IsZero() {
		return !run.StartedAt.After(d.Since)
	}
	return d.StartedAt.Equal(run.StartedAt)
}

// container decides about one container.
func (r *resolver) container(c *Container) {
	if !c.running() {
		why := "it is not running"
		if !c.Ended && c.State != "" {
			why += " (" + c.State + ")"
		}
		r.whole(c, Ignored, why, "")
		return
	}
	if r.held[c.Name] != nil {
		r.borne[c.Name] = true
	}
	r.allot(c)
	claims, done := r.claims(c)
	if done {
		return
	}
	if len(claims) == 0 {
		r.unasked(c)
		return
	}
	table := newPortTable(c.Facts)
	decided := make(map[groupPort]struct{}, len(claims))
	for _, claim := range claims {
		r.claim(c, table, claim, decided)
	}
}

// unasked decides about a container that neither a label nor a rule brings into a group.
func (r *resolver) unasked(c *Container) {
	why, change := "it has no label "+TargetsLabel+", and no rule matches it", ""
	for _, group := range r.groups {
		if m := r.rules[group].Match; m != nil && m.Image != "" && byID(c.Image) {
			why += ": it was run by its image's id, and rules know images by name"
			change = "run it by the image's name, or label it " + TargetsLabel + "=" + group
			break
		}
	}
	r.whole(c, Ignored, why, change)
}

type groupPort struct {
	group string
	port  target.PortProto
}

// claims says which groups ask for the container. It reports done when a decision about the whole container has been
// made that leaves nothing to ask.
func (r *resolver) claims(c *Container) (claims []claimed, done bool) {
	value, labelled := c.Labels[TargetsLabel]
	if labelled && strings.TrimSpace(value) == "" {
		r.whole(c, Ignored, "its label "+TargetsLabel+" is empty: it opted out", "")
		return nil, true
	}
	if labelled {
		claims = r.labelClaims(c, value)
	}
	if why := leftAlone(c.Facts); why != "" {
		if !labelled {
			r.whole(c, Ignored, why, "to register it here, name a group in its label "+TargetsLabel)
		}
		return claims, len(claims) == 0
	}
	for _, group := range r.groups {
		rule := r.rules[group]
		if labelled && !rule.NoLabels || !rule.Match.matches(c.Facts) {
			continue
		}
		claims = append(claims, claimed{group: group, port: rule.Port, rule: rule})
	}
	return claims, labelled && len(claims) == 0
}

// labelClaims reads the label. What cannot be read or names no group of the configuration is refused; the rest stands.
func (r *resolver) labelClaims(c *Container, value string) []claimed {
	label, err := ParseTargets(value)
	if err != nil {
		r.whole(c, Refused, "its label "+TargetsLabel+" cannot be read: "+err.Error(),
			"write group, group:port or group:port/protocol, separated by commas")
		return nil
	}
	var claims []claimed
	for _, l := range label {
		rule, ok := r.rules[l.Group]
		switch {
		case !ok:
			r.decide(c, l.Group, l.Port, Refused, "there is no group "+quote(l.Group)+" in the configuration", "name "+r.known()+" in the label, or add the group to the configuration")
		case rule.NoLabels:
			r.decide(c, l.Group, l.Port, Refused, "group "+quote(l.Group)+" takes no labels (labels: false)", "let the group's rule match the container, or set labels: true")
		default:
			port := l.Port
			if port.Port == 0 {
				port = rule.Port
			}
			claims = append(claims, claimed{group: l.Group, port: port, rule: rule, label: label, own: l.Port.Port != 0})
		}
	}
	return claims
}

// known lists the groups that a label may name.
func (r *resolver) known() string {
	const most = 20
	var names []string
	for _, g := range r.groups {
		if !r.rules[g].NoLabels {
			names = append(names, g)
		}
	}
	switch n := len(names); {
	case n == 0:
		return "a configured group (there is none that labels may name)"
	case n == 1:
		return names[0]
	case n > most:
		return "one of " + strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	}
	return "one of " + strings.Join(names, ", ")
}

// claim settles one claim: first which port, then whether its time is now.
func (r *resolver) claim(c *Container, table *portTable, claim claimed, decided map[groupPort]struct{}) {
	if c.Disconnected {
		r.decide(c, claim.group, claim.port, Leaving, "its network was disconnected, and its published ports with it", "")
		return
	}
	if _, err := ParseStopSignals(c.Labels[StopSignalsLabel]); err != nil {
		r.decide(c, claim.group, claim.port, Refused, "its label "+StopSignalsLabel+" cannot be read: "+err.Error(),
			"write signals separated by commas, like INT,QUIT")
		return
	}
	ways, port, refused := table.settle(claim)
	if refused != nil {
		r.decide(c, claim.group, port, Refused, refused.why, refused.change)
		return
	}
	// "web,web:8080" may come down to one port: once is enough.
	at := groupPort{claim.group, port}
	if _, ok := decided[at]; ok {
		return
	}
	decided[at] = struct{}{}
	v := r.judge(c, claim.rule)
	if v.verdict == Wanted {
		ways, v = r.unshadowed(c, ways, v)
	}
	r.out.Decisions = append(r.out.Decisions, Decision{
		Run: c.run(), Group: claim.group, Port: port.Port, Protocol: port.Protocol,
		Verdict: v.verdict, Why: v.why, Change: v.change, Since: v.since,
	})
	if v.verdict != Wanted {
		return
	}
	for _, way := range ways {
		r.out.Wants[claim.group] = append(r.out.Wants[claim.group], target.Want{
			Group: claim.group, Run: c.run(), Port: port.Port, Protocol: port.Protocol,
			HostPort4: way.host4, HostPort6: way.host6, HostIP: way.hostIP, Dynamic: way.dynamic,
		})
	}
}

// unshadowed leaves out the ways whose host port belongs to a later run of another container.
func (r *resolver) unshadowed(c *Container, ways []exposure, v verdict) ([]exposure, verdict) {
	var kept []exposure
	var by target.Run
	for _, way := range ways {
		if owner, lost := r.owners.later(c, way); lost {
			by = owner
			continue
		}
		kept = append(kept, way)
	}
	if len(kept) > 0 {
		return kept, v
	}
	if !slices.Contains(r.out.Shadowed, c.ID) {
		r.out.Shadowed = append(r.out.Shadowed, c.ID)
	}
	return nil, verdict{verdict: NotYet, why: "its host port now belongs to " + by.String() + ": what Docker said of this container is out of date"}
}

// heldNames decides about the names that are held and that no container bears: whichever takes one stays out.
func (r *resolver) heldNames() {
	for name, d := range r.held {
		if r.borne[name] {
			continue
		}
		r.out.Decisions = append(r.out.Decisions, Decision{
			Run: target.Run{Name: name}, Verdict: Drained, Since: d.Since, Change: "berth undrain " + name,
			Why: "no container that runs is known by this name; it was drained" + byWhom(d) + ", and whichever takes it stays out",
		})
	}
}

// whole decides about the container as a whole.
func (r *resolver) whole(c *Container, v Verdict, why, change string) {
	r.decide(c, "", target.PortProto{}, v, why, change)
}

func (r *resolver) decide(c *Container, group string, port target.PortProto, v Verdict, why, change string) {
	r.out.Decisions = append(r.out.Decisions, Decision{
		Run: c.run(), Group: group, Port: port.Port, Protocol: port.Protocol, Verdict: v, Why: why, Change: change,
	})
}

// wake notes that the resolution changes at t by itself.
func (r *resolver) wake(t time.Time) {
	if r.out.Next.IsZero() || t.Before(r.out.Next) {
		r.out.Next = t
	}
}
