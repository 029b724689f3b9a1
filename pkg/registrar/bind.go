package registrar

import (
	"fmt"
	"net/netip"
	"slices"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// Bind turns wants, which hold Docker's facts alone, into the targets of one group: it is where the port's protocol
// meets the group's, the binding's address the host's, and the published port an id. What does not fit is refused,
// each with a reason. Bind is pure; wants of any key that names the group may be given together.
//
// | group                    | taken                                               |
// |--------------------------|-----------------------------------------------------|
// | HTTP, HTTPS, TCP, TLS    | tcp ports                                           |
// | UDP                      | udp ports                                           |
// | TCP_UDP                  | a tcp and a udp port of one run on equal host ports |
// | type instance            | (instance id, host port)                            |
// | type ip                  | (the host's primary address, host port)             |
// | address type ipv6        | the port published on IPv6; else the one on IPv4    |
func Bind(self elb.Self, f elb.Facts, wants []target.Want) (target.Set, []Refusal) {
	b := binder{self: self, facts: f, set: target.Set{}}
	if why, change := f.Unsupported(self); why != "" {
		for _, w := range wants {
			b.refuse(w, "the target group cannot be served: "+why, change)
		}
		return b.finish()
	}
	for _, w := range wants {
		if t, ok := b.bind(w); ok {
			b.set.Add(t, w)
		}
	}
	if f.Protocol == "TCP_UDP" {
		b.pair()
	}
	return b.finish()
}

type binder struct {
	self     elb.Self
	facts    elb.Facts
	set      target.Set
	refusals []Refusal
}

func (b *binder) refuse(w target.Want, why, change string) {
	b.refusals = append(b.refusals, Refusal{Want: w, Why: why, Change: change})
}

func (b *binder) finish() (target.Set, []Refusal) {
	for _, wants := range b.set {
		slices.SortFunc(wants, target.Want.Compare)
	}
	slices.SortFunc(b.refusals, func(x, y Refusal) int { return x.Want.Compare(y.Want) })
	return b.set, b.refusals
}

func (b *binder) bind(w target.Want) (target.Target, bool) {
	if !b.facts.Takes(w.Protocol) {
		b.refuse(w, fmt.Sprintf("a %s target group cannot reach a %s port", b.facts.Protocol, w.Protocol),
			"name another port in the label or the rule, or use a group of a fitting protocol")
		return target.Target{}, false
	}
	ipv6 := b.facts.IPAddressType == "ipv6"
	port, family, address := b.facts.HostPort(w), "IPv4", b.self.Address4
	if ipv6 {
		family, address = "IPv6", b.self.Address6
	}
	if port == 0 {
		b.refuse(w, fmt.Sprintf("port %s is not published on %s, which the target group uses", w.PortProto(), family),
			"publish the port on that address family")
		return target.Target{}, false
	}
	if !reachable(w.HostIP, address) {
		b.refuse(w, fmt.Sprintf("port %s is published on %s alone; the load balancer reaches this host at %s", w.PortProto(), w.HostIP, address),
			"publish the port on every address, or on the host's primary one")
		return target.Target{}, false
	}
	id := b.self.InstanceID
	if b.facts.TargetType == "ip" {
		if !address.IsValid() {
			b.refuse(w, "this host's primary "+family+" address is not known", "use a target group of the host's address family")
			return target.Target{}, false
		}
		id = address.String()
	}
	return target.Target{ID: id, Port: port}, true
}

// reachable reports whether a port bound to host is reached at the host's primary address. Where that address is not
// known the binding gets the benefit of the doubt: the load balancer's health checks have the last word.
func reachable(host, primary netip.Addr) bool {
	if !host.IsValid() || host.IsUnspecified() {
		return true
	}
	if host.IsLoopback() {
		return false
	}
	return !primary.IsValid() || host.Unmap() == primary.Unmap()
}

// pair drops every target of a TCP_UDP group that has not both halves: a listener would send UDP to a port where
// only TCP is served, or to another container.
func (b *binder) pair() {
	for _, t := range b.set.Sorted() {
		halves := map[target.Protocol]target.Want{}
		for _, w := range b.set[t] {
			halves[w.Protocol] = w
		}
		tcp, hasTCP := halves[target.TCP]
		udp, hasUDP := halves[target.UDP]
		if hasTCP && hasUDP && tcp.Run.Same(udp.Run) {
			continue
		}
		for _, w := range b.set[t] {
			b.refuse(w, fmt.Sprintf("a TCP_UDP target group needs the tcp and the udp port of one container on the same host port; %s is alone on %d", w.PortProto(), t.Port),
				"publish both with one number (-p 53:53/tcp -p 53:53/udp), and name both in the label")
		}
		delete(b.set, t)
	}
}
