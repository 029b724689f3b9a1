package elb

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what is asked of AWS. A nil *CallMetrics records nothing.
type Metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	skew      prometheus.Gauge
	throttled prometheus.Counter
}

// NewMetrics registers the metrics of the calls with reg.
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
		skew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "berth_clock_skew_seconds",
			Help: "How far this host's clock is ahead of that of AWS, by the date of the last reply; negative: behind. It is right to about a second.",
		}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "berth_aws_throttled_total",
			Help: "Calls to Elastic Load Balancing that a rate limit of the account refused.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.skew, m.throttled)
	return m
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
	CodeTimeout: true, CodeConnection: true, CodeCredentials: true, CodeCanceled: true, "ServerError": true, codeBadReply: true,
}

// Clock records how far this host's clock is ahead of that of AWS.
func (m *Metrics) Clock(ahead time.Duration) {
	if m != nil {
		m.skew.Set(ahead.Seconds())
	}
}
