package ledger

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"berth/internal/statedir"
)

// Metrics is what the ledger tells of the disk. Either may be nil.
type Metrics struct {
	// Errors counts disk operations that failed or took longer than the deadline.
	Errors interface{ Inc() }
	// Sync observes the seconds that each fdatasync of a commit took.
	Sync interface{ Observe(seconds float64) }
}

// NewMetrics registers what the ledger tells of the disk.
func NewMetrics(reg prometheus.Registerer) Metrics {
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
	return Metrics{Errors: failed, Sync: sync}
}

func (m Metrics) failed() {
	if m.Errors != nil {
		m.Errors.Inc()
	}
}

func (m Metrics) synced(d time.Duration) {
	if m.Sync != nil {
		m.Sync.Observe(d.Seconds())
	}
}

// Options are what a ledger can do without.
type Options struct {
	Log *zap.Logger // nil: none
	// Deadline is the longest that Intend waits for the disk; zero: 1 s. Close waits twice as long.
	Deadline time.Duration
	Metrics  Metrics
	// FS is the disk; nil: the operating system's. No call is made while a mutex is held that Entries, Note or Intend need.
	FS statedir.Disk
	// Holder is written into the lock file for a second agent to show: "PID COMMAND"; empty: of this process.
	Holder string

	// room is how much is pre-written beyond the state, at least, in bytes; half of it full starts a compaction.
	// Zero: defaultRoom.
	room int64
}
