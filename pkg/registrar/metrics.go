package registrar

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/pkg/registrar/elb"
)

// Metrics are the registrar's own: what it changed in AWS, and its calls. A nil *Metrics records nothing.
type Metrics struct {
	aws      *elb.Metrics
	changes  *prometheus.CounterVec
	repairs  *prometheus.CounterVec
	interval prometheus.Gauge
}

// NewMetrics registers the registrar's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		aws: elb.NewMetrics(reg),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_targets_changed_total",
			Help: "Targets that were registered or deregistered, as accepted by Elastic Load Balancing.",
		}, []string{"target_group", "operation"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_targets_repaired_total",
			Help: "Targets found to be missing though registered by this host: somebody else removed them.",
		}, []string{"target_group"}),
		interval: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "berth_pacer_interval_seconds",
			Help: "Longest wait between two calls of this host while AWS throttles it; 0 while it does not.",
		}),
	}
	reg.MustRegister(m.changes, m.repairs, m.interval)
	return m
}

// calls are the metrics of the calls; nil where m is.
func (m *Metrics) calls() *elb.Metrics {
	if m == nil {
		return nil
	}
	return m.aws
}

func (m *Metrics) changed(group, operation string, n int) {
	if m != nil {
		m.changes.WithLabelValues(group, operation).Add(float64(n))
	}
}

func (m *Metrics) repaired(group string, n int) {
	if m != nil {
		m.repairs.WithLabelValues(group).Add(float64(n))
	}
}

func (m *Metrics) forget(group string) {
	if m != nil {
		m.changes.DeletePartialMatch(prometheus.Labels{"target_group": group})
		m.repairs.DeletePartialMatch(prometheus.Labels{"target_group": group})
	}
}

// PacerInterval sets the gauge of the pacer's interval; give it to NewPacer.
func (m *Metrics) PacerInterval(interval time.Duration) {
	if m != nil {
		m.interval.Set(interval.Seconds())
	}
}
