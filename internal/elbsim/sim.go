package elbsim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"berth/internal/elbsim/iam"
	"berth/internal/elbsim/limits"
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
	Throttling *limits.Throttling
	// Quotas are the account's limits; their zero fields are AWS's defaults.
	Quotas Quotas
	// Policy allows what an IAM policy document allows. Nil: everything is allowed.
	Policy *iam.Policy
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
	// OnCall is told each call once its outcome is known, on the goroutine that carries it.
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
	TargetsPerLoadBalancer int // 1,000 in all groups of an application load balancer, 500 of a network one (TooManyTargets)
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
	throttle  *limits.Buckets
	policy    *iam.Policy
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
	scaling   AutoScaling
	ahead     *time.Duration // of AWS's clock; nil: replies carry no date but the one that net/http gives them
}

// New returns an account without target groups. It starts no goroutine.
func New(cfg Config) *Sim {
	cfg.Region = cmp.Or(cfg.Region, defaultRegion)
	cfg.Account = cmp.Or(cfg.Account, defaultAccount)
	cfg.Instance.ID = cmp.Or(cfg.Instance.ID, defaultInstance)
	cfg.Instance.PrivateIP = cmp.Or(cfg.Instance.PrivateIP, defaultIP)
	cfg.Caller = cmp.Or(cfg.Caller, fmt.Sprintf("arn:%s:sts::%s:assumed-role/elbsim/%s", partition(cfg.Region), cfg.Account, cfg.Instance.ID))
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
	s.throttle = limits.New(cfg.Throttling, time.Now())
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
func (s *Sim) SetThrottling(t *limits.Throttling) {
	now := s.lock()
	defer s.mu.Unlock()
	s.throttle = limits.New(t, now)
}

// SetClock puts AWS's clock, which the Date of its replies shows, ahead of this machine's, or behind it if negative.
func (s *Sim) SetClock(ahead time.Duration) {
	s.lock()
	defer s.mu.Unlock()
	s.ahead = &ahead
}

// dated is the header of a reply that was made at now.
func (s *Sim) dated(now time.Time) http.Header {
	if s.ahead == nil {
		return nil
	}
	return http.Header{"Date": {now.Add(*s.ahead).UTC().Format(http.TimeFormat)}}
}

// partition is the part of AWS that a region is in.
func partition(region string) string {
	for prefix, p := range map[string]string{
		"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b", "eusc-": "aws-eusc",
	} {
		if strings.HasPrefix(region, prefix) {
			return p
		}
	}
	return "aws"
}

// SetPolicy changes what the caller is allowed to do. Nil: everything.
func (s *Sim) SetPolicy(p *iam.Policy) {
	s.lock()
	defer s.mu.Unlock()
	s.policy = p
}
