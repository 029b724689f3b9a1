package elbsim

import (
	"cmp"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"
)

// createTargetGroup is the call of that name.
type createTargetGroup struct{ spec Group }

func decodeCreateGroup(f form) (request, *APIError) {
	r := &createTargetGroup{Group{
		Name: f.text("Name"), Protocol: f.text("Protocol"), Type: f.text("TargetType"), VPC: f.text("VpcId"),
		IPAddressType: f.text("IpAddressType"),
	}}
	if err := checkGroupName(r.spec.Name); err != nil {
		return nil, err
	}
	if r.spec.Type == "lambda" {
		return nil, errValidation("elbsim does not support target groups of type lambda")
	}
	for _, name := range []string{"Protocol", "Port", "VpcId"} {
		if _, err := f.required(name); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(r.spec.VPC, "vpc-") {
		return nil, errValidation("The VPC ID '%s' is not found", clip(r.spec.VPC))
	}
	port, err := f.number("Port", 1, 65535)
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

func decodeTags(f form) (map[string]string, *APIError) {
	members, err := f.list("Tags")
	if err != nil {
		return nil, err
	}
	if len(members) > 50 {
		return nil, apiError("TooManyTags", "The maximum number of tags per resource is 50")
	}
	tags := map[string]string{}
	for _, m := range members {
		key, err := m.required("Key")
		if err != nil {
			return nil, err
		}
		if _, twice := tags[key]; twice {
			return nil, apiError("DuplicateTagKeys", "Tag keys must be unique: '%s' is not", clip(key))
		}
		tags[key] = m.text("Value")
	}
	return tags, nil
}

// decodeHealthCheck reads what CreateTargetGroup and ModifyTargetGroup may say about health checks.
func decodeHealthCheck(f form) (HealthCheck, *APIError) {
	hc := HealthCheck{
		Protocol: f.text("HealthCheckProtocol"), Port: f.text("HealthCheckPort"), Path: f.text("HealthCheckPath"),
		Codes: f.text("Matcher.HttpCode"),
	}
	enabled, err := f.boolean("HealthCheckEnabled", true)
	if err != nil {
		return hc, err
	}
	if !enabled {
		return hc, apiError("InvalidConfigurationRequest", "Health check enabled must be true for target groups with target type 'instance' or 'ip'")
	}
	seconds := func(name string, low, high int, to *time.Duration) {
		if n, e := f.number(name, low, high); e != nil {
			err = cmp.Or(err, e)
		} else {
			*to = time.Duration(n) * time.Second
		}
	}
	count := func(name string, to *int) {
		n, e := f.number(name, 2, 10)
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

func (r *createTargetGroup) apply(s *Sim, _ time.Time) (reply, *APIError) {
	if g := s.byName[r.spec.Name]; g != nil {
		if !r.sameAs(g) {
			return nil, errDuplicateGroup(r.spec.Name)
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

func groupsReply(rows []groupRow, marker string) reply {
	return func(x *xmlWriter) {
		xmlList(x, "TargetGroups", rows, func(row groupRow) { row.write(x) })
		x.optional("NextMarker", marker)
	}
}

func (row groupRow) write(x *xmlWriter) {
	hc := &row.spec.HealthCheck
	x.text("TargetGroupArn", row.arn)
	x.text("TargetGroupName", row.name)
	x.text("Protocol", row.spec.Protocol)
	x.optional("ProtocolVersion", row.version)
	x.number("Port", int(row.spec.Port))
	x.text("VpcId", row.spec.VPC)
	x.text("TargetType", row.spec.Type)
	x.text("IpAddressType", row.spec.IPAddressType)
	x.text("HealthCheckProtocol", hc.Protocol)
	x.text("HealthCheckPort", hc.Port)
	x.text("HealthCheckEnabled", "true")
	x.number("HealthCheckIntervalSeconds", wholeSeconds(hc.Interval))
	x.number("HealthCheckTimeoutSeconds", wholeSeconds(hc.Timeout))
	x.number("HealthyThresholdCount", hc.Healthy)
	x.number("UnhealthyThresholdCount", hc.Unhealthy)
	x.optional("HealthCheckPath", hc.Path)
	if hc.Codes != "" {
		x.in("Matcher", func() { x.text("HttpCode", hc.Codes) })
	}
	xmlList(x, "LoadBalancerArns", row.balancers, func(arn string) { x.WriteString(arn) })
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

func decodeDescribeGroups(f form) (request, *APIError) {
	r := &describeTargetGroups{balancer: f.text("LoadBalancerArn")}
	var err *APIError
	if r.names, err = f.texts("Names"); err != nil {
		return nil, err
	}
	if r.arns, err = f.texts("TargetGroupArns"); err != nil {
		return nil, err
	}
	given := 0
	for _, is := range []bool{r.balancer != "", len(r.names) > 0, len(r.arns) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		return nil, errValidation("Only one of load balancer ARN, target group names or target group ARNs can be specified")
	}
	if r.balancer != "" && !strings.Contains(r.balancer, ":loadbalancer/") {
		return nil, errValidation("'%s' is not a valid load balancer ARN", clip(r.balancer))
	}
	for _, arn := range r.arns {
		if err := checkGroupARN(arn); err != nil {
			return nil, err
		}
	}
	if r.size, err = f.number("PageSize", 1, 400); err != nil {
		return nil, err
	}
	r.size = cmp.Or(r.size, 400)
	if m := f.text("Marker"); m != "" {
		raw, decodeErr := base64.RawURLEncoding.DecodeString(m)
		if decodeErr != nil {
			return nil, errValidation("Marker '%s' is not valid", clip(m))
		}
		r.after = string(raw)
	}
	return r, nil
}

func (r *describeTargetGroups) subject() subject {
	return subject{groups: slices.Concat(r.names, r.arns)}
}

func (r *describeTargetGroups) apply(s *Sim, _ time.Time) (reply, *APIError) {
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
func (r *describeTargetGroups) chosen(s *Sim) ([]*group, *APIError) {
	var out []*group
	switch {
	case r.balancer != "":
		if !slices.ContainsFunc(s.balancers, func(b *balancer) bool { return b.arn == r.balancer }) {
			return nil, errBalancerNotFound()
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
				return nil, errGroupNotFound()
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

func decodeDeleteGroup(f form) (request, *APIError) {
	arn, err := decodeGroupARN(f)
	return &deleteTargetGroup{arn}, err
}

func (r *deleteTargetGroup) subject() subject { return subject{groups: []string{r.arn}} }

func (r *deleteTargetGroup) apply(s *Sim, _ time.Time) (reply, *APIError) {
	g := s.groups[r.arn]
	if g == nil {
		return noResult, nil
	}
	for balancer := range g.users {
		if balancer != "" {
			return nil, errResourceInUse(g.arn)
		}
	}
	s.dropGroup(g)
	return noResult, nil
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

func decodeModifyGroup(f form) (request, *APIError) {
	arn, err := decodeGroupARN(f)
	if err != nil {
		return nil, err
	}
	check, err := decodeHealthCheck(f)
	return &modifyTargetGroup{arn, check}, err
}

func (r *modifyTargetGroup) subject() subject { return subject{groups: []string{r.arn}} }

func (r *modifyTargetGroup) apply(s *Sim, now time.Time) (reply, *APIError) {
	g := s.groups[r.arn]
	if g == nil {
		return nil, errGroupNotFound()
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
