package docker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/pkg/discovery"
	"berth/pkg/discovery/docker"
	"berth/test/harness"
)

// onPrivateEngine starts an engine of the test's own and a watcher on it, with little patience.
func onPrivateEngine(t *testing.T, options harness.EngineOptions) (*harness.PrivateEngine, *discovery.Watcher) {
	t.Helper()
	return onPrivateEngineFor(t, options, func(*discovery.Snapshot) {}, nil)
}

func onPrivateEngineFor(
	t *testing.T, options harness.EngineOptions, publish func(*discovery.Snapshot), metrics *discovery.Metrics,
) (*harness.PrivateEngine, *discovery.Watcher) {
	t.Helper()
	engine := harness.StartEngine(t, options)
	docker, err := docker.New(engine.Host())
	if err != nil {
		t.Fatal(err)
	}
	w, err := discovery.New(docker, discovery.NewDrainFile(t.TempDir()), publish, discovery.Options{
		Metrics: metrics, Rules: []discovery.Rule{{Group: "web"}}, PingInterval: 500 * time.Millisecond, PingTimeout: 500 * time.Millisecond,
		ReconnectMax: time.Second, Resync: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		docker.Close()
	})
	return engine, w
}

// exact waits until exactly the running containers are wanted, on the ports that the engine names, for their present runs.
func exact(t *testing.T, w *discovery.Watcher, what string, containers ...*harness.Container) {
	t.Helper()
	harness.Eventually(t, harness.Patience, what, func() error {
		s := w.Snapshot()
		if s == nil {
			return fmt.Errorf("nothing is published: %+v", w.Stream())
		}
		if !s.Stream.Up {
			return errors.New(s.Stream.Err)
		}
		var got, want []string
		for _, x := range s.Wants["web"] {
			got = append(got, fmt.Sprintf("%s:%d@%s", x.Run.Name, x.HostPort4, x.Run.StartedAt.Format(time.RFC3339Nano)))
		}
		for _, c := range containers {
			truth := c.Inspect(t)
			if bound := truth.NetworkSettings.Ports["8080/tcp"]; truth.State.Running && len(bound) > 0 {
				want = append(want, fmt.Sprintf("%s:%s@%s", c.Name, bound[0].HostPort, truth.State.StartedAt))
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			return fmt.Errorf("wanted: got %v; want %v\n%+v", got, want, s.Decisions)
		}
		return nil
	})
}

func webSpecs(n int) []harness.Spec {
	specs := make([]harness.Spec, n)
	for i := range specs {
		specs[i] = harness.Spec{
			Name: fmt.Sprintf("web%d", i), Restart: "always", Labels: map[string]string{discovery.TargetsLabel: "web"},
		}
	}
	return specs
}

// The engine is stopped: all goes, from the last events alone. It comes back, and deals the ports anew.
func TestWatcher_onRealEngine_restart(t *testing.T) {
	engine, w := onPrivateEngine(t, harness.EngineOptions{})
	containers := engine.RunAll(t, webSpecs(6)...)
	exact(t, w, "all are wanted", containers...)
	for range 2 {
		engine.Stop(t)
		harness.Eventually(t, harness.Patience, "nothing is wanted of an engine that has stopped", func() error {
			if n := len(w.Snapshot().Wants["web"]); n != 0 {
				return fmt.Errorf("%d are wanted", n)
			}
			if w.Stream().Up {
				return errors.New("the stream is up")
			}
			return nil
		})
		engine.Start(t)
		exact(t, w, "all are wanted again", containers...)
	}
}

// With live-restore the containers outlive the engine, and what is known of them stays. One dies meanwhile.
func TestWatcher_onRealEngine_liveRestore(t *testing.T) {
	engine, w := onPrivateEngine(t, harness.EngineOptions{LiveRestore: true})
	specs := webSpecs(3)
	specs[2].Restart = ""
	containers := engine.RunAll(t, specs...)
	exact(t, w, "all are wanted", containers...)
	pid := containers[2].Inspect(t).State.Pid
	seq := w.Snapshot().Seq
	engine.Stop(t)
	harness.Eventually(t, harness.Patience, "the stream is down", func() error {
		if s := w.Snapshot(); s.Stream.Up || s.Seq == seq {
			return errors.New("it is up")
		}
		return nil
	})
	if n := len(w.Snapshot().Wants["web"]); n != 3 {
		t.Errorf("%d are wanted while the engine is away; want all 3", n)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	engine.Start(t)
	exact(t, w, "exact after the engine's return", containers...)
	if n := len(w.Snapshot().Wants["web"]); n != 2 {
		t.Errorf("%d are wanted; want 2", n)
	}
}

// A watcher that does not get to read for a while makes the engine lose events, and nobody says so. It is exact again
// with the next list.
func TestWatcher_onRealEngine_overflow(t *testing.T) {
	registry := prometheus.NewRegistry()
	var slow atomic.Bool
	held, release := make(chan struct{}, 1), make(chan struct{})
	engine, w := onPrivateEngineFor(t, harness.EngineOptions{}, func(*discovery.Snapshot) {
		if slow.CompareAndSwap(true, false) {
			held <- struct{}{}
			<-release
		}
	}, discovery.NewMetrics(registry))
	containers := engine.RunAll(t, webSpecs(3)...)
	noise := engine.Create(t, harness.Spec{Name: "noise"})
	exact(t, w, "all are wanted", containers...)

	slow.Store(true)
	containers = append(containers, engine.Run(t, webSpecs(1)[0])) // a publication, which is held up
	<-held
	// The engine keeps 1,024 events for a reader, and so does the watcher; the connection holds some hundreds. Then each
	// costs the engine 100 ms before it gives the event up: so long it takes to see that there is no more room.
	renamed := 0
	for slowly := 0; slowly < 3 && renamed < 10000; renamed++ {
		begun := time.Now()
		noise.Rename(t, fmt.Sprintf("noise-%d", renamed))
		if slowly++; time.Since(begun) < 100*time.Millisecond || renamed < 1500 {
			slowly = 0
		}
	}
	containers[0].Remove(t)
	containers[1].Restart(t)
	containers = append(containers[1:], engine.Run(t, webSpecs(1)[0]))
	close(release)
	exact(t, w, "exact though events were lost", containers...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	heard := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "berth_docker_events_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			heard[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	t.Logf("%.0f of %d renames were heard, and %.0f deaths", heard["rename"], renamed, heard["die"])
	if int(heard["rename"]) >= renamed {
		t.Error("nothing was lost: this shows nothing")
	}
}

// An engine that hangs keeps its connections open. What is known stays, and the stream is taken for what it is.
func TestWatcher_onRealEngine_hangs(t *testing.T) {
	engine, w := onPrivateEngine(t, harness.EngineOptions{})
	containers := engine.RunAll(t, webSpecs(2)...)
	exact(t, w, "all are wanted", containers...)
	engine.Freeze(t)
	harness.Eventually(t, harness.Patience, "the stream is given up", func() error {
		if s := w.Stream(); s.Up {
			return errors.New("it is up")
		}
		return nil
	})
	if n := len(w.Snapshot().Wants["web"]); n != 2 {
		t.Errorf("%d are wanted of an engine that hangs; want both", n)
	}
	engine.Thaw(t)
	exact(t, w, "all are wanted", containers...)
}
