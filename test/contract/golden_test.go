package contract

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden compares got with a file of testdata, or makes it that file with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", filepath.FromSlash(name))
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test ./test/contract -update writes it)", err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-golden +now):\n%s", name, diff)
	}
}

// goldenFile returns a file of testdata.
func goldenFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pretty returns JSON with one member a line, the order kept, and on its first line whether it came on one line or
// indented: scripts that read line by line depend on it.
func pretty(t *testing.T, raw string) string {
	t.Helper()
	var compact, indented bytes.Buffer
	if err := json.Indent(&indented, []byte(raw), "", "  "); err != nil {
		t.Fatalf("no JSON: %v in %q", err, raw)
	}
	if err := json.Compact(&compact, []byte(raw)); err != nil {
		t.Fatal(err)
	}
	layout := "another layout"
	switch raw {
	case compact.String() + "\n":
		layout = "one line"
	case strings.TrimRight(indented.String(), "\n") + "\n":
		layout = "indented"
	}
	return "# " + layout + "\n" + strings.TrimRight(indented.String(), "\n") + "\n"
}

var (
	timePattern = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	// Times of this year on are the test run's; those of the fixtures are in 2001 and stay.
	fixedTime = regexp.MustCompile(`^2001-`)
)

// eachTime replaces every time of the run by what with makes of its place among the different ones, from 1.
func eachTime(text string, with func(n int) string) string {
	seen := map[string]int{}
	return timePattern.ReplaceAllStringFunc(text, func(at string) string {
		if fixedTime.MatchString(at) {
			return at
		}
		if seen[at] == 0 {
			seen[at] = len(seen) + 1
		}
		return with(seen[at])
	})
}

// masks are what differs from run to run or from host to host, beside times.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`("revision": ?)"[0-9a-f]+-[0-9a-f]+"`), `$1"<REVISION>"`},
	{regexp.MustCompile(`("go_version": ?)"[^"]+"`), `$1"<GO>"`},
	{regexp.MustCompile(`("platform": ?)"[^"]+"`), `$1"<PLATFORM>"`},
	{regexp.MustCompile(`("by": ?)"[^"]+"`), `$1"<USER>"`},
	{regexp.MustCompile(`("pid": ?)[1-9]\d*`), `$1<PID>`},
	{regexp.MustCompile(`("seq": ?)[1-9]\d*`), `$1<SEQ>`},
	{regexp.MustCompile(`\bderegistered \S+ ago\b`), `deregistered <SOME-TIME> ago`},
	{regexp.MustCompile(`("seconds": ?)\d+(\.\d+)?`), `$1<SECONDS>`},
	// Which units there are is the host's matter; that they are named is not.
	{regexp.MustCompile(`(\n    \{\n      "name": "(systemd|berth[a-z-]*\.service)",(\n      "[^\n]*)+\n    \},)+`), "\n    <UNITS>,"},
}

// mask replaces in an output what differs from run to run.
func (w *world) mask(text string) string {
	text = strings.ReplaceAll(text, w.dir, "<DIR>")
	text = strings.ReplaceAll(text, bootID(w.t), "<BOOT>")
	text = strings.ReplaceAll(text, w.ip, "<IP>")
	for _, m := range masks {
		text = m.pattern.ReplaceAllString(text, m.with)
	}
	text = regexp.MustCompile(`\bby `+regexp.QuoteMeta(w.user)+`\b`).ReplaceAllString(text, "by <USER>")
	return eachTime(text, func(int) string { return "<TIME>" })
}

// bootID is the kernel's, which entries of the ledger carry.
func bootID(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
