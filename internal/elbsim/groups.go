package elbsim

import (
	"cmp"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"

	"berth/internal/elbsim/wire"
)

// createTargetGroup is the call of that name.
type createTargetGroup struct{ spec Group }

func decodeCreateGroup(f wire.Form) (request, *wire.Error) {
	r := &createTargetGroup{Group{
		Name: f.Text("Name"), Protocol: f.Text("Protocol"), Type: f.Text("TargetType"), VPC: f.Text("VpcId"),
		IPAddressType: f.Text("IpAddressType"),
	}}
	if err := checkGroupName(r.spec.Name); err != nil {
		return nil, err
	}
	if r.spec.Type == "lambda" {
		return nil, wire.ErrValidation("elbsim does not support target groups of type lambda")
	}
	for _, name := range []string{"Protocol", "Port", "VpcId"} {
		if _, err := f.Required(name); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(r.spec.VPC, "vpc-") {
		return nil, wire.ErrValidation("The VPC ID '%s' is not found", wire.Clip(r.spec.VPC))
	}
	port, err := f.Number("Port", 1, 65535)
	if err != nil {
		return nil, err
	}
	r.spec.Port = uint16(port) //nolint:gosec // checked just above
	if r.spec.HealthCheck, err = decodeHealthCheck(f); err != nil {
		return nil, err
	}
	r.spec.Tags, err = decodeTags(f)
	return r, err
}

func decodeTags(f wire.Form) (map[string]string, *wire.Error) {
	members, err := f.List("Tags")
	if err != nil {
		return nil, err
	}
	if len(members) > 50 {
		return nil, wire.NewError("TooManyTags", "The maximum number of tags per resource is 50")
	}
	tags := map[string]string{}
	for _, m := range members {
		key, err := m.Required("Key")
		if err != nil {
			return nil, err
		}
		if _, twice := tags[key]; twice {
			return nil, wire.NewError("DuplicateTagKeys", "Tag keys must be unique: '%s' is not", wire.Clip(key))
		}
		tags[key] = m.Text("Value")
	}
	return tags, nil
}

// decodeHealthCheck reads what CreateTargetGroup and ModifyTargetGroup may say about health checks.
func decodeHealthCheck(f wire.Form) (HealthCheck, *wire.Error) {
	hc := HealthCheck{
		Protocol: f.Text("HealthCheckProtocol"), Port: f.Text("HealthCheckPort"), Path: f.Text("HealthCheckPath"),
		Codes: f.Text("Matcher.HttpCode"),
	}
	enabled, err := f.Boolean("HealthCheckEnabled", true)
	if err != nil {
		return hc, err
	}
	if !enabled {
		return hc, wire.NewError("InvalidConfigurationRequest", "Health check enabled must be true for target groups with target type 'instance' or 'ip'")
	}
	seconds := func(name string, low, high int, to *time.Duration) {
		if n, e := f.Number(name, low, high); e != nil {
			err = cmp.Or(err, e)
		} else {
			*to = time.Duration(n) * time.Second
		}
	}
	count := func(name string, to *int) {
		n, e := f.Number(name, 2, 10)
		err = cmp.Or(err, e)
		*to = n
	}
	seconds("HealthCheckIntervalSeconds", 5, 300, &hc.Interval)
	seconds("HealthCheckTimeoutSeconds", 2, 120, &hc.Timeout)
	count("HealthyThresholdCount", &hc.Healthy)
	count("UnhealthyThresholdCount", &hc.Unhealthy)
	return hc, err
}

func (r *createTargetGroup) subject() subject { return subject{groups: []string{r.spec.Name}} }

func (r *createTargetGroup) apply(s *Sim, _ time.Time) (wire.Reply, *wire.Error) {
	if g := s.byName[r.spec.Name]; g != nil {
		if !r.sameAs(g) {
			return nil, wire.ErrDuplicateGroup(r.spec.Name)
		}
		return groupsReply([]groupRow{g.row()}, ""), nil
	}
	g, err := s.newGroup(r.spec)
	if err != nil {
		return nil, err
	}
	return groupsReply([]groupRow{g.row()}, ""), nil
}

// sameAs reports whether the call describes the group as it is: creating it again then succeeds.
func (r *createTargetGroup) sameAs(g *group) bool {
	return r.spec.Protocol == g.spec.Protocol && r.spec.Port == g.spec.Port && r.spec.VPC == g.spec.VPC &&
		cmp.Or(r.spec.Type, "instance") == g.spec.Type && r.spec.HealthCheck.withDefaults(r.spec.Protocol) == g.spec.HealthCheck &&
		cmp.Or(r.spec.IPAddressType, "ipv4") == g.spec.IPAddressType && maps.Equal(r.spec.Tags, g.tags)
}

// groupRow is one TargetGroup of a reply.
type groupRow struct {
	arn, name, version string
	spec               Group
	balancers          []string
}

func (g *group) row() groupRow {
	row := groupRow{arn: g.arn, name: g.name, version: g.version, spec: g.spec}
	for arn := range g.users {
		if arn != "" {
			row.balancers = append(row.balancers, arn)
		}
	}
	slices.Sort(row.balancers)
	return row
}

func groupsReply(rows []groupRow, marker string) wire.Reply {
	return func(x *wire.Writer) {
		wire.List(x, "TargetGroups", rows, func(row groupRow) { row.write(x) })
		x.Optional("NextMarker", marker)
	}
}

func (row groupRow) write(x *wire.Writer) {
	hc := &row.spec.HealthCheck
	x.Text("TargetGroupArn", row.arn)
	x.Text("TargetGroupName", row.name)
	x.Text("Protocol", row.spec.Protocol)
	x.Optional("ProtocolVersion", row.version)
	x.Number("Port", int(row.spec.Port))
	x.Text("VpcId", row.spec.VPC)
	x.Text("TargetType", row.spec.Type)
	x.Text("IpAddressType", row.spec.IPAddressType)
	x.Text("HealthCheckProtocol", hc.Protocol)
	x.Text("HealthCheckPort", hc.Port)
	x.Text("HealthCheckEnabled", "true")
	x.Number("HealthCheckIntervalSeconds", wholeSeconds(hc.Interval))
	x.Number("HealthCheckTimeoutSeconds", wholeSeconds(hc.Timeout))
	x.Number("HealthyThresholdCount", hc.Healthy)
	x.Number("UnhealthyThresholdCount", hc.Unhealthy)
	x.Optional("HealthCheckPath", hc.Path)
	if hc.Codes != "" {
		x.In("Matcher", func() { x.Text("HttpCode", hc.Codes) })
	}
	wire.List(x, "LoadBalancerArns", row.balancers, func(arn string) { x.WriteString(arn) })
}

// wholeSeconds rounds up: a check every 200 ms, which only elbsim can do, shows as one second.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// describeTargetGroups is the call of that name.
type describeTargetGroups struct {
	balancer string
	names    []string
	arns     []string
	after    string // the name after which the page begins
	size     int
}

func decodeDescribeGroups(f wire.Form) (request, *wire.Error) {
	r := &describeTargetGroups{balancer: f.Text("LoadBalancerArn")}
	var err *wire.Error
	if r.names, err = f.Texts("Names"); err != nil {
		return nil, err
	}
	if r.arns, err = f.Texts("TargetGroupArns"); err != nil {
		return nil, err
	}
	given := 0
	for _, is := range []bool{r.balancer != "", len(r.names) > 0, len(r.arns) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		return nil, wire.ErrValidation("Only one of load balancer ARN, target group names or target group ARNs can be specified")
	}
	if r.balancer != "" && !strings.Contains(r.balancer, ":loadbalancer/") {
		return nil, wire.ErrValidation("'%s' is not a valid load balancer ARN", wire.Clip(r.balancer))
	}
	for _, arn := range r.arns {
		if err := checkGroupARN(arn); err != nil {
			return nil, err
		}
	}
	if r.size, err = f.Number("PageSize", 1, 400); err != nil {
		return nil, err
	}
	r.size = cmp.Or(r.size, 400)
	if m := f.Text("Marker"); m != "" {
		raw, decodeErr := base64.RawURLEncoding.DecodeString(m)
		if decodeErr != nil {
			return nil, wire.ErrValidation("Marker '%s' is not valid", wire.Clip(m))
		}
		r.after = string(raw)
	}
	return r, nil
}

func (r *describeTargetGroups) subject() subject {
	return subject{groups: slices.Concat(r.names, r.arns)}
}

func (r *describeTargetGroups) apply(s *Sim, _ time.Time) (wire.Reply, *wire.Error) {
	groups, err := r.chosen(s)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.name, b.name) })
	first, _ := slices.BinarySearchFunc(groups, r.after, func(g *group, name string) int {
		if g.name <= name {
			return -1
		}
		return 1
	})
	if r.after == "" {
		first = 0
	}
	groups = groups[first:]
	marker := ""
	if len(groups) > r.size {
		groups = groups[:r.size]
		marker = base64.RawURLEncoding.EncodeToString([]byte(groups[r.size-1].name))
	}
	rows := make([]groupRow, len(groups))
	for i, g := range groups {
		rows[i] = g.row()
	}
	return groupsReply(rows, marker), nil
}

// chosen returns the groups that the call asks for. One unknown name or ARN fails it whole.
func (r *describeTargetGroups) chosen(s *Sim) ([]*group, *wire.Error) {
	var out []*group
	switch {
	case r.balancer != "":
		if !slices.ContainsFunc(s.balancers, func(b *balancer) bool { return b.arn == r.balancer }) {
			return nil, wire.ErrBalancerNotFound()
		}
		for _, g := range s.groups {
			if g.users[r.balancer] > 0 {
				out = append(out, g)
			}
		}
	case len(r.names)+len(r.arns) > 0:
		for _, ref := range slices.Concat(r.names, r.arns) {
			g, err := s.find(ref)
			if err != nil {
				return nil, wire.ErrGroupNotFound()
			}
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	default:
		out = slices.Collect(maps.Values(s.groups))
	}
	return out, nil
}

// deleteTargetGroup is the call of that name. A group that is not there is no error.
type deleteTargetGroup struct{ arn string }

func decodeDeleteGroup(f wire.Form) (request, *wire.Error) {
	arn, err := decodeGroupARN(f)
	return &deleteTargetGroup{arn}, err
}

func (r *deleteTargetGroup) subject() subject { return subject{groups: []string{r.arn}} }

func (r *deleteTargetGroup) apply(s *Sim, _ time.Time) (wire.Reply, *wire.Error) {
	g := s.groups[r.arn]
	if g == nil {
		return wire.NoResult, nil
	}
	for balancer := range g.users {
		if balancer != "" {
			return nil, wire.ErrResourceInUse(g.arn)
		}
	}
	s.dropGroup(g)
	return wire.NoResult, nil
}

func (s *Sim) dropGroup(g *group) {
	for _, e := range g.entries {
		e.stop()
		if e.inst != nil {
			delete(e.inst.entries, e)
		}
	}
	delete(s.groups, g.arn)
	delete(s.byName, g.name)
}

// modifyTargetGroup is the call of that name: it changes health checks, and only what it names.
type modifyTargetGroup struct {
	arn   string
	check HealthCheck
}

func decodeModifyGroup(f wire.Form) (request, *wire.Error) {
	arn, err := decodeGroupARN(f)
	if err != nil {
		return nil, err
	}
	check, err := decodeHealthCheck(f)
	return &modifyTargetGroup{arn, check}, err
}

func (r *modifyTargetGroup) subject() subject { return subject{groups: []string{r.arn}} }

func (r *modifyTargetGroup) apply(s *Sim, now time.Time) (wire.Reply, *wire.Error) {
	g := s.groups[r.arn]
	if g == nil {
		return nil, wire.ErrGroupNotFound()
	}
	old, set := g.spec.HealthCheck, r.check
	spec := g.spec
	spec.HealthCheck = HealthCheck{
		Protocol: cmp.Or(set.Protocol, old.Protocol), Port: cmp.Or(set.Port, old.Port), Path: cmp.Or(set.Path, old.Path),
		Interval: cmp.Or(set.Interval, old.Interval), Timeout: cmp.Or(set.Timeout, old.Timeout),
		Healthy: cmp.Or(set.Healthy, old.Healthy), Unhealthy: cmp.Or(set.Unhealthy, old.Unhealthy),
		Codes: cmp.Or(set.Codes, old.Codes),
	}.withDefaults(spec.Protocol)
	if err := checkGroup(&spec); err != nil {
		return nil, err
	}
	for _, e := range g.entries {
		s.advance(e, now)
	}
	g.spec = spec
	return groupsReply([]groupRow{g.row()}, ""), nil
}
