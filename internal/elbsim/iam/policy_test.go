package iam

import (
	"testing"
)

func TestWildcard(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"a*c", "abbc", true},
		{"a*c", "ab", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"*a*b*", "xxaxxbxx", true},
		{"*ab", "aab", true},
		{"a**", "a", true},
		{"targetgroup/web/*", "targetgroup/web2/1", false},
		{"/img/*", "/img/a/b.png", true},
	} {
		if got := wildcard(test.pattern, test.s); got != test.want {
			t.Errorf("wildcard(%q, %q): got %v; want %v", test.pattern, test.s, got, test.want)
		}
	}
}
