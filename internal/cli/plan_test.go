package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/pkg/discovery/enginetest"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/test/agenttest"
)

// TestPlan_groupLeft: what is registered in a group that left the configuration is looked at like the rest, whichever
// comes first.
func TestPlan_groupLeft(t *testing.T) {
	sim := agenttest.Account(t, "web", "api")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
	registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "api", 32769)
	for range 8 { // either may be the first to be looked at
		var out, errs strings.Builder
		code := execute(t.Context(), []string{"plan", "--target-group", "api", "--state-dir", dir}, &environment{
			stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: os.Getenv, engine: enginetest.New(),
		})
		if code != 0 || !strings.Contains(out.String(), "0 to register, 2 to deregister") {
			t.Fatalf("berth plan = %d, %q, %s; want the targets of both groups to go", code, out.String(), errs.String())
		}
	}
}

// TestPlan_unreadableDrains: what the agent would set aside is its own to set aside.
func TestPlan_unreadableDrains(t *testing.T) {
	agenttest.Account(t, "web")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "drains.json"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	code := execute(t.Context(), []string{"plan", "--target-group", "web", "--state-dir", dir}, &environment{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: os.Getenv, engine: enginetest.New(),
	})
	if code != 0 || !strings.Contains(errs.String(), "drains.json") {
		t.Errorf("berth plan = %d, %q, %s; want 0, and the file named", code, out.String(), errs.String())
	}
	if files := readDir(t, dir); !slices.Equal(files, []string{"drains.json"}) {
		t.Errorf("in the state directory: %v; want it as it was", files)
	}
}

// TestPlan_usage: 2 says that something would be changed, where that was asked for, and nothing else.
func TestPlan_usage(t *testing.T) {
	for args, want := range map[string]int{
		"--typo":                               exitUsage,
		"something":                            exitUsage,
		"--detailed-exitcode --typo":           exitFailure,
		"--typo --detailed-exitcode":           exitFailure,
		"--timeout soon --detailed-exitcode":   exitFailure,
		"--detailed-exitcode something":        exitFailure,
		"something --detailed-exitcode=true":   exitFailure,
		"--detailed-exitcode=perhaps":          exitFailure,
		"--detailed-exitcode=false something":  exitUsage,
		"--typo -- --detailed-exitcode":        exitUsage,
		"--typo --detailed-exitcode-of-others": exitUsage,
	} {
		code, _, stderr := berth(t, append([]string{"plan"}, strings.Fields(args)...)...)
		if code != want || !strings.Contains(stderr, "see: berth plan --help") {
			t.Errorf("berth plan %s = %d, %s; want %d", args, code, stderr, want)
		}
	}
	if code, _, stderr := berth(t, "status", "--detailed-exitcode"); code != exitUsage {
		t.Errorf("berth status --detailed-exitcode = %d, %s; want %d", code, stderr, exitUsage)
	}
}

// A group is called by its keys; one that has left the configuration has a name in AWS.
func TestPlan_labels(t *testing.T) {
	var out strings.Builder
	p := &planV1{Groups: []groupV1{
		{Keys: []string{"a", "b"}, Name: "ab", State: registrar.StateDenied, Err: "no"},
		{Name: "left", ARN: "arn", State: registrar.StateGone, Err: "no"},
		{ARN: "arn", State: registrar.StateGone, Err: "no"},
	}}
	if err := p.print(&out); err != nil {
		t.Fatal(err)
	}
	want := "! a, b: denied: no\n! left: gone: no\n! arn: gone: no\n0 to register, 0 to deregister\n"
	if out.String() != want {
		t.Errorf("printed %q; want %q", out.String(), want)
	}
}

func readDir(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
