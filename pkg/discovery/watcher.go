package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"berth/internal/latest"
	"berth/pkg/target"
)

// Errors that callers act on.
var (
	// ErrNotFound says that there is no such container, or no such drain.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous says that a reference is the beginning of several containers' ids.
	ErrAmbiguous = errors.New("several containers' ids begin with it")
	// ErrNotAnswered says that Docker did not answer, and that the result is from memory.
	ErrNotAnswered = errors.New("docker did not answer")
	// ErrNotSaved says that a drain holds, but would not survive a restart of the agent.
	ErrNotSaved = errors.New("drain is not saved")
	// ErrStopped says that the watcher has ended.
	ErrStopped = errors.New("watcher has ended")
)

// Options are what a Watcher may be told. The zero value of each field means its default.
type Options struct {
	// Log receives what happens; nil: nothing is logged.
	Log *zap.Logger
	// Metrics are counted there; nil: nowhere.
	Metrics *Metrics
	// Rules and Generation are the configuration to begin with; Reconfigure replaces them.
	Rules      []Rule
	Generation uint64
	// Seq is what snapshots are counted from: the first has one more. Clients hold a Seq while the agent is restarted, so
	// that it must not be less than any that an earlier agent of this boot has published.
	Seq uint64
	// Admitted are the runs that an earlier agent has registered, by group, as its ledger has them. They have passed the
	// gate of register_when: healthy, and a pause at the start of the agent does not take them out at once.
	Admitted map[string][]target.Run
	// Instance is this host's instance id, as far as it is known yet; Identify says it later.
	Instance string
	// BootID is the kernel's; drains of a run, or of a shutdown, that carry another one are dropped. Where it or theirs is
	// not known, those of a run stay, which ends by itself, and those of a shutdown are dropped: nothing would end them.
	BootID string
	// Timing is the part of the decision that is time.
	Timing Timing

	// Workers is how many inspections may be under way at once. More brings little: an inspection takes Docker 0.4 ms.
	// Default 8.
	Workers int
	// InspectTimeout and ListTimeout bound one call. A container that is being started holds its inspection up, so
	// too short a time turns a slow start into an error and a later try. Defaults 10 s and 15 s.
	InspectTimeout, ListTimeout time.Duration
	// Settle is how long after the first full list its containers may take to answer before the first publication goes
	// ahead without them; what is registered for those stays. Default 5 s.
	Settle time.Duration
	// Resync is the mean time between full lists. A list costs Docker 0.08 ms a container, and finds what a silent
	// stream has swallowed. Every tenth inspects every running container. Default 1 min.
	Resync time.Duration
	// Replay is how long a new stream has to bring nothing of the past before containers are listed and inspected, where
	// the engine is no Historian or does not answer as one: the signal that a container got while nobody listened must
	// be known before the container is. At most 20 times as long is waited. Default 100 ms.
	Replay time.Duration
	// PingInterval is how long the stream may be silent before the engine is pinged, PingTimeout how long that may take;
	// two failures in a row end the stream. Defaults 15 s and 5 s.
	PingInterval, PingTimeout time.Duration
	// ConnectTimeout bounds the opening of the stream. Default 10 s.
	ConnectTimeout time.Duration
	// ReconnectMin and ReconnectMax bound the wait before the stream is opened again. Defaults 0.5 s and 30 s.
	ReconnectMin, ReconnectMax time.Duration
	// SilenceGrace is how late an event may be that a list has overtaken, before the stream is held to have swallowed
	// it; ReopenEvery is how often at most a stream is reopened for that. Defaults 5 s and 5 min.
	SilenceGrace, ReopenEvery time.Duration
	// SaveTimeout is how long Drain and Undrain wait for the disk. Default 1 s.
	SaveTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	o.Timing = o.Timing.withDefaults()
	o.Workers = max(2, cmp.Or(o.Workers, 8))
	for field, value := range map[*time.Duration]time.Duration{
		&o.InspectTimeout: 10 * time.Second, &o.ListTimeout: 15 * time.Second, &o.Settle: 5 * time.Second,
		&o.Resync: time.Minute, &o.Replay: 100 * time.Millisecond, &o.PingInterval: 15 * time.Second, &o.PingTimeout: 5 * time.Second,
		&o.ConnectTimeout: 10 * time.Second, &o.ReconnectMin: 500 * time.Millisecond, &o.ReconnectMax: 30 * time.Second,
		&o.SilenceGrace: 5 * time.Second, &o.ReopenEvery: 5 * time.Minute, &o.SaveTimeout: time.Second,
	} {
		*field = cmp.Or(*field, value)
	}
	return o
}

// Watcher keeps what is known of Docker's containers right, and publishes what should be registered. One goroutine, the
// loop of Run, owns facts, rules and drains, and waits for nobody: a stream goroutine brings events, a few workers
// inspect and list, a saver writes drains.
type Watcher struct {
	engine  Engine
	store   DrainStore
	publish func(*Snapshot)
	opts    Options
	log     *zap.Logger
	metrics *Metrics
	loaded  []Drain
	loadErr error // why loaded is not what the store holds; nil: it is
	clock   *dockerClock

	events   chan streamEvent
	jobs     chan job
	answers  chan answer
	listJobs chan listJob
	listings chan listAnswer
	requests chan func(*state)
	saves    chan save
	saved    chan saveResult
	loads    chan loadResult
	reopen   chan struct{}
	done     chan struct{} // closed when Run returns

	started atomic.Bool
	latest  atomic.Pointer[Snapshot]
	stream  latest.Value[Stream]
	turned  atomic.Pointer[time.Time]

	drainsErr atomic.Pointer[error]
}

// New makes a Watcher of engine. Drains are loaded from store, which may be nil: then they end with the process. Those that
// may not be read are an error, which wraps fs.ErrPermission. Those that cannot be read for other reasons are read again
// while it runs: for unreadPatience no container comes in and what is registered stays, and nothing is written in their place
// before they are set aside.
// publish is called from the loop with each new snapshot and must not block.
func New(engine Engine, store DrainStore, publish func(*Snapshot), opts Options) (*Watcher, error) {
	if engine == nil || publish == nil {
		return nil, errors.New("make watcher: engine and publish are needed")
	}
	if err := checkRules(opts.Rules); err != nil {
		return nil, fmt.Errorf("make watcher: %w", err)
	}
	opts = opts.withDefaults()
	w := &Watcher{
		engine: engine, store: store, publish: publish, opts: opts,
		log: opts.Log.Named("discovery"), metrics: opts.Metrics,
		clock:    newDockerClock(engine, opts.Timing.StopSurvivor),
		events:   make(chan streamEvent, 1024), // as many as Docker keeps for a slow reader
		jobs:     make(chan job),
		answers:  make(chan answer),
		listJobs: make(chan listJob),
		listings: make(chan listAnswer),
		requests: make(chan func(*state)),
		saves:    make(chan save, 1),
		saved:    make(chan saveResult),
		loads:    make(chan loadResult),
		reopen:   make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
	if store == nil {
		w.store = noStore{}
	}
	drains, err := w.store.Load()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("make watcher: %w", err)
	case errors.Is(err, ErrCorrupt):
		w.log.Error("drains cannot be read, going on without them", zap.Error(err))
	case err != nil:
		w.log.Warn("drains cannot be read, trying again", zap.Error(err))
		w.loadErr = err
	}
	w.loaded = drains
	w.stream.Set(&Stream{Err: "not connected yet"})
	return w, nil
}

// checkRules reports rules that contradict each other. What a single rule may say is the configuration's matter.
func checkRules(rules []Rule) error {
	seen := make(map[string]struct{}, len(rules))
	for _, r := range rules {
		if !validGroupKey(r.Group) {
			return fmt.Errorf("rule for group %s: the name is empty or cannot stand in a label", quote(r.Group))
		}
		if _, ok := seen[r.Group]; ok {
			return fmt.Errorf("rule for group %s: there are two", quote(r.Group))
		}
		if r.Match != nil && r.Match.empty() {
			return fmt.Errorf("rule for group %s: it would match every container", quote(r.Group))
		}
		seen[r.Group] = struct{}{}
	}
	return nil
}

// Run watches until ctx ends, and returns nil then. It can be called once. Nothing is published before the first full
// list, and before every running container in it has answered or failed to, or Settle is over.
func (w *Watcher) Run(ctx context.Context) error {
	if !w.started.CompareAndSwap(false, true) {
		return errors.New("run watcher: it has been run before")
	}
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	workers.Go(func() { w.streams(ctx) })
	workers.Go(func() { w.lister(ctx) })
	for range w.opts.Workers {
		workers.Go(func() { w.inspector(ctx) })
	}
	saverDone := make(chan struct{})
	go func() {
		defer close(saverDone)
		w.saver()
	}()
	newState(w).loop(ctx)
	cancel()
	close(w.done)
	close(w.saves)
	workers.Wait()
	// The last drains are worth a moment; a disk that hangs is not.
	select {
	case <-saverDone:
	case <-time.After(w.opts.SaveTimeout):
		w.log.Warn("drains are still being written at the end")
	}
	return nil
}

// Snapshot returns the latest snapshot; nil: none has been published yet. It must not be changed.
func (w *Watcher) Snapshot() *Snapshot { return w.latest.Load() }

// Stream returns the state of the connection to Docker, also before the first snapshot.
func (w *Watcher) Stream() Stream {
	s, _ := w.StreamChange()
	return s
}

// StreamChange is Stream with a channel that closes when there is another state.
func (w *Watcher) StreamChange() (Stream, <-chan struct{}) {
	s, next := w.stream.Get()
	return *s, next
}

// Turned returns when the loop last turned; it does so every few seconds whatever Docker does. A watchdog takes a time
// long past for a hang. It is zero before Run, and has its monotonic reading: a step of the clock is no silence.
func (w *Watcher) Turned() time.Time {
	if at := w.turned.Load(); at != nil {
		return *at
	}
	return time.Time{}
}
