package discovery

// Who has been registered before: by an earlier agent, or under another key of the same group.

import (
	"maps"

	"berth/pkg/target"
)

// admittedBefore returns the groups in which an earlier agent has registered this run.
func (s *state) admittedBefore(f Facts) map[string]bool {
	var groups map[string]bool
	run := target.Run{ID: f.ID, StartedAt: f.StartedAt}
	for group, runs := range s.w.opts.Admitted {
		for _, r := range runs {
			if r.Same(run) {
				if groups == nil {
					groups = make(map[string]bool, 1)
				}
				groups[group] = true
			}
		}
	}
	return alsoKnown(groups, s.w.opts.Rules, s.rules)
}

// alsoKnown returns groups, which are of the old rules, with those of the new ones that are the same in AWS: renaming a key
// takes nobody out who was in.
func alsoKnown(groups map[string]bool, old, updated []Rule) map[string]bool {
	known := groups
	for _, before := range old {
		if !groups[before.Group] || before.Name == "" {
			continue
		}
		for _, now := range updated {
			if now.Name == before.Name && !known[now.Group] {
				known = maps.Clone(known)
				known[now.Group] = true
			}
		}
	}
	return known
}
