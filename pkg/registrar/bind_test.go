package registrar

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

var self = elb.Self{
	InstanceID: "i-1", Region: "eu-central-1", Account: "123456789012", VPC: "vpc-1",
	Address4: netip.MustParseAddr("10.0.0.7"), Address6: netip.MustParseAddr("fd00::7"),
}

func TestBind(t *testing.T) {
	run := target.Run{ID: "c1", Name: "web-1"}
	tcp := target.Want{Group: "web", Run: run, Port: 8080, HostPort4: 32768, HostPort6: 32769, Dynamic: true}
	udp := tcp
	udp.Protocol = target.UDP
	with := func(w target.Want, f func(*target.Want)) target.Want { f(&w); return w }
	facts := func(targetType, protocol string) elb.Facts {
		return elb.Facts{TargetType: targetType, Protocol: protocol}
	}
	cases := map[string]struct {
		facts   elb.Facts
		wants   []target.Want
		targets []target.Target
		refused string // part of the one refusal's sentence
		change  string
	}{
		"instance, http":        {facts: facts("instance", "HTTP"), wants: []target.Want{tcp}, targets: []target.Target{{ID: "i-1", Port: 32768}}},
		"instance, tls":         {facts: facts("instance", "TLS"), wants: []target.Want{tcp}, targets: []target.Target{{ID: "i-1", Port: 32768}}},
		"ip, ipv4":              {facts: facts("ip", "HTTP"), wants: []target.Want{tcp}, targets: []target.Target{{ID: "10.0.0.7", Port: 32768}}},
		"ip, ipv6":              {facts: elb.Facts{TargetType: "ip", Protocol: "HTTP", IPAddressType: "ipv6"}, wants: []target.Want{tcp}, targets: []target.Target{{ID: "fd00::7", Port: 32769}}},
		"instance, ipv6":        {facts: elb.Facts{TargetType: "instance", Protocol: "TCP", IPAddressType: "ipv6"}, wants: []target.Want{tcp}, targets: []target.Target{{ID: "i-1", Port: 32769}}},
		"udp":                   {facts: facts("instance", "UDP"), wants: []target.Want{udp}, targets: []target.Target{{ID: "i-1", Port: 32768}}},
		"http cannot be udp":    {facts: facts("instance", "HTTP"), wants: []target.Want{udp}, refused: "a HTTP target group cannot reach a udp port", change: "another port"},
		"udp cannot be tcp":     {facts: facts("instance", "UDP"), wants: []target.Want{tcp}, refused: "a UDP target group cannot reach a tcp port"},
		"both on one port":      {facts: facts("instance", "TCP_UDP"), wants: []target.Want{tcp, udp}, targets: []target.Target{{ID: "i-1", Port: 32768}}},
		"half of a pair":        {facts: facts("instance", "TCP_UDP"), wants: []target.Want{tcp}, refused: "needs the tcp and the udp port", change: "-p 53:53/tcp"},
		"ipv6 only, ipv4 group": {facts: facts("instance", "HTTP"), wants: []target.Want{with(tcp, func(w *target.Want) { w.HostPort4 = 0 })}, refused: "not published on IPv4"},
		"primary address":       {facts: facts("instance", "HTTP"), wants: []target.Want{with(tcp, func(w *target.Want) { w.HostIP = netip.MustParseAddr("10.0.0.7") })}, targets: []target.Target{{ID: "i-1", Port: 32768}}},
		"another address":       {facts: facts("instance", "HTTP"), wants: []target.Want{with(tcp, func(w *target.Want) { w.HostIP = netip.MustParseAddr("10.0.9.9") })}, refused: "published on 10.0.9.9 alone; the load balancer reaches this host at 10.0.0.7"},
		"loopback":              {facts: facts("instance", "HTTP"), wants: []target.Want{with(tcp, func(w *target.Want) { w.HostIP = netip.MustParseAddr("127.0.0.1") })}, refused: "published on 127.0.0.1 alone"},
		"lambda":                {facts: facts("lambda", ""), wants: []target.Want{tcp}, refused: `target type "lambda"`, change: "type instance"},
		"geneve":                {facts: facts("instance", "GENEVE"), wants: []target.Want{tcp}, refused: "GENEVE is not supported"},
		"another vpc":           {facts: elb.Facts{TargetType: "instance", Protocol: "HTTP", VPC: "vpc-2"}, wants: []target.Want{tcp}, refused: "it is in vpc-2, this instance in vpc-1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			set, refusals := Bind(self, c.facts, c.wants)
			if diff := cmp.Diff(c.targets, set.Sorted(), cmp.Transformer("empty", func(x []target.Target) []target.Target { return append([]target.Target{}, x...) })); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
			if c.refused == "" {
				if len(refusals) > 0 {
					t.Errorf("refused: %v", refusals)
				}
				return
			}
			if len(refusals) != len(c.wants) || !strings.Contains(refusals[0].Why, c.refused) || !strings.Contains(refusals[0].Change, c.change) || refusals[0].Change == "" {
				t.Errorf("refusals are %+v; want %q, to change %q", refusals, c.refused, c.change)
			}
		})
	}
}

// TestBind_otherContainersHalf: the udp half of another container does not complete a pair, though the number is the
// same.
func TestBind_otherContainersHalf(t *testing.T) {
	wants := []target.Want{
		{Group: "dns", Run: target.Run{ID: "a"}, Port: 53, HostPort4: 5353},
		{Group: "dns", Run: target.Run{ID: "b"}, Port: 53, Protocol: target.UDP, HostPort4: 5353},
	}
	set, refusals := Bind(self, elb.Facts{TargetType: "instance", Protocol: "TCP_UDP"}, wants)
	if len(set) != 0 || len(refusals) != 2 {
		t.Errorf("Bind = %v, %v; want nothing but two refusals", set, refusals)
	}
}

// TestBind_total: every want is either in the set or refused, never both, never neither; and every target is this
// host's.
func TestBind_total(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := elb.Facts{
			TargetType:    rapid.SampledFrom([]string{"instance", "ip", "lambda", "alb", ""}).Draw(t, "type"),
			Protocol:      rapid.SampledFrom([]string{"HTTP", "HTTPS", "TCP", "TLS", "UDP", "TCP_UDP", "GENEVE", "QUIC", ""}).Draw(t, "protocol"),
			IPAddressType: rapid.SampledFrom([]string{"ipv4", "ipv6", ""}).Draw(t, "addresses"),
		}
		wants := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) target.Want {
			return target.Want{
				Group: "web", Run: target.Run{ID: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "run")},
				Port: rapid.Uint16Range(1, 3).Draw(t, "port"), Protocol: target.Protocol(rapid.IntRange(0, 2).Draw(t, "proto")),
				HostPort4: rapid.Uint16Range(0, 3).Draw(t, "host 4"), HostPort6: rapid.Uint16Range(0, 3).Draw(t, "host 6"),
				HostIP: rapid.SampledFrom([]netip.Addr{{}, netip.IPv4Unspecified(), self.Address4, netip.MustParseAddr("127.0.0.1")}).Draw(t, "address"),
			}
		}), rapid.ID).Draw(t, "wants")
		set, refusals := Bind(self, f, wants)
		seen := map[target.Want]int{}
		for x, in := range set {
			if x.Port == 0 || x.ID != self.InstanceID && x.ID != self.Address4.String() && x.ID != self.Address6.String() {
				t.Fatalf("target %v is not this host's", x)
			}
			for _, w := range in {
				seen[w]++
			}
		}
		for _, r := range refusals {
			if r.Why == "" || r.Change == "" {
				t.Fatalf("refusal without words: %+v", r)
			}
			seen[r.Want]++
		}
		for _, w := range wants {
			if seen[w] != 1 {
				t.Fatalf("want %+v is accounted for %d times", w, seen[w])
			}
		}
	})
}
