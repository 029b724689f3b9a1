package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"berth/internal/backoff"

	"go.uber.org/zap"
)

// unreadPatience is how long drains that cannot be read hold up what they may be about: what is registered stays, nothing
// comes in, and nothing is written in their place. A disk has its moments, and they are short; a longer wait would
// leave new containers out for the sake of drains that are lost.
const unreadPatience = 30 * time.Second

// ErrCorrupt says that a DrainStore could make nothing of what it held, and that this is not in the way of the next Save:
// to read it again is of no use.
var ErrCorrupt = errors.New("it cannot be understood")

// unread is what the loop knows of drains that could not be read at the start.
type unread struct {
	err   error     // why not, as it was last; nil: they are read, or set aside
	until time.Time // when they hold nothing up any longer
	past  bool      // that time has come
	// What has ended meanwhile is left out when they are read: drains by id, and what a person has asked for.
	ended     map[string]bool
	undrained map[Undrained]bool
}

// Undrained is what a person asks to let in: a drain by its id, or the drains of a container, of a name, or of the host.
type Undrained struct {
	ID, Container, Name string
	Host                bool
}

// ends reports whether that ends d.
func (u *Undrained) ends(d *Drain) bool {
	switch {
	case !d.EndsWhenAsked():
		return false
	case d.Host():
		return u.Host || u.ID == d.ID
	case d.Name != "":
		return u.Name == d.Name || u.ID == d.ID
	}
	return u.Container == d.Container || u.ID == d.ID
}

// over notes that the drain of that id has ended.
func (u *unread) over(id string) {
	if u.err == nil {
		return
	}
	if u.ended == nil {
		u.ended = map[string]bool{}
	}
	u.ended[id] = true
}

// leaves reports whether d, which is read at last, is left out.
func (u *unread) leaves(d *Drain) bool {
	for asked := range u.undrained {
		if asked.ends(d) {
			return true
		}
	}
	return u.ended[d.ID]
}

// UndrainUnread has drains that cannot be read yet end when they are read, as far as a person's word ends them. It reports
// whether there may be any: false, all are known. What is drained after that holds.
func (w *Watcher) UndrainUnread(ctx context.Context, u Undrained) (bool, error) {
	reply := make(chan bool, 1)
	err := w.do(ctx, func(s *state) {
		if s.unread.err != nil {
			if s.unread.undrained == nil {
				s.unread.undrained = map[Undrained]bool{}
			}
			s.unread.undrained[u] = true
		}
		reply <- s.unread.err != nil
	})
	if err != nil {
		return false, err
	}
	return await(ctx, w, reply)
}

// loadResult is what has become of drains that could not be read.
type loadResult struct {
	drains []Drain
	aside  string // where they are now, if they were set aside
	err    error  // they still cannot be read
}

// reread reads the drains again, until they are read, or are set aside because others have to be written. It returns the
// save to go on with, and false when the watcher has ended first. Only the saver calls it.
func (w *Watcher) reread() (next *save, goOn bool) {
	for try := 0; ; try++ {
		var due *save
		select {
		case <-time.After(backoff.Double(500*time.Millisecond, try, unreadPatience)):
		case sv, ok := <-w.saves:
			if !ok {
				return nil, false
			}
			due = &sv
		case <-w.done:
			return nil, false
		}
		drains, err := w.store.Load()
		r := loadResult{drains: drains, err: err}
		if errors.Is(err, ErrCorrupt) {
			r.aside = err.Error()
		} else if err != nil && due != nil {
			name, asideErr := w.store.SetAside()
			if asideErr == nil {
				r.aside = name
			} else if !w.report(saveResult{due.version, fmt.Errorf("%w; %w", err, asideErr)}) {
				return nil, false
			}
		}
		select {
		case w.loads <- r:
		case <-w.done:
			return nil, false
		}
		switch {
		case err == nil:
			return nil, true // what was due lacks them: another save follows
		case r.aside != "":
			return due, true
		}
	}
}

// loadedAgain takes in what has become of drains that could not be read.
func (s *state) loadedAgain(r loadResult) {
	switch {
	case r.aside != "":
		s.w.log.Error("drains cannot be read and are set aside, going on without them", zap.String("file", r.aside), zap.Error(r.err))
	case r.err != nil:
		s.unread.err = r.err
		s.sayDrainsErr()
		return
	default:
		s.w.log.Info("drains are read")
		made := s.drains
		s.drains = map[string]Drain{}
		s.loadDrains(slices.DeleteFunc(r.drains, func(d Drain) bool { return s.unread.leaves(&d) }))
		for id, d := range made { // the latest word counts
			s.drains[id] = d
		}
		for _, l := range s.lives {
			if l.facts != nil {
				s.runIs(l)
				s.rebear(l)
			}
		}
	}
	s.unread, s.changed = unread{}, true
	s.sayDrainsErr()
	s.persist()
}

// unreadable reports whether drains that are not read yet hold up what they may be about.
func (s *state) unreadable() bool { return s.unread.err != nil && !s.unread.past }

// endPatience goes on without drains that could not be read for long.
func (s *state) endPatience(now time.Time) {
	if s.unreadable() && !now.Before(s.unread.until) {
		s.unread.past, s.changed = true, true
		s.w.log.Error("drains still cannot be read, going on without them", zap.Error(s.unread.err))
	}
}

// sayDrainsErr publishes what is wrong with the drains' store.
func (s *state) sayDrainsErr() {
	var err error
	switch {
	case s.unread.err != nil:
		err = fmt.Errorf("drains of before cannot be read: %w", s.unread.err)
	case s.saving.err != nil:
		err = fmt.Errorf("drains cannot be saved, a restart of the agent would forget them: %w", s.saving.err)
	}
	s.w.drainsErr.Store(&err)
}

// DrainsErr says why drains are not as they should be on disk: those of before cannot be read, or those of now cannot be
// written. nil: they are.
func (w *Watcher) DrainsErr() error {
	if err := w.drainsErr.Load(); err != nil {
		return *err
	}
	return nil
}
