package model

// How a bug gets into the source: seed finds the lines that //mutant: comments mark, and overlay tells the go command
// what to compile in their place. The tree stays as it is.

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// point is a marked line and what it becomes.
type point struct {
	name       string // NAME or NAME/PART
	file       string // below the root of the tree
	line       int
	begin, end int // of the line's code: after the indentation, before the comment
	text       string
}

func (p point) String() string { return fmt.Sprintf("%s:%d: //mutant:%s", p.file, p.line, p.name) }

// bug returns the name without the part.
func (p point) bug() string {
	name, _, _ := strings.Cut(p.name, "/")
	return name
}

// seed finds the line of every bug in the tree below root. Its error lists all that is wrong with markers and bugs.
func seed(root fs.FS, bugs map[string]string) ([]point, error) {
	marked, err := markers(root)
	problems := []error{err}
	first := map[string]point{}
	var points []point
	for _, p := range marked {
		bug, known := bugs[p.name]
		other, twice := first[p.name]
		switch {
		case !known:
			problems = append(problems, fmt.Errorf("%v: no such bug in mutants", p))
		case twice:
			problems = append(problems, fmt.Errorf("%v: %s:%d has the same marker", p, other.file, other.line))
		case slices.Equal(tokens(p.text), tokens(bug)):
			problems = append(problems, fmt.Errorf("%v: the bug changes nothing: the line says the same", p))
		}
		if !twice {
			first[p.name] = p
		}
		p.text = bug
		points = append(points, p)
	}
	for _, name := range slices.Sorted(maps.Keys(bugs)) {
		if _, ok := first[name]; !ok {
			problems = append(problems, fmt.Errorf("no line is marked //mutant:%s: mark one, or drop the bug from mutants", name))
		}
	}
	return points, errors.Join(problems...)
}

// markers returns the marked lines of production code, file by file and from top to bottom. Their text is the line's own.
func markers(root fs.FS) ([]point, error) {
	var points []point
	var problems []error
	for _, dir := range []string{"cmd", "internal", "pkg"} {
		err := fs.WalkDir(root, dir, func(file string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && file == dir {
				return nil
			}
			if err != nil || d.IsDir() || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
				return err
			}
			b, err := fs.ReadFile(root, file)
			if err != nil {
				return err
			}
			found, err := markersIn(file, string(b))
			points = append(points, found...)
			problems = append(problems, err)
			return nil
		})
		problems = append(problems, err)
	}
	return points, errors.Join(problems...)
}

var (
	marker = regexp.MustCompile(`^//mutant:([a-z-]+(?:/[a-z-]+)?)$`)
	// almost matches what was probably meant as a marker: gofumpt does not mend a space after the slashes.
	almost = regexp.MustCompile(`(?i)^//\s*mutant\s*:`)
)

func markersIn(file, text string) ([]point, error) {
	var points []point
	var problems []error
	scan(text, func(at token.Position, tok token.Token, lit string) {
		if tok != token.COMMENT || !almost.MatchString(lit) {
			return
		}
		m := marker.FindStringSubmatch(lit)
		code := text[at.Offset-at.Column+1 : at.Offset]
		switch {
		case m == nil:
			problems = append(problems, fmt.Errorf("%s:%d: %q is not of the form //mutant:NAME or //mutant:NAME/PART", file, at.Line, lit))
		case strings.TrimSpace(code) == "":
			problems = append(problems, fmt.Errorf("%s:%d: %s stands on a line of its own: put it at the end of the line that the bug changes", file, at.Line, lit))
		default:
			points = append(points, point{
				name:  m[1],
				file:  file,
				line:  at.Line,
				begin: at.Offset - len(strings.TrimLeft(code, " \t")),
				end:   at.Offset - len(code) + len(strings.TrimRight(code, " \t")),
				text:  strings.TrimSpace(code),
			})
		}
	})
	return points, errors.Join(problems...)
}

// tokens returns what the compiler sees of a piece of source: no space, no comments.
func tokens(text string) []string {
	var all []string
	scan(text, func(_ token.Position, tok token.Token, lit string) {
		if tok != token.COMMENT && lit != "\n" { // "\n" is the semicolon that the scanner puts at the end of a line
			all = append(all, tok.String()+" "+lit)
		}
	})
	return all
}

func scan(text string, f func(at token.Position, tok token.Token, lit string)) {
	file := token.NewFileSet().AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, []byte(text), nil, scanner.ScanComments)
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return
		}
		f(file.PositionFor(pos, false), tok, lit)
	}
}

// mutate returns the text of a file with bugs in it. The points are in the order of their lines.
func mutate(text string, points []point) string {
	for _, p := range slices.Backward(points) {
		text = text[:p.begin] + p.text + text[p.end:]
	}
	return text
}

// overlay writes the files that points change, and the list of them that go build -overlay takes. It returns the path of
// the list.
func overlay(t *testing.T, root fs.FS, points []point) string {
	t.Helper()
	dir := t.TempDir()
	in := map[string][]point{}
	for _, p := range points {
		in[p.file] = append(in[p.file], p)
	}
	write := func(name string, text []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	replace := map[string]string{}
	for file, points := range in {
		b, err := fs.ReadFile(root, file)
		if err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(rootDir(t), file)] = write(strings.ReplaceAll(file, "/", "_"), []byte(mutate(string(b), points)))
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	return write("overlay.json", b)
}

func rootDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMutants_seeded checks, without playing any life, that every bug has its place in the source and compiles there.
func TestMutants_seeded(t *testing.T) {
	t.Parallel()
	dir := rootDir(t)
	root := os.DirFS(dir)
	points, err := seed(root, mutants)
	if err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f={{.Dir}}", ".")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list what the model is made of: %v", err)
	}
	linked := strings.Split(string(out), "\n")
	for _, p := range points {
		if !slices.Contains(linked, filepath.Join(dir, path.Dir(p.file))) {
			t.Errorf("%v: the model does not import this package, so it cannot find the bug", p)
		}
	}
	// All bugs at once: they stand on different lines.
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay(t, root, points), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("a bug in mutants does not compile: %v\n%s", err, out)
	}
}

// TestSeed_problems makes each mistake that can be made with a marker.
func TestSeed_problems(t *testing.T) {
	t.Parallel()
	const clean = "package p\n\nvar a = 1 //mutant:a\n"
	tests := []struct {
		name string
		text string // of pkg/p/p.go
		bugs map[string]string
		want string // empty: no problem
	}{
		{"all is well", clean, map[string]string{"a": "var a = 2"}, ""},
		{"parts", "package p\n\nvar a = 1 //mutant:a/x\nvar b = 1 //mutant:a/y\n", map[string]string{"a/x": "var a = 2", "a/y": "var b = 2"}, ""},
		{"a string is no marker", clean + "var s = \"//mutant:b\"\n", map[string]string{"a": "var a = 2"}, ""},
		{"no bug", clean, nil, "pkg/p/p.go:3: //mutant:a: no such bug in mutants"},
		{"no marker", "package p\n\nvar a = 1\n", map[string]string{"a": "var a = 2"}, "no line is marked //mutant:a: mark one, or drop the bug from mutants"},
		{"twice", clean + "var b = 1 //mutant:a\n", map[string]string{"a": "var a = 2"}, "pkg/p/p.go:4: //mutant:a: pkg/p/p.go:3 has the same marker"},
		{"same line", clean, map[string]string{"a": "var  a=1 // still"}, "pkg/p/p.go:3: //mutant:a: the bug changes nothing: the line says the same"},
		{"space", "package p\n\nvar a = 1 // mutant:a\n", map[string]string{"a": "var a = 2"}, `pkg/p/p.go:3: "// mutant:a" is not of the form //mutant:NAME or //mutant:NAME/PART
no line is marked //mutant:a: mark one, or drop the bug from mutants`},
		{"nothing before it", "package p\n\n//mutant:a\nvar a = 1\n", map[string]string{"a": "var a = 2"}, `pkg/p/p.go:3: //mutant:a stands on a line of its own: put it at the end of the line that the bug changes
no line is marked //mutant:a: mark one, or drop the bug from mutants`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{
				"pkg/p/p.go":      {Data: []byte(tt.text)},
				"pkg/p/p_test.go": {Data: []byte("package p\n\nvar t = 1 //mutant:t\n")}, // tests are not searched
			}
			got := ""
			if _, err := seed(root, tt.bugs); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPoint_mutate checks that the line is replaced and that all else stays, the marker included.
func TestPoint_mutate(t *testing.T) {
	t.Parallel()
	const text = "package p\n\nfunc f() int {\n\treturn 1 //mutant:a\n}\n\nvar b = 1 //mutant:b\n"
	points, err := seed(fstest.MapFS{"internal/p/p.go": {Data: []byte(text)}}, map[string]string{"a": "x := 2\nreturn x", "b": "var b = 2"})
	if err != nil {
		t.Fatal(err)
	}
	want := "package p\n\nfunc f() int {\n\tx := 2\nreturn x //mutant:a\n}\n\nvar b = 2 //mutant:b\n"
	if diff := cmp.Diff(want, mutate(text, points)); diff != "" {
		t.Errorf("mutated (-want +got):\n%s", diff)
	}
}
