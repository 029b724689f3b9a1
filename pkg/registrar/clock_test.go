package registrar_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
)

// TestRegistrar_clock: a clock that is far off is said once, in log and status, and it is said when that is over. Calls
// go on meanwhile. What is little, or the delay of a slow reply, is nobody's concern.
func TestRegistrar_clock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		reg := prometheus.NewRegistry()
		w.metrics = registrar.NewMetrics(reg)
		w.start()
		port := 0
		after := func(awsAhead time.Duration) time.Duration {
			w.sim.SetClock(awsAhead)
			for range 3 {
				port++
				w.want("web", port)
				w.after(10 * time.Second)
			}
			w.registered("web", port)
			s, _ := w.reg.Snapshot()
			return s.ClockAhead.Round(time.Second)
		}
		said := func() (warned, mended int) {
			return w.logs.FilterMessageSnippet("far from that of AWS").Len(), w.logs.FilterMessageSnippet("agrees with that of AWS").Len()
		}
		w.want("web")
		w.after(time.Minute) // before there is any date
		for _, step := range []struct {
			awsAhead, want time.Duration
			warned, mended int
		}{
			{0, 0, 0, 0},
			{50 * time.Second, 0, 0, 0},
			{-5 * time.Minute, 5 * time.Minute, 1, 0},
			{-5*time.Minute - 10*time.Second, 5 * time.Minute, 1, 0}, // nothing new
			{-time.Hour, time.Hour, 1, 0},
			{45 * time.Second, -45 * time.Second, 1, 0}, // not near enough yet
			{-10 * time.Second, 0, 1, 1},
			{2 * time.Minute, -2 * time.Minute, 2, 1},
		} {
			got := after(step.awsAhead)
			if got < step.want-time.Second || got > step.want+time.Second {
				t.Errorf("AWS %v ahead: status says %v; want %v", step.awsAhead, got, step.want)
			}
			if warned, mended := said(); warned != step.warned || mended != step.mended {
				t.Errorf("AWS %v ahead: warned %d times, mended %d; want %d and %d", step.awsAhead, warned, mended, step.warned, step.mended)
			}
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() != "berth_clock_skew_seconds" {
					continue
				}
				if v := f.GetMetric()[0].GetGauge().GetValue(); v < -step.awsAhead.Seconds()-1 || v > -step.awsAhead.Seconds()+1 {
					t.Errorf("AWS %v ahead: berth_clock_skew_seconds is %v", step.awsAhead, v)
				}
			}
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("metrics: %v, %v", problems, err)
		}
		if line := w.logs.FilterMessageSnippet("far from that of AWS").All()[0]; line.Level.String() != "warn" || !strings.Contains(line.ContextMap()["change"].(string), "chronyd") {
			t.Errorf("the log says %+v", line)
		}
		// A reply that takes its time is of the middle of it, as far as anybody can tell.
		w.sim.SetLatency(2500 * time.Millisecond)
		if got := after(0); got != 0 {
			t.Errorf("slow replies put the clock %v ahead", got)
		}
	}, web())
}

// A signature that is refused is a wrong secret's, for a person to correct, or that of a clock which is far off, for which
// the SDK makes up by itself.
func TestRegistrar_signature(t *testing.T) {
	for name, test := range map[string]struct {
		awsAhead time.Duration
		state    string
		change   string
	}{
		"a wrong secret":           {0, registrar.StateDenied, "secret access key"},
		"of a clock an hour off":   {time.Hour, registrar.StateWaiting, ""},
		"of a clock an hour ahead": {-time.Hour, registrar.StateWaiting, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.want("web", 1)
				w.after(time.Minute)
				w.sim.SetClock(test.awsAhead)
				w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "SignatureDoesNotMatch", Status: 403})
				w.want("web", 1, 2)
				w.after(time.Second)
				_, change := w.reg.CredentialsErr()
				if g := w.group("web"); g.State != test.state || !strings.Contains(g.Change, test.change) || !strings.Contains(change, test.change) || (change == "") != (test.change == "") {
					t.Errorf("status is %s (%q), of the credentials %q; want %s, %q", g.State, g.Change, change, test.state, test.change)
				}
			}, web())
		})
	}
}
