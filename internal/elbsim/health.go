package elbsim

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"berth/pkg/target"
)

const (
	trafficPort = "traffic-port"
	minInterval = 5 * time.Second // AWS's; below it elbsim is on its own
)

// HealthCheck says how a group's targets are checked. Zero fields get AWS's defaults for the group's protocol; the Go
// API and the configuration file take intervals below AWS's five seconds.
type HealthCheck struct {
	Protocol  string        // HTTP, HTTPS, TCP
	Port      string        // "traffic-port" or a number
	Path      string        // HTTP and HTTPS: "/"
	Interval  time.Duration // 30 s
	Timeout   time.Duration // 5 s for HTTP groups, 10 s for TCP (6 s where they are checked by HTTP)
	Healthy   int           // passes in a row that make an unhealthy target healthy: 5
	Unhealthy int           // failures in a row that make a target unhealthy: 2
	Codes     string        // HTTP codes that pass: "200", in TCP groups "200-399"
}

func (h HealthCheck) withDefaults(groupProtocol string) HealthCheck {
	application := groupProtocol == "HTTP" || groupProtocol == "HTTPS"
	protocol, timeout, codes := "TCP", 10*time.Second, "200-399"
	if application {
		protocol, timeout, codes = "HTTP", 5*time.Second, "200"
	}
	h.Protocol = cmp.Or(h.Protocol, protocol)
	if !application && h.Protocol == "HTTP" {
		timeout = 6 * time.Second
	}
	h.Port = cmp.Or(h.Port, trafficPort)
	h.Interval = cmp.Or(h.Interval, 30*time.Second)
	if h.Interval < minInterval {
		timeout = 2 * time.Second // AWS's least: a short interval is for demos and tests, not for slow machines to fail
	}
	h.Timeout = cmp.Or(h.Timeout, min(timeout, max(h.Interval, 2*time.Second)))
	h.Healthy = cmp.Or(h.Healthy, 5)
	h.Unhealthy = cmp.Or(h.Unhealthy, 2)
	if h.Protocol == "TCP" {
		h.Path, h.Codes = "", ""
		return h
	}
	h.Path = cmp.Or(h.Path, "/")
	h.Codes = cmp.Or(h.Codes, codes)
	return h
}

// Result is what one health check found. The zero value passed.
type Result struct {
	Reason      string `json:"reason,omitempty"` // Target.ResponseCodeMismatch, Target.Timeout or Target.FailedHealthChecks; empty: passed
	Description string `json:"description,omitempty"`
}

// Passed is the result of a check that passed.
func Passed() Result { return Result{} }

// Mismatch is the result of a check whose answer had a code that the group does not accept.
func Mismatch(code int) Result {
	return Result{"Target.ResponseCodeMismatch", fmt.Sprintf("Health checks failed with these codes: [%d]", code)}
}

// TimedOut is the result of a check that nothing answered in time.
func TimedOut() Result { return Result{"Target.Timeout", "Request timed out"} }

// Failed is the result of a check whose connection was refused or broke.
func Failed() Result { return Result{"Target.FailedHealthChecks", "Health checks failed"} }

var (
	reasonRegistering  = Health{Reason: "Elb.RegistrationInProgress", Description: "Target registration is in progress"}
	reasonChecking     = Health{Reason: "Elb.InitialHealthChecking", Description: "Initial health checks in progress"}
	reasonNotInUse     = Health{Reason: "Target.NotInUse", Description: "Target group is not configured to receive traffic from the load balancer"}
	reasonInvalidState = Health{Reason: "Target.InvalidState"}
	reasonDraining     = Health{Reason: "Target.DeregistrationInProgress", Description: "Target deregistration is in progress"}
	reasonUnregistered = Health{Reason: "Target.NotRegistered", Description: "Target is not registered to the target group"}
)

// observe counts one check into a registered target's state.
func (e *entry) observe(r Result, at time.Time) {
	passed := r.Reason == ""
	if passed {
		e.passes, e.fails = e.passes+1, 0
	} else {
		e.passes, e.fails = 0, e.fails+1
	}
	now := e.log[len(e.log)-1]
	hc := &e.group.spec.HealthCheck
	switch {
	// A new target needs one pass only, whatever the threshold; that is for targets that were unhealthy.
	case passed && (now.State == StateInitial || now.State == StateUnhealthy && e.passes >= hc.Healthy):
		e.note(at, StateHealthy, Health{})
	case passed:
		return
	case now.State == StateUnhealthy && now.Reason == r.Reason && now.Description == r.Description:
		return
	case now.State == StateUnhealthy || e.fails >= hc.Unhealthy:
		e.note(at, StateUnhealthy, Health{Reason: r.Reason, Description: r.Description})
	case now.State == StateInitial && now.Reason != reasonChecking.Reason:
		e.note(at, StateInitial, reasonChecking)
		return
	default:
		return
	}
	e.group.routes.valid = false
}

// settled reports whether further checks with the same result change nothing.
func (e *entry) settled() bool {
	hc := &e.group.spec.HealthCheck
	switch e.log[len(e.log)-1].State {
	case StateHealthy:
		return e.backend.Reason == "" && e.passes >= hc.Healthy
	case StateUnhealthy:
		return e.backend.Reason != "" && e.backend.Reason == e.log[len(e.log)-1].Reason
	}
	return false
}

// advance carries out the checks that were due by now, where nothing probes.
func (s *Sim) advance(e *entry, now time.Time) {
	interval := e.group.spec.HealthCheck.Interval
	for s.cfg.Probe == nil && !e.next.IsZero() && !e.next.After(now) {
		if e.settled() {
			since := now.Sub(e.next)
			e.next = now.Add(interval - since%interval)
			break
		}
		e.observe(e.backend, e.next)
		e.next = e.next.Add(interval)
	}
	e.trim(now.Add(-s.lags.Describe))
}

// Check is one health check to carry out.
type Check struct {
	Group   string // the group's name
	Target  target.Target
	Address string // host:port to connect to
	HealthCheck
}

// Prober carries out one health check within c.Timeout. It is called from many goroutines.
type Prober func(ctx context.Context, c Check) Result

// checks are the goroutines that probe targets, one each, while Sim.Run runs.
type checks struct {
	ctx context.Context
	wg  sync.WaitGroup
}

// Run carries out health checks by Config.Probe until ctx ends, and then waits for those in progress. Without a Prober
// it only waits. A second Run meanwhile is an error.
func (s *Sim) Run(ctx context.Context) error {
	now := s.lock()
	if s.checks != nil {
		s.mu.Unlock()
		return fmt.Errorf("run health checks: they run already")
	}
	s.checks = &checks{ctx: ctx}
	for _, g := range s.groups {
		for _, e := range g.entries {
			if !e.next.IsZero() {
				e.next = latest(e.next, now)
				s.startProbe(e)
			}
		}
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.lock()
	running := s.checks
	s.checks = nil
	s.mu.Unlock()
	running.wg.Wait()
	return nil
}

// startProbe begins to probe a target at its next time.
func (s *Sim) startProbe(e *entry) {
	if s.cfg.Probe == nil || s.checks == nil {
		return
	}
	e.stop()
	ctx, cancel := context.WithCancel(s.checks.ctx)
	e.stopProbe = cancel
	first := e.next
	s.checks.wg.Go(func() { s.probe(ctx, e, first) })
}

// probe checks one target again and again until ctx ends. Its results count only while ctx lives, which is looked at
// under the lock: a target that was deregistered meanwhile has another one.
func (s *Sim) probe(ctx context.Context, e *entry, next time.Time) {
	for sleep(ctx, time.Until(next)) {
		now := s.lock()
		if ctx.Err() == nil && e.log[len(e.log)-1].Reason == reasonRegistering.Reason {
			e.note(now, StateInitial, reasonChecking)
		}
		c := s.check(e)
		s.mu.Unlock()

		limited, cancel := context.WithTimeout(ctx, c.Timeout)
		result := s.cfg.Probe(limited, c)
		cancel()

		now = s.lock()
		if ctx.Err() == nil {
			e.observe(result, now)
		}
		s.mu.Unlock()
		next = latest(next.Add(c.Interval), now)
	}
}

func (s *Sim) check(e *entry) Check {
	return Check{Group: e.group.name, Target: e.Target, Address: e.address(e.group.checkPort(e.Target)), HealthCheck: e.group.spec.HealthCheck}
}

// address is where the target is really reached.
func (e *entry) address(port string) string {
	host := loopback
	if e.inst != nil {
		host = e.inst.spec.Address
	}
	return net.JoinHostPort(host, port)
}

// dialAddress is where the target's traffic goes.
func (e *entry) dialAddress() string { return e.address(strconv.Itoa(int(e.Port))) }

// sleep waits and reports whether the time came before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
