package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"berth/pkg/target"
)

// exposure is one way in which a container's port can be reached from outside the host.
type exposure struct {
	port         target.PortProto
	host4, host6 uint16
	hostIP       netip.Addr // the one address; zero: every one
	dynamic      bool
}

// refusal says why a port cannot be served, and what to change.
type refusal struct{ why, change string }

// claimed is one claim or rule about to be settled: which group asks, for which port, and how the asker wrote it.
type claimed struct {
	group string
	port  target.PortProto // zero: the only one
	rule  *Rule
	label []Claim // the whole label; nil: a rule took the container
	own   bool    // the label itself names the port
}

// portTable is what one inspection says about a container's ports, in the form in which it is asked for.
type portTable struct {
	facts *Facts
	bound map[target.PortProto][]Published // tcp and udp
	order []target.PortProto               // see ports
	sctp  bool
}

func newPortTable(f *Facts) *portTable {
	t := &portTable{facts: f, bound: make(map[target.PortProto][]Published, len(f.Published))}
	for _, p := range f.Published {
		if p.Protocol == target.SCTP {
			t.sctp = true
			continue
		}
		t.bound[p.PortProto] = append(t.bound[p.PortProto], p)
	}
	return t
}

// ports returns the ports that are bound, in order: sorted once, however many claims are refused.
func (t *portTable) ports() []target.PortProto {
	if t.order == nil {
		t.order = slices.SortedFunc(maps.Keys(t.bound), target.PortProto.Compare)
	}
	return t.order
}

// settle says how c's port is reached, or why it cannot be. A port that is bound to several single addresses is reached
// in as many ways; which of them the load balancer uses is known where the host's own address is.
func (t *portTable) settle(c claimed) ([]exposure, target.PortProto, *refusal) {
	switch mode := t.facts.NetworkMode; {
	case mode == "host":
		return t.onHost(c)
	case mode == "none":
		return nil, c.port, &refusal{"it has no network", "run it with a network, and publish the port"}
	case strings.HasPrefix(mode, "container:"):
		owner := strings.TrimPrefix(mode, "container:")
		return nil, c.port, &refusal{
			"it uses the network of container " + short(owner) + ", and its ports are published there",
			fmt.Sprintf("put the label %s on container %s", TargetsLabel, short(owner)),
		}
	}
	port := c.port
	if port.Port == 0 {
		only, r := t.only(c)
		if r != nil {
			return nil, port, r
		}
		port = only
	}
	published, ok := t.bound[port]
	if !ok {
		return nil, port, t.unpublished(c, port)
	}
	ways, r := reach(port, published)
	if r != nil {
		return nil, port, r
	}
	for i := range ways {
		ways[i].dynamic = !slices.Contains(t.facts.Asked[port], cmp.Or(ways[i].host4, ways[i].host6))
	}
	return ways, port, nil
}

// onHost settles a claim of a container that shares the host's network: nothing is published, so the port must be
// named, and is taken at its word.
func (t *portTable) onHost(c claimed) ([]exposure, target.PortProto, *refusal) {
	if c.port.Port == 0 {
		example := target.PortProto{Port: 8080}
		if len(t.facts.Exposed) > 0 {
			example = slices.MinFunc(t.facts.Exposed, target.PortProto.Compare)
		}
		return nil, c.port, &refusal{
			"it uses the host's network, where Docker publishes nothing: which port it listens on has to be said",
			c.suggest(example),
		}
	}
	return []exposure{{port: c.port, host4: c.port.Port, host6: c.port.Port}}, c.port, nil
}

// only returns the one port that can be meant when none is named.
func (t *portTable) only(c claimed) (target.PortProto, *refusal) {
	reachable := make([]target.PortProto, 0, len(t.bound))
	for port, published := range t.bound {
		if _, r := reach(port, published); r == nil {
			reachable = append(reachable, port)
		}
	}
	slices.SortFunc(reachable, target.PortProto.Compare)
	switch {
	case len(reachable) == 1:
		return reachable[0], nil
	case len(reachable) > 1:
		return target.PortProto{}, &refusal{
			fmt.Sprintf("it publishes %s, and nothing says which of them is meant", enumerate(reachable)),
			c.suggest(reachable[0]),
		}
	case len(t.bound) > 0:
		_, r := reach(t.ports()[0], t.bound[t.ports()[0]])
		return target.PortProto{}, r
	case t.sctp:
		return target.PortProto{}, &refusal{"it publishes sctp ports alone, which no load balancer takes", "publish a tcp or a udp port"}
	}
	return target.PortProto{}, &refusal{"it publishes no port", t.publish(target.PortProto{})}
}

// unpublished says why a port that was named is not there.
func (t *portTable) unpublished(c claimed, port target.PortProto) *refusal {
	other := target.PortProto{Port: port.Port, Protocol: target.UDP - port.Protocol}
	if _, ok := t.bound[other]; ok {
		return &refusal{fmt.Sprintf("it publishes %s, not %s", other, port), c.suggest(other)}
	}
	if len(t.bound) == 0 {
		return &refusal{fmt.Sprintf("port %s is not published", port), t.publish(port)}
	}
	why := fmt.Sprintf("port %s is not published, but %s", port, enumerate(t.ports()))
	return &refusal{why, t.publish(port) + ", or " + c.suggest(t.ports()[0])}
}

func (t *portTable) publish(port target.PortProto) string {
	if port.Port == 0 {
		return "run it with -P, or with -p and the port"
	}
	if slices.Contains(t.facts.Exposed, port) {
		return "run it with -P"
	}
	return "run it with " + publishFlag(port)
}

// publishFlag is docker run's flag that publishes port on every address, on a host port of Docker's choice.
func publishFlag(port target.PortProto) string {
	if port.Protocol == target.TCP {
		return fmt.Sprintf("-p %d", port.Port)
	}
	return "-p " + port.String()
}

// suggest says how to name port for the group, where the asker has to write it.
func (c claimed) suggest(port target.PortProto) string {
	wanted := Claim{Group: c.group, Port: port}
	label := "label it " + TargetsLabel + "=" + shorten(c.relabel(wanted))
	if c.label == nil || !c.own && c.port.Port != 0 {
		label += fmt.Sprintf(", or set container_port: %s for group %s", port, c.group)
	}
	return label
}

// relabel writes the label with wanted in the place of what cannot be: as much of it as is shown, whatever its length.
func (c claimed) relabel(wanted Claim) string {
	if len(c.label) == 0 {
		return wanted.String()
	}
	var b strings.Builder
	replaced := false
	for i, claim := range c.label {
		if !replaced && claim.Group == c.group && (claim.Port.Port == 0 || claim.Port == c.port) {
			claim, replaced = wanted, true
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(claim.String())
		if b.Len() > mostShown {
			break
		}
	}
	return b.String()
}

// reach sorts one port's bindings: those on all addresses win, of several host ports the lowest; else each single
// address that is not loopback's is a way of its own.
func reach(port target.PortProto, published []Published) ([]exposure, *refusal) {
	all := exposure{port: port}
	single := make(map[netip.Addr]exposure)
	loopback, portless := false, false
	for _, p := range published {
		ip := p.HostIP.Unmap()
		switch {
		case p.HostPort == 0:
			portless = true
		case ip.IsLoopback():
			loopback = true
		case !ip.IsValid():
			all.host4, all.host6 = lower(all.host4, p.HostPort), lower(all.host6, p.HostPort)
		case ip.IsUnspecified() && ip.Is4():
			all.host4 = lower(all.host4, p.HostPort)
		case ip.IsUnspecified():
			all.host6 = lower(all.host6, p.HostPort)
		case ip.Is4():
			single[ip] = exposure{port: port, hostIP: ip, host4: lower(single[ip].host4, p.HostPort)}
		default:
			single[ip] = exposure{port: port, hostIP: ip, host6: lower(single[ip].host6, p.HostPort)}
		}
	}
	switch {
	case all.host4 != 0 || all.host6 != 0:
		return []exposure{all}, nil
	case len(single) > 0:
		ways := make([]exposure, 0, len(single))
		for _, ip := range slices.SortedFunc(maps.Keys(single), netip.Addr.Compare) {
			ways = append(ways, single[ip])
		}
		return ways, nil
	case loopback:
		return nil, &refusal{
			fmt.Sprintf("port %s is published on loopback alone, where no load balancer can reach it", port),
			"publish it on every address: " + publishFlag(port),
		}
	case portless:
		return nil, &refusal{
			fmt.Sprintf("Docker has bound no host port for port %s: its network routes instead of publishing", port),
			"use a network whose gateway mode is nat",
		}
	}
	return nil, &refusal{fmt.Sprintf("port %s is not published", port), "publish it: " + publishFlag(port)}
}

// lower returns the lower of two ports, where 0 is none.
func lower(a, b uint16) uint16 {
	if a == 0 || b < a {
		return b
	}
	return a
}

// enumerate lists ports, the first few of many.
func enumerate(ports []target.PortProto) string {
	const most = 5
	parts := make([]string, 0, most)
	for _, p := range ports[:min(most, len(ports))] {
		parts = append(parts, p.String())
	}
	s := strings.Join(parts, ", ")
	if len(ports) > most {
		s += fmt.Sprintf(" and %d more", len(ports)-most)
	}
	return s
}

// mostShown is how many bytes of a label are shown.
const mostShown = 200

// shorten cuts a text that is shown to a person.
func shorten(s string) string {
	if len(s) > mostShown {
		return s[:mostShown] + "…"
	}
	return s
}

// short cuts a container's id as docker ps does.
func short(id string) string { return target.Run{ID: id}.Short() }
