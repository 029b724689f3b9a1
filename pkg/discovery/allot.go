package discovery

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/pkg/target"
)

// allot notes the host ports that Docker has given to c. Those on one address alone are left out: somebody else may
// hold the same number on another, so they prove nothing about a registration.
func (r *resolver) allot(c *Container) {
	for _, p := range c.Published {
		ip := p.HostIP.Unmap()
		if p.HostPort == 0 || c.Disconnected || ip.IsValid() && !ip.IsUnspecified() {
			continue
		}
		if _, lost := r.owners.later(c, wayOf(p)); lost {
			continue
		}
		for _, key := range wayOf(p).keys() {
			a := target.Allotment{
				Run: c.run(), HostPort: key.port, Protocol: key.protocol, IPv6: key.ipv6,
				Proof: !slices.Contains(c.Asked[p.PortProto], key.port) && !leftToOthers(c),
			}
			if !slices.Contains(r.out.Allotted[max(0, len(r.out.Allotted)-2):], a) {
				r.out.Allotted = append(r.out.Allotted, a)
			}
		}
	}
}

// leftToOthers reports whether somebody else may be registering the container: ECS, or whoever opted it out.
func leftToOthers(c *Container) bool {
	value, labelled := c.Labels[TargetsLabel]
	return labelled && strings.TrimSpace(value) == "" || leftAlone(c.Facts) != ""
}

// owners says who holds which host port. Two running containers cannot hold one: where the facts say so, those of the
// earlier run are out of date (its death went unheard, and Docker gave the port away), and the later run's count.
type owners map[hostPort][]owner

type hostPort struct {
	port     uint16
	protocol target.Protocol
	ipv6     bool
}

type owner struct {
	run   target.Run
	begun time.Time
	ip    netip.Addr // zero: every address
}

// wayOf is the exposure of one binding alone.
func wayOf(p Published) exposure {
	way := exposure{port: p.PortProto, hostIP: specific(p.HostIP)}
	if ip := p.HostIP.Unmap(); !ip.IsValid() || ip.Is4() {
		way.host4 = p.HostPort
	}
	if ip := p.HostIP.Unmap(); !ip.IsValid() || ip.Is6() {
		way.host6 = p.HostPort
	}
	return way
}

// keys are the host ports that a way takes: one number on IPv4 and on IPv6 may belong to two containers.
func (e exposure) keys() []hostPort {
	keys := make([]hostPort, 0, 2)
	if e.host4 != 0 {
		keys = append(keys, hostPort{e.host4, e.port.Protocol, false})
	}
	if e.host6 != 0 {
		keys = append(keys, hostPort{e.host6, e.port.Protocol, true})
	}
	return keys
}

func newOwners(containers []Container) owners {
	o := make(owners)
	for i := range containers {
		c := &containers[i]
		if !c.running() || c.Disconnected {
			continue
		}
		for _, p := range c.Published {
			for _, key := range wayOf(p).keys() {
				o[key] = append(o[key], owner{c.run(), c.begun(), specific(p.HostIP)})
			}
		}
	}
	return o
}

// specific returns ip where it is one address, and the zero Addr where it stands for all.
func specific(ip netip.Addr) netip.Addr {
	ip = ip.Unmap()
	if ip.IsUnspecified() {
		return netip.Addr{}
	}
	return ip
}

// later returns the later run that holds the host port that way says is c's. Of equal starts the first id counts as
// later: some choice has to be made, and always the same. Only what Docker publishes is compared: a container on the
// host's network is taken at its word.
func (o owners) later(c *Container, way exposure) (target.Run, bool) {
	if c.NetworkMode == "host" {
		return target.Run{}, false
	}
	for _, key := range way.keys() {
		for _, other := range o[key] {
			overlap := !other.ip.IsValid() || !way.hostIP.IsValid() || other.ip == way.hostIP
			order := cmp.Or(other.begun.Compare(c.begun()), other.run.StartedAt.Compare(c.StartedAt), strings.Compare(c.ID, other.run.ID))
			if other.run.ID != c.ID && overlap && order > 0 {
				return other.run, true
			}
		}
	}
	return target.Run{}, false
}

func compareWants(a, b target.Want) int {
	return cmp.Or(a.Compare(b), a.HostIP.Compare(b.HostIP))
}

func compareDecisions(a, b Decision) int {
	return cmp.Or(
		a.Run.Compare(b.Run), strings.Compare(a.Group, b.Group),
		target.PortProto{Port: a.Port, Protocol: a.Protocol}.Compare(target.PortProto{Port: b.Port, Protocol: b.Protocol}),
		strings.Compare(string(a.Verdict), string(b.Verdict)), strings.Compare(a.Why, b.Why),
	)
}

func compareAllotments(a, b target.Allotment) int {
	family := func(a target.Allotment) int {
		if a.IPv6 {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.Protocol, b.Protocol), family(a)-family(b), a.Run.Compare(b.Run))
}
