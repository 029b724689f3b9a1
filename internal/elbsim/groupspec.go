package elbsim

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/elbsim/wire"
)

var (
	protocols     = []string{"HTTP", "HTTPS", "TCP", "TLS", "UDP", "TCP_UDP", "GENEVE", "QUIC", "TCP_QUIC"}
	targetTypes   = []string{"instance", "ip", "lambda", "alb"}
	checkProtocol = []string{"HTTP", "HTTPS", "TCP"}
)

func checkGroupName(name string) *wire.Error {
	switch {
	case name == "":
		return wire.ErrMissing("Name").Of("name")
	case len(name) > 32:
		return wire.ErrValidation("Target group name '%s' cannot be longer than '32' characters", wire.Clip(name)).Of("name")
	case strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-"):
		return wire.ErrValidation("Target group name '%s' cannot begin or end with a hyphen", wire.Clip(name)).Of("name")
	case !groupName.MatchString(name):
		return wire.ErrValidation("Target group name '%s' can only contain characters that are alphanumeric characters and hyphens(-)", wire.Clip(name)).Of("name")
	}
	return nil
}

// checkGroup checks a spec that has its defaults.
func checkGroup(g *Group) *wire.Error {
	hc := &g.HealthCheck
	switch {
	case !slices.Contains(protocols, g.Protocol):
		return wire.ErrEnum("Protocol", g.Protocol, protocols...).Of("protocol")
	case g.Protocol == "GENEVE" || strings.HasSuffix(g.Protocol, "QUIC"):
		return wire.ErrValidation("elbsim does not support target groups with protocol %s", g.Protocol).Of("protocol")
	case !slices.Contains(targetTypes, g.Type):
		return wire.ErrEnum("TargetType", g.Type, targetTypes...).Of("type")
	case g.Type != "instance" && g.Type != "ip":
		return wire.ErrValidation("elbsim does not support target groups of type %s", g.Type).Of("type")
	case g.IPAddressType != "ipv4" && g.IPAddressType != "ipv6":
		return wire.ErrEnum("IpAddressType", g.IPAddressType, "ipv4", "ipv6").Of("ip_address_type")
	case !slices.Contains(checkProtocol, hc.Protocol):
		return wire.ErrValidation("Health check protocol '%s' is not supported; it must be one of HTTP, HTTPS, TCP", wire.Clip(hc.Protocol)).Of("health_check.protocol")
	case hc.Protocol == "TCP" && (g.Protocol == "HTTP" || g.Protocol == "HTTPS"):
		return wire.ErrValidation("Health check protocol 'TCP' is not supported for target groups with the protocol %s", g.Protocol).Of("health_check.protocol")
	case hc.Timeout > hc.Interval && hc.Interval >= minInterval:
		return wire.ErrValidation("Health check timeout '%g' must be smaller than or equal to the interval '%g'", hc.Timeout.Seconds(), hc.Interval.Seconds()).Of("health_check.timeout")
	case g.DeregistrationDelay > time.Hour:
		return wire.ErrRange(attrDelay, int(g.DeregistrationDelay.Seconds()), 0, 3600).Of("deregistration_delay")
	}
	if hc.Port != trafficPort {
		if n, err := strconv.Atoi(hc.Port); err != nil || n < 1 || n > 65535 {
			return wire.ErrValidation("Health check port '%s' must be either '%s' or in the range 1 to 65535", wire.Clip(hc.Port), trafficPort).Of("health_check.port")
		}
	}
	if hc.Path != "" && (hc.Path[0] != '/' || len(hc.Path) > 1024) {
		return wire.ErrValidation("Health check path '%s' must begin with a '/' and have at most 1024 characters", wire.Clip(hc.Path)).Of("health_check.path")
	}
	if hc.Codes != "" && !validCodes(hc.Codes, g.Protocol) {
		return wire.ErrValidation("Health check matcher HTTP code '%s' is not valid", wire.Clip(hc.Codes)).Of("health_check.codes")
	}
	return nil
}

// validCodes reports whether a matcher like "200,202" or "200-299" is one that the group's load balancer accepts.
func validCodes(codes, protocol string) bool {
	high := 599
	if protocol == "HTTP" || protocol == "HTTPS" {
		high = 499
	}
	for part := range strings.SplitSeq(codes, ",") {
		from, to, ok := codeRange(part)
		if !ok || from < 200 || to > high || from > to {
			return false
		}
	}
	return true
}

func codeRange(part string) (from, to int, ok bool) {
	low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
	from, err := strconv.Atoi(low)
	if err != nil {
		return 0, 0, false
	}
	if !isRange {
		return from, from, true
	}
	to, err = strconv.Atoi(high)
	return from, to, err == nil
}

// matches reports whether a code passes a check with that matcher.
func matches(codes string, code int) bool {
	for part := range strings.SplitSeq(codes, ",") {
		if from, to, ok := codeRange(part); ok && from <= code && code <= to {
			return true
		}
	}
	return false
}
