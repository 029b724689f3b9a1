package elbsim

import (
	"cmp"
	"container/heap"
	"fmt"
	"hash/fnv"
	"maps"
	"regexp"
	"strconv"
	"time"

	"berth/internal/elbsim/wire"
	"berth/pkg/target"
)

// State is a target's state, in DescribeTargetHealth's words. The zero value is StateAbsent.
type State string

// The states of a target.
const (
	StateAbsent            State = "" // not registered; DescribeTargetHealth says unused, Target.NotRegistered
	StateInitial           State = "initial"
	StateHealthy           State = "healthy"
	StateUnhealthy         State = "unhealthy"
	StateUnhealthyDraining State = "unhealthy.draining"
	StateUnused            State = "unused"
	StateDraining          State = "draining"
	StateUnavailable       State = "unavailable"
)

// Health is a target's state with its reason, in DescribeTargetHealth's words.
type Health struct {
	State       State     `json:"state"`
	Reason      string    `json:"reason,omitempty"`
	Description string    `json:"description,omitempty"`
	Since       time.Time `json:"since,omitzero"`
}

var (
	instanceID = regexp.MustCompile(`^i-([0-9a-f]{8}|[0-9a-f]{17})$`)
	groupName  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)
)

// instance is an EC2 instance with what is registered of it.
type instance struct {
	spec     Instance
	entries  map[*entry]struct{}
	metadata map[string]string // paths set from outside; see imds.go
}

func (i *instance) running() bool { return i.spec.State == "running" }

// group is a target group.
type group struct {
	arn, name  string
	spec       Group // with defaults filled in; HealthCheck and DeregistrationDelay as they are now
	version    string
	attributes map[string]string // those that were set; see attributes.go
	tags       map[string]string
	users      map[string]int // ARNs of the load balancers whose listeners and rules use it; "" is the nominal one

	entries    map[target.Target]*entry
	registered int     // entries that do not drain
	leaving    leaving // entries to forget, next first
	routes     routes  // what load balancers may pick; see balancer.go
	stats      map[target.Target]*stats
}

// entry is one target of a group: one id on one port. All that is known of its state is a log of changes, written at
// the times at which they took place, which may be later than anybody asked. That makes the lag of
// DescribeTargetHealth a look at an earlier time, and lets targets live without goroutine or timer.
type entry struct {
	target.Target
	group      *group
	inst       *instance // nil: an address of no known instance
	zone       string
	registered time.Time
	removed    time.Time // zero while registered
	gone       time.Time // when it ends to drain
	log        []Health  // oldest first; never empty
	forced     Health    // set by SetHealth

	backend   Result    // what checks find, where nothing probes
	next      time.Time // of the next check; zero: none
	passes    int       // checks passed in a row
	fails     int       // checks failed in a row
	stopProbe func()    // ends the goroutine that probes it; nil: none
	purge     time.Time // when the entry may be forgotten
	index     int       // in group.leaving; -1: not there

	left  State              // the state in which it was deregistered
	flows map[*flow]struct{} // requests and connections in progress
}

// newGroup makes a group of a valid spec, with defaults filled in, and adds it to the account.
func (s *Sim) newGroup(spec Group) (*group, *wire.Error) {
	if err := checkGroupName(spec.Name); err != nil {
		return nil, err
	}
	spec.Protocol = cmp.Or(spec.Protocol, "HTTP")
	spec.Port = cmp.Or(spec.Port, 80)
	spec.Type = cmp.Or(spec.Type, "instance")
	spec.VPC = cmp.Or(spec.VPC, cmp.Or(s.cfg.Instance.VPC, defaultVPC))
	spec.IPAddressType = cmp.Or(spec.IPAddressType, "ipv4")
	spec.DeregistrationDelay = max(0, cmp.Or(spec.DeregistrationDelay, 300*time.Second))
	spec.HealthCheck = spec.HealthCheck.withDefaults(spec.Protocol)
	if err := checkGroup(&spec); err != nil {
		return nil, err
	}
	if q := s.cfg.Quotas.GroupsPerRegion; q > 0 && len(s.groups) >= q {
		return nil, wire.ErrTooManyTargetGroups(q)
	}
	s.created[spec.Name]++
	g := &group{
		arn:        s.arn("targetgroup/"+spec.Name, s.created[spec.Name]),
		name:       spec.Name,
		spec:       spec,
		attributes: map[string]string{},
		tags:       maps.Clone(spec.Tags),
		users:      map[string]int{},
		entries:    map[target.Target]*entry{},
		stats:      map[target.Target]*stats{},
	}
	if spec.Protocol == "HTTP" || spec.Protocol == "HTTPS" {
		g.version = "HTTP1"
	}
	if s.cfg.AutoAttach {
		g.users[""] = 1
	}
	s.groups[g.arn], s.byName[g.name] = g, g
	return g, nil
}

// arn makes the ARN of a resource. It is the same in every account with the same history, so that scripts may rely on
// it, and differs when a name is used again.
func (s *Sim) arn(path string, generation int) string {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%s/%s/%d", s.cfg.Region, s.cfg.Account, path, generation)
	return fmt.Sprintf("arn:%s:elasticloadbalancing:%s:%s:%s/%016x", partition(s.cfg.Region), s.cfg.Region, s.cfg.Account, path, h.Sum64())
}

// attach adds one use of the group by a load balancer's listener or rule.
func (s *Sim) attach(g *group, balancer string, now time.Time) {
	unused := len(g.users) == 0
	g.users[balancer]++
	if unused {
		s.restartAll(g, now)
	}
}

// detach takes one use away.
func (s *Sim) detach(g *group, balancer string, now time.Time) {
	if g.users[balancer]--; g.users[balancer] <= 0 {
		delete(g.users, balancer)
	}
	if len(g.users) == 0 {
		s.restartAll(g, now)
	}
}

func (s *Sim) restartAll(g *group, now time.Time) {
	for _, e := range g.entries {
		if e.removed.IsZero() {
			s.advance(e, now)
			s.restart(e, now)
		}
	}
}

// instanceChanged carries an instance's new state into its targets.
func (s *Sim) instanceChanged(inst *instance, before string, now time.Time) {
	if inst.spec.State == before {
		return
	}
	for e := range inst.entries {
		s.advance(e, now)
		switch {
		case !e.removed.IsZero():
		case inst.spec.State == "terminated":
			s.remove(e, now)
		default:
			s.restart(e, now)
		}
	}
}

// register adds a target to a group, revives it if it drains, and does nothing if it is registered already.
func (s *Sim) register(g *group, key target.Target, zone string, inst *instance, now time.Time) {
	e := g.entries[key]
	if e != nil {
		s.advance(e, now)
		if e.removed.IsZero() {
			return
		}
		g.leaving.drop(e)
		for f := range e.flows {
			f.keep()
		}
		e.removed, e.gone = time.Time{}, time.Time{}
	} else {
		e = &entry{Target: key, group: g, index: -1}
		g.entries[key] = e
	}
	g.registered++
	e.zone, e.inst, e.registered = zone, inst, now
	if inst != nil {
		inst.entries[e] = struct{}{}
	}
	e.backend = s.backendOf(key)
	s.restart(e, now)
}

func (s *Sim) backendOf(key target.Target) Result {
	if r, ok := s.backends[key]; ok {
		return r
	}
	if s.cfg.Backend != nil {
		return s.cfg.Backend(key)
	}
	return Passed()
}

// restart begins a registered target's life anew: unused while nothing uses it, else initial with checks to come.
func (s *Sim) restart(e *entry, now time.Time) {
	e.stop()
	e.passes, e.fails, e.next = 0, 0, time.Time{}
	switch {
	case len(e.group.users) == 0:
		e.note(now, StateUnused, reasonNotInUse)
	case e.inst != nil && !e.inst.running():
		h := reasonInvalidState
		h.Description = fmt.Sprintf("Target is in the %s state", e.inst.spec.State)
		e.note(now, StateUnused, h)
	default:
		e.note(now, StateInitial, reasonRegistering)
		e.next = now.Add(s.lags.Register)
		s.startProbe(e)
	}
	e.group.routes.valid = false
}

// remove deregisters a target. It drains for the group's delay, or is gone at once where nothing uses the group.
func (s *Sim) remove(e *entry, now time.Time) {
	g := e.group
	e.stop()
	e.left = s.healthAt(e, now, now).State
	g.registered--
	e.removed, e.gone, e.next = now, now, time.Time{}
	if len(g.users) > 0 {
		e.gone = now.Add(g.spec.DeregistrationDelay)
		e.note(now, StateDraining, reasonDraining)
	}
	e.note(e.gone, StateAbsent, Health{})
	e.forced = Health{}
	for f := range e.flows {
		f.endAt(e.gone, now)
	}
	e.purge = latest(e.gone.Add(s.lags.Describe), now.Add(s.lags.Deregister))
	heap.Push(&g.leaving, e)
	g.routes.valid = false
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stop ends probing.
func (e *entry) stop() {
	if e.stopProbe != nil {
		e.stopProbe()
		e.stopProbe = nil
	}
}

// note writes a change of state down. A change at the time of the last one replaces it.
func (e *entry) note(at time.Time, state State, h Health) {
	h.State, h.Since = state, at
	for n := len(e.log); n > 0 && !e.log[n-1].Since.Before(at); n-- {
		e.log = e.log[:n-1]
	}
	e.log = append(e.log, h)
}

// healthAt returns what a target's state was at a time not after now.
func (s *Sim) healthAt(e *entry, at, now time.Time) Health {
	s.advance(e, now)
	if e.forced.State != StateAbsent && !e.forced.Since.After(at) {
		return e.forced
	}
	for i := len(e.log) - 1; i >= 0; i-- {
		if !e.log[i].Since.After(at) {
			return e.log[i]
		}
	}
	return Health{}
}

// forget drops the entries of a group whose time is over. Flows that are still in progress hold on to their own.
func (s *Sim) forget(g *group, now time.Time) {
	for len(g.leaving) > 0 && !g.leaving[0].purge.After(now) {
		e := heap.Pop(&g.leaving).(*entry)
		delete(g.entries, e.Target)
		if e.inst != nil {
			delete(e.inst.entries, e)
		}
	}
}

// trim forgets the part of a log that nobody can ask for any more.
func (e *entry) trim(oldest time.Time) {
	for len(e.log) > 1 && !e.log[1].Since.After(oldest) {
		e.log = e.log[1:]
	}
}

// leaving is a heap of deregistered entries by the time at which they may be forgotten.
type leaving []*entry

func (l leaving) Len() int           { return len(l) }
func (l leaving) Less(i, j int) bool { return l[i].purge.Before(l[j].purge) }
func (l leaving) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}

// Push is heap.Interface's.
func (l *leaving) Push(x any) {
	e := x.(*entry)
	e.index = len(*l)
	*l = append(*l, e)
}

// Pop is heap.Interface's.
func (l *leaving) Pop() any {
	old := *l
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*l = old[:len(old)-1]
	e.index = -1
	return e
}

func (l *leaving) drop(e *entry) {
	if e.index >= 0 {
		heap.Remove(l, e.index)
	}
}

// effect is the effect of a call that takes place later than its reply.
type effect struct {
	at  time.Time
	req request
	id  uint64 // of the call in the record
}

// effects are kept by time; those of one time in the order of their calls.
type effects []effect

func (p *effects) add(e effect) {
	i := len(*p)
	for i > 0 && (*p)[i-1].at.After(e.at) {
		i--
	}
	*p = append(*p, effect{})
	copy((*p)[i+1:], (*p)[i:])
	(*p)[i] = e
}

// settle carries out the late effects that are due.
func (s *Sim) settle(now time.Time) {
	for len(s.pending) > 0 && !s.pending[0].at.After(now) {
		e := s.pending[0]
		s.pending = s.pending[1:]
		_, err := e.req.apply(s, e.at)
		s.record.took(e.id, e.at, err)
	}
}

// port returns the target's port as health check port where the group's checks go to the traffic port.
func (g *group) checkPort(key target.Target) string {
	if g.spec.HealthCheck.Port == trafficPort {
		return strconv.Itoa(int(key.Port))
	}
	return g.spec.HealthCheck.Port
}
