package agent

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// What tests of a running agent see of its inside. They are in package agent_test: test/agenttest, which starts it, imports
// this package.

const (
	MaxHolds     = maxHolds
	MaxPrune     = maxPrune
	MaxReason    = maxReason
	MaxReference = maxReference
)

// Generation returns that of the configuration in force.
func (a *Core) Generation() uint64 { return a.settings.Load().generation }

// ControlHandler returns what answers on the control socket.
func (a *Core) ControlHandler() http.Handler { return a.controlHandler() }

// Registry returns the metrics.
func (a *Core) Registry() *prometheus.Registry { return a.registry }

// Outlook returns what the service manager would be told, and what tells of news, by name.
func (a *Agent) Outlook() (waiting, line string, counts bool, news map[string]<-chan struct{}) {
	o := a.outlook()
	return o.waiting, o.status, o.counts, map[string]<-chan struct{}{"docker": o.docker, "aws": o.aws, "stream": o.stream, "host": o.host}
}
