package discovery

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

func tcp(port uint16) target.PortProto { return target.PortProto{Port: port} }

func udp(port uint16) target.PortProto { return target.PortProto{Port: port, Protocol: target.UDP} }

func TestParseTargets(t *testing.T) {
	for value, want := range map[string][]Claim{
		"":                     nil,
		"  ":                   nil,
		"web":                  {{Group: "web"}},
		" web ":                {{Group: "web"}},
		"web:8080":             {{"web", tcp(8080)}},
		"web:8080/tcp":         {{"web", tcp(8080)}},
		"web:53/UDP":           {{"web", udp(53)}},
		"web:8080,admin:9090":  {{"web", tcp(8080)}, {"admin", tcp(9090)}},
		"web:8080, admin:9090": {{"web", tcp(8080)}, {"admin", tcp(9090)}},
		"web:80,web:81":        {{"web", tcp(80)}, {"web", tcp(81)}},
		"web:53/tcp,web:53/udp": {
			{"web", tcp(53)}, {"web", udp(53)},
		},
		"web,web,web:80,web:80/tcp": {{Group: "web"}, {"web", tcp(80)}},
		"a.b_c-1":                   {{Group: "a.b_c-1"}},
		"web:65535":                 {{"web", tcp(65535)}},
	} {
		got, err := ParseTargets(value)
		if err != nil {
			t.Errorf("ParseTargets(%q): %v", value, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseTargets(%q) (-want +got):\n%s", value, diff)
		}
	}
}

func TestParseTargets_malformed(t *testing.T) {
	for value, mention := range map[string]string{
		",":                                  "comma",
		"web,":                               "comma",
		",web":                               "comma",
		"web,,api":                           "comma",
		":8080":                              `":8080"`,
		"web:":                               `"web:"`,
		"web:0":                              "65535",
		"web:65536":                          "65535",
		"web:-1":                             "65535",
		"web:+80":                            "65535",
		"web:http":                           "65535",
		"web:80:81":                          "65535",
		"web:80/":                            "/tcp or /udp",
		"web:80/icmp":                        "/tcp or /udp",
		"web:80/sctp":                        "tcp and udp alone",
		"web 80":                             "letters, digits",
		"we/b":                               "letters, digits",
		"-web":                               "letters, digits",
		"wéb":                                "letters, digits",
		"web\x00":                            "letters, digits",
		"\x1b[31mweb":                        "letters, digits",
		strings.Repeat("w", 65):              "letters, digits",
		strings.Repeat("x", maxLabelBytes+1): "bytes long",
		many(maxClaims + 1):                  "more than 1000",
	} {
		claims, err := ParseTargets(value)
		var le *LabelError
		if !errors.As(err, &le) || claims != nil {
			t.Errorf("ParseTargets(%s): got %v, %v; want a LabelError and no claims", quote(value), claims, err)
			continue
		}
		if !strings.Contains(err.Error(), mention) {
			t.Errorf("ParseTargets(%s): the error %q does not mention %q", quote(value), err, mention)
		}
		if strings.ContainsAny(err.Error(), "\x00\x1b\n") || len(err.Error()) > 400 {
			t.Errorf("ParseTargets(%s): the error is not fit to be shown: %q", quote(value), err)
		}
	}
	if claims, err := ParseTargets(many(maxClaims)); err != nil || len(claims) != maxClaims {
		t.Errorf("%d claims: got %d, %v", maxClaims, len(claims), err)
	}
}

// many is a label of n different claims.
func many(n int) string { return manyOf("g", n) }

func manyOf(group string, n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = Claim{Group: group, Port: tcp(uint16(i + 1))}.String()
	}
	return strings.Join(parts, ",")
}

// Whatever a label holds, it is read or refused; what was read can be written and read again, and names only groups and
// ports that exist.
func FuzzLabels(f *testing.F) {
	for _, s := range []string{"", "web", "web:8080,admin:9090/tcp", "web:53/udp", "web:", ",", "a:1/tcp,a:1/udp", "\xff", "w:0", " w : 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		claims, err := ParseTargets(value)
		if err != nil {
			var le *LabelError
			if !errors.As(err, &le) || claims != nil {
				t.Fatalf("got %v, %v; want nothing but a LabelError", claims, err)
			}
			return
		}
		if optOut := strings.TrimSpace(value) == ""; optOut != (claims == nil) {
			t.Fatalf("opt out %t, but claims %v", optOut, claims)
		}
		parts := make([]string, len(claims))
		for i, c := range claims {
			if !validGroupKey(c.Group) || c.Port.Protocol > target.UDP {
				t.Fatalf("claim %+v", c)
			}
			parts[i] = c.String()
		}
		again, err := ParseTargets(strings.Join(parts, ","))
		if err != nil || !slices.Equal(again, claims) {
			t.Fatalf("written and read again: got %v, %v; want %v", again, err, claims)
		}
		// The whole decision, not only the grammar, has to stand any label.
		Resolve(Input{
			Containers: []Container{{Facts: &Facts{ID: "c", State: "running", Labels: map[string]string{TargetsLabel: value}}}},
			Rules:      []Rule{{Group: "web"}},
		})
	})
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"web", "web", true},
		{"web", "web-1", false},
		{"web-*", "web-1", true},
		{"web-*", "web-", true},
		{"web-*", "web", false},
		{"*", "", true},
		{"*", "a/b:c", true},
		{"**", "x", true},
		{"*-1", "web-1", true},
		{"*-1", "web-11", false},
		{"registry.example.com/web:*", "registry.example.com/web:v1.2", true},
		{"registry.example.com/web:*", "registry.example.com/web2:v1", false},
		{"registry.example.com/*:prod", "registry.example.com/team/web:prod", true},
		{"a*b*c", "aXbXbc", true},
		{"a*b*c", "aXbXb", false},
		{"w?b", "web", false},
		{"[a-z]", "q", false},
		{`\*`, `\x`, true},
		{"*a*a*a*a*b", strings.Repeat("a", 50), false},
	} {
		if got := Glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("Glob(%q, %q): got %t; want %t", tc.pattern, tc.s, got, tc.want)
		}
	}
}

// A pattern can be no trap: time grows with the product of both lengths at most.
func FuzzGlob(f *testing.F) {
	f.Add("a*b", "aab")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := Glob(pattern, s)
		if !strings.Contains(pattern, "*") && got != (pattern == s) {
			t.Errorf("Glob(%q, %q) without a star: got %t", pattern, s, got)
		}
		if got && !Glob("*"+pattern, s) || got && !Glob(pattern+"*", s) {
			t.Errorf("Glob(%q, %q) matches, but not with another star", pattern, s)
		}
	})
}

func TestMatch(t *testing.T) {
	facts := &Facts{
		Name: "web-1", Image: "registry.example.com/web:v1",
		Labels: map[string]string{"service": "web", "empty": ""},
	}
	for name, tc := range map[string]struct {
		match *Match
		want  bool
	}{
		"no match":               {nil, false},
		"an empty one":           {&Match{}, false},
		"name":                   {&Match{Name: "web-*"}, true},
		"another name":           {&Match{Name: "api-*"}, false},
		"image":                  {&Match{Image: "*/web:*"}, true},
		"label":                  {&Match{Labels: map[string]string{"service": "web"}}, true},
		"label by pattern":       {&Match{Labels: map[string]string{"service": "w*"}}, true},
		"another value":          {&Match{Labels: map[string]string{"service": "api"}}, false},
		"a label it lacks":       {&Match{Labels: map[string]string{"missing": "*"}}, false},
		"a label without value":  {&Match{Labels: map[string]string{"empty": "*"}}, true},
		"all of them":            {&Match{Name: "web-*", Image: "*", Labels: map[string]string{"service": "web"}}, true},
		"one of them does not":   {&Match{Name: "web-*", Image: "*", Labels: map[string]string{"service": "api"}}, false},
		"one label of two fails": {&Match{Labels: map[string]string{"service": "web", "missing": "x"}}, false},
	} {
		if got := tc.match.matches(facts); got != tc.want {
			t.Errorf("%s: got %t; want %t", name, got, tc.want)
		}
	}
}
