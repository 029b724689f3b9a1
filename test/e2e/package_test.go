package e2e

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// contents are the files that whoever installs the package looks for.
var contents = []string{
	"/usr/bin/berth", "/etc/berth/berth.yaml", "/usr/lib/sysusers.d/berth.conf",
	"/lib/systemd/system/berth.service", "/lib/systemd/system/berth-boot.service", "/lib/systemd/system/berth-drain.service",
	"/usr/share/bash-completion/completions/berth", "/usr/share/zsh/vendor-completions/_berth",
	"/usr/share/fish/vendor_completions.d/berth.fish", "/usr/share/doc/berth/copyright", "/usr/share/doc/berth/operations.md",
	"/usr/share/doc/berth/examples/policy.json", "/usr/share/doc/berth/examples/scrape.yaml",
	"/usr/share/doc/berth/examples/berth-drain-order.conf",
}

// manPages are those of every command that `berth help` lists.
func manPages(t *testing.T) []string {
	t.Helper()
	_, list, _ := strings.Cut(sh(t, nil, "go", "run", "./cmd/agent", "help"), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	pages := []string{"/usr/share/man/man8/berth.8.gz"}
	for line := range strings.Lines(list) {
		if name := strings.Fields(line)[0]; name != "help" {
			pages = append(pages, "/usr/share/man/man8/berth-"+name+".8.gz")
		}
	}
	if len(pages) < 15 {
		t.Fatalf("there are only %v", pages)
	}
	return pages
}

// TestPackage builds the packages of both architectures twice, a different umask and place each time: the same commit
// gives the same bytes.
func TestPackage(t *testing.T) {
	t.Parallel()
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
		files := sh(t, nil, "dpkg-deb", "--contents", first) + "\n"
		if !strings.Contains(files, "-rw-r--r-- root/root") || strings.Contains(files, "-rw-------") {
			t.Errorf("%s has files that not everybody can read:\n%s", first, files)
		}
		for _, path := range slices.Concat(contents, manPages(t)) {
			if !strings.Contains(files, " ."+path+"\n") {
				t.Errorf("%s lacks %s", first, path)
			}
		}
		if conffiles := sh(t, nil, "dpkg-deb", "--info", first, "conffiles"); conffiles != "/etc/berth/berth.yaml" {
			t.Errorf("%s has the configuration files %q", first, conffiles)
		}
	}
}
