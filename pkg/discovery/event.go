package discovery

import "time"

// Event is a hint from Docker that something about one container has changed.
type Event struct {
	Action    string // start, die, kill, pause, …; for a network's event "connect" or "disconnect"
	Container string // the full container id
	Network   bool   // the event is a network's, about this container
	Name      string // the container's name, where the event has it
	Signal    string // of kill: a decimal number
	ExitCode  string // of die
	Time      time.Time
}
