package registrar

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the registrar's own: what it asks of AWS, and what it changed there. A nil *Metrics records nothing.
type Metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	changes   *prometheus.CounterVec
	repairs   *prometheus.CounterVec
	interval  prometheus.Gauge
	skew      prometheus.Gauge
	throttled prometheus.Counter
}

// NewMetrics registers the registrar's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_aws_requests_total",
			Help: "Calls to Elastic Load Balancing, by operation and by AWS's error code (OK, or Timeout, Connection, Credentials where AWS gave no answer).",
		}, []string{"operation", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "berth_aws_request_duration_seconds",
			Help:    "Time from sending a call to Elastic Load Balancing to its answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2, 3, 5},
		}, []string{"operation"}),
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
		skew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "berth_clock_skew_seconds",
			Help: "How far this host's clock is ahead of that of AWS, by the date of the last reply; negative: behind. It is right to about a second.",
		}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "berth_aws_throttled_total",
			Help: "Calls to Elastic Load Balancing that a rate limit of the account refused.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.changes, m.repairs, m.interval, m.skew, m.throttled)
	return m
}

// NewLedgerMetrics registers what the ledger tells of the disk.
func NewLedgerMetrics(reg prometheus.Registerer) LedgerMetrics {
	failed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "berth_ledger_errors_total",
		Help: "Operations of the ledger's disk that failed or took longer than a second; the agent goes on from memory.",
	})
	sync := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "berth_ledger_sync_duration_seconds",
		Help:    "Time that one fdatasync of the ledger took.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
	})
	reg.MustRegister(failed, sync)
	return LedgerMetrics{Errors: failed, Sync: sync}
}

// call records one call. The codes are a closed set: what the table of faults does not know is counted as "Other".
func (m *Metrics) call(operation string, ce *CallError, took time.Duration) {
	if m == nil {
		return
	}
	code := "OK"
	if ce != nil {
		code = ce.Code
		if _, known := faultOfCode[code]; !known && !withoutAnswer[code] {
			code = "Other"
		}
		if ce.Fault == FaultThrottled {
			m.throttled.Inc()
		}
	}
	m.requests.WithLabelValues(operation, code).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

// withoutAnswer are the codes that classify makes up.
var withoutAnswer = map[string]bool{
	codeTimeout: true, codeConnection: true, codeCredentials: true, codeCanceled: true, "ServerError": true, codeBadReply: true,
}

// clock records how far this host's clock is ahead of that of AWS.
func (m *Metrics) clock(ahead time.Duration) {
	if m != nil {
		m.skew.Set(ahead.Seconds())
	}
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
