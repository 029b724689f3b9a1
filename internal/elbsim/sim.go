package elbsim

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"berth/pkg/target"
)

// Config says what account a Sim stands for. The zero value is a small account in us-east-1 with AWS's own quotas and
// a lag like AWS's.
type Config struct {
	// Region and Account are part of every ARN. Empty: us-east-1 and 123456789012.
	Region  string
	Account string
	// Instance is the first instance of the account, and the one whose metadata IMDS serves. Its empty fields get
	// defaults (i-0123456789abcdef0, running, 10.0.0.10).
	Instance Instance
	// AnyInstance accepts every well-formed instance id as a running instance of the group's VPC.
	AnyInstance bool

	// Latency is how long every API call takes, from its arrival to its effect and reply. Sim.SetLatency changes it.
	Latency time.Duration
	// Lags say how far the parts of AWS trail behind each other. Nil: DefaultLags. A client that only works with
	// lag 0 proves nothing about AWS.
	Lags *Lags
	// Throttling turns the account's token buckets on. Nil: no call is ever throttled.
	Throttling *Throttling
	// Quotas are the account's limits; their zero fields are AWS's defaults.
	Quotas Quotas
	// Policy allows what an IAM policy document allows. Nil: everything is allowed.
	Policy *Policy
	// Caller is the ARN that AccessDenied names. Empty: the assumed role "elbsim" of the first instance.
	Caller string
	// Unverified chooses among the behaviours that AWS does not document.
	Unverified Unverified

	// Probe judges the health of targets, on goroutines that Sim.Run owns. Nil: nothing is probed, nothing needs to
	// run, and Backend says what every check would find.
	Probe Prober
	// Backend says, where Probe is nil, what checks of a newly registered target find; Sim.SetBackend changes it
	// afterwards. Nil: all checks pass.
	Backend func(target.Target) Result

	// AutoAttach treats a group that no listener uses as if one did: groups created through the API become healthy
	// without a load balancer.
	AutoAttach bool
	// RecordLimit is how many calls Sim.Calls remembers. 0: 10,000. Negative: none.
	RecordLimit int
	// OnCall is told each call once its outcome is known. It must not call the Sim.
	OnCall func(Call)
	// Seed makes the choice of faults by share repeatable.
	Seed uint64
}

// Lags are the delays between a write and what can be seen of it.
type Lags struct {
	// Register is how long a target stays in Elb.RegistrationInProgress before its first health check.
	Register time.Duration
	// Deregister is how long load balancers go on sending new requests to a deregistered target.
	Deregister time.Duration
	// Describe is how old the state is that DescribeTargetHealth shows.
	Describe time.Duration
}

// DefaultLags are two seconds for registration and deregistration. DescribeTargetHealth shows the present.
func DefaultLags() Lags { return Lags{Register: 2 * time.Second, Deregister: 2 * time.Second} }

// Quotas are the account's limits. Zero: AWS's default; negative: none.
type Quotas struct {
	TargetsPerGroup        int // 1,000 (TooManyTargets)
	RegistrationsPerTarget int // 1,000 registrations of one id with one load balancer (TooManyRegistrationsForTargetId)
	GroupsPerRegion        int // 3,000 (TooManyTargetGroups)
	TargetsPerCall         int // AWS documents none, so the default is none (ValidationError)
}

// Unverified are behaviours that AWS does not document. The zero value is the choice that a careful client assumes.
type Unverified struct {
	// DrainingCounts makes targets that still drain count against TargetsPerGroup.
	DrainingCounts bool
	// PartialRegister registers the valid targets of a call that fails with InvalidTarget.
	PartialRegister bool
	// RefuseDrainingIP makes registering an IP target that still drains fail with InvalidTarget.
	RefuseDrainingIP bool
}

// Instance is an EC2 instance of the account.
type Instance struct {
	ID        string
	State     string // pending, running, stopping, stopped, shutting-down, terminated. Empty: running
	VPC       string // empty: vpc-0123456789abcdef0
	Zone      string // empty: the region's zone a
	PrivateIP string // empty: 10.0.0.10 for the first instance, else none
	MAC       string // empty: 02:00:00:00:00:01
	// Address is where the instance is really reached: load balancers and health checks dial Address:port. Empty:
	// 127.0.0.1.
	Address string
	Tags    map[string]string
}

const (
	defaultRegion   = "us-east-1"
	defaultAccount  = "123456789012"
	defaultInstance = "i-0123456789abcdef0"
	defaultVPC      = "vpc-0123456789abcdef0"
	defaultIP       = "10.0.0.10"
	defaultMAC      = "02:00:00:00:00:01"
	loopback        = "127.0.0.1"
)

// Sim is one account in one region. Its methods may be called from any goroutine.
type Sim struct {
	cfg      Config
	secret   string // signs IMDS tokens
	services map[string]service
	pages    http.Handler

	// mu guards all below. It is never held while something waits.
	mu        sync.Mutex
	latency   time.Duration
	lags      Lags
	throttle  *buckets
	policy    *Policy
	groups    map[string]*group // by ARN
	byName    map[string]*group
	created   map[string]int // how often a group's name was used: part of the ARN
	instances map[string]*instance
	byIP      map[string]*instance
	balancers []*balancer
	backends  map[target.Target]Result
	faults    []*fault
	faultSeq  int
	rng       *rand.Rand
	record    record
	pending   effects
	checks    *checks // nil while nothing probes
	tokenEra  int     // raising it makes all IMDS tokens invalid
	requests  uint64
}

// New returns an account without target groups. It starts no goroutine.
func New(cfg Config) *Sim {
	cfg.Region = cmp.Or(cfg.Region, defaultRegion)
	cfg.Account = cmp.Or(cfg.Account, defaultAccount)
	cfg.Instance.ID = cmp.Or(cfg.Instance.ID, defaultInstance)
	cfg.Instance.PrivateIP = cmp.Or(cfg.Instance.PrivateIP, defaultIP)
	cfg.Caller = cmp.Or(cfg.Caller, fmt.Sprintf("arn:aws:sts::%s:assumed-role/elbsim/%s", cfg.Account, cfg.Instance.ID))
	cfg.Quotas = cfg.Quotas.withDefaults()
	if cfg.RecordLimit == 0 {
		cfg.RecordLimit = 10_000
	}
	s := &Sim{
		cfg:       cfg,
		services:  services(),
		latency:   cfg.Latency,
		lags:      DefaultLags(),
		policy:    cfg.Policy,
		groups:    map[string]*group{},
		byName:    map[string]*group{},
		created:   map[string]int{},
		instances: map[string]*instance{},
		byIP:      map[string]*instance{},
		backends:  map[target.Target]Result{},
		rng:       rand.New(rand.NewPCG(cfg.Seed, 0x656c6273696d)),
	}
	if cfg.Lags != nil {
		s.lags = *cfg.Lags
	}
	s.record.limit = cfg.RecordLimit
	s.throttle = newBuckets(cfg.Throttling, time.Now())
	s.secret = fmt.Sprintf("%s/%s/%d", cfg.Account, cfg.Instance.ID, cfg.Seed)
	s.addInstance(cfg.Instance)
	s.pages = s.newPages()
	return s
}

func (q Quotas) withDefaults() Quotas {
	q.TargetsPerGroup = cmp.Or(q.TargetsPerGroup, 1000)
	q.RegistrationsPerTarget = cmp.Or(q.RegistrationsPerTarget, 1000)
	q.GroupsPerRegion = cmp.Or(q.GroupsPerRegion, 3000)
	return q
}

// lock takes the account, with everything that was due by now carried out, and returns the time.
func (s *Sim) lock() time.Time {
	s.mu.Lock()
	now := time.Now()
	s.settle(now)
	return now
}

// Region returns the account's region.
func (s *Sim) Region() string { return s.cfg.Region }

// SetLatency changes how long every API call takes.
func (s *Sim) SetLatency(d time.Duration) {
	s.lock()
	defer s.mu.Unlock()
	s.latency = d
}

// Lags returns the present lags.
func (s *Sim) Lags() Lags {
	s.lock()
	defer s.mu.Unlock()
	return s.lags
}

// SetLags changes the lags for what happens from now on.
func (s *Sim) SetLags(l Lags) {
	s.lock()
	defer s.mu.Unlock()
	s.lags = l
	for _, g := range s.groups {
		g.routes.valid = false
	}
}

// SetThrottling fills the buckets anew and turns them on, or off with nil.
func (s *Sim) SetThrottling(t *Throttling) {
	now := s.lock()
	defer s.mu.Unlock()
	s.throttle = newBuckets(t, now)
}

// SetPolicy changes what the caller is allowed to do. Nil: everything.
func (s *Sim) SetPolicy(p *Policy) {
	s.lock()
	defer s.mu.Unlock()
	s.policy = p
}

// AddInstance adds an instance, or replaces what is known of it.
func (s *Sim) AddInstance(i Instance) error {
	if !instanceID.MatchString(i.ID) {
		return fmt.Errorf("add instance %q: not an instance id", i.ID)
	}
	now := s.lock()
	defer s.mu.Unlock()
	if old := s.instances[i.ID]; old != nil {
		old.spec = s.instanceDefaults(i)
		s.instanceChanged(old, now)
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

// SetInstanceState changes an instance's state: a stopped one's targets are unused with Target.InvalidState, a
// terminated one's are deregistered.
func (s *Sim) SetInstanceState(id, state string) error {
	now := s.lock()
	defer s.mu.Unlock()
	inst := s.instances[id]
	if inst == nil {
		return fmt.Errorf("set state of instance %s: %w", id, ErrUnknown)
	}
	inst.spec.State = state
	s.instanceChanged(inst, now)
	return nil
}

// ErrUnknown says that there is no such thing in the account.
var ErrUnknown = errors.New("not in this account")

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
		return "", fmt.Errorf("add target group %s: the name is taken", spec.Name)
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
