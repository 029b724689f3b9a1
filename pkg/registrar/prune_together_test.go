package registrar_test

import (
	"sync"
	"testing"
	"time"

	"berth/pkg/target"
)

// Several people prune at once, each some of the unclaimed targets, while the reconciler takes in what was asked first: all
// that anybody named are deregistered, and the race detector sees nothing: the list that the reconciler has been given does
// not change.
func TestRegistrar_Prune_together(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var ports []int
		for i := range 400 {
			ports = append(ports, 100+i)
		}
		w.foreign("web", ports...)
		w.start()
		w.want()
		w.after(5 * time.Second)
		unclaimed := w.group("web").Unclaimed
		if len(unclaimed) != len(ports) {
			t.Fatalf("%d unclaimed targets; want %d", len(unclaimed), len(ports))
		}
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				for range 20 {
					for j := i; j < len(unclaimed); j += 4 {
						w.reg.Prune("web", []target.Target{unclaimed[j]})
					}
				}
			})
		}
		all.Wait()
		w.after(10 * time.Minute)
		if left := w.group("web").Unclaimed; len(left) > 0 {
			t.Errorf("%d of %d targets were not pruned", len(left), len(unclaimed))
		}
		w.foreignStands("web")
	}, web())
}
