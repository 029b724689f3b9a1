package status

import (
	"fmt"
	"slices"
	"strings"

	"berth/pkg/registrar"
)

// minIDPrefix is the shortest beginning of an id that is taken for one; what is shorter is a name.
const minIDPrefix = 4

// shownAs is what a container is called in messages: as it was named, but by its name where an id was given.
func shownAs(ref, id, name string) string {
	if name != "" && len(ref) >= minIDPrefix && strings.HasPrefix(id, ref) {
		return name
	}
	return ref
}

// AmbiguousError says that what was given for a container's id is the beginning of several.
type AmbiguousError struct {
	Ref        string
	Containers int
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q is the beginning of %d containers' ids; write more of it", e.Ref, e.Containers)
}

// RowsOf returns the rows of the container that ref names: by name, else by id or the beginning of one. A name may be
// that of several containers, when one has replaced another whose targets are still draining; a beginning that fits
// several containers is an *AmbiguousError.
func RowsOf(rows []Row, ref string) ([]Row, error) {
	var byName, byID []Row
	ids := map[string]struct{}{}
	for i := range rows {
		id, name := rows[i].Run.ID, rows[i].Run.Name
		if name != "" && name == strings.TrimPrefix(ref, "/") {
			byName = append(byName, rows[i])
		}
		if len(ref) >= minIDPrefix && strings.HasPrefix(id, ref) {
			byID = append(byID, rows[i])
			ids[id] = struct{}{}
		}
	}
	switch {
	case len(byName) > 0:
		return byName, nil
	case len(ids) > 1:
		return nil, &AmbiguousError{Ref: ref, Containers: len(ids)}
	default:
		return byID, nil
	}
}

// RowsIn returns those of RowsOf that are about one group, or about the container as a whole; all where group is empty.
func RowsIn(rows []Row, ref, group string) ([]Row, error) {
	of, err := RowsOf(rows, ref)
	return slices.DeleteFunc(of, func(r Row) bool { return group != "" && r.Group != "" && r.Group != group }), err
}

// GroupNamed returns the group of that key or label; nil where there is none.
func GroupNamed(s *V1, label string) *GroupV1 {
	for i := range s.Groups {
		if g := &s.Groups[i]; slices.Contains(g.Keys, label) || g.Label() == label {
			return g
		}
	}
	return nil
}

// GroupOf returns the group that a key names; nil where there is none.
func GroupOf(s *registrar.Snapshot, key string) *registrar.GroupStatus {
	for i := range s.Groups {
		if slices.Contains(s.Groups[i].Keys, key) {
			return &s.Groups[i]
		}
	}
	return nil
}
