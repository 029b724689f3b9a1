package discovery

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are discovery's. Their labels are closed sets.
type Metrics struct {
	streamUp     prometheus.Gauge
	reconnects   prometheus.Counter
	connectFails prometheus.Counter
	events       *prometheus.CounterVec
	lastEvent    prometheus.Gauge
	inspections  *prometheus.CounterVec
	inspectTime  prometheus.Histogram
	lists        *prometheus.CounterVec
	resyncs      prometheus.Counter
	missed       prometheus.Counter
	containers   prometheus.Gauge
	unknown      prometheus.Gauge
	decisions    *prometheus.GaugeVec
	drains       *prometheus.GaugeVec
	stopSignals  prometheus.Counter
	survivors    prometheus.Counter
	publications prometheus.Counter
	resolveTime  prometheus.Histogram
	saveErrors   prometheus.Counter
}

// The values of the result labels.
const (
	inspectOK       = "ok"
	inspectNotFound = "not_found"
	inspectFailed   = "error"
	inspectStale    = "stale"
	resultOK        = "ok"
	resultError     = "error"
)

var (
	eventActions = []string{
		ActionStart, ActionDie, ActionStop, ActionKill, ActionPause, ActionUnpause, ActionRename, ActionDestroy,
		"healthy", "unhealthy", ActionConnect, ActionDisconnect, "other",
	}
	verdicts = []Verdict{Wanted, NotYet, Leaving, Drained, Refused, Ignored}
	causes   = []string{CauseOperator, CauseStopSignal, CauseSpot, CauseLifecycle, CauseRebalance, CauseShutdown, "other"}
)

// NewMetrics builds discovery's metrics and registers them with r; r may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		streamUp:     f.NewGauge(prometheus.GaugeOpts{Name: "berth_docker_stream_up", Help: "Whether Docker's event stream is open."}),
		reconnects:   f.NewCounter(prometheus.CounterOpts{Name: "berth_docker_stream_reconnects_total", Help: "Event streams opened after the first."}),
		connectFails: f.NewCounter(prometheus.CounterOpts{Name: "berth_docker_stream_failures_total", Help: "Event streams that ended or could not be opened."}),
		events:       f.NewCounterVec(prometheus.CounterOpts{Name: "berth_docker_events_total", Help: "Events received, repeated ones left out, by action."}, []string{"action"}),
		lastEvent:    f.NewGauge(prometheus.GaugeOpts{Name: "berth_docker_last_event_timestamp_seconds", Help: "When the last event was received."}),
		inspections:  f.NewCounterVec(prometheus.CounterOpts{Name: "berth_docker_inspections_total", Help: "Inspections of containers, by result; stale ones were overtaken by an event."}, []string{"result"}),
		inspectTime:  f.NewHistogram(prometheus.HistogramOpts{Name: "berth_docker_inspection_duration_seconds", Help: "Duration of inspections.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
		lists:        f.NewCounterVec(prometheus.CounterOpts{Name: "berth_docker_lists_total", Help: "Full lists of containers, by result."}, []string{"result"}),
		resyncs:      f.NewCounter(prometheus.CounterOpts{Name: "berth_docker_resyncs_total", Help: "Full lists taken without a cause, to find what the stream has missed."}),
		missed:       f.NewCounter(prometheus.CounterOpts{Name: "berth_docker_missed_changes_total", Help: "Changes that a full list showed and the stream never announced."}),
		containers:   f.NewGauge(prometheus.GaugeOpts{Name: "berth_discovery_containers", Help: "Containers known to run."}),
		unknown:      f.NewGauge(prometheus.GaugeOpts{Name: "berth_discovery_unknown_containers", Help: "Containers that are there and that no inspection has answered for."}),
		decisions:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "berth_discovery_decisions", Help: "Decisions about ports of containers, by verdict."}, []string{"verdict"}),
		drains:       f.NewGaugeVec(prometheus.GaugeOpts{Name: "berth_discovery_drains", Help: "Drains that hold, by cause."}, []string{"cause"}),
		stopSignals:  f.NewCounter(prometheus.CounterOpts{Name: "berth_discovery_stop_signals_total", Help: "Runs that got a stop signal."}),
		survivors:    f.NewCounter(prometheus.CounterOpts{Name: "berth_discovery_survivors_total", Help: "Runs that went on long after their stop signal."}),
		publications: f.NewCounter(prometheus.CounterOpts{Name: "berth_discovery_publications_total", Help: "Snapshots published."}),
		resolveTime:  f.NewHistogram(prometheus.HistogramOpts{Name: "berth_discovery_resolve_duration_seconds", Help: "Time to work out the wanted set.", Buckets: []float64{.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1}}),
		saveErrors:   f.NewCounter(prometheus.CounterOpts{Name: "berth_discovery_drain_save_errors_total", Help: "Drains that could not be written to disk."}),
	}
	for _, a := range eventActions {
		m.events.WithLabelValues(a)
	}
	for _, r := range []string{inspectOK, inspectNotFound, inspectFailed, inspectStale} {
		m.inspections.WithLabelValues(r)
	}
	for _, r := range []string{resultOK, resultError} {
		m.lists.WithLabelValues(r)
	}
	for _, v := range verdicts {
		m.decisions.WithLabelValues(string(v))
	}
	for _, c := range causes {
		m.drains.WithLabelValues(c)
	}
	return m
}

func (m *Metrics) heard(action string) {
	switch action {
	case ActionHealthy:
		action = "healthy"
	case ActionUnhealthy:
		action = "unhealthy"
	case ActionStart, ActionDie, ActionStop, ActionKill, ActionPause, ActionUnpause, ActionRename, ActionDestroy, ActionConnect, ActionDisconnect:
	default:
		action = "other"
	}
	m.events.WithLabelValues(action).Inc()
}

func (m *Metrics) inspected(result string, took time.Duration) {
	m.inspections.WithLabelValues(result).Inc()
	m.inspectTime.Observe(took.Seconds())
}

// published sets the gauges to what a snapshot says.
func (m *Metrics) published(s *Snapshot, containers int) {
	m.publications.Inc()
	m.containers.Set(float64(containers))
	m.unknown.Set(float64(len(s.Unknown)))
	byVerdict := make(map[Verdict]int, len(verdicts))
	for i := range s.Decisions {
		byVerdict[s.Decisions[i].Verdict]++
	}
	for _, v := range verdicts {
		m.decisions.WithLabelValues(string(v)).Set(float64(byVerdict[v]))
	}
	byCause := make(map[string]int, len(causes))
	for i := range s.Drains {
		switch c := s.Drains[i].Cause; c {
		case CauseOperator, CauseStopSignal, CauseSpot, CauseLifecycle, CauseRebalance, CauseShutdown:
			byCause[c]++
		default:
			byCause["other"]++
		}
	}
	for _, c := range causes {
		m.drains.WithLabelValues(c).Set(float64(byCause[c]))
	}
}
