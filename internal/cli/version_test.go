package cli

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"berth/pkg/status"
)

func TestVersion(t *testing.T) {
	code, out, stderr := runCommand(t.Context(), nil, "version")
	if code != 0 || stderr != "" {
		t.Fatalf("got %d %s; want 0", code, stderr)
	}
	for _, want := range []string{"berth " + testBuild.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q; want it to contain %q", out, want)
		}
	}
	code, out, _ = runCommand(t.Context(), nil, "version", "--json")
	var v versionV1
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || v.Version != testBuild.Version || v.GoVersion != runtime.Version() {
		t.Errorf("--json: got %d %s, %v", code, out, err)
	}
	if code, _, _ := runCommand(t.Context(), nil, "version", "please"); code != exitUsage {
		t.Errorf("with an argument: got %d; want %d", code, exitUsage)
	}
}

func TestVersionV1_line(t *testing.T) {
	for want, v := range map[string]versionV1{
		"berth 1.2.3 (go1.26, linux/arm64)":                        {status.Build{Version: "1.2.3", GoVersion: "go1.26"}, "2026-11-22", "linux/arm64"},
		"berth 1.2.3 (revision 0123, go1.26, linux/arm64)":         {status.Build{Version: "1.2.3", Revision: "0123", GoVersion: "go1.26"}, "", "linux/arm64"},
		"berth 1.2.3 (revision 0 of 2026-11-22, go1, linux/amd64)": {status.Build{Version: "1.2.3", Revision: "0", GoVersion: "go1"}, "2026-11-22", "linux/amd64"},
	} {
		if got := v.line(); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}
