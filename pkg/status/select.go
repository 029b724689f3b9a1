package status

import (
	"fmt"
	"strings"
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
