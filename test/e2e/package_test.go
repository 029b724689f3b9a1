package e2e

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestPackage builds the packages of both architectures twice, a different umask and place each time: the same commit
// gives the same bytes.
func TestPackage(t *testing.T) {
	require(t)
	var built [2][]string
	for i, umask := range []string{"022", "077"} {
		env := []string{"DIST=" + t.TempDir(), "VERSION=1.2.0-rc1", "REVISION=e2e", "DATE=2026-01-01T00:00:00Z"}
		built[i] = strings.Fields(sh(t, env, "sh", "-c", "umask "+umask+" && exec scripts/package.sh"))
		if len(built[i]) != 2 {
			t.Fatalf("built %v; want one for amd64 and one for arm64", built[i])
		}
	}
	for i, first := range built[0] {
		a, err := os.ReadFile(first)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(built[1][i])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: a second build has other bytes", first)
		}
		arch := []string{"amd64", "arm64"}[i]
		info := sh(t, nil, "dpkg-deb", "--field", first, "Version", "Architecture")
		if info != "Version: 1.2.0~rc1\nArchitecture: "+arch {
			t.Errorf("%s is %q", first, info)
		}
		if files := sh(t, nil, "dpkg-deb", "--contents", first); !strings.Contains(files, "-rw-r--r-- root/root") || strings.Contains(files, "-rw-------") {
			t.Errorf("%s has files that not everybody can read:\n%s", first, files)
		}
	}
}
