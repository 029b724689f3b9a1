package model

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	seedBugs     = flag.Bool("model.mutants", false, "seed each bug in turn, and see whether random lives find it (make model, make mutants)")
	mutantChecks = flag.Int("model.mutantchecks", 2000, "how many random lives each seeded bug has to hide in")
	mutantTimes  = flag.Int("model.mutanttimes", 1, "how many times each is looked for, from different seeds")
)

// edit is a change to a source file: old stands in it once.
type edit struct{ file, old, new string }

// mutants are bugs that the model must find, each of which somebody has shipped.
var mutants = map[string][]edit{
	"acts on HUP": {{
		"pkg/discovery/life.go", "if l.facts != nil && !stops(n, l.facts.StopSignal) {", "if l.facts != nil && n < 0 {",
	}},
	"inspects on die": {{
		"pkg/discovery/life.go", "\t\tl.count(e, c)\n\t\treturn l.end(e.Time)", "\t\tl.count(e, c)\n\t\treturn heard{ask: true, newer: true}",
	}},
	"reads a list error as an empty list": {{
		"pkg/discovery/list.go", "\tif a.err != nil {\n\t\ts.listFailed(a)\n\t\treturn\n\t}", "\tif a.err != nil {\n\t\ta.lines = nil\n\t}",
	}},
	"reads a missing key as an empty one": {{
		"pkg/registrar/assign.go", "\t\tif !computed {\n\t\t\treturn false\n\t\t}", "\t\t_ = computed",
	}},
	"believes an inspection or a list that is older than the death": {
		{"pkg/discovery/inspect.go", "\tcase in.version != a.version:", "\tcase in.version < a.version:"},
		{"pkg/discovery/list.go", "\tif s.newer(l, a.began) {\n\t\treturn\n\t}", ""},
	},
	"forgets a registration that timed out": {{
		"pkg/registrar/plan.go", "doubt = 30 * time.Second", "doubt = 0 * time.Second",
	}},
	"plans before the permit": {
		{"pkg/registrar/reconciler.go", "\t\tstep, ok := r.await(", "\t\t_, ok := r.await("},
		{"pkg/registrar/reconciler.go", "\t\tif step.Class != permit.Class() {\n\t\t\treturn Step{}, false\n\t\t}", ""},
		{"pkg/registrar/reconciler.go", "\t\t\treturn step, step.Class == permit.Class()", "\t\t\treturn step, true"},
		{"pkg/registrar/write.go", "if _, wanted := r.want[t]; !wanted || ctx.Err() != nil {", "if ctx.Err() != nil {"},
		{"pkg/registrar/write.go", "claimant(r.want[t]))\n\t}", "run)\n\t}"},
		{"pkg/registrar/write.go", "\tfor i, t := range targets {\n\t\tentries[i]", "\tfor i, t := range targets {\n\t\tvar run target.Run\n\t\tif w := r.want[t]; len(w) > 0 {\n\t\t\trun = claimant(w)\n\t\t}\n\t\tentries[i]"},
	},
	"revives a stopping container with the next inspection": {{
		"pkg/discovery/drains.go", "if at, ok := s.survivedAt(d); !ok || began.Before(at) {", "if _, ok := s.survivedAt(d); !ok {",
	}},
	"counts draining as present": {{
		"pkg/registrar/calls.go", "return s.Health != string(types.TargetHealthStateEnumDraining) && !s.absent()", "return !s.absent()",
	}},
}

// TestMutants seeds each bug, by an overlay that leaves the tree as it is, and has the model look for it.
func TestMutants(t *testing.T) {
	if !*seedBugs {
		t.Skip("run by make model and make mutants: it builds nine times, and takes a minute")
	}
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	two := make(chan struct{}, 2) // at once
	for name, edits := range mutants {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			program := filepath.Join(t.TempDir(), "model.test")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags=-s -w", "-overlay", overlayOf(t, root, edits), "-o", program, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build it: %v\n%s", err, out)
			}
			for range *mutantTimes {
				find(t, program)
			}
		})
	}
}

// found is what TestModel says of the first life in which something went wrong.
var found = regexp.MustCompile(`wrong in life (\d+): (.*)`)

// find plays random lives with a bug in the program until something goes wrong.
func find(t *testing.T, program string) {
	t.Helper()
	seed := 1 + rand.Uint64N(1<<32)
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestModel$", fmt.Sprintf("-rapid.checks=%d", *mutantChecks),
		fmt.Sprintf("-rapid.seed=%d", seed), "-rapid.nofailfile", "-rapid.shrinktime=1ms")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	life := found.FindSubmatch(out)
	switch {
	case err == nil:
		t.Errorf("%d random lives did not find it (-rapid.seed=%d)", *mutantChecks, seed)
	case life == nil:
		t.Errorf("the model did not run: %v\n%s", err, out)
	default:
		t.Logf("found in life %s, after %v (-rapid.seed=%d): %s", life[1], time.Since(begun).Round(100*time.Millisecond), seed, life[2])
	}
}

func overlayOf(t *testing.T, root string, edits []edit) string {
	t.Helper()
	dir := t.TempDir()
	sources := map[string]string{}
	for _, e := range edits {
		if sources[e.file] == "" {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			sources[e.file] = string(b)
		}
		if n := strings.Count(sources[e.file], e.old); n != 1 {
			t.Fatalf("%s has %q %d times; want once: the bug has to be seeded anew", e.file, e.old, n)
		}
		sources[e.file] = strings.Replace(sources[e.file], e.old, e.new, 1)
	}
	replace := map[string]string{}
	for file, text := range sources {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = path
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
