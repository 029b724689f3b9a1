package registrar_test

import (
	"testing"
	"time"

	"berth/pkg/registrar"
	"berth/pkg/target"
)

// What was removed before Docker started is not removed again: after a reboot each host would make a call for nothing.
func TestRegistrar_removedAtBoot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var removed []registrar.Entry
		for port := uint16(1); port <= 2; port++ {
			removed = append(removed, registrar.Entry{
				Group: w.groups[0], Facts: registrar.GroupFacts{ARN: w.sim.GroupARN("web"), Name: "web", TargetType: "instance", Protocol: "HTTP"},
				Target: target.Target{ID: instance, Port: port}, Run: run("before"), Phase: registrar.Removing, BootID: "boot-0",
			})
		}
		w.ledger.Record(removed)
		w.start()
		w.want("web", 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 2, 3)
		w.called("RegisterTargets web 2 3")
		// Should a registration of before have come late, it is found all the same.
		w.foreign("web", 1)
		w.after(time.Minute)
		w.registered("web", 2, 3)
		w.after(10 * time.Minute)
		if n := len(w.ledger.Entries()); n != 2 {
			t.Errorf("the ledger holds %d entries; want those of what is registered", n)
		}
	}, web())
}
