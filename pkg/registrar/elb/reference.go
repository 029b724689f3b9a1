package elb

import (
	"fmt"
	"strings"

	"berth/pkg/target"
)

// Reference is how the configuration names a group: by ARN, or by name.
type Reference struct {
	ARN, Name string
	Key       string // of the configuration, for messages
	Source    string
}

// Reference returns how the configuration names the group.
func (g Group) Reference() Reference {
	return Reference{ARN: g.ARN, Name: g.Name, Key: g.Key, Source: g.Source}
}

// Identity identifies what is looked up, whichever line of the configuration asks for it.
func (r Reference) Identity() string {
	if r.ARN != "" {
		return r.ARN
	}
	return "name:" + r.Name
}

// Names reports whether the reference is to this group.
func (r Reference) Names(f Facts) bool {
	return r.ARN != "" && r.ARN == f.ARN || r.ARN == "" && r.Name == f.Name
}

func (r Reference) String() string {
	what := "the name " + fmt.Sprintf("%q", r.Name)
	if r.ARN != "" {
		what = "the ARN " + r.ARN
	}
	if strings.Contains(r.Source, "/") { // a file, which has keys: no flag and no variable
		what += " of target_groups." + r.Key
	}
	if r.Source != "" {
		return what + " in " + r.Source
	}
	return what + " in the configuration"
}

// Unsupported says why a group cannot be served at all, and what to change; both are empty when it can.
//
// Supported are groups of type instance and ip with the protocols HTTP, HTTPS, TCP, TLS, UDP and TCP_UDP.
// Source: https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetGroup.html
func (f Facts) Unsupported(self Self) (why, change string) {
	switch f.TargetType {
	case "instance", "ip":
	default:
		return fmt.Sprintf("target type %q cannot hold the ports of containers", f.TargetType),
			"use a target group of type instance, or of type ip"
	}
	switch f.Protocol {
	case "HTTP", "HTTPS", "TCP", "TLS", "UDP", "TCP_UDP":
	default:
		return fmt.Sprintf("protocol %s is not supported", f.Protocol),
			"use a target group with protocol HTTP, HTTPS, TCP, TLS, UDP or TCP_UDP"
	}
	if self.VPC != "" && f.VPC != "" && self.VPC != f.VPC {
		return fmt.Sprintf("it is in %s, this instance in %s", f.VPC, self.VPC),
			"use a target group in this instance's VPC"
	}
	return "", ""
}

// Takes reports whether the group's listeners can speak to a port of protocol p.
func (f Facts) Takes(p target.Protocol) bool {
	switch f.Protocol {
	case "UDP":
		return p == target.UDP
	case "TCP_UDP":
		return p == target.TCP || p == target.UDP
	}
	return p == target.TCP
}

// HostPort is the port that is published in the group's address family; 0: none is.
func (f Facts) HostPort(w target.Want) uint16 {
	if f.IPAddressType == "ipv6" {
		return w.HostPort6
	}
	return w.HostPort4
}
