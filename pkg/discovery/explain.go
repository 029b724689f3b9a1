package discovery

import (
	"fmt"
	"maps"
	"slices"
)

// Mismatch says why the rule does not take a container by itself: the first of its conditions that fails, in one
// sentence. It is empty where it does take it. A rule without conditions takes nothing: labels alone name its group.
func (r *Rule) Mismatch(f *Facts) string {
	m := r.Match
	switch {
	case m == nil || m.empty():
		return "it has no rule: labels alone bring containers in"
	case m.Image != "" && !Glob(m.Image, f.Image):
		return fmt.Sprintf("its rule wants image %s, and the container's is %s", quote(m.Image), quote(f.Image))
	case m.Name != "" && !Glob(m.Name, f.Name):
		return fmt.Sprintf("its rule wants name %s, and the container's is %s", quote(m.Name), quote(f.Name))
	}
	for _, key := range slices.Sorted(maps.Keys(m.Labels)) {
		value, ok := f.Labels[key]
		if !ok {
			return fmt.Sprintf("its rule wants label %s, which the container does not have", quote(key))
		}
		if !Glob(m.Labels[key], value) {
			return fmt.Sprintf("its rule wants label %s to be %s, and it is %s", quote(key), quote(m.Labels[key]), quote(value))
		}
	}
	return ""
}
