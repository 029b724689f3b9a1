package discovery

import "time"

// The actions that the watcher acts on. Others never cost an inspection.
const (
	ActionStart      = "start"
	ActionDie        = "die"
	ActionStop       = "stop"
	ActionKill       = "kill"
	ActionPause      = "pause"
	ActionUnpause    = "unpause"
	ActionRename     = "rename"
	ActionDestroy    = "destroy"
	ActionHealthy    = "health_status: healthy"
	ActionUnhealthy  = "health_status: unhealthy"
	ActionConnect    = "connect"    // a network's
	ActionDisconnect = "disconnect" // a network's
)

// Event is a hint from Docker that something about one container has changed. It is comparable: the same event
// received twice, as a stream that begins a little in the past gives it, is equal to itself.
type Event struct {
	Action    string // one of the Actions; others are ignored
	Container string // the full container id
	Network   string // of connect and disconnect: the network's id
	Name      string // the container's name, where the event has it
	Signal    string // of kill: a number or a name
	ExitCode  string // of die
	Time      time.Time
}

// key identifies an event among those seen: the wall clock alone, as Docker writes it.
type eventKey struct {
	action, container, network, signal string
	nanos                              int64
}

func (e Event) key() eventKey {
	return eventKey{e.Action, e.Container, e.Network, e.Signal, e.Time.UnixNano()}
}

// recent remembers the events seen last, so that those which a new stream repeats are known. Docker keeps 256 events;
// a few times as many cover several reconnections in a row.
type recent struct {
	seen map[eventKey]struct{}
	ring []eventKey
	next int
}

func newRecent() *recent {
	const size = 1024
	return &recent{seen: make(map[eventKey]struct{}, size), ring: make([]eventKey, size)}
}

// add reports whether e has been seen before, and remembers it. An event without a time is always new.
func (r *recent) add(e Event) bool {
	if e.Time.IsZero() {
		return false
	}
	key := e.key()
	if _, ok := r.seen[key]; ok {
		return true
	}
	delete(r.seen, r.ring[r.next])
	r.ring[r.next] = key
	r.seen[key] = struct{}{}
	r.next = (r.next + 1) % len(r.ring)
	return false
}
