// Package layout keeps the tree in its rooms: which room may import which, and what a folder may hold. It evaluates
// the import rules of .golangci.yml with depguard's own library, as golangci-lint does, so that a rule that says less
// than it is meant to fails a test instead of letting imports through unseen.
package layout

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/OpenPeeDeeP/depguard/v2"
	"github.com/goccy/go-yaml"
	"golang.org/x/tools/go/analysis"
)

// root is the repository's, seen from this package's directory, where go test runs it.
const root = "../.."

// rule is one of depguard's lists as .golangci.yml has it.
type rule struct {
	ListMode string   `yaml:"list-mode"`
	Files    []string `yaml:"files"`
	Allow    []string `yaml:"allow"`
	Deny     []deny   `yaml:"deny"`
}

type deny struct {
	Pkg  string `yaml:"pkg"`
	Desc string `yaml:"desc"`
}

func (r rule) reason(pkg string) (string, bool) {
	for _, d := range r.Deny {
		if d.Pkg == pkg {
			return d.Desc, true
		}
	}
	return "", false
}

func readRules(t *testing.T) map[string]rule {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Linters struct {
			Enable   []string `yaml:"enable"`
			Settings struct {
				Depguard struct {
					Rules map[string]rule `yaml:"rules"`
				} `yaml:"depguard"`
			} `yaml:"settings"`
			Exclusions struct {
				Rules []struct {
					Linters []string `yaml:"linters"`
					Path    string   `yaml:"path"`
				} `yaml:"rules"`
			} `yaml:"exclusions"`
		} `yaml:"linters"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(file.Linters.Enable, "depguard") {
		t.Error("depguard is not enabled")
	}
	for _, e := range file.Linters.Exclusions.Rules {
		if len(e.Linters) == 0 || slices.Contains(e.Linters, "depguard") {
			t.Errorf("an exclusion (path %q) hides imports; a rule's own files can say so", e.Path)
		}
	}
	rules := file.Linters.Settings.Depguard.Rules
	if len(rules) == 0 {
		t.Fatal("no depguard rules in .golangci.yml")
	}
	return rules
}

// pair is an import in a file; both paths are as the repository writes them.
type pair struct{ file, pkg string }

// verdict is which rules refuse a pair, and why: each rule's name with its reason, "" where a strict list gives none.
type verdict map[string]string

var message = regexp.MustCompile(`^import '([^']*)' is not allowed from list '([^']*)'(?:: (.*))?$`)

// judge runs depguard over pairs, as golangci-lint runs it: the same library, file names that are absolute.
func judge(rules map[string]rule, pairs []pair) (map[pair]verdict, error) {
	base, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	settings := depguard.LinterSettings{}
	for name, r := range rules {
		list := &depguard.List{ListMode: r.ListMode, Allow: slices.Clone(r.Allow), Deny: map[string]string{}}
		for _, f := range r.Files {
			list.Files = append(list.Files, strings.ReplaceAll(f, "${base-path}", base))
		}
		for _, d := range r.Deny {
			list.Deny[d.Pkg] = d.Desc
		}
		settings[name] = list
	}
	analyzer, err := depguard.NewAnalyzer(&settings)
	if err != nil {
		return nil, err
	}

	byFile := map[string][]string{}
	for _, p := range pairs {
		byFile[p.file] = append(byFile[p.file], "import "+strconv.Quote(p.pkg)+"\n")
	}
	verdicts := map[pair]verdict{}
	fset := token.NewFileSet()
	var files []*ast.File
	for name, imports := range byFile {
		f, err := parser.ParseFile(fset, filepath.Join(base, name), "package p\n"+strings.Join(imports, ""), parser.ImportsOnly)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	var unread error
	_, err = analyzer.Run(&analysis.Pass{Analyzer: analyzer, Fset: fset, Files: files, Report: func(d analysis.Diagnostic) {
		m := message.FindStringSubmatch(d.Message)
		name, relErr := filepath.Rel(base, fset.Position(d.Pos).Filename)
		if m == nil || relErr != nil {
			unread = errors.Join(unread, relErr, fmt.Errorf("depguard says something new: %s", d.Message))
			return
		}
		p := pair{filepath.ToSlash(name), m[1]}
		if verdicts[p] == nil {
			verdicts[p] = verdict{}
		}
		verdicts[p][m[2]] = m[3]
	}})
	return verdicts, errors.Join(err, unread)
}

// failures lists where rules contradict arrows, refusals and allowances.
func failures(rules map[string]rule) ([]string, error) {
	rooms := slices.Sorted(maps.Keys(arrows))
	arrow := func(from, to string) pair { return pair{from + "/x.go", "berth/" + to} }
	var pairs []pair
	for _, from := range rooms {
		for _, to := range rooms {
			if from != to {
				pairs = append(pairs, arrow(from, to))
			}
		}
	}
	for _, r := range refusals {
		pairs = append(pairs, pair{r.file, r.pkg})
	}
	for _, a := range allowances {
		pairs = append(pairs, pair{a.file, a.pkg})
	}
	verdicts, err := judge(rules, pairs)
	if err != nil {
		return nil, err
	}

	var failed []string
	failf := func(format string, args ...any) { failed = append(failed, fmt.Sprintf(format, args...)) }
	allowed := func(p pair) {
		for name, reason := range verdicts[p] {
			failf("%s may import %s; rule %s refuses it: %q", p.file, p.pkg, name, reason)
		}
	}
	for _, from := range rooms {
		for _, to := range rooms {
			p := arrow(from, to)
			switch reasons := slices.Collect(maps.Values(verdicts[p])); {
			case from == to:
			case slices.Contains(arrows[from], to):
				allowed(p)
			case len(reasons) == 0:
				failf("%s may not import %s; no rule refuses it", p.file, p.pkg)
			case slices.Contains(reasons, ""):
				failf("%s may not import %s; a rule of %v says so without a reason", p.file, p.pkg, slices.Sorted(maps.Keys(verdicts[p])))
			}
		}
	}
	for _, r := range refusals {
		reason, refused := verdicts[pair{r.file, r.pkg}][r.rule]
		want, known := rules[r.rule].reason(r.deny)
		switch {
		case !refused:
			failf("%s may not import %s; rule %s does not refuse it", r.file, r.pkg, r.rule)
		case r.deny == "" && reason != "":
			failf("rule %s refuses %s in %s for %q; want for not being on its list", r.rule, r.pkg, r.file, reason)
		case r.deny != "" && !known:
			failf("rule %s has no line that denies %s", r.rule, r.deny)
		case reason != want:
			failf("rule %s refuses %s in %s for %q; want %q", r.rule, r.pkg, r.file, reason, want)
		}
	}
	for _, a := range allowances {
		allowed(pair{a.file, a.pkg})
	}
	return failed, nil
}

func TestImports(t *testing.T) {
	failed, err := failures(readRules(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range failed {
		t.Error(f)
	}
}

// Taking anything out of a rule changes what happens to some import of the tables: TestImports then fails when a rule
// is deleted or weakened, and no line of .golangci.yml is without effect.
func TestImports_everyLineDecides(t *testing.T) {
	rules := readRules(t)
	without := func(what, name string, r *rule) {
		t.Helper()
		changed := maps.Clone(rules)
		if r == nil {
			delete(changed, name)
		} else {
			changed[name] = *r
		}
		// A list without packages does not compile: golangci-lint would say so.
		if failed, err := failures(changed); err == nil && len(failed) == 0 {
			t.Errorf("rule %s without %s: nothing changes; add an import that needs it, or take it out", name, what)
		}
	}
	for name, r := range rules {
		without("itself", name, nil)
		for i, f := range r.Files {
			c := r
			c.Files = slices.Delete(slices.Clone(r.Files), i, i+1)
			without("the files "+f, name, &c)
		}
		for i, a := range r.Allow {
			c := r
			c.Allow = slices.Delete(slices.Clone(r.Allow), i, i+1)
			without("allowing "+a, name, &c)
		}
		for i, d := range r.Deny {
			if strings.TrimSpace(d.Desc) == "" {
				t.Errorf("rule %s denies %s and does not say why", name, d.Pkg)
			}
			c := r
			c.Deny = slices.Delete(slices.Clone(r.Deny), i, i+1)
			without("denying "+d.Pkg, name, &c)
			// Of the entries before an import, depguard looks at the nearest one only.
			for _, o := range r.Deny {
				if o.Pkg != d.Pkg && !strings.HasSuffix(d.Pkg, "$") && strings.HasPrefix(o.Pkg, d.Pkg) {
					t.Errorf("rule %s: denying %s hides that it denies %s", name, o.Pkg, d.Pkg)
				}
			}
		}
		if r.ListMode == "strict" {
			c := r
			c.ListMode = "lax"
			without("strict", name, &c)
		}
	}
}

// A rule for a path that no longer exists guards nothing.
func TestImports_pathsExist(t *testing.T) {
	rules := readRules(t)
	files := goFiles(t)
	for _, room := range later {
		if _, err := os.Stat(filepath.Join(root, room)); err == nil {
			t.Errorf("%s exists: take it off the list of rooms that come later", room)
		}
		files = append(files, room+"/x.go")
	}
	const probe = "berth/probe"
	var pairs []pair
	packages := map[string]bool{}
	for _, f := range files {
		pairs = append(pairs, pair{f, probe})
		packages["berth/"+filepath.ToSlash(filepath.Dir(f))+"/"] = true
	}

	for name, r := range rules {
		for _, f := range r.Files {
			glob := strings.TrimPrefix(f, "!")
			found, err := judge(map[string]rule{"probe": {Files: []string{glob}, Deny: []deny{{Pkg: probe}}}}, pairs)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) == 0 {
				t.Errorf("rule %s: %s matches no file", name, f)
			}
		}
		entries := slices.Clone(r.Allow)
		for _, d := range r.Deny {
			entries = append(entries, d.Pkg)
		}
		for _, pkg := range entries {
			if !strings.HasPrefix(pkg, "berth/") {
				continue
			}
			exact, isExact := strings.CutSuffix(pkg, "$")
			exists := packages[exact+"/"]
			for p := range packages {
				exists = exists || !isExact && strings.HasPrefix(p, strings.TrimSuffix(pkg, "/")+"/")
			}
			if !exists {
				t.Errorf("rule %s: there is no package %s", name, pkg)
			}
		}
	}
	for room := range arrows {
		if !packages["berth/"+room+"/"] {
			t.Errorf("arrows: there is no room %s", room)
		}
	}
}

// Every package of the agent and of the stand-in is a room: a new one gets its arrows when it is made.
func TestImports_everyRoomHasArrows(t *testing.T) {
	for _, f := range goFiles(t) {
		room := filepath.ToSlash(filepath.Dir(f))
		top, _, _ := strings.Cut(room, "/")
		if _, ok := arrows[room]; !ok && slices.Contains([]string{"cmd", "internal", "pkg"}, top) {
			t.Errorf("%s: %s is not among the arrows", f, room)
		}
	}
}

// The linter and this test agree about the rules only while both use the same version of depguard.
func TestImports_sameDepguard(t *testing.T) {
	version := regexp.MustCompile(`(?m)^\s*(?:require )?github\.com/OpenPeeDeeP/depguard/v2 (v\S+)`)
	var found []string
	for _, name := range []string{"go.mod", "tools/go.mod"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		m := version.FindSubmatch(data)
		if m == nil {
			t.Fatalf("%s does not require depguard", name)
		}
		found = append(found, string(m[1]))
	}
	if found[0] != found[1] {
		t.Errorf("go.mod has depguard %s, golangci-lint in tools/go.mod %s", found[0], found[1])
	}
}

// goFiles lists the tree's Go files, except those in folders that the go command ignores.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (name[0] == '.' || name[0] == '_' || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) == ".go" {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no Go files below %s", root)
	}
	return files
}
