package wire

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// MaxBody is the largest request that is read.
const MaxBody = 1 << 20

// Form is the body of an awsQuery call, or the part of it below a prefix.
type Form struct {
	values url.Values
	prefix string
}

// ParseForm reads a form body. It is stricter than net/http, which drops what it cannot read.
func ParseForm(body string) (Form, *Error) {
	if len(body) > MaxBody {
		return Form{}, ErrValidation("Request is too large: the limit is %d bytes", MaxBody)
	}
	values, err := url.ParseQuery(body)
	if err != nil {
		return Form{}, ErrValidation("Request is not a well-formed form: %v", err)
	}
	return Form{values: values}, nil
}

// Text returns a member, or "".
func (f Form) Text(name string) string { return f.values.Get(f.prefix + name) }

// Has reports whether the member was sent.
func (f Form) Has(name string) bool { return f.values.Has(f.prefix + name) }

// Required returns a member that must be there.
func (f Form) Required(name string) (string, *Error) {
	if v := f.Text(name); v != "" {
		return v, nil
	}
	return "", ErrMissing(name)
}

// Number returns an integer member within limits, or 0 if it was not sent.
func (f Form) Number(name string, low, high int) (int, *Error) {
	if !f.Has(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(f.Text(name))
	if err != nil {
		return 0, ErrValidation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must be an integer", Clip(f.Text(name)), member(name))
	}
	if n < low || n > high {
		return 0, ErrRange(name, n, low, high)
	}
	return n, nil
}

// Boolean returns a boolean member, or the default if it was not sent.
func (f Form) Boolean(name string, otherwise bool) (bool, *Error) {
	switch v := f.Text(name); v {
	case "":
		return otherwise, nil
	case "true", "false":
		return v == "true", nil
	default:
		return false, ErrValidation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must be a boolean", Clip(v), member(name))
	}
}

// List returns the members of a list of structures, in the order of their numbers.
func (f Form) List(name string) ([]Form, *Error) {
	numbers, err := f.numbers(name)
	if err != nil {
		return nil, err
	}
	out := make([]Form, len(numbers))
	for i, n := range numbers {
		out[i] = Form{f.values, fmt.Sprintf("%s%s.member.%s.", f.prefix, name, n)}
	}
	return out, nil
}

// Texts returns the members of a list of strings, in the order of their numbers.
func (f Form) Texts(name string) ([]string, *Error) {
	numbers, err := f.numbers(name)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(numbers))
	for i, n := range numbers {
		out[i] = f.Text(name + ".member." + n)
	}
	return out, nil
}

// numbers returns the numbers, as written, of a list's members, in numeric order. Gaps are allowed, as in AWS.
func (f Form) numbers(name string) ([]string, *Error) {
	type numbered struct {
		text string
		n    int
	}
	prefix := f.prefix + name + ".member."
	seen := map[string]bool{}
	var found []numbered
	for key := range f.values {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		text, _, _ := strings.Cut(rest, ".")
		if seen[text] {
			continue
		}
		seen[text] = true
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, ErrValidation("'%s' is not a member of a list", Clip(key))
		}
		found = append(found, numbered{text, n})
	}
	slices.SortFunc(found, func(a, b numbered) int { return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(a.text, b.text)) })
	out := make([]string, len(found))
	for i, f := range found {
		out[i] = f.text
	}
	return out, nil
}

// member spells a member's name as AWS's validation errors do: "TargetGroupArn" becomes "targetGroupArn".
func member(name string) string {
	if name == "" {
		return name
	}
	return strings.ToLower(name[:1]) + name[1:]
}

// Clip shortens what is quoted in an error.
func Clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
