package integration

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/harness"
	"berth/test/rig"
)

// editLedger replaces text in a ledger that no agent uses, and gives each line its checksum again.
func editLedger(t *testing.T, path string, replace ...string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := func(rest []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(rest, table)) }
	const head, tail = `{"crc":"`, `",`
	from := len(head) + 8 + len(tail)
	var out []byte
	for line := range bytes.Lines(file) {
		rest, whole := bytes.CutSuffix(line, []byte("\n"))
		if !whole || !bytes.HasPrefix(rest, []byte(head)) {
			break
		}
		if got, want := string(rest[len(head):len(head)+8]), sum(rest[from:]); got != want {
			t.Fatalf("checksum of %q is %s; reckoned %s", line, got, want)
		}
		edited := []byte(strings.NewReplacer(replace...).Replace(string(rest[from:])))
		out = append(out, head+sum(edited)+tail...)
		out = append(append(out, edited...), '\n')
	}
	if len(out) == 0 {
		t.Fatalf("no line in the ledger: %q", file)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A ledger that another instance wrote (it came with an image, or a disk) says nothing about this one: what it holds is
// left alone. One that a newer version wrote is used: what it holds and no container wants any more goes.
func TestLedger_ofOthers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		replace []string
		removed bool // what no container wants any more
		says    string
	}{
		"another instance's": {
			[]string{rig.Instance, "i-0fedcba9876543210"}, false, "ledger entries of another instance discarded",
		},
		"a newer version's": {
			[]string{`"schema":1`, `"schema":2`, `"phase":`, `"colour":"blue","phase":`}, true, "ledger of a newer version",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{})
			agent := r.StartReady(t)
			stays := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			away := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			kept, left := rig.TargetsOf(t, stays), rig.TargetsOf(t, away)
			r.WaitExact(t, "web", append(kept, left...)...)
			agent.Stop(t)
			away.Remove(t)
			editLedger(t, filepath.Join(r.StateDir(), "ledger.json"), tc.replace...)
			r.Sim.ResetCalls()
			agent = r.StartReady(t)
			harness.Eventually(t, harness.Patience, "the log to say whose ledger it is", func() error {
				if !strings.Contains(agent.Log(), tc.says) {
					return fmt.Errorf("the log says\n%s", agent.Log())
				}
				return nil
			})
			if tc.removed {
				r.WaitExact(t, "web", kept...)
				wantTargets(t, r, deregister, left...)
			} else {
				r.WaitExact(t, "web", append(kept, left...)...)
				wantTargets(t, r, deregister)
			}
			wantTargets(t, r, register)
		})
	}
}

// A configuration without groups, while targets are registered, is refused: by a running agent, and at the start.
func TestReload_empty(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	agent := r.StartReady(t)
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitExact(t, "web", rig.TargetsOf(t, c)...)
	r.Sim.ResetCalls()
	r.Configure(t, "target_groups: {}\n")
	if code, _, stderr := r.Berth(t, "reload"); code == 0 || !strings.Contains(stderr, "target_groups") {
		t.Errorf("reload of an empty configuration ends with %d: %s", code, stderr)
	}
	r.WaitExact(t, "web", rig.TargetsOf(t, c)...)
	agent.Stop(t)
	again := r.Start(t)
	if code := again.Wait(); code != 2 {
		t.Errorf("the agent ends with %d; want 2\n%s", code, again.Log())
	}
	wantTargets(t, r, register)
	wantTargets(t, r, deregister)
	r.WaitExact(t, "web", rig.TargetsOf(t, c)...)
}
