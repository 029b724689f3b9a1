package registrar_test

import (
	"fmt"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/test/knownfault"
)

// numbered are n groups, g00 and so on.
func numbered(n int) []elbsim.Group {
	groups := make([]elbsim.Group, n)
	for i := range groups {
		groups[i].Name = fmt.Sprintf("g%02d", i)
	}
	return groups
}

// While the registrations of twenty groups are throttled, a container of another group dies: DeregisterTargets is the next
// write, however long they have been at it.
func TestRegistrar_removalGoesBeforeWaitingRegistrations(t *testing.T) {
	knownfault.Skip(t, "1", "a removal waits behind registrations while AWS throttles")
	for _, peers := range []int{3, 100} {
		for _, throttled := range []time.Duration{5 * time.Second, 40 * time.Second, 2 * time.Minute} {
			t.Run(fmt.Sprintf("%d peers, throttled for %s", peers, throttled), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					w.peers = peers
					w.start()
					w.want("g00", 1)
					w.after(2 * time.Minute)
					w.registered("g00", 1)
					w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "Throttling", Status: 400})
					var others []any
					for i := 1; i <= 20; i++ {
						others = append(others, fmt.Sprintf("g%02d", i), 100+i)
					}
					w.want(append([]any{"g00", 1}, others...)...)
					w.after(throttled)
					before := len(w.calls("RegisterTargets"))
					w.want(others...)
					begun := time.Now()
					for len(w.calls("DeregisterTargets")) == 0 && time.Since(begun) < time.Hour {
						w.after(100 * time.Millisecond)
					}
					// One more may have been on its way.
					if n := len(w.calls("RegisterTargets")) - before; n > 1 {
						t.Errorf("DeregisterTargets was called %s after the death, behind %d RegisterTargets; want it to be the next write", time.Since(begun), n)
					}
					w.registered("g00")
				}, numbered(21)...)
			})
		}
	}
}
