package model

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

var (
	seedBugs     = flag.Bool("model.mutants", false, "seed each bug in turn, and check that random lives find it (make model, make mutants)")
	mutantChecks = flag.Int("model.mutantchecks", 2000, "how many random lives may pass before a seeded bug must be found")
	mutantTimes  = flag.Int("model.mutanttimes", 1, "how many times each bug is searched for, from different seeds")
)

// mutants are the bugs that the model must find. Each of them has shipped in some agent of this kind. A comment at the
// end of a line of production code says that a bug is seeded there:
//
//	//mutant:NAME       one line makes the bug
//	//mutant:NAME/PART  several lines make it together
//
// The map says what the line becomes. The test searches the whole tree, so a line can move to any file and takes its
// comment along. If you change a marked line, check that the replacement is still that line with the bug in it. If you
// remove it, mark another line that can carry the bug.
var mutants = map[string]string{
	// SIGHUP usually means "reload": it is no reason to take a container out.
	"acts-on-hup": `if l.facts != nil && n < 0 {`,

	// A dead container is inspected first, and serves as a target until the answer comes.
	"inspects-on-die": `return heard{ask: true, newer: true}`,

	// The engine could not list its containers, so there are none.
	"list-error-is-empty-list": `if false {`,

	// Nobody has worked out yet what a group wants, so it wants nothing.
	"missing-key-is-empty": `if false && !computed {`,

	// An answer that the engine began before the container died brings it back to life.
	"believes-older-answer/inspection": `case in.version < a.version:`,
	"believes-older-answer/list":       `if false {`,

	// A write that timed out has not happened, and will not.
	"forgets-timed-out-write": `doubt = 0 * time.Second`,

	// What is written was decided before the wait for the permit. It may have changed during the wait.
	"plans-before-permit/wait": `ok := true
	                             select {
	                             case <-permit.Ready():
	                             case <-ctx.Done():
	                             	ok = false
	                             }`,
	"plans-before-permit/send": `if ctx.Err() != nil {`,
	"plans-before-permit/run":  `s.Phase, s.Run, s.Since = ledger.Intended, entries[i].Run, time.Now()`,

	// A container that is stopping still runs: the next inspection takes that for a container that survived its signal.
	"revives-stopping-container": `if _, ok := s.survivedAt(d); !ok {`,

	// A reload names a group that does not exist, so nothing is to be in the group that there is.
	"empties-the-old-group": `_ = groupARN`,

	// A registration was refused, so nothing is known of its targets: neither that they are on their way out.
	"refused-call-forgets": `r.forget(send...)`,

	// The drain of a name ends with the container that bore it, and the one that replaces it is served.
	"forgets-held-name": `s.dropDrainsOf(func(d Drain) bool { return d.Container == id })`,

	// Drains that cannot be read are none.
	"unread-drains-are-none": `in.DrainsUnread = false`,

	// A removal has a head start of a minute, as if nobody waited longer than that while AWS throttles.
	"removal-waits-its-turn": `lead = map[Class]time.Duration{ClassDeregister: time.Minute, ClassRegister: 30 * time.Second}[c]`,

	// Whoever logs waits until it is written. Nobody reads it.
	"waits-for-the-log": `w.mu.Unlock(); w.drain(w.done); w.mu.Lock()`,
	// The host's clock was set back, and what happens from then on is taken for what happened long ago.
	"trusts-the-clock": `if step < 1<<62 {`,

	// A target that drains is still listed by DescribeTargetHealth, but serves nobody.
	"counts-draining-as-present": `return !s.Absent()`,
}

// TestMutants builds the model with each bug in turn and checks that random lives find it. The tree stays as it is: the
// go command takes the changed files from an overlay.
func TestMutants(t *testing.T) {
	if !*seedBugs {
		t.Skip("run by make model and make mutants: it builds the model once for each bug")
	}
	t.Parallel()
	root := os.DirFS(rootDir(t))
	points, err := seed(root, mutants)
	if err != nil {
		t.Fatal(err)
	}
	of := map[string][]point{}
	for _, p := range points {
		of[p.bug()] = append(of[p.bug()], p)
	}
	for _, bug := range slices.Sorted(maps.Keys(of)) {
		t.Run(bug, func(t *testing.T) {
			t.Parallel() // -parallel says how many at once; TestModel is one of them
			program := filepath.Join(t.TempDir(), "model.test")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags=-s -w", "-overlay", overlay(t, root, of[bug]), "-o", program, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("the bug does not compile: %v\n%s", err, out)
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
