package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/internal/logs"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

// stuck is a standard error that nobody reads any more, from when it hangs until hang is closed.
type stuck struct {
	from atomic.Bool
	hang chan struct{}
}

func (w *stuck) Write(b []byte) (int, error) {
	if w.from.Load() {
		<-w.hang
	}
	return len(b), nil
}

// A log that cannot be written holds nothing up: each container that is told to stop goes at once.
func TestLogger_blockedHoldsNoRemovalUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuck{hang: make(chan struct{})}
		log, _, err := logs.New(out, "info", "json")
		if err != nil {
			t.Fatal(err)
		}
		engine := enginetest.New()
		var ids []string
		for _, name := range []string{"web-1", "web-2", "web-3"} {
			ids = append(ids, engine.Run(enginetest.Spec{Name: name, Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}}))
		}
		w, err := discovery.New(engine, nil, func(*discovery.Snapshot) {}, discovery.Options{Log: log, Rules: []discovery.Rule{{Group: "web"}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(w.Snapshot().Wants["web"]); n != len(ids) {
			t.Errorf("%d wanted at first; want %d", n, len(ids))
		}
		out.from.Store(true)
		for i, id := range ids {
			engine.Signal(id, 15)
			time.Sleep(time.Second)
			synctest.Wait()
			if n, want := len(w.Snapshot().Wants["web"]), len(ids)-1-i; n != want {
				t.Errorf("%d wanted a second after stop signal %d; want %d", n, i+1, want)
			}
		}
		close(out.hang)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
