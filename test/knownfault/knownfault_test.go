package knownfault

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mark is one marked test.
type mark struct{ dir, test, fault, wrong string }

// marks finds the marked tests of the tree, by directory, and what is wrong with how some are marked.
func marks(t *testing.T, root string) (found map[string][]mark, errs []error) {
	t.Helper()
	found = map[string][]mark{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root:
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if dir, _ := filepath.Rel(root, filepath.Dir(path)); bytes.Contains(source, []byte("knownfault.Skip(")) {
			in, wrong := marksIn(dir, filepath.Base(path), source)
			errs = append(errs, wrong...)
			if len(in) > 0 {
				found[dir] = append(found[dir], in...)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, errs
}

// marksIn finds the marked tests of one file.
func marksIn(dir, name string, source []byte) (found []mark, errs []error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, filepath.Join(dir, name), source, 0)
	if err != nil {
		return nil, []error{err}
	}
	first := map[*ast.CallExpr]*ast.FuncDecl{} // first statements of top-level tests
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Body == nil || len(f.Body.List) == 0 {
			continue
		}
		if s, ok := f.Body.List[0].(*ast.ExprStmt); ok {
			if c, ok := s.X.(*ast.CallExpr); ok {
				first[c] = f
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if s, ok := call.Fun.(*ast.SelectorExpr); !ok || s.Sel.Name != "Skip" || fmt.Sprint(s.X) != "knownfault" {
			return true
		}
		m, err := read(call, first[call])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", fset.Position(call.Pos()), err))
			return true
		}
		m.dir = dir
		found = append(found, m)
		return true
	})
	return found, errs
}

var (
	faultForm = regexp.MustCompile(`^([1-9][0-9]*|[a-z]+(-[a-z]+)*(-[1-9][0-9]*)?)$`)
	wrongForm = regexp.MustCompile(`^[^A-Z\s].*[^.\s]$`)
)

// read reads the mark of a test, nil where the call stands elsewhere.
func read(call *ast.CallExpr, test *ast.FuncDecl) (mark, error) {
	if test == nil {
		return mark{}, errors.New("the mark is not the first statement of a top-level test")
	}
	var texts []string
	for _, arg := range call.Args {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				texts = append(texts, text)
			}
		}
	}
	if len(texts) != 2 {
		return mark{}, fmt.Errorf("%s: fault and what is wrong are not two literals", test.Name)
	}
	m := mark{test: test.Name.Name, fault: texts[0], wrong: texts[1]}
	if !faultForm.MatchString(m.fault) {
		return m, fmt.Errorf("%s: %q is not the number or name of a fault", m.test, m.fault)
	}
	if !wrongForm.MatchString(m.wrong) {
		return m, fmt.Errorf("%s: %q is not a clause without a full stop", m.test, m.wrong)
	}
	return m, nil
}

func TestMarks(t *testing.T) {
	if _, errs := marks(t, "../.."); len(errs) > 0 {
		t.Error(errors.Join(errs...))
	}
}

func TestMarksIn(t *testing.T) {
	const head = "package p\n\nfunc TestX(t *testing.T) {\n\t"
	for name, c := range map[string]struct {
		body string
		want int
		err  string
	}{
		"right":           {`knownfault.Skip(t, "3", "one holds all up")`, 1, ""},
		"of a family":     {`knownfault.Skip(t, "access-1", "one holds all up")`, 1, ""},
		"without number":  {`knownfault.Skip(t, "refused-call", "one holds all up")`, 1, ""},
		"another skip":    {`t.Skip("not here")`, 0, ""},
		"not first":       {"f()\n\t" + `knownfault.Skip(t, "3", "one holds all up")`, 0, "first statement"},
		"in a subtest":    {`t.Run("a", func(t *testing.T) { knownfault.Skip(t, "3", "one holds all up") })`, 0, "first statement"},
		"variable":        {`knownfault.Skip(t, fault, "one holds all up")`, 0, "two literals"},
		"number":          {`knownfault.Skip(t, "number 3", "one holds all up")`, 0, "number or name"},
		"sentence":        {`knownfault.Skip(t, "3", "One holds all up.")`, 0, "full stop"},
		"nothing is said": {`knownfault.Skip(t, "3", "")`, 0, "full stop"},
	} {
		t.Run(name, func(t *testing.T) {
			got, errs := marksIn("dir", "x_test.go", []byte(head+c.body+"\n}\n"))
			err := errors.Join(errs...)
			if len(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, %v; want %d marks, an error with %q", got, err, c.want, c.err)
			}
		})
	}
}

// TestEachStillFails runs every marked test. One that passes has been mended: its mark has to go, so that it guards what
// was mended. One that ends in a panic, or not at all, asserts nothing.
func TestEachStillFails(t *testing.T) {
	if !Asked() {
		t.Skipf("run by make known-faults, which sets %s: it builds the packages that have marked tests", Variable)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	found, errs := marks(t, root)
	if len(errs) > 0 {
		t.Error(errors.Join(errs...))
	}
	for dir, in := range found {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), "marked.test")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-race", "-o", program, "./"+dir)
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			slices.SortStableFunc(in, func(a, b mark) int { return strings.Compare(a.test, b.test) })
			for _, m := range in {
				// Each in a process of its own: what one leaves behind is not another's failure.
				run := exec.CommandContext(t.Context(), program, "-test.run=^"+m.test+"$", "-test.v", "-test.timeout=2m")
				run.Dir = filepath.Join(root, dir)
				run.Env = append(os.Environ(), Variable+"=1")
				out, err := run.CombinedOutput()
				if verdict := judge(m.test, string(out), err); verdict != nil {
					t.Errorf("%s, known fault %s (%s): %v", m.test, m.fault, m.wrong, verdict)
					continue
				}
				t.Logf("known fault %s: %s fails: %s", m.fault, m.test, m.wrong)
			}
		})
	}
}

// judge returns nil for a test that ran and failed by its own assertions.
func judge(test, out string, ended error) error {
	ran := func(verdict string) bool {
		return regexp.MustCompile(`(?m)^--- ` + verdict + `: ` + test + ` `).MatchString(out)
	}
	switch {
	case strings.Contains(out, "\npanic: ") || strings.HasPrefix(out, "panic: "):
		return fmt.Errorf("it panicked, or did not end\n%s", out)
	case ran("PASS"):
		return errors.New("it passes: the fault is mended, so remove the mark")
	case !ran("FAIL") || ended == nil:
		return fmt.Errorf("it did not run:\n%s", out)
	}
	return nil
}

func TestJudge(t *testing.T) {
	failed := errors.New("exit status 1")
	for name, c := range map[string]struct {
		out   string
		ended error
		want  string
	}{
		"fails":   {"=== RUN   TestX\n    x_test.go:1: wrong\n--- FAIL: TestX (0.00s)\nFAIL\n", failed, ""},
		"passes":  {"=== RUN   TestX\n--- PASS: TestX (0.00s)\nPASS\n", nil, "remove the mark"},
		"skipped": {"=== RUN   TestX\n--- SKIP: TestX (0.00s)\nPASS\n", nil, "did not run"},
		"nowhere": {"testing: warning: no tests to run\nPASS\n", nil, "did not run"},
		"panics":  {"=== RUN   TestX\n--- FAIL: TestX (0.00s)\npanic: no\n", failed, "panicked"},
		"another": {"--- FAIL: TestXY (0.00s)\nFAIL\n", failed, "did not run"},
	} {
		t.Run(name, func(t *testing.T) {
			got := judge("TestX", c.out, c.ended)
			if (got == nil) != (c.want == "") || got != nil && !strings.Contains(got.Error(), c.want) {
				t.Errorf("got %v; want %q", got, c.want)
			}
		})
	}
}
