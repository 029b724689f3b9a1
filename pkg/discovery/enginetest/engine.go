// Package enginetest is a Docker engine in memory for tests of whatever stands on discovery.Engine. Its containers live
// as real ones do: they get ports from the bottom of a range, new ones with each start, emit Docker's events in
// Docker's order, and can be made to misbehave: events lost, repeated or out of order, inspections and lists that fail
// or hang, streams that end or fall silent, an engine that is down or comes back with its ports dealt anew.
//
// It uses time.Now and channels alone, so inside testing/synctest it runs in fake time.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/target"
)

// firstPort is the bottom of the range of ephemeral ports.
const firstPort = 32768

// ringSize is how many events the engine remembers for streams that begin in the past, as Docker does.
const ringSize = 256

// ErrDown is what every call gets from an engine that is down.
var ErrDown = errors.New("enginetest: the engine is down")

// Spec is a container about to be made.
type Spec struct {
	Name        string
	Image       string
	Labels      map[string]string
	Ports       []string          // published on ports of the engine's choice: "8080", "53/udp"
	Fixed       map[string]uint16 // published on given ports
	StopSignal  string
	StopTimeout time.Duration // 0: 10 s
	NetworkMode string        // empty: bridge
	Healthcheck bool          // its health begins as starting
}

type container struct {
	spec     Spec
	facts    discovery.Facts
	networks map[string]bool
}

// Engine implements discovery.Engine. All methods may be called from any goroutine.
type Engine struct {
	mu         sync.Mutex // guards all below
	containers map[string]*container
	made       int
	last       time.Time
	ring       []discovery.Event
	streams    map[*stream]struct{}
	up         bool
	network    string
	faults     faults
	counts     Counts
}

// Counts is how often the engine was asked.
type Counts struct {
	Streams, Lists, Pings int
	Inspections           map[string]int // by container
}

// New makes an engine that is up and has no containers.
func New() *Engine {
	return &Engine{
		containers: make(map[string]*container), streams: make(map[*stream]struct{}), up: true, network: "bridge0",
		faults: faults{inspectErr: make(map[string]error), hung: make(map[string]chan struct{}), pass: make(map[string]int)},
		counts: Counts{Inspections: make(map[string]int)},
	}
}

// Counts returns how often the engine was asked so far.
func (e *Engine) Counts() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.counts
	c.Inspections = maps.Clone(c.Inspections)
	return c
}

// Total returns how many inspections there were.
func (c Counts) Total() int {
	n := 0
	for _, k := range c.Inspections {
		n += k
	}
	return n
}

// now is the time, never the same twice: Docker's nanoseconds order its events.
func (e *Engine) now() time.Time {
	t := time.Now().Round(0)
	if !t.After(e.last) {
		t = e.last.Add(1)
	}
	e.last = t
	return t
}

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
		panic("enginetest: " + err.Error()) // a test's own mistake
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

func stopSignal(c *container) int {
	if n, ok := discovery.ParseSignal(c.spec.StopSignal); ok {
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

// Facts returns what is true of a container now, and whether it exists.
func (e *Engine) Facts(id string) (discovery.Facts, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[id]
	if c == nil {
		return discovery.Facts{}, false
	}
	return c.facts, true
}

// IDs returns the containers that exist, in the order in which they were made.
func (e *Engine) IDs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.containers))
}

// List implements discovery.Engine.
func (e *Engine) List(ctx context.Context) ([]discovery.Listed, error) {
	e.mu.Lock()
	e.counts.Lists++
	err := errors.Join(e.downErr(), e.faults.listErr)
	lines := make([]discovery.Listed, 0, len(e.containers))
	for _, id := range slices.Sorted(maps.Keys(e.containers)) {
		f := &e.containers[id].facts
		ports := []uint16{}
		for _, p := range f.Published {
			ports = append(ports, p.HostPort)
		}
		slices.Sort(ports)
		lines = append(lines, discovery.Listed{ID: id, State: f.State, HostPorts: slices.Compact(ports)})
	}
	hung := e.faults.hung[listKey]
	e.mu.Unlock()
	if hangErr := wait(ctx, hung); hangErr != nil {
		return nil, hangErr
	}
	if err != nil {
		return nil, err
	}
	return lines, nil
}

// Inspect implements discovery.Engine. ref is an id or a name. An inspection that hangs answers, when it is let go, what
// was true when it was asked.
func (e *Engine) Inspect(ctx context.Context, ref string) (discovery.Facts, error) {
	e.mu.Lock()
	c := e.containers[ref]
	for _, other := range e.containers {
		if c == nil && other.facts.Name == ref {
			c = other
		}
	}
	id := ref
	var f discovery.Facts
	if c != nil {
		id, f = c.facts.ID, c.facts
	}
	e.counts.Inspections[id]++
	hung := e.faults.hung[id]
	if e.faults.pass[id] > 0 {
		e.faults.pass[id]--
		hung = nil
	}
	err := errors.Join(e.downErr(), e.faults.inspectErr[id], e.faults.inspectErr[""])
	e.mu.Unlock()
	if hangErr := wait(ctx, hung); hangErr != nil {
		return discovery.Facts{}, hangErr
	}
	switch {
	case err != nil:
		return discovery.Facts{}, err
	case c == nil:
		return discovery.Facts{}, fmt.Errorf("inspect %s: %w", ref, discovery.ErrNotFound)
	}
	return f, nil
}

// Ping implements discovery.Engine.
func (e *Engine) Ping(ctx context.Context) (discovery.EngineInfo, error) {
	e.mu.Lock()
	e.counts.Pings++
	err := errors.Join(e.downErr(), e.faults.pingErr)
	hung := e.faults.hung[pingKey]
	e.mu.Unlock()
	if hangErr := wait(ctx, hung); hangErr != nil {
		return discovery.EngineInfo{}, hangErr
	}
	if err != nil {
		return discovery.EngineInfo{}, err
	}
	return discovery.EngineInfo{Name: "docker", Version: "0.0.0-test", APIVersion: "1.41"}, nil
}

func (e *Engine) downErr() error {
	if !e.up {
		return ErrDown
	}
	return nil
}

func wait(ctx context.Context, hung chan struct{}) error {
	if hung == nil {
		return nil
	}
	select {
	case <-hung:
		return nil
	case <-ctx.Done():
		return ctx.Err()
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
