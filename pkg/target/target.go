// Package target holds the nouns that discovery, the registrar and the server share: what should be served, where,
// and why. It says nothing about how Docker or AWS are asked, and imports the standard library alone.
package target

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Target is the identity of a registration inside one target group, as ELBv2 has it: an id *and* a port. One instance
// is registered once for each port that it serves.
type Target struct {
	// ID is an instance id ("i-0123456789abcdef0") in groups of type instance, an IP address in groups of type ip.
	ID string `json:"id"`
	// Port is the host port, 1 to 65535.
	Port uint16 `json:"port"`
}

// String returns "i-0123456789abcdef0:32768", or "[fd00::1]:32768" where the id is an IPv6 address.
func (t Target) String() string { return net.JoinHostPort(t.ID, strconv.Itoa(int(t.Port))) }

// Compare orders targets by id, then by port.
func (t Target) Compare(o Target) int {
	return cmp.Or(cmp.Compare(t.ID, o.ID), cmp.Compare(t.Port, o.Port))
}

// Protocol is the transport protocol of a container's port, as Docker says it. The zero value is TCP: where Docker's
// users leave it out they mean tcp.
type Protocol uint8

// The protocols that Docker publishes. SCTP is known so that it can be refused by name.
const (
	TCP Protocol = iota
	UDP
	SCTP
)

var protocolNames = [...]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}

// String returns "tcp", "udp" or "sctp".
func (p Protocol) String() string {
	if int(p) < len(protocolNames) {
		return protocolNames[p]
	}
	return "protocol(" + strconv.Itoa(int(p)) + ")"
}

// ParseProtocol reads "tcp", "udp" or "sctp", in any case. The empty string is TCP.
func ParseProtocol(s string) (Protocol, error) {
	if s == "" {
		return TCP, nil
	}
	for p, name := range protocolNames {
		if strings.EqualFold(s, name) {
			return Protocol(p), nil
		}
	}
	return 0, fmt.Errorf("protocol %q: must be tcp, udp or sctp", s)
}

// MarshalText writes the protocol's name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the protocol's name.
func (p *Protocol) UnmarshalText(b []byte) error {
	v, err := ParseProtocol(string(b))
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// ErrPort says that a number or text is no port.
var ErrPort = errors.New("must be a port from 1 to 65535")

// ParsePort is the one place where text becomes a port: decimal digits alone, 1 to 65535. Its error wraps ErrPort.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("port %q: %w", s, ErrPort)
	}
	return uint16(n), nil
}

// CheckPort is the one place where a wider integer becomes a port. Its error wraps ErrPort.
func CheckPort[N ~int | ~int32 | ~int64](n N) (uint16, error) {
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %d: %w", n, ErrPort)
	}
	return uint16(n), nil
}

// PortProto is a container's port: "8080/tcp".
type PortProto struct {
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol"`
}

// String returns "8080/tcp".
func (p PortProto) String() string { return strconv.Itoa(int(p.Port)) + "/" + p.Protocol.String() }

// Compare orders by port, then by protocol.
func (p PortProto) Compare(o PortProto) int {
	return cmp.Or(cmp.Compare(p.Port, o.Port), cmp.Compare(p.Protocol, o.Protocol))
}

// ParsePortProto reads "8080" or "8080/udp".
func ParsePortProto(s string) (PortProto, error) {
	number, proto, found := strings.Cut(s, "/")
	port, err := ParsePort(number)
	if err != nil {
		return PortProto{}, err
	}
	if found && proto == "" {
		return PortProto{}, fmt.Errorf("port %q: protocol missing after the slash", s)
	}
	protocol, err := ParseProtocol(proto)
	if err != nil {
		return PortProto{}, err
	}
	return PortProto{Port: port, Protocol: protocol}, nil
}

// Run is one run of one container, from a start to the next death: the key that joins Docker's facts, the ledger and
// the status. A container that restarts keeps its ID and begins a new Run.
type Run struct {
	ID        string    `json:"id"`   // the full container id, 64 hexadecimal digits
	Name      string    `json:"name"` // without Docker's leading slash
	StartedAt time.Time `json:"started_at"`
}

// Same reports whether both are the same run: the name may have changed meanwhile.
func (r Run) Same(o Run) bool { return r.ID == o.ID && r.StartedAt.Equal(o.StartedAt) }

// Short returns the first 12 characters of the container's id, as docker ps shows it.
func (r Run) Short() string { return r.ID[:min(12, len(r.ID))] }

// String returns the container's name, or its short id where it has none.
func (r Run) String() string { return cmp.Or(r.Name, r.Short()) }

// Compare orders runs by name, then by id, then by start.
func (r Run) Compare(o Run) int {
	return cmp.Or(cmp.Compare(r.Name, o.Name), cmp.Compare(r.ID, o.ID), r.StartedAt.Compare(o.StartedAt))
}

// Want is one port of one run that should be served in one target group. It holds Docker's facts and nothing of AWS:
// which host port counts, and whether the protocols fit, is decided where the group's facts are known (registrar.Bind).
type Want struct {
	Group     string     `json:"group"` // the group's key in the configuration
	Run       Run        `json:"run"`
	Port      uint16     `json:"port"` // the container's port
	Protocol  Protocol   `json:"protocol"`
	HostPort4 uint16     `json:"host_port_4,omitempty"` // published on IPv4; 0: it is not
	HostPort6 uint16     `json:"host_port_6,omitempty"` // published on IPv6; 0: it is not
	HostIP    netip.Addr `json:"host_ip,omitzero"`      // the one address it is published on; zero or unspecified: all of them
	Dynamic   bool       `json:"dynamic"`               // Docker chose the host port
}

// PortProto returns the container's port with its protocol.
func (w Want) PortProto() PortProto { return PortProto{w.Port, w.Protocol} }

// Compare orders wants by group, run and port.
func (w Want) Compare(o Want) int {
	return cmp.Or(cmp.Compare(w.Group, o.Group), w.Run.Compare(o.Run), w.PortProto().Compare(o.PortProto()))
}

// Allotment is a host port that a container which runs now has, wanted or not. A registration of it for any other run is
// out of date.
type Allotment struct {
	Run      Run      `json:"run"`
	HostPort uint16   `json:"host_port"`
	Protocol Protocol `json:"protocol"`
	// IPv6 tells the port's two halves apart: before Docker 27 one number could be two containers', one on each.
	IPv6 bool `json:"ipv6,omitempty"`
	// Proof reports whether it proves that a registration nobody here knows is stale: Docker has chosen the number, for
	// a container that nobody else is known to register. A port that a user chose may have been registered by that user.
	Proof bool `json:"proof,omitempty"`
}

// Set is what should be registered in one target group, and why. A target may be wanted for more than one reason (the
// TCP and the UDP half of a TCP_UDP group).
type Set map[Target][]Want

// Sorted returns the targets in order.
func (s Set) Sorted() []Target { return Sorted(s) }

// Add records that w wants t.
func (s Set) Add(t Target, w Want) { s[t] = append(s[t], w) }

// Minus returns the targets of s that are not in o, in order.
func (s Set) Minus(o Set) []Target {
	var out []Target
	for t := range s {
		if _, ok := o[t]; !ok {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, Target.Compare)
	return out
}

// Union returns a new set of the targets of both, with the wants of both.
func (s Set) Union(o Set) Set {
	out := make(Set, len(s)+len(o))
	for _, set := range []Set{s, o} {
		for t, wants := range set {
			out[t] = append(out[t], wants...)
		}
	}
	return out
}

// SameTargets reports whether both hold the same targets, whatever their reasons.
func (s Set) SameTargets(o Set) bool {
	return len(s) == len(o) && len(s.Minus(o)) == 0
}

// Sorted returns the keys of any map by target, in order.
func Sorted[V any](m map[Target]V) []Target {
	out := make([]Target, 0, len(m))
	for t := range m {
		out = append(out, t)
	}
	slices.SortFunc(out, Target.Compare)
	return out
}
