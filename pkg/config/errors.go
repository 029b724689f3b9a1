package config

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// ErrNoGroups is wrapped by the error of a configuration that names no target group. An agent must not take it for
// an order to deregister everything.
var ErrNoGroups = errors.New("no target group")

// origin is the place where something was written: a file and a line, or a flag or variable (then line is 0).
type origin struct {
	name string
	line int
}

// String returns "/etc/berth/berth.yaml:12", "--listen" or "BERTH_LISTEN".
func (o origin) String() string {
	if o.line == 0 {
		return o.name
	}
	return o.name + ":" + strconv.Itoa(o.line)
}

// Error is one thing that is wrong with the configuration. Load joins all that it finds, sorted by place.
type Error struct {
	// Source is the path of a file, a flag ("--listen") or a variable ("BERTH_LISTEN").
	Source string
	// Line counts from 1; 0 for flags and variables, and for a file that cannot be read at all.
	Line int
	// Key is the whole path of the key ("target_groups.web.name"); empty for flags, variables and whole files.
	Key string
	// Value is the value as written; nil where there is none to show.
	Value *string
	// Rule says what must be so, or what to do.
	Rule string

	cause error
}

// Error returns `/etc/berth/berth.yaml:12: target_groups.web.container_port: "80800": must be a port from 1 to 65535`.
func (e *Error) Error() string {
	parts := []string{origin{e.Source, e.Line}.String()}
	if e.Key != "" {
		parts = append(parts, e.Key)
	}
	if e.Value != nil {
		parts = append(parts, quote(*e.Value))
	}
	return strings.Join(append(parts, e.Rule), ": ")
}

// Unwrap returns ErrNoGroups, or the error of the file system.
func (e *Error) Unwrap() error { return e.cause }

// shownBytes is how much of a value an error repeats.
const shownBytes = 160

// quote makes any bytes printable on one line, and short.
func quote(s string) string {
	if len(s) > shownBytes {
		return strconv.Quote(strings.ToValidUTF8(s[:shownBytes], "")) + "..."
	}
	return strconv.Quote(s)
}

// joinKey appends one key to a path; a key that could be misread is quoted.
func joinKey(path, key string) string {
	for _, r := range key {
		if r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			key = quote(key)
			break
		}
	}
	if key == "" {
		key = `""`
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// problems collects errors. Its methods take the place first, as the errors show it.
type problems []*Error

func (p *problems) key(at origin, key, rule string) {
	*p = append(*p, &Error{Source: at.name, Line: at.line, Key: key, Rule: rule})
}

func (p *problems) value(at origin, key, value, rule string) {
	*p = append(*p, &Error{Source: at.name, Line: at.line, Key: key, Value: &value, Rule: rule})
}

// err joins what was found: files in the order of their names, then by line; flags and variables first.
func (p problems) err() error {
	slices.SortStableFunc(p, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line))
	})
	errs := make([]error, len(p))
	for i, e := range p {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// DidYouMean returns "; did you mean X?" for the candidate nearest to what was written, or nothing if none is near.
func DidYouMean(written string, candidates []string) string {
	if len(written) > 40 {
		return ""
	}
	best, bestDistance := "", 1+(len(written)+1)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(strings.ReplaceAll(written, "-", "_")), strings.ReplaceAll(c, "-", "_")); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
