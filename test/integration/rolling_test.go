package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/test/harness"
	"berth/test/rig"
)

// requests is how many requests a rolling replacement has to last for, and clients how many send them at once.
const (
	requests = 5000
	clients  = 8
)

// load is what clients saw of a load balancer.
type load struct {
	mu      sync.Mutex // guards what follows: several clients count
	sent    int
	answers map[string]int // by container
	errors  map[string]int // by what they said, without the addresses
}

// drive sends requests until stop is closed and at least the given number were sent.
func drive(ctx context.Context, url string, least int, stop <-chan struct{}) *load {
	l := &load{answers: map[string]int{}, errors: map[string]int{}}
	ended := func() bool {
		select {
		case <-stop:
			return l.count() >= least || ctx.Err() != nil
		default:
			return ctx.Err() != nil
		}
	}
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for !ended() {
				got, err := harness.AskAt(ctx, url)
				l.note(got, err)
				time.Sleep(10 * time.Millisecond) // the containers need a processor too
			}
		})
	}
	wg.Wait()
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

func (l *load) note(got harness.Identity, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err == nil {
		l.answers[got.Name]++
		return
	}
	l.errors[why(err)]++
}

// why shortens an error to what the load balancer said.
func why(err error) string {
	for _, status := range []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
		if text := fmt.Sprintf("%d %s", status, http.StatusText(status)); strings.Contains(err.Error(), text) {
			return text
		}
	}
	return err.Error()
}

func (l *load) failed() int {
	n := 0
	for _, count := range l.errors {
		n += count
	}
	return n
}

// replace replaces four containers one after the other, each by one that is healthy first, and returns what clients saw
// meanwhile.
func replace(t *testing.T, args ...string) *load {
	t.Helper()
	r := rig.New(t, rig.Options{
		// Longer than the lag, or the load balancer breaks off what it has just sent.
		Groups: []elbsim.Group{{Name: "web", DeregistrationDelay: 20 * time.Second}},
		// For so long load balancers go on sending to a target that was deregistered.
		Sim: elbsim.Config{Lags: &elbsim.Lags{
			Register: 200 * time.Millisecond, Deregister: 2 * time.Second, Describe: 100 * time.Millisecond,
		}},
	})
	r.StartReady(t)
	version := func(v string) harness.Spec {
		return harness.Spec{Name: v, Labels: r.In("web"), Args: args, StopTimeout: time.Minute}
	}
	old := r.Engine.RunAll(t, version("old"), version("old"), version("old"), version("old"))
	serving := append([]*harness.Container(nil), old...)
	r.WaitHealthy(t, "web", rig.TargetsOf(t, serving...)...)

	stop, done := make(chan struct{}), make(chan *load, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { done <- drive(ctx, r.URL("web"), requests, stop) }()
	for _, leaving := range old {
		serving = append(serving[1:], r.Engine.Run(t, version("new")))
		r.WaitHealthy(t, "web", append(rig.TargetsOf(t, serving...), rig.TargetsOf(t, leaving)...)...)
		leaving.Stop(t)
		r.WaitHealthy(t, "web", rig.TargetsOf(t, serving...)...)
	}
	close(stop)
	seen := <-done
	t.Logf("%d requests, %d failed %v; answered by %v", seen.sent, seen.failed(), seen.errors, seen.answers)
	if seen.sent < requests {
		t.Errorf("only %d requests were sent", seen.sent)
	}
	for _, c := range append(old, serving...) {
		if seen.answers[c.Name] == 0 {
			t.Errorf("container %s answered nobody: this shows nothing", c.Name)
		}
	}
	return seen
}

// An application that serves on after SIGTERM, for longer than load balancers go on sending, loses no request.
func TestRolling_servesOnAfterSIGTERM(t *testing.T) {
	if seen := replace(t, "--drain=5s"); seen.failed() > 0 {
		t.Errorf("%d of %d requests failed: %v", seen.failed(), seen.sent, seen.errors)
	}
}

// One that dies at once loses those that the load balancer still sends it: docker stop delivers the signal before
// anybody is told of it. How many depends on the load; that some do is why `berth stop` is there.
func TestRolling_diesAtSIGTERM(t *testing.T) {
	seen := replace(t, "--stop=die")
	if seen.failed()+len(seen.answers) == 0 {
		t.Error("nothing was measured")
	}
	for what := range seen.errors {
		if what != "502 Bad Gateway" {
			t.Errorf("requests failed with %s; only dead targets explain a failure, with 502", what)
		}
	}
}
