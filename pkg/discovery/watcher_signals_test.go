package discovery_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/target"
)

const watchtower = "com.centurylinklabs.watchtower.stop-signal"

// Which signals tell a container to stop besides its own is said by its labels and by its groups.
func TestWatcher_stopSignals(t *testing.T) {
	quits := target.Signals(0).With(3)
	for name, tc := range map[string]struct {
		labels map[string]string
		rule   discovery.Rule
		own    string // StopSignal
		takes  []int  // signals that take it out
		leaves []int
	}{
		"nothing":            {takes: []int{9, 15}, leaves: []int{1, 2, 3, 10}},
		"label":              {labels: map[string]string{discovery.StopSignalsLabel: "INT, sigquit"}, takes: []int{2, 3, 9, 15}, leaves: []int{1, 10}},
		"label, own signal":  {labels: map[string]string{discovery.StopSignalsLabel: "INT"}, own: "USR1", takes: []int{2, 10, 15}, leaves: []int{3}},
		"label, real time":   {labels: map[string]string{discovery.StopSignalsLabel: "RTMIN+3,40"}, takes: []int{37, 40}, leaves: []int{38}},
		"watchtower":         {labels: map[string]string{watchtower: "SIGHUP"}, takes: []int{1, 15}, leaves: []int{2}},
		"watchtower, odd":    {labels: map[string]string{watchtower: "nonsense"}, takes: []int{15}, leaves: []int{1, 2}},
		"both labels":        {labels: map[string]string{watchtower: "HUP", discovery.StopSignalsLabel: "INT"}, takes: []int{1, 2}, leaves: []int{3}},
		"group":              {rule: discovery.Rule{StopSignals: quits}, takes: []int{3, 15}, leaves: []int{2}},
		"group and label":    {rule: discovery.Rule{StopSignals: quits}, labels: map[string]string{discovery.StopSignalsLabel: "INT"}, takes: []int{2}, leaves: []int{3}},
		"group, empty label": {rule: discovery.Rule{StopSignals: quits}, labels: map[string]string{discovery.StopSignalsLabel: " "}, takes: []int{15}, leaves: []int{2, 3}},
		"group, watchtower":  {rule: discovery.Rule{StopSignals: quits}, labels: map[string]string{watchtower: "HUP"}, takes: []int{1, 3}, leaves: []int{2}},
		"group by its rule": {
			rule:   discovery.Rule{StopSignals: quits, Match: &discovery.Match{Name: "web-*"}, NoLabels: true},
			labels: map[string]string{discovery.TargetsLabel: "api"}, takes: []int{3}, leaves: []int{2},
		},
		"group of others": {rule: discovery.Rule{StopSignals: quits}, labels: map[string]string{discovery.TargetsLabel: "api"}, takes: []int{15}, leaves: []int{2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := options()
				tc.rule.Group = "web"
				opts.Rules = []discovery.Rule{tc.rule, {Group: "api"}}
				h := watch(t, enginetest.New(), &memoryStore{}, opts)
				spec := web("web-1")
				spec.StopSignal = tc.own
				for k, v := range tc.labels {
					spec.Labels[k] = v
				}
				id := h.engine.Run(spec)
				h.settle(time.Second)
				wanted := func() bool {
					synctest.Wait()
					s := h.w.Snapshot()
					return len(s.Wants["web"])+len(s.Wants["api"]) > 0
				}
				for _, n := range tc.leaves {
					if h.engine.Signal(id, n); !wanted() {
						t.Fatalf("signal %d took it out", n)
					}
				}
				for _, n := range tc.takes {
					if h.engine.Signal(id, n); wanted() {
						t.Fatalf("signal %d left it in", n)
					}
					h.verdict("web-1", discovery.Leaving)
					h.settle(time.Second)
					h.engine.Die(id, 130) // it obeys, which is no crash
					h.settle(time.Second)
					if h.engine.StartAgain(id); !wanted() {
						t.Fatalf("after signal %d it does not come back: %s", n, describe(h.w.Snapshot()))
					}
				}
			})
		})
	}
}

// What tells a container to stop is learned with the container: a signal that came before counts for it all the same, and a
// reload counts from then on.
func TestWatcher_stopSignals_learned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		spec := web("web-1")
		spec.Labels[discovery.StopSignalsLabel] = "INT"
		id := h.engine.Create(spec)
		release := h.engine.HangInspect(id)
		h.engine.Start(id)
		h.settle(time.Second)
		h.engine.Signal(id, 2)
		h.settle(time.Second)
		release()
		h.settle(time.Second)
		h.wants()
		h.verdict("web-1", discovery.Leaving)

		other := h.engine.Run(web("web-2"))
		h.settle(time.Second)
		h.engine.Signal(other, 3)
		h.wants("web-2:32769")
		if err := h.w.Reconfigure(t.Context(), 2, []discovery.Rule{{Group: "web", StopSignals: target.Signals(0).With(3)}}); err != nil {
			t.Fatal(err)
		}
		h.wants("web-2:32769")
		h.settle(time.Second)
		h.engine.Signal(other, 3)
		h.wants()
	})
}

// A label that cannot be read is refused, and says what to write.
func TestWatcher_stopSignals_refused(t *testing.T) {
	for value, why := range map[string]string{
		"INT,":                   "there is nothing between two commas",
		"INT QUIT":               `"INT QUIT": must be a signal`,
		"STOPPED":                `"STOPPED": must be a signal`,
		strings.Repeat("2,", 99): "it lists 100 signals",
	} {
		synctest.Test(t, func(t *testing.T) {
			h := start(t)
			spec := web("web-1")
			spec.Labels[discovery.StopSignalsLabel] = value
			h.engine.Run(spec)
			h.settle(time.Second)
			h.wants()
			if d := h.verdict("web-1", discovery.Refused); !strings.Contains(d.Why, "its label berth.stop-signals cannot be read: "+why) || d.Change == "" {
				t.Errorf("%q: got %+v", value, d)
			}
		})
	}
}

// docker stop with another signal to a container that nobody has said anything about: it goes at its death, and has not
// crashed.
func TestWatcher_stopWithUnknownSignal(t *testing.T) {
	for _, code := range []int{0, 130} {
		synctest.Test(t, func(t *testing.T) {
			h := start(t)
			id := h.engine.Run(web("web-1"))
			h.settle(time.Second)
			h.engine.StopWith(id, 2, code)
			h.wants()
			h.settle(time.Second)
			h.engine.StartAgain(id)
			h.wants("web-1:32768")
		})
	}
}
