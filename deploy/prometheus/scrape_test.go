// Package prometheus holds what a Prometheus needs to scrape Berth. Its tests have promtool look at it.
package prometheus

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// promtool runs promtool (Debian: package prometheus; scripts/need.sh promtool) and returns what it said.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: scripts/need.sh promtool", err)
		}
		t.Skipf("%v: scripts/need.sh promtool installs it", err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

func TestScrapeConfig(t *testing.T) {
	if said, err := promtool(t, "check", "config", "scrape.yaml"); err != nil || !strings.Contains(said, "SUCCESS") {
		t.Errorf("promtool check config scrape.yaml: %v\n%s", err, said)
	}

	// It is promtool's word that counts: a typo has to be found.
	good, err := os.ReadFile("scrape.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, typo := range [][2]string{{"relabel_configs:", "relabel_config:"}, {"target_label: instance", "target_label: in-stance"}, {"15s", "15"}} {
		if !strings.Contains(string(good), typo[0]) {
			t.Fatalf("scrape.yaml has no %q", typo[0])
		}
		bad := filepath.Join(t.TempDir(), "bad.yaml")
		if err := os.WriteFile(bad, []byte(strings.ReplaceAll(string(good), typo[0], typo[1])), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := promtool(t, "check", "config", bad); err == nil {
			t.Errorf("promtool takes %q for %q: %s", typo[1], typo[0], said)
		}
	}
}
