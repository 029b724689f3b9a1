// Package exact judges whether target groups are exact: all that should be registered is, nothing else is, and what is
// somebody else's was left alone. What should be registered, and for how long it may be otherwise, is for each test to say.
package exact

import (
	"fmt"
	"slices"
	"strings"

	"berth/internal/elbsim"
	"berth/pkg/target"
)

// Targets are targets by group, under whatever name the test has for it.
type Targets map[string][]target.Target

// Place is a target in a group.
type Place struct {
	Group  string
	Target target.Target
}

// String returns "i-0123456789abcdef0:32768 in web".
func (p Place) String() string { return p.Target.String() + " in " + p.Group }

// Compare orders places by group.
func (p Place) Compare(o Place) int {
	if c := strings.Compare(p.Group, o.Group); c != 0 {
		return c
	}
	return p.Target.Compare(o.Target)
}

// Registered returns what is registered in groups of an account, which are called by name or ARN.
func Registered(sim *elbsim.Sim, groups ...string) Targets {
	out := Targets{}
	for _, g := range groups {
		out[g] = sim.Registered(g)
	}
	return out
}

// Diff is how groups differ from what they should be, in order.
type Diff struct {
	Missing []Place // should be registered, and are not
	Stale   []Place // are registered, and should not be
	Gone    []Place // somebody else's, which should have stayed, and did not
}

// Compare compares what is registered with what should be: ours, and what is foreign and stays. A group that only one of
// them names counts as empty in the others.
func Compare(registered, ours, foreign Targets) Diff {
	left := map[Place]int{}
	for g, targets := range registered {
		for _, t := range targets {
			left[Place{g, t}]++
		}
	}
	var d Diff
	take := func(from Targets, lacking *[]Place) {
		for g, targets := range from {
			for _, t := range targets {
				p := Place{g, t}
				if left[p] == 0 {
					*lacking = append(*lacking, p)
					continue
				}
				left[p]--
			}
		}
		slices.SortFunc(*lacking, Place.Compare)
	}
	take(ours, &d.Missing)
	take(foreign, &d.Gone)
	for p, n := range left {
		d.Stale = append(d.Stale, slices.Repeat([]Place{p}, n)...)
	}
	slices.SortFunc(d.Stale, Place.Compare)
	return d
}

// Err returns nil if the groups are exact, else an error that names every target that is wrong.
func (d Diff) Err() error {
	var wrong []string
	for _, part := range []struct {
		what   string
		places []Place
	}{{"not registered", d.Missing}, {"registered and should not be", d.Stale}, {"somebody else's and gone", d.Gone}} {
		if len(part.places) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %v", part.what, part.places))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("not exact: %s", strings.Join(wrong, "; "))
}

// Foreign returns the targets that a call registers or deregisters and that are not ours. A call of another kind touches
// none.
func Foreign(c *elbsim.Call, ours func(target.Target) bool) []target.Target {
	if c.Action != "RegisterTargets" && c.Action != "DeregisterTargets" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Targets), ours)
}
