package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Change is one scalar key whose value differs between two configurations.
type Change struct {
	Key      string
	Old, New string
	// Origin is where the new value comes from.
	Origin string
	// Reload reports whether a running agent takes the new value over.
	Reload bool
}

// Changes returns the scalar keys that differ, in the order of the documentation. Groups are not among them: a
// running agent takes any change of groups over.
func Changes(old, updated *Config) []Change {
	var out []Change
	for _, s := range settings {
		a, b := s.value(old).String(), s.value(updated).String()
		if a != b {
			out = append(out, Change{Key: s.key, Old: a, New: b, Origin: updated.Origin(s.key), Reload: s.reload})
		}
	}
	return out
}

// CheckReload reports whether a running agent can go from old to updated without a restart. Its error joins a line
// for every key that cannot change, since a change that was taken without effect would be a lie, and for every file that
// named groups and says nothing any more: it is more likely half written, or on a disk that is full, than meant to empty
// them. A file of conf.d that was removed is meant.
func CheckReload(old, updated *Config) error {
	var errs []error
	for _, f := range old.Files {
		named := slices.DeleteFunc(old.groupsOf(f), func(key string) bool {
			return slices.ContainsFunc(updated.Groups, func(g Group) bool { return g.Key == key }) // another file names it now
		})
		switch {
		case len(named) == 0, updated.saying[f]:
		case slices.Contains(updated.Files, f):
			errs = append(errs, fmt.Errorf("%s: is empty, and named %s: write target_groups: {} to let go of them, or restart berth", f, strings.Join(named, ", ")))
		case f == old.main:
			errs = append(errs, fmt.Errorf("%s: is gone, and named %s: restart berth to let go of them", f, strings.Join(named, ", ")))
		}
	}
	for _, c := range Changes(old, updated) {
		if !c.Reload {
			errs = append(errs, fmt.Errorf("%s: %s: %q: cannot change from %q on reload: restart berth (targets stay)", c.Origin, c.Key, c.New, c.Old))
		}
	}
	return errors.Join(errs...)
}

// groupsOf returns the keys of the groups that a file names first.
func (c *Config) groupsOf(file string) []string {
	var keys []string
	for _, g := range c.Groups {
		if strings.HasPrefix(g.Source, file+":") {
			keys = append(keys, g.Key)
		}
	}
	return keys
}
