package host

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

// Whatever fails, what is said of it is one short line with what to change, also where every question fails, and the log
// has it once with how long it took.
func TestNotices_troubleIsOneLine(t *testing.T) {
	for name, tt := range map[string]struct {
		fail         func(*rig)
		says, change string
	}{
		"nobody there": {func(r *rig) { r.imds.failAll(0) }, "the instance metadata service does not answer: dial tcp imds.invalid: connection refused", "AWS_EC2_METADATA_SERVICE_ENDPOINT"},
		"silent":       {func(r *rig) { r.imds.slow(time.Hour) }, "the instance metadata service does not answer: no answer within 2s", "--network host"},
		"disabled":     {func(r *rig) { r.imds.failAll(403) }, "the instance metadata service does not answer: HTTP 403", "--http-endpoint enabled"},
		"another":      {func(r *rig) { r.imds.do(func() { r.imds.fail["/latest/api/token"] = 404 }) }, "the instance metadata service does not answer: HTTP 404 to the request for a session token", "not version 2"},
		"one item": {
			func(r *rig) { r.imds.do(func() { r.imds.fail[spotItem] = 500 }) },
			"the instance metadata service does not answer about spot: HTTP 500", "wait",
		},
		"every item": {func(r *rig) {
			r.imds.do(func() {
				for _, path := range []string{spotItem, lifecycleItem, rebalanceItem, maintenanceItem} {
					r.imds.fail[path] = 503
				}
			})
		}, "the instance metadata service does not answer about lifecycle, maintenance, rebalance, spot: HTTP 503", "wait"},
		"nonsense": {
			func(r *rig) { r.imds.set(lifecycleItem, "Nowhere") },
			"the instance metadata service does not answer about lifecycle: understand instance metadata autoscaling/target-lifecycle-state: unknown state \"Nowhere\"", "look at what answers",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, nothing, func(t *testing.T, r *rig) {
				go func() { _, _ = r.Identity(t.Context()) }()
				r.after(t, time.Minute, "")
				r.imds.forgetTokens()
				tt.fail(r)
				r.after(t, 10*time.Minute, "") // tokens live for 5 minutes
				s, _ := r.Snapshot()
				if s.Waiting != tt.says || !strings.Contains(s.Change, tt.change) {
					t.Errorf("got %q (%q); want %q (… %s …)", s.Waiting, s.Change, tt.says, tt.change)
				}
				r.imds.recover()
				r.imds.slow(0)
				r.imds.remove(lifecycleItem)
				r.after(t, time.Minute, "")
				if s, _ := r.Snapshot(); s.Waiting != "" || s.Change != "" {
					t.Errorf("afterwards: %q (%q)", s.Waiting, s.Change)
				}
				for _, e := range r.logs.FilterLevelExact(zapcore.WarnLevel).All() {
					if fields := e.ContextMap(); fields["error"] == "" || fields["change"] == "" {
						t.Errorf("logged: %s %v", e.Message, fields)
					}
				}
				back := r.logs.FilterMessage("the instance metadata service answers again").All()
				if n := len(back); n != 1 {
					t.Fatalf("%d messages that it answers again; want 1", n)
				}
				if after, _ := back[0].ContextMap()["after"].(time.Duration); after < 4*time.Minute {
					t.Errorf("it answers again after %v", after)
				}
			})
		})
	}
}
