package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
	"berth/test/agenttest"
)

func TestLedger(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true") // nobody is asked
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	if code, stdout, stderr := berth(t, "ledger", "--state-dir", dir); code != 0 || stdout != "" {
		t.Errorf("without a ledger: %d, %q, %s; want 0 and nothing", code, stdout, stderr)
	}
	registeredBy(t, dir, sim, agenttest.Instance, "some-boot", "web", 32768, 32769)

	kept, err := ledger.Open(dir, "some-boot", ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kept.Note(sim.GroupARN("web"), []target.Target{{ID: agenttest.Instance, Port: 32769}}, ledger.Removing)
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}

	// It reads where the agent would, and whatever the configuration says.
	wrong := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(wrong, []byte("target_groups: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ways := map[string]func(t *testing.T) []string{
		"flag":                  func(*testing.T) []string { return []string{"--state-dir", dir} },
		"variable":              func(t *testing.T) []string { t.Setenv("BERTH_STATE_DIR", dir); return nil },
		"unit's directory":      func(t *testing.T) []string { t.Setenv("STATE_DIRECTORY", dir); return nil },
		"configured":            func(*testing.T) []string { return []string{"--target-group", "web", "--state-dir", dir} },
		"a wrong configuration": func(*testing.T) []string { return []string{"--config", wrong, "--state-dir", dir} },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := berth(t, append([]string{"ledger"}, way(t)...)...)
			if code != 0 || !strings.Contains(stdout, agenttest.Instance+":32768") || strings.Contains(stdout, ":32769") || !strings.Contains(stdout, sim.GroupARN("web")) {
				t.Errorf("berth ledger = %d, %q, %s; want the one target that stays", code, stdout, stderr)
			}
		})
	}
	code, stdout, stderr := berth(t, "ledger", "--json", "--state-dir", dir)
	var lines []ledgerV1
	if err := json.Unmarshal([]byte(stdout), &lines); code != 0 || err != nil || len(lines) != 1 || lines[0].Target.Port != 32768 || lines[0].Boot != "some-boot" {
		t.Errorf("berth ledger --json = %d, %q, %s (%v)", code, stdout, stderr, err)
	}
}
