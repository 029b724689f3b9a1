package discovery

import (
	"fmt"
	"strings"

	"berth/pkg/target"
)

// TargetsLabel is the label by which a container asks for target groups.
const TargetsLabel = "berth.targets"

// The limits of a label: as many targets as a target group takes. They keep a label of any size from filling the status
// with its refusals.
const (
	maxLabelBytes = 32 << 10
	maxClaims     = 1000
	maxGroupKey   = 64
)

// emptyElement is said of a list with a comma too many.
const emptyElement = "there is nothing between two commas, or before or after one"

// Claim is one element of the label berth.targets: a group, and perhaps which of the container's ports it gets.
type Claim struct {
	Group string
	Port  target.PortProto // zero: the rule's port, or else the only one that is published
}

// String returns the claim as a label has it.
func (c Claim) String() string {
	if c.Port.Port == 0 {
		return c.Group
	}
	if c.Port.Protocol == target.TCP {
		return fmt.Sprintf("%s:%d", c.Group, c.Port.Port)
	}
	return c.Group + ":" + c.Port.String()
}

// LabelError says which element of a label cannot be read, and why. Its text quotes at most a part of the label.
type LabelError struct {
	Element string // empty: the label as a whole
	Rule    string
}

// Error returns the element and the rule that it breaks.
func (e *LabelError) Error() string {
	if e.Element == "" {
		return e.Rule
	}
	return quote(e.Element) + ": " + e.Rule
}

// ParseTargets reads the value of berth.targets:
//
//	value   = [ element { "," element } ]
//	element = group [ ":" port [ "/" protocol ] ]
//
// A group is the key of a target group in the configuration: letters, digits, dot, underscore and hyphen, at most 64,
// the first a letter or digit. A port is 1 to 65535, a protocol tcp (the default) or udp. Blanks around an element are
// allowed, empty elements are not. An empty or blank value opts out: no claims and no error. An element given twice
// counts once. Errors are *LabelError.
func ParseTargets(value string) ([]Claim, error) {
	if strings.TrimSpace(value) == "" {
		return nil, nil
	}
	if len(value) > maxLabelBytes {
		return nil, &LabelError{Rule: fmt.Sprintf("the label is %d bytes long, at most %d are read", len(value), maxLabelBytes)}
	}
	var claims []Claim
	seen := make(map[Claim]struct{})
	for element := range strings.SplitSeq(value, ",") {
		claim, err := parseClaim(strings.TrimSpace(element))
		if err != nil {
			return nil, err
		}
		if _, ok := seen[claim]; ok {
			continue
		}
		if len(claims) == maxClaims {
			return nil, &LabelError{Rule: fmt.Sprintf("the label names more than %d targets", maxClaims)}
		}
		seen[claim] = struct{}{}
		claims = append(claims, claim)
	}
	return claims, nil
}

func parseClaim(element string) (Claim, error) {
	if element == "" {
		return Claim{}, &LabelError{Rule: emptyElement}
	}
	group, port, hasPort := strings.Cut(element, ":")
	if !validGroupKey(group) {
		return Claim{}, &LabelError{Element: element, Rule: "a group's name is made of letters, digits, dot, underscore and hyphen, at most 64"}
	}
	claim := Claim{Group: group}
	if !hasPort {
		return claim, nil
	}
	pp, err := target.ParsePortProto(port)
	if err != nil {
		return Claim{}, &LabelError{Element: element, Rule: "after the colon comes a port from 1 to 65535, then perhaps /tcp or /udp"}
	}
	if pp.Protocol == target.SCTP {
		return Claim{}, &LabelError{Element: element, Rule: "load balancers know tcp and udp alone"}
	}
	claim.Port = pp
	return claim, nil
}

func validGroupKey(s string) bool {
	if s == "" || len(s) > maxGroupKey {
		return false
	}
	for i, r := range []byte(s) {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
		case i > 0 && (r == '.' || r == '_' || r == '-'):
		default:
			return false
		}
	}
	return true
}

// quote quotes what a user wrote, so that nothing in it can disturb a terminal or a log, and cuts it short.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return fmt.Sprintf("%.*q…", most, s)
	}
	return fmt.Sprintf("%q", s)
}
