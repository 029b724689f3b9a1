package elbsim

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxBody is the largest request that is read.
const maxBody = 1 << 20

// form is the body of an awsQuery call, or the part of it below a prefix.
type form struct {
	values url.Values
	prefix string
}

// parseForm reads a form body. It is stricter than net/http, which drops what it cannot read.
func parseForm(body string) (form, *APIError) {
	if len(body) > maxBody {
		return form{}, errValidation("Request is too large: the limit is %d bytes", maxBody)
	}
	values, err := url.ParseQuery(body)
	if err != nil {
		return form{}, errValidation("Request is not a well-formed form: %v", err)
	}
	return form{values: values}, nil
}

// text returns a member, or "".
func (f form) text(name string) string { return f.values.Get(f.prefix + name) }

// has reports whether the member was sent.
func (f form) has(name string) bool { return f.values.Has(f.prefix + name) }

// required returns a member that must be there.
func (f form) required(name string) (string, *APIError) {
	if v := f.text(name); v != "" {
		return v, nil
	}
	return "", errMissing(name)
}

// number returns an integer member within limits, or 0 if it was not sent.
func (f form) number(name string, low, high int) (int, *APIError) {
	if !f.has(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(f.text(name))
	if err != nil {
		return 0, errValidation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must be an integer", clip(f.text(name)), member(name))
	}
	if n < low || n > high {
		return 0, errRange(name, n, low, high)
	}
	return n, nil
}

// boolean returns a boolean member, or the default if it was not sent.
func (f form) boolean(name string, otherwise bool) (bool, *APIError) {
	switch v := f.text(name); v {
	case "":
		return otherwise, nil
	case "true", "false":
		return v == "true", nil
	default:
		return false, errValidation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must be a boolean", clip(v), member(name))
	}
}

// list returns the members of a list of structures, in the order of their numbers.
func (f form) list(name string) ([]form, *APIError) {
	numbers, err := f.numbers(name)
	if err != nil {
		return nil, err
	}
	out := make([]form, len(numbers))
	for i, n := range numbers {
		out[i] = form{f.values, fmt.Sprintf("%s%s.member.%s.", f.prefix, name, n)}
	}
	return out, nil
}

// texts returns the members of a list of strings, in the order of their numbers.
func (f form) texts(name string) ([]string, *APIError) {
	numbers, err := f.numbers(name)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(numbers))
	for i, n := range numbers {
		out[i] = f.text(name + ".member." + n)
	}
	return out, nil
}

// numbers returns the numbers, as written, of a list's members, in numeric order. Gaps are allowed, as in AWS.
func (f form) numbers(name string) ([]string, *APIError) {
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
			return nil, errValidation("'%s' is not a member of a list", clip(key))
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

// clip shortens what is quoted in an error.
func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
