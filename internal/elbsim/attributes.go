package elbsim

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/elbsim/wire"
)

const (
	attrDelay     = "deregistration_delay.timeout_seconds"
	attrTerminate = "deregistration_delay.connection_termination.enabled"
)

// attributeDefaults are the attributes of every group; those of its kind of load balancer are added to them.
func attributeDefaults(protocol string) map[string]string {
	out := map[string]string{
		attrDelay:                           "300",
		"stickiness.enabled":                "false",
		"load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
		"target_group_health.dns_failover.minimum_healthy_targets.count":                 "1",
		"target_group_health.dns_failover.minimum_healthy_targets.percentage":            "off",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count":      "1",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
	}
	if protocol == "HTTP" || protocol == "HTTPS" {
		maps.Copy(out, map[string]string{
			"stickiness.type":                             "lb_cookie",
			"stickiness.lb_cookie.duration_seconds":       "86400",
			"stickiness.app_cookie.cookie_name":           "",
			"stickiness.app_cookie.duration_seconds":      "86400",
			"slow_start.duration_seconds":                 "0",
			"load_balancing.algorithm.type":               "round_robin",
			"load_balancing.algorithm.anomaly_mitigation": "off",
		})
		return out
	}
	maps.Copy(out, map[string]string{
		"stickiness.type":            "source_ip",
		attrTerminate:                strconv.FormatBool(strings.Contains(protocol, "UDP")),
		"preserve_client_ip.enabled": "true",
		"proxy_protocol_v2.enabled":  "false",
		"target_health_state.unhealthy.connection_termination.enabled": "true",
		"target_health_state.unhealthy.draining_interval_seconds":      "0",
	})
	return out
}

// attribute returns an attribute's present value.
func (g *group) attribute(key string) string { return g.allAttributes()[key] }

func (g *group) allAttributes() map[string]string {
	out := attributeDefaults(g.spec.Protocol)
	maps.Copy(out, g.attributes)
	out[attrDelay] = strconv.Itoa(wholeSeconds(g.spec.DeregistrationDelay))
	return out
}

func attributesReply(attributes map[string]string) wire.Reply {
	return func(x *wire.Writer) {
		wire.List(x, "Attributes", slices.Sorted(maps.Keys(attributes)), func(key string) {
			x.Text("Key", key)
			x.Text("Value", attributes[key])
		})
	}
}

// modifyAttributes is ModifyTargetGroupAttributes. A new delay is for targets that are deregistered from now on.
type modifyAttributes struct {
	arn string
	set map[string]string
}

func decodeModifyAttributes(f wire.Form) (request, *wire.Error) {
	arn, err := decodeGroupARN(f)
	if err != nil {
		return nil, err
	}
	members, err := f.List("Attributes")
	if err != nil {
		return nil, err
	}
	if len(members) == 0 {
		return nil, wire.ErrMissing("Attributes")
	}
	set := map[string]string{}
	for _, m := range members {
		key, err := m.Required("Key")
		if err != nil {
			return nil, err
		}
		set[key] = m.Text("Value")
	}
	return &modifyAttributes{arn, set}, nil
}

func (r *modifyAttributes) subject() subject { return subject{groups: []string{r.arn}} }

func (r *modifyAttributes) apply(s *Sim, _ time.Time) (wire.Reply, *wire.Error) {
	g := s.groups[r.arn]
	if g == nil {
		return nil, wire.ErrGroupNotFound()
	}
	known := g.allAttributes()
	delay := g.spec.DeregistrationDelay
	for _, key := range slices.Sorted(maps.Keys(r.set)) {
		value := r.set[key]
		if _, ok := known[key]; !ok {
			return nil, wire.ErrValidation("Target group attribute key '%s' is not recognized", wire.Clip(key))
		}
		if err := checkAttribute(key, value); err != nil {
			return nil, err
		}
		if key == attrDelay {
			n, _ := strconv.Atoi(value)
			delay = time.Duration(n) * time.Second
		}
	}
	g.spec.DeregistrationDelay = delay
	maps.Copy(g.attributes, r.set)
	return attributesReply(g.allAttributes()), nil
}

// checkAttribute checks the attributes that change what elbsim does, and the booleans; it keeps the others as text.
func checkAttribute(key, value string) *wire.Error {
	switch {
	case key == attrDelay:
		if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 3600 {
			return wire.ErrValidation("Target group attribute value '%s' for '%s' must be an integer between 0 and 3600", wire.Clip(value), key)
		}
	case strings.HasSuffix(key, ".enabled") && key != "load_balancing.cross_zone.enabled":
		if value != "true" && value != "false" {
			return wire.ErrValidation("Target group attribute value '%s' for '%s' must be 'true' or 'false'", wire.Clip(value), key)
		}
	}
	return nil
}

// describeAttributes is DescribeTargetGroupAttributes.
type describeAttributes struct{ arn string }

func decodeDescribeAttributes(f wire.Form) (request, *wire.Error) {
	arn, err := decodeGroupARN(f)
	return &describeAttributes{arn}, err
}

func (r *describeAttributes) subject() subject { return subject{groups: []string{r.arn}} }

func (r *describeAttributes) apply(s *Sim, _ time.Time) (wire.Reply, *wire.Error) {
	g := s.groups[r.arn]
	if g == nil {
		return nil, wire.ErrGroupNotFound()
	}
	return attributesReply(g.allAttributes()), nil
}
