package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/registrar/elb"
)

// onDiskNow returns the lines of a ledger's file.
func onDiskNow(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(bytes.TrimRight(data, "\x00\n")), "\n")
}

// The number of peers is there for the next agent of this host, costs a line where it changes by more than a tenth, and none
// where it does not.
func TestLedger_NotePeers(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, "boot-1", Options{})
	if got := l.Peers(); got != 0 {
		t.Errorf("%d peers in an empty ledger; want 0: nobody knows", got)
	}
	l.Claim(ledgerSelf)
	mustIntend(t, l, ledgerEntry(32768, "a"))
	for _, n := range []int{400, 440, 361, -1, 0} {
		l.NotePeers(n)
		if got := l.Peers(); got != 400 {
			t.Errorf("%d peers after %d were seen; want 400", got, n)
		}
	}
	closeLedger(t, l)
	lines := onDiskNow(t, dir)
	if n := len(lines); n != 3 || !strings.Contains(lines[n-1], `"peers":400}}`) {
		t.Errorf("the file is\n%s\nwant a header, an entry, and a header with the peers", strings.Join(lines, "\n"))
	}

	l = openLedger(t, dir, "boot-2", Options{})
	l.Claim(ledgerSelf)
	if got := l.Peers(); got != 400 {
		t.Errorf("%d peers after a restart; want 400", got)
	}
	wantEntries(t, l, ledgerEntry(32768, "a"))
	l.NotePeers(399)
	mustIntend(t, l, ledgerEntry(32769, "b"))
	closeLedger(t, l)
	if lines := onDiskNow(t, dir); len(lines) != 3 || !strings.Contains(lines[0], `"peers":400}}`) {
		t.Errorf("the file is\n%s\nwant a header with the peers, and two entries", strings.Join(lines, "\n"))
	}
	kept, err := Peek(dir)
	if err != nil || kept.Peers() != 400 {
		t.Errorf("a look at the file: %d peers, %v; want 400", kept.Peers(), err)
	}

	l = openLedger(t, dir, "boot-1", Options{})
	l.Claim(elb.Self{InstanceID: "i-0fedcba9876543210", Region: "eu-west-1", Account: "123456789012"})
	if got := l.Peers(); got != 0 {
		t.Errorf("%d peers in the ledger of another instance; want 0", got)
	}
	closeLedger(t, l)
}

// An agent that is killed has left its number of peers: it is written with the next claim, right after it.
func TestLedger_NotePeers_kill(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, "boot-1", Options{})
	l.Claim(ledgerSelf)
	mustIntend(t, l, ledgerEntry(32768, "a"))
	l.NotePeers(70)
	mustIntend(t, l, ledgerEntry(32769, "b"))
	mustIntend(t, l, ledgerEntry(32770, "c")) // the header is before it
	if kept, err := Peek(dir); err != nil || kept.Peers() != 70 {
		t.Errorf("without a Close: %d peers, %v; want 70", kept.Peers(), err)
	}
}

// A number of peers that cannot be one is nobody's business but its writer's: the file is read, and it is kept as it was
// written.
func TestParse_peers(t *testing.T) {
	for value, want := range map[string]int{
		`400`: 400, `1`: 1, `0`: 0, `-3`: 0, `1.5`: 0, `"400"`: 0, `null`: 0, `{"hosts":3}`: 0, `[1]`: 0, `99999999999999999999`: 0, `2000000`: 0,
	} {
		header := `"header":{"schema":1,"instance_id":"` + ledgerInstance + `","boot_id":"boot-1","peers":` + value + `,"flavour":"x"}`
		c, err := parse(ledgerLines(header, `"entries":[`+minimal("32768", "")+`]`))
		if err != nil {
			t.Errorf("peers %s: %v", value, err)
			continue
		}
		if c.header.peers != want || len(c.records) != 1 {
			t.Errorf("peers %s: read as %d with %d entries; want %d and the one", value, c.header.peers, len(c.records), want)
		}
		again, err := appendHeader(nil, c.header)
		if err != nil || !strings.Contains(string(again), `"peers":`+value) || strings.Count(string(again), `"peers"`) != 1 || !strings.Contains(string(again), `"flavour":"x"`) {
			t.Errorf("peers %s: written again as %s, %v", value, again, err)
		}
	}
}

// Of two headers the later one counts, for what comes after it as well.
func TestParse_laterHeader(t *testing.T) {
	c, err := parse(ledgerLines(ledgerHeader1, `"entries":[`+minimal("32768", "")+`]`,
		strings.Replace(ledgerHeader1, `"boot-1"`, `"boot-1","peers":9`, 1), `"entries":[`+minimal("32769", "")+`]`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range contentEntries(c) {
		got[e.Target.String()] = e.BootID
	}
	if diff := cmp.Diff(map[string]string{ledgerInstance + ":32768": "boot-1", ledgerInstance + ":32769": "boot-1"}, got); diff != "" || c.header.peers != 9 {
		t.Errorf("%d peers; want 9; boots of the entries (-want +got):\n%s", c.header.peers, diff)
	}
}
