package elbsim

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/internal/elbsim/iam"
)

// LoadBalancer is a load balancer that really forwards, once its listeners are served (Listen or ServeListener).
type LoadBalancer struct {
	Name      string
	Type      string // application or network. Empty: application
	Listeners []Listener
	// IdleTimeout is how long a target may take to answer before the client gets a 504, and how long a connection of a
	// network load balancer may be silent. 0: AWS's 60 s, or 350 s for a network load balancer.
	IdleTimeout time.Duration
}

// Listener is one listener of a load balancer.
type Listener struct {
	Address  string // where it listens: 127.0.0.1:8080; port 0 takes a free one
	Protocol string // HTTP, or in a network load balancer TCP or UDP. Empty: HTTP or TCP
	Rules    []Rule // of an application load balancer
	Default  Action // what happens to requests that no rule takes
}

// Rule sends the requests that meet all its conditions somewhere. Lower priorities are asked first.
type Rule struct {
	Priority   int // 1 to 50,000, different in each rule of a listener
	Conditions Conditions
	Action     Action
}

// Conditions are those of a rule. All that are set must be met; of several values any one suffices. Values are
// patterns in which * is any run of characters and ? any one.
type Conditions struct {
	PathPattern []string
	HostHeader  []string
	Method      []string // exact
	Header      map[string][]string
	SourceIP    []string // networks in CIDR notation
}

// Action is what a listener does with a request: exactly one of its fields is set.
type Action struct {
	Forward []Weighted
	Fixed   *FixedResponse
}

// Weighted is a target group with its share of the requests.
type Weighted struct {
	Group  string // name or ARN
	Weight int    // 0 to 999; all zero in one action: equal shares
}

// FixedResponse is the answer of a load balancer that asks no target.
type FixedResponse struct {
	Status      int
	ContentType string
	Body        string
}

// ForwardTo is the action that sends everything to one group.
func ForwardTo(group string) Action { return Action{Forward: []Weighted{{Group: group, Weight: 1}}} }

// balancer is a load balancer of the account.
type balancer struct {
	arn       string
	spec      LoadBalancer
	listeners []*listener
}

type listener struct {
	sim      *Sim
	balancer *balancer
	spec     Listener
	rules    []rule // by priority; the default action is the last one
	proxy    http.Handler
}

type rule struct {
	priority   int
	conditions Conditions
	sources    []netip.Prefix
	fixed      *FixedResponse
	groups     []weightedGroup
}

type weightedGroup struct {
	group  *group
	weight int
}

// AddLoadBalancer adds a load balancer, whose groups must be there and belong to no other one, and returns its ARN.
func (s *Sim) AddLoadBalancer(spec LoadBalancer) (string, error) {
	now := s.lock()
	defer s.mu.Unlock()
	b, err := s.newBalancer(spec)
	if err != nil {
		return "", fmt.Errorf("add load balancer %s: %w", spec.Name, err)
	}
	s.balancers = append(s.balancers, b)
	for _, g := range b.groups() {
		s.attach(g, b.arn, now)
	}
	return b.arn, nil
}

func (s *Sim) newBalancer(spec LoadBalancer) (*balancer, error) {
	spec.Type = cmp.Or(spec.Type, "application")
	kind := map[string]string{"application": "app", "network": "net"}[spec.Type]
	switch {
	case kind == "":
		return nil, at("type", fmt.Errorf("%q: must be application or network", spec.Type))
	case len(spec.Name) > 32 || !groupName.MatchString(spec.Name):
		return nil, at("name", fmt.Errorf("%q: must be 1 to 32 alphanumeric characters and hyphens", spec.Name))
	case slices.ContainsFunc(s.balancers, func(b *balancer) bool { return b.spec.Name == spec.Name }):
		return nil, at("name", fmt.Errorf("%q: is taken", spec.Name))
	}
	spec.IdleTimeout = cmp.Or(spec.IdleTimeout, map[string]time.Duration{"app": 60 * time.Second, "net": 350 * time.Second}[kind])
	b := &balancer{arn: s.arn("loadbalancer/"+kind+"/"+spec.Name, 1), spec: spec}
	for i, l := range spec.Listeners {
		compiled, err := s.newListener(b, l)
		if err != nil {
			return nil, at(fmt.Sprintf("listeners[%d]", i), err)
		}
		b.listeners = append(b.listeners, compiled)
	}
	for _, g := range b.groups() {
		for arn := range g.users {
			if arn != "" {
				return nil, fmt.Errorf("target group %s: belongs to load balancer %s already", g.name, arn)
			}
		}
	}
	return b, nil
}

func (s *Sim) newListener(b *balancer, spec Listener) (*listener, error) {
	network := b.spec.Type == "network"
	allowed := []string{"HTTP"}
	if network {
		allowed = []string{"TCP", "UDP"}
	}
	spec.Protocol = cmp.Or(spec.Protocol, allowed[0])
	if !slices.Contains(allowed, spec.Protocol) {
		return nil, at("protocol", fmt.Errorf("%q: elbsim's %s load balancers listen on %s", spec.Protocol, b.spec.Type, strings.Join(allowed, " or ")))
	}
	if network && len(spec.Rules) > 0 {
		return nil, at("rules", errors.New("only application load balancers have them"))
	}
	l := &listener{sim: s, balancer: b, spec: spec}
	seen := map[int]bool{}
	for i, r := range spec.Rules {
		field := fmt.Sprintf("rules[%d]", i)
		if r.Priority < 1 || r.Priority > 50_000 || seen[r.Priority] {
			return nil, at(field+".priority", fmt.Errorf("%d: must be from 1 to 50000 and different in each rule", r.Priority))
		}
		seen[r.Priority] = true
		compiled, err := s.newRule(b, r)
		if err != nil {
			return nil, at(field, err)
		}
		l.rules = append(l.rules, compiled)
	}
	slices.SortFunc(l.rules, func(a, b rule) int { return cmp.Compare(a.priority, b.priority) })
	last, err := s.newAction(b, spec.Default)
	if err != nil {
		return nil, at("default", err)
	}
	l.rules = append(l.rules, last)
	if !network {
		l.proxy = newProxy(b.spec.IdleTimeout)
	}
	return l, nil
}

func (s *Sim) newRule(b *balancer, spec Rule) (rule, error) {
	r, err := s.newAction(b, spec.Action)
	if err != nil {
		return r, err
	}
	r.priority, r.conditions = spec.Priority, spec.Conditions
	c := &r.conditions
	if len(c.PathPattern)+len(c.HostHeader)+len(c.Method)+len(c.Header)+len(c.SourceIP) == 0 {
		return r, errors.New("a rule needs at least one condition")
	}
	for _, network := range c.SourceIP {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return r, at("source_ip", fmt.Errorf("%q: must be a network in CIDR notation", network))
		}
		r.sources = append(r.sources, prefix)
	}
	return r, nil
}

func (s *Sim) newAction(b *balancer, a Action) (rule, error) {
	var r rule
	if (len(a.Forward) == 0) == (a.Fixed == nil) {
		return r, errors.New("exactly one of forward and fixed_response is needed")
	}
	if r.fixed = a.Fixed; r.fixed != nil {
		if b.spec.Type == "network" {
			return r, at("fixed_response", errors.New("only application load balancers give them"))
		}
		if r.fixed.Status < 200 || r.fixed.Status > 599 {
			return r, at("fixed_response.status", fmt.Errorf("%d: must be from 200 to 599", r.fixed.Status))
		}
	}
	equal := !slices.ContainsFunc(a.Forward, func(w Weighted) bool { return w.Weight != 0 })
	for _, w := range a.Forward {
		g, err := s.find(w.Group)
		if err != nil {
			return r, at("forward", err)
		}
		application := g.spec.Protocol == "HTTP" || g.spec.Protocol == "HTTPS"
		if application != (b.spec.Type == "application") {
			return r, at("forward", fmt.Errorf("target group %s: protocol %s does not fit a load balancer of type %s", g.name, g.spec.Protocol, b.spec.Type))
		}
		if w.Weight < 0 || w.Weight > 999 {
			return r, at("forward", fmt.Errorf("target group %s: weight %d: must be from 0 to 999", g.name, w.Weight))
		}
		if equal {
			w.Weight = 1
		}
		r.groups = append(r.groups, weightedGroup{g, w.Weight})
	}
	return r, nil
}

// groups returns the groups that a load balancer uses, each once.
func (b *balancer) groups() []*group {
	var out []*group
	for _, l := range b.listeners {
		for _, r := range l.rules {
			for _, w := range r.groups {
				if !slices.Contains(out, w.group) {
					out = append(out, w.group)
				}
			}
		}
	}
	return out
}

// rule returns the first rule that takes the request.
func (l *listener) rule(r *http.Request) *rule {
	for i := range l.rules {
		if l.rules[i].takes(r) {
			return &l.rules[i]
		}
	}
	return &l.rules[len(l.rules)-1] // not reached: the default action takes everything
}

func (r *rule) takes(req *http.Request) bool {
	c := &r.conditions
	if len(c.PathPattern) > 0 && !iam.MatchAny(c.PathPattern, req.URL.Path, false) {
		return false
	}
	host, _, _ := strings.Cut(req.Host, ":")
	if len(c.HostHeader) > 0 && !iam.MatchAny(c.HostHeader, host, true) {
		return false
	}
	if len(c.Method) > 0 && !slices.Contains(c.Method, req.Method) {
		return false
	}
	for name, patterns := range c.Header {
		if !slices.ContainsFunc(req.Header.Values(name), func(v string) bool { return iam.MatchAny(patterns, v, true) }) {
			return false
		}
	}
	if len(r.sources) == 0 {
		return true
	}
	from, err := netip.ParseAddrPort(req.RemoteAddr)
	return err == nil && slices.ContainsFunc(r.sources, func(p netip.Prefix) bool { return p.Contains(from.Addr().Unmap()) })
}

// Forward adds a load balancer of that name whose only listener sends everything to one group: an application load
// balancer for HTTP and HTTPS groups, else a network load balancer.
func (s *Sim) Forward(name, group, address string) error {
	spec := LoadBalancer{Name: name, Listeners: []Listener{{Address: address, Default: ForwardTo(group)}}}
	s.lock()
	g, err := s.find(group)
	if err == nil && g.network() {
		spec.Type = "network"
		if g.spec.Protocol == "UDP" {
			spec.Listeners[0].Protocol = "UDP"
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = s.AddLoadBalancer(spec)
	return err
}
