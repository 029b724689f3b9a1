package agent

import (
	"testing"
	"time"

	"berth/pkg/host"
	"berth/pkg/status"
)

// A metadata service that falls silent later is shown once that lasts, and does not make the agent unready: only notices
// are missed.
func TestSilent(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for name, tt := range map[string]struct {
		s    host.Snapshot
		want bool
	}{
		"answers":             {host.Snapshot{Identity: &host.Identity{}, Since: ago(time.Hour)}, false},
		"just missed":         {host.Snapshot{Identity: &host.Identity{}, Waiting: "HTTP 500", Since: ago(time.Second)}, false},
		"for a while":         {host.Snapshot{Identity: &host.Identity{}, Waiting: "HTTP 500", Since: ago(time.Minute)}, true},
		"before the identity": {host.Snapshot{Waiting: "HTTP 500", Since: ago(time.Minute)}, false},
	} {
		if got := silent(&tt.s); got != tt.want {
			t.Errorf("%s: got %v; want %v", name, got, tt.want)
		}
	}
	if got := status.Lasting(ago(61 * time.Second)); got != ", for 1m1s" {
		t.Errorf("got %q", got)
	}
	if got := status.Lasting(time.Now()); got != "" {
		t.Errorf("got %q; want nothing of what has just begun", got)
	}
}
