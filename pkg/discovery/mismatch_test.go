package discovery

import (
	"strings"
	"testing"
)

// Mismatch finds something exactly where the rule does not match.
func TestRule_Mismatch(t *testing.T) {
	f := &Facts{Name: "web-1", Image: "registry.example.com/web:3", Labels: map[string]string{"service": "web"}}
	for _, test := range []struct {
		name  string
		match *Match
		want  string // a part of the sentence; empty: it matches
	}{
		{"no rule", nil, "labels alone"},
		{"empty rule", &Match{}, "labels alone"},
		{"image", &Match{Image: "*/api:*"}, `image "*/api:*", and the container's is "registry.example.com/web:3"`},
		{"name", &Match{Image: "*", Name: "api-*"}, `name "api-*"`},
		{"label missing", &Match{Labels: map[string]string{"tier": "*"}}, `label "tier", which`},
		{"label differs", &Match{Labels: map[string]string{"service": "api"}}, `to be "api", and it is "web"`},
		{"all match", &Match{Image: "*web:*", Name: "web-*", Labels: map[string]string{"service": "w*"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			rule := &Rule{Match: test.match}
			got := rule.Mismatch(f)
			if !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("got %q; want %q in it", got, test.want)
			}
			if test.match.matches(f) != (got == "") {
				t.Errorf("the rule matches: %v, and the sentence is %q", test.match.matches(f), got)
			}
		})
	}
}
