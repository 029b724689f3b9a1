package registrar

import (
	"time"

	"go.uber.org/zap"
)

// LedgerMetrics is what the ledger tells of the disk. Either may be nil.
type LedgerMetrics struct {
	// Errors counts disk operations that failed or took longer than the deadline.
	Errors interface{ Inc() }
	// Sync observes the seconds that each fdatasync of a commit took.
	Sync interface{ Observe(seconds float64) }
}

func (m LedgerMetrics) failed() {
	if m.Errors != nil {
		m.Errors.Inc()
	}
}

func (m LedgerMetrics) synced(d time.Duration) {
	if m.Sync != nil {
		m.Sync.Observe(d.Seconds())
	}
}

// LedgerOptions are what a ledger can do without.
type LedgerOptions struct {
	Log *zap.Logger // nil: none
	// Deadline is the longest that Intend waits for the disk; zero: 1 s. Close waits twice as long.
	Deadline time.Duration
	Metrics  LedgerMetrics
	// FS is the disk; nil: the operating system's.
	FS LedgerFS
	// Holder is written into the lock file for a second agent to show: "PID COMMAND"; empty: of this process.
	Holder string

	// room is how much is pre-written beyond the state, at least, in bytes; half of it full starts a compaction.
	// Zero: ledgerRoom.
	room int64
}
