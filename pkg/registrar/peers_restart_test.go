package registrar_test

import (
	"fmt"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/target"
)

// An agent of a fleet of 400 that is restarted just before an outage still knows how many others try again beside it.
func TestRegistrar_peersOutliveARestart(t *testing.T) {
	calls := map[bool]int{}
	for _, restarted := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			for i := range 400 {
				id := fmt.Sprintf("i-%017x", i+1)
				if err := w.sim.AddInstance(elbsim.Instance{ID: id, PrivateIP: fmt.Sprintf("10.1.%d.%d", i/200, i%200+1)}); err != nil {
					t.Fatal(err)
				}
				if err := w.sim.Register("g00", target.Target{ID: id, Port: 1}); err != nil {
					t.Fatal(err)
				}
			}
			w.start()
			w.want("g00", 1, "g01", 2)
			w.after(30 * time.Minute)
			if restarted {
				w.stop()
				w.start()
				w.want("g00", 1, "g01", 2)
				w.after(time.Second)
			}
			w.fault(elbsim.Fault{Kind: elbsim.FaultError, Code: "ServiceUnavailable", Status: 503})
			w.want("g00", 11, "g01", 12)
			before := len(w.calls())
			w.after(10 * time.Minute)
			calls[restarted] = len(w.calls()) - before
		}, numbered(2)...)
	}
	// What was due at the restart is done once more.
	if calls[true] > 2*calls[false] {
		t.Errorf("%d calls in ten minutes of outage after a restart, %d without; want no more than twice as many", calls[true], calls[false])
	}
}
