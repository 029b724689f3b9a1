// Package statustest builds the snapshots of discovery and the registrar that tests of what is shown begin with.
package statustest

import (
	"fmt"
	"strings"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// Moments, a minute apart.
var (
	T0 = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	T1 = T0.Add(time.Minute)
	T2 = T0.Add(2 * time.Minute)
)

// Instance is the id of the host.
const Instance = "i-0123456789abcdef0"

// Run returns the run of a container.
func Run(name string) target.Run {
	return target.Run{ID: strings.Repeat(fmt.Sprintf("%02x", name[0]), 32), Name: name, StartedAt: T0}
}

// Want returns a container's wish for one port.
func Want(group, name string, port, hostPort uint16) target.Want {
	return target.Want{Group: group, Run: Run(name), Port: port, HostPort4: hostPort, Dynamic: true}
}

// Target returns the target of a port of the host.
func Target(port uint16) target.Target { return target.Target{ID: Instance, Port: port} }

// Decided returns discovery's decision on a want.
func Decided(w target.Want, v discovery.Verdict, why string) discovery.Decision {
	return discovery.Decision{Run: w.Run, Group: w.Group, Port: w.Port, Protocol: w.Protocol, Verdict: v, Why: why, Since: T1}
}

// Discovery builds a snapshot of discovery for group web.
func Discovery(w ...target.Want) *discovery.Snapshot {
	return &discovery.Snapshot{Seq: 1, Wants: map[string][]target.Want{"web": w}}
}

// Registrar builds a connected snapshot of the registrar.
func Registrar(g ...registrar.GroupStatus) *registrar.Snapshot {
	return &registrar.Snapshot{At: T2, Seq: 1, Connected: true, Groups: g}
}

// Group returns the status of group web, with nothing wrong.
func Group(ts ...registrar.TargetStatus) registrar.GroupStatus {
	return registrar.GroupStatus{
		ARN: "arn:web", Name: "web-prod", Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 1, Targets: ts,
	}
}

// Well are of a host with one healthy container.
func Well() (*discovery.Snapshot, *registrar.Snapshot) {
	w := Want("web", "web-1", 8080, 32768)
	d := Discovery(w)
	d.Generation = 1
	d.Stream = discovery.Stream{Up: true, Since: T0, Engine: "docker 28.5.2", APIVersion: "1.51"}
	d.Decisions = []discovery.Decision{Decided(w, discovery.Wanted, "its label names web")}
	r := Registrar(Group(registrar.TargetStatus{
		Target: Target(32768), Phase: ledger.Registered, Health: "healthy", Since: T2, Wants: []target.Want{w}, Run: w.Run,
	}))
	r.Self = elb.Self{InstanceID: Instance, Region: "eu-central-1", Account: "123456789012"}
	r.Groups[0].VerifiedAt = T2
	return d, r
}
