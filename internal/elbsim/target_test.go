package elbsim

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

// One instance on two ports is two targets: registering, draining and health are each port's own. Stand-ins that keep
// one entry per instance id cannot hold this.
func TestTargets_keyedByIDAndPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		register(t, c, arn, on(32768, 32769)...)
		s.SetBackend(on(32769)[0], Failed())
		time.Sleep(time.Minute)
		want := map[target.Target]string{on(32768)[0]: "healthy", on(32769)[0]: "unhealthy/Target.FailedHealthChecks"}
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("two ports of one instance (-want +got):\n%s", diff)
		}
		deregister(t, c, arn, on(32768)...)
		want[on(32768)[0]] = "draining/Target.DeregistrationInProgress"
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("after deregistering one port (-want +got):\n%s", diff)
		}
		time.Sleep(5 * time.Minute)
		delete(want, on(32768)[0])
		if diff := cmp.Diff(want, described(t, c, arn)); diff != "" {
			t.Errorf("after the delay (-want +got):\n%s", diff)
		}
	})
}
