package fleet

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"berth/internal/elbsim"
)

// Size is how a scenario is run.
type Size struct {
	Hosts int
	Known bool // the configuration names the number of peers; else each host counts those in its own groups
}

func (s Size) peers() int {
	if s.Known {
		return s.Hosts
	}
	return 0
}

func (s Size) result(name string) *Result {
	r := &Result{Scenario: name, Policy: "berth", Hosts: s.Hosts, Peers: "unknown"}
	if s.Known {
		r.Peers = "known"
	}
	return r
}

// most is how long a scenario of so many writes may take before it is given up.
func most(writes int) time.Duration { return 20*least(writes, 0) + time.Hour }

// calm lets the hosts run on until each has looked at each of its groups: that takes them a second a look, all together.
func (a *Account) calm() {
	time.Sleep(max(10*time.Minute, time.Duration(len(a.hosts)*len(services))*time.Second*11/10))
	a.tally.begin()
}

// Deploy replaces one container in each of two groups on every host within a minute: 4 writes a host.
func Deploy(s Size) (*Result, error) {
	r := s.result("deploy")
	a, err := NewAccount(s.Hosts, true, s.peers())
	if err != nil {
		return nil, err
	}
	defer a.Stop()
	a.Start(before)
	a.calm()
	stop := a.foreigner()
	defer stop()
	from := time.Now()
	for _, h := range a.hosts {
		h.expect(2 * len(services))
	}
	a.spread(time.Minute, func(h *host) { h.serve(after) })
	r.Needed = 2 * len(services) * s.Hosts
	r.Least = least(r.Needed, 0)
	a.Wait(r, from, most(r.Needed))
	return r, nil
}

// Staggered replaces one container on every host within five seconds, and one in another group while most hosts still wait for
// that: 4 writes a host, and half of the removals come while the host is throttled.
func Staggered(s Size) (*Result, error) {
	r := s.result("staggered")
	a, err := NewAccount(s.Hosts, true, s.peers())
	if err != nil {
		return nil, err
	}
	defer a.Stop()
	a.Start(before)
	a.calm()
	stop := a.foreigner()
	defer stop()
	from := time.Now()
	r.Needed = 2 * len(services) * s.Hosts
	r.Least = least(r.Needed, 0)
	for _, h := range a.hosts {
		h.expect(2 * len(services))
	}
	a.spread(5*time.Second, func(h *host) { h.replace(services[0], after) })
	a.spread(r.Least/2, func(h *host) { h.replace(services[1], after+1) })
	a.Wait(r, from, most(r.Needed))
	return r, nil
}

// ColdStart starts every host within five seconds, with nothing registered: 2 writes a host, and the looks that a host
// needs to find its groups.
func ColdStart(s Size) (*Result, error) {
	r := s.result("cold start")
	a, err := NewAccount(s.Hosts, false, s.peers())
	if err != nil {
		return nil, err
	}
	defer a.Stop()
	a.tally.begin()
	from := time.Now()
	for _, h := range a.hosts {
		h.expect(len(services))
	}
	a.spread(5*time.Second, func(h *host) { a.StartHost(h, before) })
	r.Needed = len(services) * s.Hosts
	r.Least = least(r.Needed, len(services)*s.Hosts)
	a.Wait(r, from, most(r.Needed))
	return r, nil
}

// Outage has every call fail for ten minutes, while every host replaces its containers. What counts is the time after.
func Outage(s Size) (*Result, error) {
	return outage(s, "outage", elbsim.Fault{Kind: elbsim.FaultError, Code: "ServiceUnavailable", Status: 503})
}

// Silence is an outage in which nobody answers.
func Silence(s Size) (*Result, error) {
	return outage(s, "silence", elbsim.Fault{Kind: elbsim.FaultReset})
}

func outage(s Size, name string, fault elbsim.Fault) (*Result, error) {
	r := s.result(name)
	a, err := NewAccount(s.Hosts, true, s.peers())
	if err != nil {
		return nil, err
	}
	defer a.Stop()
	a.Start(before)
	a.calm()
	if _, err := a.sim.AddFault(fault); err != nil {
		return nil, err
	}
	for _, h := range a.hosts {
		h.expect(2 * len(services))
	}
	a.spread(10*time.Minute, func(h *host) { h.serve(after) })
	a.sim.ClearFaults()
	a.tally.begin()
	stop := a.foreigner()
	defer stop()
	r.Needed = 2 * len(services) * s.Hosts
	r.Least = least(r.Needed, 0)
	a.Wait(r, time.Now(), most(r.Needed))
	return r, nil
}

// Steady lets a day pass in which nothing happens.
func Steady(s Size) (*Result, error) {
	r := s.result("steady")
	a, err := NewAccount(s.Hosts, true, s.peers())
	if err != nil {
		return nil, err
	}
	defer a.Stop()
	a.Start(before)
	a.calm()
	stop := a.foreigner()
	defer stop()
	time.Sleep(24 * time.Hour)
	r.Least, r.Took, r.Took99 = 24*time.Hour, 24*time.Hour, 24*time.Hour
	a.Count(r)
	return r, nil
}

// FullJitter is the deploy of Deploy with plain exponential backoff and full jitter, 1 to 60 s, in place of the pacer:
// what an SDK with retries switched on does, each host for itself, one call at a time for each group.
func FullJitter(s Size) (*Result, error) {
	r := s.result("deploy")
	r.Policy = "full jitter"
	a, err := NewAccount(s.Hosts, true, 0)
	if err != nil {
		return nil, err
	}
	defer a.Stop()
	a.tally.begin()
	stop := a.foreigner()
	defer stop()
	from := time.Now()
	a.spread(time.Minute, func(h *host) {
		h.expect(2 * len(services))
		for i, service := range services {
			a.ended.Go(func() {
				a.persist(h, "DeregisterTargets", service, before+i)
				a.persist(h, "RegisterTargets", service, after+i)
			})
		}
	})
	r.Needed = 2 * len(services) * s.Hosts
	r.Least = least(r.Needed, 0)
	a.Wait(r, from, most(r.Needed))
	return r, nil
}

// persist makes one call until it is accepted.
func (a *Account) persist(h *host, action, service string, port int) {
	for attempt := 0; a.ctx.Err() == nil; attempt++ {
		if a.write(a.ctx, action, h.group(service), h.id, port) == nil {
			return
		}
		sleep(a.ctx, rand.N(min(time.Minute, time.Second<<min(attempt, 10))))
	}
}

func (a *Account) write(ctx context.Context, action, group, id string, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	arn := a.sim.GroupARN(group)
	targets := []types.TargetDescription{{Id: &id, Port: aws.Int32(int32(port))}}
	var err error
	if action == "RegisterTargets" {
		_, err = a.api.RegisterTargets(ctx, &elasticloadbalancingv2.RegisterTargetsInput{TargetGroupArn: &arn, Targets: targets})
	} else {
		_, err = a.api.DeregisterTargets(ctx, &elasticloadbalancingv2.DeregisterTargetsInput{TargetGroupArn: &arn, Targets: targets})
	}
	return err
}

// foreigner makes one write a minute, once each, as somebody else in the account does.
func (a *Account) foreigner() (stop func()) {
	ctx, cancel := context.WithCancel(a.ctx)
	a.ended.Go(func() {
		for port := 1; ctx.Err() == nil; port = port%60000 + 1 {
			_ = a.write(ctx, "DeregisterTargets", groupName(services[0], 0), foreign, port) // counted by the account
			sleep(ctx, 30*time.Second+rand.N(time.Minute))
		}
	})
	return cancel
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
