package elbsim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"berth/pkg/target"
)

// ErrUnknown says that there is no such thing in the account.
var ErrUnknown = errors.New("not in this account")

// CheckInstanceID reports whether an id has the form of an EC2 instance's.
func CheckInstanceID(id string) error {
	if !instanceID.MatchString(id) {
		return fmt.Errorf("%q: must be an instance id like i-0123456789abcdef0", id)
	}
	return nil
}

// AddInstance adds an instance, or replaces what is known of it.
func (s *Sim) AddInstance(i Instance) error {
	if err := CheckInstanceID(i.ID); err != nil {
		return fmt.Errorf("add instance: %w", err)
	}
	if i.State != "" && !slices.Contains(instanceStates, i.State) {
		return fmt.Errorf("add instance %s: state %q: must be one of %v", i.ID, i.State, instanceStates)
	}
	now := s.lock()
	defer s.mu.Unlock()
	if old := s.instances[i.ID]; old != nil {
		before := old.spec.State
		delete(s.byIP, old.spec.PrivateIP)
		old.spec, old.metadata = s.instanceDefaults(i), nil
		if old.spec.PrivateIP != "" {
			s.byIP[old.spec.PrivateIP] = old
		}
		s.instanceChanged(old, before, now)
		return nil
	}
	s.addInstance(i)
	return nil
}

func (s *Sim) addInstance(i Instance) *instance {
	inst := &instance{spec: s.instanceDefaults(i), entries: map[*entry]struct{}{}}
	s.instances[inst.spec.ID] = inst
	if inst.spec.PrivateIP != "" {
		s.byIP[inst.spec.PrivateIP] = inst
	}
	return inst
}

func (s *Sim) instanceDefaults(i Instance) Instance {
	i.State = cmp.Or(i.State, "running")
	i.VPC = cmp.Or(i.VPC, defaultVPC)
	i.Zone = cmp.Or(i.Zone, s.cfg.Region+"a")
	i.MAC = cmp.Or(i.MAC, defaultMAC)
	i.Address = cmp.Or(i.Address, loopback)
	return i
}

// HasInstance reports whether the account has that instance; "" is the first one.
func (s *Sim) HasInstance(id string) bool {
	s.lock()
	defer s.mu.Unlock()
	return s.instances[s.orFirst(id)] != nil
}

var instanceStates = []string{"pending", "running", "stopping", "stopped", "shutting-down", "terminated"}

// SetInstanceState changes an instance's state: a stopped one's targets are unused with Target.InvalidState, a
// terminated one's are deregistered.
func (s *Sim) SetInstanceState(id, state string) error {
	if !slices.Contains(instanceStates, state) {
		return fmt.Errorf("set state of instance %s: state %q: must be one of %v", id, state, instanceStates)
	}
	now := s.lock()
	defer s.mu.Unlock()
	inst := s.instances[id]
	if inst == nil {
		return fmt.Errorf("set state of instance %s: %w", id, ErrUnknown)
	}
	before := inst.spec.State
	inst.spec.State = state
	s.instanceChanged(inst, before, now)
	return nil
}

// Group describes a target group to add. Only Name is needed.
type Group struct {
	Name          string
	Protocol      string // HTTP, HTTPS, TCP, TLS, UDP, TCP_UDP. Empty: HTTP
	Port          uint16 // where targets are registered without one. 0: 80
	Type          string // instance or ip. Empty: instance
	VPC           string // empty: that of the first instance
	IPAddressType string // ipv4 or ipv6. Empty: ipv4
	HealthCheck   HealthCheck
	// DeregistrationDelay is how long targets drain. 0: AWS's 300 s. Negative: not at all.
	DeregistrationDelay time.Duration
	Tags                map[string]string
	// Detached leaves the group without a listener: its targets are unused. Groups that are added here have a nominal
	// one otherwise.
	Detached bool
}

// AddGroup adds a target group and returns its ARN. A name that is taken is an error.
func (s *Sim) AddGroup(spec Group) (string, error) {
	now := s.lock()
	defer s.mu.Unlock()
	if s.byName[spec.Name] != nil {
		return "", fmt.Errorf("add target group: %w", at("name", fmt.Errorf("%q: is taken", spec.Name)))
	}
	g, err := s.newGroup(spec)
	if err != nil {
		return "", fmt.Errorf("add target group %s: %w", spec.Name, err)
	}
	if !spec.Detached {
		s.attach(g, "", now)
	}
	return g.arn, nil
}

// GroupARN returns the ARN of the group of that name, or "".
func (s *Sim) GroupARN(name string) string {
	s.lock()
	defer s.mu.Unlock()
	if g := s.byName[name]; g != nil {
		return g.arn
	}
	return ""
}

// Groups returns the ARNs of all target groups by name.
func (s *Sim) Groups() map[string]string {
	s.lock()
	defer s.mu.Unlock()
	out := make(map[string]string, len(s.byName))
	for name, g := range s.byName {
		out[name] = g.arn
	}
	return out
}

// Attach gives the group a nominal listener, as if a load balancer forwarded to it; Detach takes it away again.
func (s *Sim) Attach(group string) error { return s.setNominal(group, true) }

// Detach takes away the nominal listener that Attach or AddGroup gave to the group.
func (s *Sim) Detach(group string) error { return s.setNominal(group, false) }

func (s *Sim) setNominal(ref string, on bool) error {
	now := s.lock()
	defer s.mu.Unlock()
	g, err := s.find(ref)
	if err != nil {
		return err
	}
	if on {
		s.attach(g, "", now)
	} else {
		s.detach(g, "", now)
	}
	return nil
}

// find returns the group with that ARN or name.
func (s *Sim) find(ref string) (*group, error) {
	if g := cmp.Or(s.groups[ref], s.byName[ref]); g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("target group %s: %w", ref, ErrUnknown)
}

// Target is one registration in a target group, as it is now, whatever the lag of DescribeTargetHealth.
type Target struct {
	target.Target
	Health
	Registered   time.Time `json:"registered"`
	Deregistered time.Time `json:"deregistered,omitzero"` // zero while it is registered
}

// Targets returns the targets of a group (by ARN or name), those that drain included, by id and port. An unknown
// group has none.
func (s *Sim) Targets(group string) []Target {
	now := s.lock()
	defer s.mu.Unlock()
	g, err := s.find(group)
	if err != nil {
		return nil
	}
	out := make([]Target, 0, len(g.entries))
	for key, e := range g.entries {
		if h := s.healthAt(e, now, now); h.State != StateAbsent {
			out = append(out, Target{Target: key, Health: h, Registered: e.registered, Deregistered: e.removed})
		}
	}
	slices.SortFunc(out, func(a, b Target) int { return a.Target.Compare(b.Target) })
	return out
}

// Registered returns the targets of a group (by ARN or name) that are registered and do not drain, in order.
func (s *Sim) Registered(group string) []target.Target {
	var out []target.Target
	for _, t := range s.Targets(group) {
		if t.Deregistered.IsZero() {
			out = append(out, t.Target)
		}
	}
	return out
}

// Register registers targets behind the client's back: no call is recorded, no fault applies.
func (s *Sim) Register(group string, targets ...target.Target) error {
	return s.apply(group, func(arn string) request {
		return &registerTargets{arn: arn, targets: descriptions(targets)}
	})
}

// Deregister deregisters targets behind the client's back: no call is recorded, no fault applies.
func (s *Sim) Deregister(group string, targets ...target.Target) error {
	return s.apply(group, func(arn string) request {
		return &deregisterTargets{arn: arn, targets: descriptions(targets)}
	})
}

func (s *Sim) apply(group string, req func(arn string) request) error {
	now := s.lock()
	defer s.mu.Unlock()
	g, err := s.find(group)
	if err != nil {
		return err
	}
	if _, apiErr := req(g.arn).apply(s, now); apiErr != nil {
		return apiErr
	}
	return nil
}

// SetBackend says what health checks of a target find from now on, in every group, where no Prober is configured.
func (s *Sim) SetBackend(t target.Target, r Result) {
	now := s.lock()
	defer s.mu.Unlock()
	s.backends[t] = r
	for _, g := range s.groups {
		if e := g.entries[t]; e != nil {
			s.advance(e, now)
			e.backend = r
			g.routes.valid = false
		}
	}
}

// SetHealth makes a registered target show that state and reason, whatever its checks find. A zero Health ends it.
func (s *Sim) SetHealth(group string, t target.Target, h Health) error {
	now := s.lock()
	defer s.mu.Unlock()
	g, err := s.find(group)
	if err != nil {
		return err
	}
	e := g.entries[t]
	if e == nil {
		return fmt.Errorf("target %s of %s: %w", t, g.name, ErrUnknown)
	}
	if h.Since.IsZero() {
		h.Since = now
	}
	e.forced = h
	g.routes.valid = false
	return nil
}
