package registrar_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/elbsim"
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

// A removal of the same group was throttled before, and waits to be tried again: another container's removal has a first
// attempt of its own, and is the next write, while the other waits in line.
func TestRegistrar_eachRemovalHasAFirstAttempt(t *testing.T) {
	for _, between := range []time.Duration{0, time.Second, 40 * time.Second} {
		t.Run(between.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.peers = 100
				w.start()
				w.want("g00", 1, 2, 3)
				w.after(2 * time.Minute)
				w.registered("g00", 1, 2, 3)
				w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "*egisterTargets", Code: "Throttling", Status: 400})
				var others []any
				for i := 1; i <= 20; i++ {
					others = append(others, fmt.Sprintf("g%02d", i), 100+i)
				}
				w.want(append([]any{"g00", 1, 2, 3}, others...)...)
				w.after(2 * time.Minute)
				for gone := 1; gone <= 2; gone++ {
					wants := []any{"g00", 3}
					if gone == 1 {
						wants = []any{"g00", 2, 3}
					}
					before := len(w.writes())
					w.want(append(wants, others...)...)
					named := fmt.Sprintf(" %d", gone)
					next := func() int {
						return slices.IndexFunc(w.writes()[before:], func(call string) bool {
							return strings.HasPrefix(call, "DeregisterTargets g00") && strings.Contains(call, named)
						})
					}
					for begun := time.Now(); next() < 0 && time.Since(begun) < time.Hour; {
						w.after(100 * time.Millisecond)
					}
					// One more may have been on its way.
					if n := next(); n < 0 || n > 1 {
						t.Errorf("the removal of %d was write %d after the death; want it to be the next:\n%s", gone, n+1, strings.Join(w.writes()[before:], "\n"))
					}
					w.after(between)
				}
				w.sim.ClearFaults()
				w.after(time.Hour)
				w.registered("g00", 3)
			}, numbered(21)...)
		})
	}
}

// A removal is taken back while its call is under way, which AWS throttles. The next one of the same target has a first attempt
// of its own.
func TestRegistrar_removalAfterOneThatWasTakenBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.peers = 100
		w.start()
		w.want("g00", 1)
		w.after(2 * time.Minute)
		w.registered("g00", 1)
		w.fault(elbsim.Fault{Kind: elbsim.FaultLatency, Action: "DeregisterTargets", Delay: elbsim.Duration(2 * time.Second)})
		w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "*egisterTargets", Code: "Throttling", Status: 400})
		var others []any
		for i := 1; i <= 20; i++ {
			others = append(others, fmt.Sprintf("g%02d", i), 100+i)
		}
		tried := func() int {
			n := 0
			for _, call := range w.writes() {
				if strings.HasPrefix(call, "DeregisterTargets g00") {
					n++
				}
			}
			return n
		}
		w.want(append([]any{"g00"}, others...)...)
		for begun := time.Now(); tried() == 0 && time.Since(begun) < time.Hour; {
			w.after(100 * time.Millisecond)
		}
		w.want(append([]any{"g00", 1}, others...)...)
		w.after(2 * time.Minute)
		before, n := len(w.writes()), tried()
		w.want(append([]any{"g00"}, others...)...)
		for begun := time.Now(); tried() == n && time.Since(begun) < time.Hour; {
			w.after(100 * time.Millisecond)
		}
		if made := len(w.writes()) - before; made > 2 { // one more may have been on its way
			t.Errorf("the second removal was write %d; want it to be the next:\n%s", made, strings.Join(w.writes()[before:], "\n"))
		}
	}, numbered(21)...)
}
