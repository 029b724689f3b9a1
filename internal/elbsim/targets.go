package elbsim

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/internal/elbsim/wire"
	"berth/pkg/target"
)

// description is a TargetDescription of a call.
type description struct {
	id   string
	port uint16 // 0: the group's
	zone string
}

func descriptions(targets []target.Target) []description {
	out := make([]description, len(targets))
	for i, t := range targets {
		out[i] = description{id: t.ID, port: t.Port}
	}
	return out
}

func (d description) key(g *group) target.Target {
	return target.Target{ID: d.id, Port: cmp.Or(d.port, g.spec.Port)}
}

// decodeTargets reads the ARN and the targets that the three target calls share.
func decodeTargets(f wire.Form, needTargets bool) (string, []description, *wire.Error) {
	arn, err := decodeGroupARN(f)
	if err != nil {
		return "", nil, err
	}
	members, err := f.List("Targets")
	if err != nil {
		return "", nil, err
	}
	if needTargets && len(members) == 0 {
		return "", nil, wire.ErrMissing("Targets")
	}
	out := make([]description, len(members))
	for i, m := range members {
		if out[i].id, err = m.Required("Id"); err != nil {
			return "", nil, err
		}
		port, err := m.Number("Port", 1, 65535)
		if err != nil {
			return "", nil, err
		}
		out[i].port = uint16(port) //nolint:gosec // checked just above
		out[i].zone = m.Text("AvailabilityZone")
	}
	return arn, out, nil
}

// decodeGroupARN reads TargetGroupArn and refuses what is no target group's ARN at all.
func decodeGroupARN(f wire.Form) (string, *wire.Error) {
	arn, err := f.Required("TargetGroupArn")
	if err != nil {
		return "", err
	}
	return arn, checkGroupARN(arn)
}

func checkGroupARN(arn string) *wire.Error {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "elasticloadbalancing" || !strings.HasPrefix(parts[5], "targetgroup/") {
		return wire.ErrValidation("'%s' is not a valid target group ARN", wire.Clip(arn))
	}
	return nil
}

// registerTargets is the call of that name.
type registerTargets struct {
	arn     string
	targets []description
}

func decodeRegister(f wire.Form) (request, *wire.Error) {
	arn, targets, err := decodeTargets(f, true)
	return &registerTargets{arn, targets}, err
}

func (r *registerTargets) subject() subject {
	return subject{groups: []string{r.arn}, targets: r.targets}
}

func (r *registerTargets) apply(s *Sim, now time.Time) (wire.Reply, *wire.Error) {
	g := s.groups[r.arn]
	if g == nil {
		return nil, wire.ErrGroupNotFound()
	}
	s.forget(g, now)
	if q := s.cfg.Quotas.TargetsPerCall; q > 0 && len(r.targets) > q {
		return nil, wire.ErrValidation("1 validation error detected: Value at 'targets' failed to satisfy constraint: Member must have length less than or equal to %d", q)
	}
	valid, invalid := s.checkTargets(g, r.targets, now)
	if invalid != nil && !s.cfg.Unverified.PartialRegister {
		return nil, invalid
	}
	if err := s.checkQuotas(g, valid); err != nil {
		return nil, err
	}
	for _, v := range valid {
		s.register(g, v.key, v.zone, v.inst, now)
	}
	return wire.NoResult, invalid
}

// candidate is a target that may be registered.
type candidate struct {
	key  target.Target
	zone string
	inst *instance
}

// checkTargets sorts the targets of a call into valid ones and the error that the first kind of invalid ones causes.
func (s *Sim) checkTargets(g *group, targets []description, now time.Time) ([]candidate, *wire.Error) {
	var (
		valid                                          []candidate
		unknown, stopped, foreign, noAddress, draining []string
	)
	for _, d := range targets {
		c := candidate{key: d.key(g), zone: d.zone}
		if g.spec.Type == "ip" {
			addr, err := netip.ParseAddr(d.id)
			e := g.entries[c.key]
			switch {
			case err != nil || addr.Is4() != (g.spec.IPAddressType == "ipv4"):
				noAddress = append(noAddress, d.id)
			case s.cfg.Unverified.RefuseDrainingIP && e != nil && s.healthAt(e, now, now).State == StateDraining:
				draining = append(draining, d.id)
			default:
				c.inst = s.byIP[d.id]
				valid = append(valid, c)
			}
			continue
		}
		if !instanceID.MatchString(d.id) {
			return nil, wire.ErrValidation("Instance ID '%s' is not valid", wire.Clip(d.id))
		}
		c.inst = s.instances[d.id]
		if c.inst == nil && s.cfg.AnyInstance {
			c.inst = s.addInstance(Instance{ID: d.id, VPC: g.spec.VPC})
		}
		switch {
		case c.inst == nil:
			unknown = append(unknown, d.id)
		case !c.inst.running():
			stopped = append(stopped, d.id)
		case c.inst.spec.VPC != g.spec.VPC:
			foreign = append(foreign, d.id)
		default:
			valid = append(valid, c)
		}
	}
	switch {
	case unknown != nil:
		return valid, wire.ErrUnknownInstances(unknown)
	case stopped != nil:
		return valid, wire.ErrNotRunning(stopped)
	case foreign != nil:
		return valid, wire.ErrWrongVPC(g.spec.VPC, foreign)
	case noAddress != nil:
		return valid, wire.ErrNotAddresses(noAddress)
	case draining != nil:
		return valid, wire.ErrDraining(draining)
	}
	return valid, nil
}

// checkQuotas reports which quota the registration of these targets would exceed. A call that exceeds one registers
// nothing.
func (s *Sim) checkQuotas(g *group, targets []candidate) *wire.Error {
	added := map[target.Target]bool{}
	perID := map[string]int{}
	for _, c := range targets {
		if e := g.entries[c.key]; (e == nil || !e.removed.IsZero()) && !added[c.key] {
			added[c.key] = true
			perID[c.key.ID]++
		}
	}
	if len(added) == 0 {
		return nil
	}
	held := g.registered
	if s.cfg.Unverified.DrainingCounts {
		held = len(g.entries)
	}
	if q := s.cfg.Quotas.TargetsPerGroup; q > 0 && held+len(added) > q {
		return wire.ErrTooManyTargets(g.arn, q)
	}
	if err := s.checkBalancerQuota(g, len(added)); err != nil {
		return err
	}
	q := s.cfg.Quotas.RegistrationsPerTarget
	for _, c := range targets {
		n := perID[c.key.ID]
		// The count is only worth while where the limit is near, whatever the groups.
		if q > 0 && c.inst != nil && len(c.inst.entries)+n > q && registrations(c.inst, g)+n > q {
			return wire.ErrTooManyRegistrations(c.key.ID, q)
		}
	}
	return nil
}

// checkBalancerQuota reports whether the group's load balancers have room. A target counts once for each of their
// groups that it is in.
func (s *Sim) checkBalancerQuota(g *group, added int) *wire.Error {
	q := s.cfg.Quotas.TargetsPerLoadBalancer
	if q == 0 {
		q = 1000
		if g.network() {
			q = 500
		}
	}
	for arn := range g.users {
		if q < 0 || arn == "" {
			continue
		}
		for _, other := range s.groups {
			if other.users[arn] > 0 {
				added += other.registered
			}
		}
		if added > q {
			return wire.ErrTooManyBalancerTargets(arn, q)
		}
	}
	return nil
}

// registrations counts an instance's registrations in groups that share a load balancer with g, g included.
func registrations(inst *instance, g *group) int {
	n := 0
	for e := range inst.entries {
		if e.removed.IsZero() && (e.group == g || shareBalancer(e.group, g)) {
			n++
		}
	}
	return n
}

func shareBalancer(a, b *group) bool {
	for arn := range a.users {
		if arn != "" && b.users[arn] > 0 {
			return true
		}
	}
	return false
}

// deregisterTargets is the call of that name. Targets that are not registered are no error, and nothing happens.
type deregisterTargets struct {
	arn     string
	targets []description
}

func decodeDeregister(f wire.Form) (request, *wire.Error) {
	arn, targets, err := decodeTargets(f, true)
	return &deregisterTargets{arn, targets}, err
}

func (r *deregisterTargets) subject() subject {
	return subject{groups: []string{r.arn}, targets: r.targets}
}

func (r *deregisterTargets) apply(s *Sim, now time.Time) (wire.Reply, *wire.Error) {
	g := s.groups[r.arn]
	if g == nil {
		return nil, wire.ErrGroupNotFound()
	}
	s.forget(g, now)
	for _, d := range r.targets {
		if e := g.entries[d.key(g)]; e != nil && e.removed.IsZero() {
			s.advance(e, now)
			s.remove(e, now)
		}
	}
	return wire.NoResult, nil
}

// describeTargetHealth is the call of that name.
type describeTargetHealth struct {
	arn     string
	targets []description
}

func decodeDescribeHealth(f wire.Form) (request, *wire.Error) {
	arn, targets, err := decodeTargets(f, false)
	return &describeTargetHealth{arn, targets}, err
}

func (r *describeTargetHealth) subject() subject {
	return subject{groups: []string{r.arn}, targets: r.targets}
}

// healthRow is one TargetHealthDescription.
type healthRow struct {
	key       target.Target
	zone      string
	checkPort string
	health    Health
}

func (r *describeTargetHealth) apply(s *Sim, now time.Time) (wire.Reply, *wire.Error) {
	g := s.groups[r.arn]
	if g == nil {
		return nil, wire.ErrGroupNotFound()
	}
	s.forget(g, now)
	at := now.Add(-s.lags.Describe)
	rows := make([]healthRow, 0, len(r.targets))
	if len(r.targets) == 0 {
		rows = make([]healthRow, 0, len(g.entries))
		for key, e := range g.entries {
			if h := s.healthAt(e, at, now); h.State != StateAbsent {
				rows = append(rows, healthRow{key, e.zone, g.checkPort(key), h})
			}
		}
		slices.SortFunc(rows, func(a, b healthRow) int { return a.key.Compare(b.key) })
	}
	for _, d := range r.targets {
		row := healthRow{key: d.key(g), zone: d.zone}
		if e := g.entries[row.key]; e != nil {
			row.health, row.zone = s.healthAt(e, at, now), e.zone
		}
		row.checkPort = g.checkPort(row.key)
		if row.health.State == StateAbsent {
			row.health, row.checkPort = reasonUnregistered, ""
			row.health.State = StateUnused
		}
		rows = append(rows, row)
	}
	return func(x *wire.Writer) {
		wire.List(x, "TargetHealthDescriptions", rows, func(row healthRow) { row.write(x) })
	}, nil
}

func (row healthRow) write(x *wire.Writer) {
	x.Optional("HealthCheckPort", row.checkPort)
	x.In("TargetHealth", func() {
		x.Text("State", string(row.health.State))
		x.Optional("Reason", row.health.Reason)
		x.Optional("Description", row.health.Description)
	})
	x.In("Target", func() {
		x.Text("Id", row.key.ID)
		x.Number("Port", int(row.key.Port))
		x.Optional("AvailabilityZone", row.zone)
	})
}
