package layout

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// most is how many Go files a folder may hold besides tests: about as many as one reads as one list.
const most = 25

func TestFolders_size(t *testing.T) {
	folders := map[string]int{}
	for _, f := range goFiles(t) {
		if !strings.HasSuffix(f, "_test.go") {
			folders[path.Dir(f)]++
		}
	}
	for folder, n := range folders {
		if n > most {
			t.Errorf("%s holds %d Go files besides tests; want at most %d", folder, n, most)
		}
	}
}

// Nobody can import package main: whatever a test is to run lives elsewhere.
func TestFolders_main(t *testing.T) {
	var got []string
	for _, f := range goFiles(t) {
		if strings.HasPrefix(f, "cmd/agent/") && !strings.HasSuffix(f, "_test.go") {
			got = append(got, f)
		}
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"cmd/agent/main.go"}, got); d != "" {
		t.Errorf("cmd/agent holds more than main.go (-want +got):\n%s", d)
	}
}
