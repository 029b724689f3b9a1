// Package iam evaluates IAM policy documents, as far as the stand-in needs them.
package iam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Policy is an identity-based IAM policy document, as far as elbsim evaluates them: Effect, Action, NotAction,
// Resource, NotResource, and conditions on resource tags and the requested region. What it would have to ignore it
// refuses to read.
type Policy struct{ statements []statement }

type statement struct {
	allow      bool
	actions    patterns
	resources  patterns
	conditions []condition
}

// patterns are wildcards; except turns them into all but these.
type patterns struct {
	globs  []string
	except bool
}

func (p patterns) match(s string, fold bool) bool { return MatchAny(p.globs, s, fold) != p.except }

// MatchAny reports whether one of the wildcards matches s; fold ignores case.
func MatchAny(globs []string, s string, fold bool) bool {
	return slices.ContainsFunc(globs, func(g string) bool {
		if fold {
			return wildcard(strings.ToLower(g), strings.ToLower(s))
		}
		return wildcard(g, s)
	})
}

// condition is one line of a Condition block: any of the values satisfies it, or none of them where it is negated.
type condition struct {
	operator string
	key      string
	values   []string
}

// Load reads a policy document from a file.
func Load(file string) (*Policy, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	p, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", file, err)
	}
	return p, nil
}

// oneOrMore is IAM's way to write a list: a single value or an array.
type oneOrMore[T any] []T

// UnmarshalJSON reads a value or an array of values.
func (l *oneOrMore[T]) UnmarshalJSON(b []byte) error {
	strict := json.NewDecoder(bytes.NewReader(b))
	strict.DisallowUnknownFields()
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) {
		return strict.Decode((*[]T)(l))
	}
	var one T
	if err := strict.Decode(&one); err != nil {
		return err
	}
	*l = oneOrMore[T]{one}
	return nil
}

type policyStatement struct {
	Sid, Effect           string
	Action, NotAction     oneOrMore[string]
	Resource, NotResource oneOrMore[string]
	Condition             map[string]map[string]oneOrMore[string]
}

// Parse reads a policy document.
func Parse(document []byte) (*Policy, error) {
	var doc struct {
		Version   string
		ID        string `json:"Id"`
		Statement oneOrMore[policyStatement]
	}
	decoder := json.NewDecoder(strings.NewReader(string(document)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("parse policy: %w", err)
	}
	if len(doc.Statement) == 0 {
		return nil, fmt.Errorf("parse policy: Statement: missing")
	}
	p := &Policy{}
	for i, raw := range doc.Statement {
		s, err := raw.compile()
		if err != nil {
			return nil, fmt.Errorf("parse policy: Statement[%d]: %w", i, err)
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

func (raw policyStatement) compile() (statement, error) {
	s := statement{allow: raw.Effect == "Allow"}
	if !s.allow && raw.Effect != "Deny" {
		return s, fmt.Errorf("effect %q: must be Allow or Deny", raw.Effect)
	}
	var err error
	if s.actions, err = onePattern("Action", raw.Action, raw.NotAction); err != nil {
		return s, err
	}
	if s.resources, err = onePattern("Resource", raw.Resource, raw.NotResource); err != nil {
		return s, err
	}
	for operator, lines := range raw.Condition {
		if !slices.Contains([]string{"StringEquals", "StringNotEquals", "StringLike", "StringNotLike"}, operator) {
			return s, fmt.Errorf("condition %s: elbsim does not evaluate this operator", operator)
		}
		for key, values := range lines {
			if !knownConditionKey(key) {
				return s, fmt.Errorf("condition %s on %s: elbsim does not know this key", operator, key)
			}
			s.conditions = append(s.conditions, condition{operator, key, values})
		}
	}
	return s, nil
}

func onePattern(name string, plain, not oneOrMore[string]) (patterns, error) {
	if (len(plain) == 0) == (len(not) == 0) {
		return patterns{}, fmt.Errorf("%s: exactly one of %s and Not%s is needed", name, name, name)
	}
	for _, glob := range slices.Concat(plain, not) {
		if strings.Contains(glob, "${") {
			return patterns{}, fmt.Errorf("%s %q: elbsim does not expand policy variables", name, glob)
		}
	}
	if len(not) > 0 {
		return patterns{not, true}, nil
	}
	return patterns{plain, false}, nil
}

var tagKeys = []string{"aws:ResourceTag/", "elasticloadbalancing:ResourceTag/"}

func knownConditionKey(key string) bool {
	return key == "aws:RequestedRegion" || slices.ContainsFunc(tagKeys, func(p string) bool { return strings.HasPrefix(key, p) })
}

// Allows reports whether the policy allows the action on the resource, which has these tags, in this region; if not,
// explicit reports whether a statement denies it.
func (p *Policy) Allows(action, resource string, tags map[string]string, region string) (allowed, explicit bool) {
	for _, st := range p.statements {
		if !st.actions.match(action, true) || !st.resources.match(resource, false) || !st.satisfied(tags, region) {
			continue
		}
		if !st.allow {
			return false, true
		}
		allowed = true
	}
	return allowed, false
}

// Len returns the number of statements.
func (p *Policy) Len() int { return len(p.statements) }

func (st *statement) satisfied(tags map[string]string, region string) bool {
	for _, c := range st.conditions {
		value, there := region, true
		for _, prefix := range tagKeys {
			if tag, ok := strings.CutPrefix(c.key, prefix); ok {
				value, there = tags[tag]
			}
		}
		hit := there && slices.ContainsFunc(c.values, func(v string) bool {
			if strings.HasSuffix(c.operator, "Like") {
				return wildcard(v, value)
			}
			return v == value
		})
		if hit == strings.Contains(c.operator, "Not") {
			return false
		}
	}
	return true
}

// wildcard matches IAM's patterns and those of listener rules: * is any run of characters, slashes included, ? is any
// one.
func wildcard(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
