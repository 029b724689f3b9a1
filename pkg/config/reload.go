package config

import (
	"errors"
	"fmt"
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
// for every key that cannot change: a change that was taken without effect would be a lie.
func CheckReload(old, updated *Config) error {
	var errs []error
	for _, c := range Changes(old, updated) {
		if !c.Reload {
			errs = append(errs, fmt.Errorf("%s: %s: %q: cannot change from %q on reload: restart berth (targets stay)", c.Origin, c.Key, c.New, c.Old))
		}
	}
	return errors.Join(errs...)
}
