package enginetest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/target"
)

// Create makes a container that does not run, and returns its id.
func (e *Engine) Create(spec Spec) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.made++
	id := fmt.Sprintf("%064x", 0xc0ffee0000+e.made)
	if spec.Name == "" {
		spec.Name = fmt.Sprintf("c%d", e.made)
	}
	if spec.NetworkMode == "" {
		spec.NetworkMode = "bridge"
	}
	if spec.StopTimeout == 0 {
		spec.StopTimeout = 10 * time.Second
	}
	c := &container{spec: spec, networks: map[string]bool{e.network: true}}
	c.facts = discovery.Facts{
		ID: id, Name: spec.Name, Image: spec.Image, Labels: maps.Clone(spec.Labels), State: "created",
		StopSignal: spec.StopSignal, StopTimeout: spec.StopTimeout, NetworkMode: spec.NetworkMode, Networks: 1,
		Asked: make(map[target.PortProto][]uint16),
	}
	for port, host := range spec.Fixed {
		c.facts.Asked[mustPort(port)] = []uint16{host}
	}
	for _, port := range spec.Ports {
		c.facts.Exposed = append(c.facts.Exposed, mustPort(port))
	}
	e.containers[id] = c
	return id
}

func mustPort(s string) target.PortProto {
	p, err := target.ParsePortProto(s)
	if err != nil {
		panic("enginetest: " + err.Error()) //nolint:forbidigo // a test's own mistake, and nowhere to return it to
	}
	return p
}

// Run makes and starts a container.
func (e *Engine) Run(spec Spec) string {
	id := e.Create(spec)
	e.Start(id)
	return id
}

// Start starts a container: connect, start. One that runs is left alone.
func (e *Engine) Start(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.start(id)
}

func (e *Engine) start(id string) {
	c := e.containers[id]
	if c == nil || alive(c) {
		return
	}
	c.facts.Restarts = 0
	e.run(c)
}

// StartAgain starts a container that has died as its restart policy does.
func (e *Engine) StartAgain(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && !alive(c) {
		c.facts.Restarts++
		e.run(c)
	}
}

func (e *Engine) run(c *container) {
	id := c.facts.ID
	e.emit(discovery.Event{Action: discovery.ActionConnect, Container: id, Network: e.network})
	c.facts.State, c.facts.StartedAt = "running", e.now()
	c.facts.Health = discovery.HealthNone
	if c.spec.Healthcheck {
		c.facts.Health = discovery.HealthStarting
	}
	e.publish(c)
	e.emit(discovery.Event{Action: discovery.ActionStart, Container: id, Name: c.facts.Name})
}

func alive(c *container) bool { return c.facts.State == "running" || c.facts.State == "paused" }

// publish deals host ports: the lowest that are free, TCP and UDP apart, the same for IPv4 and IPv6.
func (e *Engine) publish(c *container) {
	c.facts.Published = nil
	if c.spec.NetworkMode != "bridge" || !c.networks[e.network] {
		return
	}
	for _, port := range slices.Sorted(maps.Keys(c.spec.Fixed)) {
		c.bind(mustPort(port), c.spec.Fixed[port])
	}
	for _, port := range c.spec.Ports {
		pp := mustPort(port)
		c.bind(pp, e.free(pp.Protocol))
	}
}

func (c *container) bind(pp target.PortProto, host uint16) {
	c.facts.Published = append(slices.Clip(c.facts.Published),
		discovery.Published{PortProto: pp, HostIP: netip.IPv4Unspecified(), HostPort: host},
		discovery.Published{PortProto: pp, HostIP: netip.IPv6Unspecified(), HostPort: host})
}

func (e *Engine) free(p target.Protocol) uint16 {
	taken := make(map[uint16]bool)
	for _, c := range e.containers {
		for _, b := range c.facts.Published {
			if b.Protocol == p {
				taken[b.HostPort] = true
			}
		}
	}
	port := uint16(firstPort)
	for taken[port] {
		port++
	}
	return port
}

// Stop stops a container as docker stop does when it obeys: kill with its StopSignal, die, stop.
func (e *Engine) Stop(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[id]
	if c == nil || !alive(c) {
		return
	}
	e.signal(c, stopSignal(c))
	e.die(c, 0)
	e.emit(discovery.Event{Action: discovery.ActionStop, Container: id, Name: c.facts.Name})
}

// StopWaiting is docker stop of a container that waits for its restart policy: there is nobody to send a signal to.
func (e *Engine) StopWaiting(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && !alive(c) {
		e.emit(discovery.Event{Action: discovery.ActionStop, Container: id, Name: c.facts.Name})
	}
}

// StopWith is docker stop with another signal than the container's own, to a container that obeys it: kill, die with an
// exit code, stop.
func (e *Engine) StopWith(id string, signal, exitCode int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && alive(c) {
		e.signal(c, signal)
		e.die(c, exitCode)
		e.emit(discovery.Event{Action: discovery.ActionStop, Container: id, Name: c.facts.Name})
	}
}

func stopSignal(c *container) int {
	if n, ok := target.ParseSignal(c.spec.StopSignal); ok {
		return n
	}
	return 15
}

// Signal emits kill and leaves it at that: the container takes its time, or lives on.
func (e *Engine) Signal(id string, signal int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && alive(c) {
		e.signal(c, signal)
	}
}

func (e *Engine) signal(c *container, n int) {
	e.emit(discovery.Event{Action: discovery.ActionKill, Container: c.facts.ID, Name: c.facts.Name, Signal: fmt.Sprint(n)})
}

// Die ends a container: its ports are free, then die is emitted.
func (e *Engine) Die(id string, exitCode int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && alive(c) {
		e.die(c, exitCode)
	}
}

func (e *Engine) die(c *container, exitCode int) {
	c.facts.Published, c.facts.State, c.facts.FinishedAt = nil, "exited", e.now()
	e.emit(discovery.Event{Action: discovery.ActionDisconnect, Container: c.facts.ID, Network: e.network})
	e.emit(discovery.Event{Action: discovery.ActionDie, Container: c.facts.ID, Name: c.facts.Name, ExitCode: fmt.Sprint(exitCode)})
}

// Restart stops and starts a container: new ports, new run.
func (e *Engine) Restart(id string) {
	e.Stop(id)
	e.Start(id)
}

// Remove removes a container as docker rm -f does.
func (e *Engine) Remove(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[id]
	if c == nil {
		return
	}
	if alive(c) {
		e.signal(c, 9)
		e.die(c, 137)
	}
	delete(e.containers, id)
	e.emit(discovery.Event{Action: discovery.ActionDestroy, Container: id, Name: c.facts.Name})
}

// Pause pauses a running container.
func (e *Engine) Pause(id string) { e.moveState(id, "running", "paused", discovery.ActionPause) }

// Unpause ends a pause.
func (e *Engine) Unpause(id string) { e.moveState(id, "paused", "running", discovery.ActionUnpause) }

func (e *Engine) moveState(id, from, to, action string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && c.facts.State == from {
		c.facts.State = to
		e.emit(discovery.Event{Action: action, Container: id, Name: c.facts.Name})
	}
}

// Rename gives a container another name.
func (e *Engine) Rename(id, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil {
		c.facts.Name = name
		e.emit(discovery.Event{Action: discovery.ActionRename, Container: id, Name: name})
	}
}

// SetHealth has the HEALTHCHECK of a running container report h.
func (e *Engine) SetHealth(id string, h discovery.Health) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && alive(c) {
		c.facts.Health = h
		e.emit(discovery.Event{Action: "health_status: " + string(h), Container: id, Name: c.facts.Name})
	}
}

// Disconnect takes a container's network, and with it its published ports. No other event says so.
func (e *Engine) Disconnect(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && c.networks[e.network] {
		delete(c.networks, e.network)
		c.facts.Networks, c.facts.Published = len(c.networks), nil
		e.emit(discovery.Event{Action: discovery.ActionDisconnect, Container: id, Network: e.network})
	}
}

// Connect gives the network back: new ports, and no start.
func (e *Engine) Connect(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil && !c.networks[e.network] {
		c.networks[e.network] = true
		c.facts.Networks = len(c.networks)
		if alive(c) {
			e.publish(c)
		}
		e.emit(discovery.Event{Action: discovery.ActionConnect, Container: id, Network: e.network})
	}
}

// Join connects a container to one more network, which carries no published port.
func (e *Engine) Join(id, network string) { e.membership(id, network, discovery.ActionConnect) }

// Leave ends what Join has begun.
func (e *Engine) Leave(id, network string) { e.membership(id, network, discovery.ActionDisconnect) }

func (e *Engine) membership(id, network, action string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[id]
	if c == nil || network == e.network || c.networks[network] == (action == discovery.ActionConnect) {
		return
	}
	if action == discovery.ActionConnect {
		c.networks[network] = true
	} else {
		delete(c.networks, network)
	}
	c.facts.Networks = len(c.networks)
	e.emit(discovery.Event{Action: action, Container: id, Network: network})
}
