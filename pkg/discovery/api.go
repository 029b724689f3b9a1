package discovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"berth/pkg/target"
)

// do has the loop run request.
func (w *Watcher) do(ctx context.Context, request func(*state)) error {
	select {
	case w.requests <- request:
		return nil
	case <-w.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await waits for a reply of the loop.
func await[T any](ctx context.Context, w *Watcher, reply <-chan T) (T, error) {
	var none T
	select {
	case v := <-reply:
		return v, nil
	case <-w.done:
		return none, ErrStopped
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Reconfigure replaces the rules. When it returns, the snapshot of that generation has been published, unless nothing
// can be published yet; then the first one will be of that generation. Rules that contradict each other are refused
// and change nothing. It needs a running watcher.
func (w *Watcher) Reconfigure(ctx context.Context, generation uint64, rules []Rule) error {
	if err := checkRules(rules); err != nil {
		return fmt.Errorf("reconfigure discovery: %w", err)
	}
	reply := make(chan uint64, 1)
	err := w.do(ctx, func(s *state) {
		for _, l := range s.lives {
			l.admitted = alsoKnown(l.admitted, s.rules, rules)
			if l.facts != nil {
				l.alsoStops = alsoStops(l.facts, rules)
			}
		}
		s.rules, s.generation, s.changed = rules, generation, true
		s.stepEnd = append(s.stepEnd, func(seq uint64) { reply <- seq })
	})
	if err == nil {
		_, err = await(ctx, w, reply)
	}
	if err != nil {
		return fmt.Errorf("reconfigure discovery: %w", err)
	}
	return nil
}

// Identify says which instance this is, once it is known. Drains that were made on another one are dropped: a disk that
// became an AMI brought them.
func (w *Watcher) Identify(ctx context.Context, instance string) error {
	return w.do(ctx, func(s *state) {
		s.instance = instance
		s.dropDrainsOf(s.foreign)
		for _, d := range s.sortedDrains() {
			if d.Instance == "" {
				s.putDrain(d)
			}
		}
	})
}

type looked struct {
	run target.Run
	seq uint64
	err error
}

// Look inspects a container now and returns its present run, and the Seq of the first snapshot that holds what the
// inspection said. ref is whatever Docker takes: a name, an id or the beginning of one.
//
// The error wraps ErrNotFound where there is no such container, and ErrAmbiguous where there are several. Where Docker
// does not answer it wraps ErrNotAnswered, and the run is from memory, if ref is in it.
func (w *Watcher) Look(ctx context.Context, ref string) (target.Run, uint64, error) {
	if !w.Stream().Up {
		return w.remember(ctx, ref, errors.New(w.Stream().Err))
	}
	inspect, cancel := context.WithTimeout(ctx, w.opts.InspectTimeout)
	facts, err := w.engine.Inspect(inspect, ref)
	cancel()
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrAmbiguous):
		return target.Run{}, 0, fmt.Errorf("look at container %q: %w", ref, err)
	case ctx.Err() != nil:
		return target.Run{}, 0, fmt.Errorf("look at container %q: %w", ref, ctx.Err())
	case err != nil:
		return w.remember(ctx, ref, err)
	}
	reply := make(chan looked, 1)
	err = w.do(ctx, func(s *state) { s.look(facts.ID, reply) })
	var l looked
	if err == nil {
		l, err = await(ctx, w, reply)
	}
	if err == nil {
		err = l.err
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrStopped) && ctx.Err() == nil {
		return w.remember(ctx, ref, err)
	}
	if err != nil {
		return target.Run{}, 0, fmt.Errorf("look at container %q: %w", ref, err)
	}
	return l.run, l.seq, nil
}

// look has the loop inspect one container and reply when what it learned is published.
func (s *state) look(id string, reply chan<- looked) {
	l := s.life(id)
	in := &l.inspection
	in.notNow = time.Time{}
	in.lookers = append(in.lookers, looker{since: s.now(), reply: func(err error) {
		if err != nil {
			reply <- looked{err: err}
			return
		}
		run := l.run()
		s.onceSeen = append(s.onceSeen, func(seq uint64) { reply <- looked{run: run, seq: seq} })
	}})
	s.ask(l, fresh)
}

// remember answers from memory, because Docker does not.
func (w *Watcher) remember(ctx context.Context, ref string, cause error) (target.Run, uint64, error) {
	reply := make(chan looked, 1)
	err := w.do(ctx, func(s *state) {
		run, err := s.find(ref)
		reply <- looked{run, s.seq, err}
	})
	var l looked
	if err == nil {
		l, err = await(ctx, w, reply)
	}
	if err != nil {
		return target.Run{}, 0, fmt.Errorf("look at container %q: %w", ref, err)
	}
	if l.err != nil {
		return target.Run{}, 0, fmt.Errorf("look at container %q: %w (%w), and it is not in memory: %w", ref, ErrNotAnswered, cause, l.err)
	}
	return l.run, l.seq, fmt.Errorf("look at container %q: %w: %w", ref, ErrNotAnswered, cause)
}

// find looks a container up by name, id, or the beginning of one id alone.
func (s *state) find(ref string) (target.Run, error) {
	name := strings.TrimPrefix(ref, "/")
	var found []target.Run
	for id, l := range s.lives {
		if id == ref || l.facts != nil && l.facts.Name == name {
			return l.run(), nil
		}
		if ref != "" && strings.HasPrefix(id, ref) {
			found = append(found, l.run())
		}
	}
	switch len(found) {
	case 0:
		return target.Run{}, ErrNotFound
	case 1:
		return found[0], nil
	}
	return target.Run{}, fmt.Errorf("%d containers begin with %q: %w", len(found), ref, ErrAmbiguous)
}

// Drain takes a container, a name or the host out, and returns the Seq from which the wants are gone. A drain with the id
// of one that holds replaces it: so a HoldConnection becomes a HoldRun. Without an id it gets DrainID(Cause, Container), or
// NameDrainID(Cause, Name); without a time, now; a HoldRun without StartedAt is for the run that goes on now. A name is
// held with the container that bears it, and until it is undrained; one that is held already may be drained again without a
// container, and where it is not the error wraps ErrNotFound.
//
// An error that wraps ErrNotSaved comes with a Seq: the drain holds, but only as long as this process.
func (w *Watcher) Drain(ctx context.Context, d Drain) (uint64, error) {
	if d.Cause == "" {
		return 0, errors.New("drain: the cause is missing")
	}
	switch {
	case d.Name != "" && d.Hold != HoldKeep:
		return 0, fmt.Errorf("drain %s: a name is held until it is undrained", quote(d.Name))
	case d.ID != "":
	case d.Name != "":
		d.ID = NameDrainID(d.Cause, d.Name)
	default:
		d.ID = DrainID(d.Cause, d.Container)
	}
	seq, err := w.change(ctx, func(s *state) error {
		if d.Since.IsZero() {
			d.Since = s.now()
		}
		if l := s.lives[d.Container]; l != nil && d.Hold == HoldRun && d.StartedAt.IsZero() && l.facts != nil {
			d.StartedAt = l.facts.StartedAt
		}
		old, held := s.drains[d.ID]
		switch {
		case d.Name != "" && d.Container == "" && !held:
			return ErrNotFound
		case d.Name != "" && d.Container == "":
			d.Container = old.Container // there or gone: it stays as it is
		case held && d.Name != "" && !s.orphans[d.ID]:
			d.Container = old.Container // it is there still, and was drained as well
		default:
			delete(s.orphans, d.ID)
		}
		s.putDrain(d)
		return nil
	})
	if err != nil {
		return seq, fmt.Errorf("drain %s: %w", d.ID, err)
	}
	return seq, nil
}

// Undrain ends a drain, and returns the Seq from which it no longer counts. Its errors are those of Drain, and one that
// wraps ErrNotFound where there is no such drain.
func (w *Watcher) Undrain(ctx context.Context, id string) (uint64, error) {
	seq, err := w.change(ctx, func(s *state) error {
		if _, ok := s.drains[id]; !ok {
			return ErrNotFound
		}
		s.dropDrainsOf(func(d Drain) bool { return d.ID == id })
		s.unread.over(id)
		return nil
	})
	if err != nil {
		return seq, fmt.Errorf("undrain %s: %w", id, err)
	}
	return seq, nil
}

// change has the loop change the drains, and waits for the publication and, for a while, for the disk.
func (w *Watcher) change(ctx context.Context, change func(*state) error) (uint64, error) {
	reply, saved := make(chan looked, 1), make(chan error, 1)
	err := w.do(ctx, func(s *state) {
		version := s.saving.version
		if err := change(s); err != nil {
			reply <- looked{err: err}
			return
		}
		switch {
		case s.saving.version == version:
			saved <- nil
		case s.unreadable():
			saved <- s.unread.err
		default:
			s.whenSaved(saved)
		}
		s.stepEnd = append(s.stepEnd, func(seq uint64) { reply <- looked{seq: seq} })
	})
	if err != nil {
		return 0, err
	}
	l, err := await(ctx, w, reply)
	if err == nil {
		err = l.err
	}
	if err != nil {
		return 0, err
	}
	wait, cancel := context.WithTimeout(ctx, w.opts.SaveTimeout)
	defer cancel()
	saveErr, err := await(wait, w, saved)
	if err == nil {
		err = saveErr
	}
	if err != nil {
		return l.seq, fmt.Errorf("%w: %w", ErrNotSaved, err)
	}
	return l.seq, nil
}
