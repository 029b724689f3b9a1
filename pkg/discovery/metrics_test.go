package discovery_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		opts := options()
		opts.Metrics = discovery.NewMetrics(registry)
		h := watch(t, enginetest.New(), &memoryStore{}, opts)
		a, b := h.engine.Run(web("a")), h.engine.Run(web("b"))
		h.settle(time.Second)
		h.engine.Signal(a, 1)
		h.engine.Signal(a, 15)
		h.engine.Die(b, 1)
		h.engine.Start(b)
		h.engine.Run(enginetest.Spec{Name: "typo", Labels: map[string]string{discovery.TargetsLabel: "wbe"}})
		h.engine.Emit(discovery.Event{Action: "exec_start: x", Container: a})
		h.settle(time.Second)
		h.engine.FailInspect(b, errTest)
		h.engine.SetHealth(b, discovery.HealthHealthy)
		h.settle(time.Millisecond)
		h.engine.Heal()
		h.engine.Cut()
		h.settle(10 * time.Second)
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) != 0 {
			t.Errorf("lint: got %v, %v", problems, err)
		}
		golden, err := os.ReadFile("testdata/metrics.txt")
		if err != nil {
			t.Fatal(err)
		}
		// The golden exposition leaves out durations, dates, and what depends on how a burst is cut.
		var named []string
		for _, line := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(string(golden), -1) {
			named = append(named, line[1])
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(string(golden)), named...); err != nil || len(named) != 14 {
			t.Errorf("%d metrics compared: %v", len(named), err)
		}
	})
}
