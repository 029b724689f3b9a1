package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// make clean leaves nothing of what builds and tests make in the tree, and touches nothing else.
func TestMakeClean(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	put := func(path, content string, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil { //nolint:gosec // as a work tree is
			t.Fatal(err)
		}
	}
	put("Makefile", string(makefile), 0o644)
	put("scripts/engine.sh", "#!/bin/sh\necho \"$@\" >asked\n", 0o755) // the images of whoever runs this test stay
	for _, made := range []string{"bin/berth", "dist/berth.deb", ".cache/e2e/root.tar"} {
		put(made, "", 0o644)
	}
	put(".cache/another", "", 0o644)
	cmd := exec.CommandContext(t.Context(), "make", "clean")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make clean: %v\n%s", err, out)
	}
	for path, stays := range map[string]bool{
		"bin": false, "dist": false, ".cache/e2e": false, ".cache/another": true, "Makefile": true,
	} {
		if _, err := os.Stat(filepath.Join(dir, path)); (err == nil) != stays {
			t.Errorf("%s is there: %v; want %v", path, err == nil, stays)
		}
	}
	if asked, err := os.ReadFile(filepath.Join(dir, "asked")); err != nil || string(asked) != "forget\n" {
		t.Errorf("the engine's script was asked %q, %v; want it to forget the test images", asked, err)
	}
}
