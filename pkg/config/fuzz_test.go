package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Whatever the files, a variable and a flag say: no panic, and either a configuration that keeps every promise of its
// documentation or errors that each name a place, on one printable line, in order.
func FuzzLoad(f *testing.F) {
	shipped, err := os.ReadFile("../../deploy/berth.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(shipped), "", "", "")
	f.Add(uncommented(string(shipped)), "", "", "")
	f.Add("target_groups: {web: {arn: \""+testARN+"\"}}", "region: eu-central-1", "debug", "")
	f.Add("", "", "loud", "web")
	f.Add("#", "", "", testARN)
	f.Add("a: &x [*x, !!str 5, ? {}, |\n x]\n<<: *x\n---\n%YAML", "- [", "", "a,b,a")
	f.Add("log:\n  level: info\n  level: warn\n\x00", "target_groups:\n  a:\n    containers: {labels: {a: ''}}\n", "", "")
	f.Add("target_groups:\n  a: {labels: false, containers: {name: '*'}, container_port: 53/udp}\n", "target_groups: {b: {name: a, ownership: instance}}", "", "")
	f.Fuzz(func(t *testing.T, main, extra, level, groups string) {
		const extraFile = "/etc/berth/conf.d/a.yaml"
		files := []file{{mainFile, []byte(main)}, {extraFile, []byte(extra)}}
		o := Options{Getenv: env("BERTH_LOG_LEVEL", level, "BERTH_TARGET_GROUP", groups)}
		c, err := parse(o, mainFile, files, nil)
		again, errAgain := parse(o, mainFile, files, nil)
		if (err == nil) != (errAgain == nil) || err != nil && err.Error() != errAgain.Error() {
			t.Errorf("not the same twice:\n%v\n%v", err, errAgain)
		}
		if err == nil {
			if diff := cmp.Diff(c, again, cmpopts.IgnoreUnexported(Config{})); diff != "" {
				t.Errorf("not the same twice:\n%s", diff)
			}
			checkConfig(t, c)
			return
		}
		count := func(s string) int { // YAML's line breaks are LF, CR LF, and CR
			return 1 + strings.Count(s, "\n") + strings.Count(s, "\r") - strings.Count(s, "\r\n")
		}
		lines := map[string]int{mainFile: count(main), extraFile: count(extra)}
		checkErrors(t, err, lines)
	})
}

// checkConfig holds a configuration against what its fields promise.
func checkConfig(t *testing.T, c *Config) {
	t.Helper()
	if len(c.Groups) == 0 {
		t.Error("no groups")
	}
	for _, s := range settings {
		// A value that was accepted is one that is accepted again as it prints.
		printed := s.value(c).String()
		if printed == "" {
			continue // instance_id and region may be left out
		}
		if err := s.value(Default()).set(printed); err != nil {
			t.Errorf("%s: %q: %v", s.key, printed, err)
		}
	}
	for i, g := range c.Groups {
		if i > 0 && c.Groups[i-1].Key >= g.Key {
			t.Errorf("groups %s and %s are not in order", c.Groups[i-1].Key, g.Key)
		}
		if (g.Name == "") == (g.ARN == "") {
			t.Errorf("group %s: name %q and ARN %q", g.Key, g.Name, g.ARN)
		}
		if g.Source == "" || !keyPattern.MatchString(g.Key) || g.Name != "" && checkName(g.Name) != nil {
			t.Errorf("group %+v", g)
		}
		if _, err := ParseARN(g.ARN); g.ARN != "" && err != nil {
			t.Errorf("group %s: %v", g.Key, err)
		}
		if r := g.Containers; r != nil && r.Image == "" && r.Name == "" && len(r.Labels) == 0 {
			t.Errorf("group %s has an empty rule", g.Key)
		}
		if !g.Labels && g.Containers == nil {
			t.Errorf("group %s can never get a target", g.Key)
		}
	}
}

// checkErrors holds joined errors against their promise. lines is the number of lines of each file.
func checkErrors(t *testing.T, err error, lines map[string]int) {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("not joined: %v", err)
	}
	var last *Error
	for _, err := range joined.Unwrap() {
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		n, isFile := lines[e.Source]
		switch {
		case isFile && (e.Line < 1 || e.Line > n):
			t.Errorf("line %d of %d: %v", e.Line, n, e)
		case !isFile && (e.Line != 0 || !strings.HasPrefix(e.Source, "BERTH_") && !strings.HasPrefix(e.Source, "--")):
			t.Errorf("names no place: %v", e)
		case e.Rule == "":
			t.Errorf("names no rule: %v", e)
		case last != nil && (last.Source > e.Source || last.Source == e.Source && last.Line > e.Line):
			t.Errorf("%v comes before %v", last, e)
		}
		if text := e.Error(); !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("not one printable line: %q", text)
		}
		last = e
	}
}

// uncommented makes a shipped file's commented settings count: "#key:" is one, "# text" is prose.
func uncommented(s string) string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		if rest, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(rest, " ") && rest != "" {
			line = rest
		} else if rest, ok := strings.CutPrefix(line, "#  "); ok {
			line = "  " + rest
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// The fuzzed functions bypass the disk; once, the same goes through it.
func TestLoad_sameFromDisk(t *testing.T) {
	const content = "target_groups: {web: {name: web-prod}}\n"
	dir := write(t, map[string]string{"berth.yaml": content})
	fromDisk, err := Load(Options{ConfigPath: filepath.Join(dir, "berth.yaml"), Getenv: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	inMemory, err := fromText(content, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ignore := cmp.Options{cmpopts.IgnoreUnexported(Config{}), cmpopts.IgnoreFields(Config{}, "Files"), cmpopts.IgnoreFields(Group{}, "Source")}
	if diff := cmp.Diff(inMemory, fromDisk, ignore); diff != "" {
		t.Errorf("-memory +disk:\n%s", diff)
	}
}
