package discovery

import (
	"slices"
	"time"

	"go.uber.org/zap"
)

const (
	// saveRetry is how long after a failure drains are written again.
	saveRetry = 30 * time.Second
	// saveLinger is how long a change may wait for others before it is written.
	saveLinger = 5 * time.Millisecond
)

// saving is where the loop stands with the disk. The loop hands the latest drains to the saver and goes on.
type saving struct {
	version uint64 // of the drains as they are
	unsaved bool   // they have not been handed over yet
	retryAt time.Time
	waiting []saveWaiter
	err     error // of the last save; nil: it succeeded, or there was none
}

type saveWaiter struct {
	version uint64
	reply   chan<- error // has room for one
}

type save struct {
	version uint64
	drains  []Drain
}

type saveResult struct {
	version uint64
	err     error
}

// noStore is the store of a watcher that has none.
type noStore struct{}

func (noStore) Load() ([]Drain, error)    { return nil, nil }
func (noStore) SetAside() (string, error) { return "", nil }
func (noStore) Save([]Drain) error        { return nil }

// persist has the drains that outlive the process saved, when what they lead to is on its way.
func (s *state) persist() {
	s.saving.version++
	s.saving.retryAt = time.Time{}
	s.saving.unsaved = true
}

// handOver hands the drains to the saver. What it has not begun to write is replaced. As long as those of before may still
// be read nothing is written in their place.
func (s *state) handOver() {
	if !s.saving.unsaved || s.unreadable() {
		return
	}
	s.saving.unsaved = false
	drains := slices.DeleteFunc(s.sortedDrains(), func(d Drain) bool { return d.Hold == HoldConnection })
	select {
	case <-s.w.saves:
	default:
	}
	s.w.saves <- save{s.saving.version, drains}
}

// whenSaved has reply told when all that has been handed over is written, or has failed.
func (s *state) whenSaved(reply chan<- error) {
	s.saving.waiting = append(s.saving.waiting, saveWaiter{s.saving.version, reply})
}

func (s *state) savedDrains(r saveResult) {
	switch {
	case r.err != nil:
		s.w.metrics.saveErrors.Inc()
		if s.saving.err == nil {
			s.w.log.Error("drains cannot be saved, a restart of the agent would forget them", zap.Error(r.err))
		}
		s.saving.retryAt = s.now().Add(saveRetry)
	case s.saving.err != nil:
		s.w.log.Info("drains are saved again")
	}
	s.saving.err = r.err
	s.sayDrainsErr()
	var waiting []saveWaiter
	for _, w := range s.saving.waiting {
		if w.version > r.version {
			waiting = append(waiting, w)
			continue
		}
		w.reply <- r.err
	}
	s.saving.waiting = waiting
}

func (s *state) retrySave(now time.Time) {
	if !s.saving.retryAt.IsZero() && !now.Before(s.saving.retryAt) {
		s.persist()
	}
}

// saver writes drains until saves is closed. It alone waits for the disk.
func (w *Watcher) saver() {
	if w.loadErr != nil {
		due, goOn := w.reread()
		if !goOn || due != nil && !w.report(saveResult{due.version, w.store.Save(due.drains)}) {
			return
		}
	}
	for sv := range w.saves {
		// What a stop signal takes out is on its way to the load balancer now: that comes first. And a signal seldom
		// comes alone.
		select {
		case <-time.After(saveLinger):
		case <-w.done:
		}
		select {
		case newer, ok := <-w.saves:
			if ok {
				sv = newer
			}
		default:
		}
		w.report(saveResult{sv.version, w.store.Save(sv.drains)})
	}
}

// report tells the loop what has become of a save; false: the watcher has ended.
func (w *Watcher) report(r saveResult) bool {
	select {
	case w.saved <- r:
		return true
	case <-w.done:
		return false
	}
}
