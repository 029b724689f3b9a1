package discovery_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

// fixture is a watcher on a fake engine, inside a synctest bubble.
type fixture struct {
	*testing.T
	engine *enginetest.Engine
	w      *discovery.Watcher
	store  *memoryStore
	stop   func()

	mu        sync.Mutex // guards published
	published []*discovery.Snapshot
}

// rules are what most tests need: a group that labels name.
func rules(groups ...string) []discovery.Rule {
	out := make([]discovery.Rule, len(groups))
	for i, g := range groups {
		out[i] = discovery.Rule{Group: g}
	}
	return out
}

// web is a container that asks for group web with its only port.
func web(name string) enginetest.Spec {
	return enginetest.Spec{Name: name, Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}}
}

func options() discovery.Options { return discovery.Options{Rules: rules("web", "api")} }

// watch starts a watcher and waits until it is quiet. It is stopped at the test's end.
func watch(t *testing.T, engine *enginetest.Engine, store *memoryStore, opts discovery.Options) *fixture {
	t.Helper()
	return watchThrough(t, engine, engine, store, opts)
}

// watchThrough is watch for a watcher that sees the engine through something else.
func watchThrough(t *testing.T, engine *enginetest.Engine, through discovery.Engine, store *memoryStore, opts discovery.Options) *fixture {
	t.Helper()
	return watchStore(t, engine, through, store, store, opts)
}

// watchStore is watchThrough for a watcher that sees the store through something else.
func watchStore(t *testing.T, engine *enginetest.Engine, through discovery.Engine, store *memoryStore, seen discovery.DrainStore, opts discovery.Options) *fixture {
	t.Helper()
	h := &fixture{T: t, engine: engine, store: store}
	w, err := discovery.New(through, seen, func(s *discovery.Snapshot) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.published = append(h.published, s)
	}, opts)
	if err != nil {
		t.Fatal(err)
	}
	h.w = w
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(h.stop)
	h.settle(150 * time.Millisecond) // a new stream may tell the past first
	return h
}

// start is watch with a new engine and the usual options.
func start(t *testing.T) *fixture {
	t.Helper()
	return watch(t, enginetest.New(), &memoryStore{}, options())
}

// settle lets d pass and everything that follows from it happen.
func (h *fixture) settle(d time.Duration) {
	h.Helper()
	time.Sleep(d)
	synctest.Wait()
}

// snapshots returns what has been published so far.
func (h *fixture) snapshots() []*discovery.Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.published)
}

// names returns the containers wanted in a group, with their host ports: "web-1:32768".
func names(s *discovery.Snapshot, group string) []string {
	out := []string{}
	if s == nil {
		return out
	}
	for _, w := range s.Wants[group] {
		out = append(out, fmt.Sprintf("%s:%d", w.Run.Name, w.HostPort4))
	}
	return out
}

// wants fails the test unless exactly these are wanted in group web now.
func (h *fixture) wants(want ...string) {
	h.Helper()
	synctest.Wait()
	got := names(h.w.Snapshot(), "web")
	if !slices.Equal(got, append([]string{}, want...)) {
		h.Fatalf("wanted in web: got %v; want %v\n%s", got, want, describe(h.w.Snapshot()))
	}
}

// verdict fails the test unless the decision about a container has this verdict.
func (h *fixture) verdict(name string, want discovery.Verdict) discovery.Decision {
	h.Helper()
	synctest.Wait()
	for _, d := range h.w.Snapshot().Decisions {
		if d.Run.Name == name {
			if d.Verdict != want {
				h.Fatalf("verdict on %s: got %s (%s); want %s", name, d.Verdict, d.Why, want)
			}
			return d
		}
	}
	h.Fatalf("no decision about %s\n%s", name, describe(h.w.Snapshot()))
	return discovery.Decision{}
}

func describe(s *discovery.Snapshot) string {
	if s == nil {
		return "no snapshot"
	}
	out := fmt.Sprintf("snapshot %d, stream up %t, unknown %v\n", s.Seq, s.Stream.Up, s.Unknown)
	for _, d := range s.Decisions {
		out += fmt.Sprintf("  %s %s %d/%s: %s: %s\n", d.Run, d.Group, d.Port, d.Protocol, d.Verdict, d.Why)
	}
	return out
}

// memoryStore keeps drains as a disk does, for the next watcher to find.
type memoryStore struct {
	mu     sync.Mutex // guards all below
	drains []discovery.Drain
	aside  []discovery.Drain
	saves  int
	err    error
	hang   chan struct{}
}

func (m *memoryStore) Load() ([]discovery.Drain, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.drains), m.err
}

func (m *memoryStore) SetAside() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return "", m.err
	}
	m.aside, m.drains = m.drains, nil
	return "aside", nil
}

func (m *memoryStore) Save(drains []discovery.Drain) error {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		<-hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.drains = slices.Clone(drains)
	m.saves++
	return nil
}

func (m *memoryStore) saved() []discovery.Drain {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.drains)
}
