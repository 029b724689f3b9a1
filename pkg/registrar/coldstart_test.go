package registrar_test

import (
	"fmt"
	"testing"
	"time"
)

// While nobody throttles, a host with many groups looks each up, and at each, five times a second: before that it can
// register nothing.
func TestRegistrar_coldStartOfManyGroups(t *testing.T) {
	for _, n := range []int{50, 100} {
		t.Run(fmt.Sprintf("%d groups", n), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				var wants []any
				for i := range n {
					wants = append(wants, fmt.Sprintf("g%02d", i), 100+i)
				}
				begun := time.Now()
				w.want(wants...)
				tried := func() (tried int) {
					s, _ := w.reg.Snapshot()
					for _, g := range s.Groups {
						if g.Tried {
							tried++
						}
					}
					return tried
				}
				for tried() < n && time.Since(begun) < time.Hour {
					w.after(time.Second)
				}
				// Two calls a group, five a second, and as long again for what stands in between.
				if took, most := time.Since(begun), time.Duration(n)*2*time.Second/5*2; took > most {
					t.Errorf("all groups were looked at after %s; want at most %s", took, most)
				}
			}, numbered(n)...)
		})
	}
}
