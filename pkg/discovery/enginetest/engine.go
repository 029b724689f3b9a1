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
	"slices"
	"strings"
	"sync"
	"time"

	"berth/pkg/discovery"
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
	ahead      time.Duration // of this process's clock
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

// SetClock sets the clock of the engine's host: by so much forward, or back. Whatever is dated from now on shows it.
func (e *Engine) SetClock(by time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ahead += by
}

// Clock implements discovery.Timekeeper.
func (e *Engine) Clock() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.clock()
}

func (e *Engine) clock() time.Time { return time.Now().Round(0).Add(e.ahead) }

// now is the time, never the same twice: Docker's nanoseconds order its events.
func (e *Engine) now() time.Time {
	t := time.Now().Round(0)
	if !t.After(e.last) {
		t = e.last.Add(1)
	}
	e.last = t
	return t.Add(e.ahead)
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

// Inspect implements discovery.Engine. ref is an id, a name or the beginning of one id alone, in that order, as Docker
// takes it. An inspection that hangs answers, when it is let go, what was true when it was asked.
func (e *Engine) Inspect(ctx context.Context, ref string) (discovery.Facts, error) {
	e.mu.Lock()
	c, ambiguous := e.find(ref)
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
	case ambiguous:
		return discovery.Facts{}, fmt.Errorf("inspect %s: %w", ref, discovery.ErrAmbiguous)
	case c == nil:
		return discovery.Facts{}, fmt.Errorf("inspect %s: %w", ref, discovery.ErrNotFound)
	}
	return f, nil
}

// find returns the container that ref means; nil: there is none, or there are several.
func (e *Engine) find(ref string) (c *container, ambiguous bool) {
	if c := e.containers[ref]; c != nil {
		return c, false
	}
	for _, other := range e.containers {
		if other.facts.Name == strings.TrimPrefix(ref, "/") {
			return other, false
		}
	}
	for id, other := range e.containers {
		if ref != "" && strings.HasPrefix(id, ref) {
			c, ambiguous = other, c != nil
			if ambiguous {
				return nil, true
			}
		}
	}
	return c, false
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
