package ledger

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// Which group last accepted a target of each key is there for the next agent of this host, whatever became of the targets, and
// costs a line where a key has another group, and none where it has not.
func TestLedger_NoteServes(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, "boot-1", Options{})
	l.Claim(ledgerSelf)
	e := ledgerEntry(32768, "a")
	mustIntend(t, l, e)
	want := map[string]elb.Facts{"web": e.Facts}
	l.NoteServes(map[string]elb.Facts{"web": e.Facts})
	mustIntend(t, l, e)
	renamed := e.Facts
	renamed.LoadBalancers = []string{"arn:lb"}
	l.NoteServes(map[string]elb.Facts{"web": renamed})
	l.Note(e.ARN(), []target.Target{e.Target}, Absent)
	closeLedger(t, l)
	n := 0
	for _, line := range onDiskNow(t, dir) {
		n += strings.Count(line, `"serves"`)
	}
	if n != 1 {
		t.Errorf("%d headers with the groups that serve; want one:\n%s", n, strings.Join(onDiskNow(t, dir), "\n"))
	}

	l = openLedger(t, dir, "boot-2", Options{})
	l.Claim(ledgerSelf)
	l.NotePeers(7)
	closeLedger(t, l)
	kept, err := Peek(dir)
	if diff := cmp.Diff(want, kept.Serves()); err != nil || diff != "" || kept.Peers() != 7 {
		t.Errorf("%d peers, %v; want 7; groups that serve (-want +got):\n%s", kept.Peers(), err, diff)
	}

	l = openLedger(t, dir, "boot-2", Options{})
	l.Claim(elb.Self{InstanceID: "i-0fedcba9876543210", Region: "eu-west-1", Account: "123456789012"})
	if got := l.Serves(); len(got) > 0 {
		t.Errorf("the ledger of another instance has %v; want nothing", got)
	}
	l.NoteServes(nil)
	closeLedger(t, l)
}

// What the header says of it in a form that is not known makes no file unreadable, and is kept as it was written.
func TestParse_serves(t *testing.T) {
	known := `{"web":{"group_arn":"arn:web","target_type":"ip","protocol":"TCP"}}`
	for value, want := range map[string]int{
		known: 1, `{}`: 0, `null`: 0, `7`: 0, `"web"`: 0, `["web"]`: 0, `{"web":"arn:web"}`: 0, `{"web":{"target_type":"ip"}}`: 0,
		strings.Replace(known, "}", `,"flavour":"x"}`, 1): 0,
	} {
		header := fmt.Sprintf(`"header":{"schema":1,"instance_id":%q,"boot_id":"boot-1","serves":%s,"peers":9}`, ledgerInstance, value)
		c, err := parse(ledgerLines(header, `"entries":[`+minimal("32768", "")+`]`))
		if err != nil {
			t.Errorf("serves %s: %v", value, err)
			continue
		}
		if len(c.header.serves) != want || len(c.records) != 1 || c.header.peers != 9 {
			t.Errorf("serves %s: read as %v, %d entries, %d peers; want %d groups, one entry, 9 peers", value, c.header.serves, len(c.records), c.header.peers, want)
		}
		again, err := appendHeader(nil, c.header)
		if err != nil || !strings.Contains(string(again), `"serves":`+value) || strings.Count(string(again), `"serves"`) != 1 || !strings.Contains(string(again), `"peers":9`) {
			t.Errorf("serves %s: written again as %s, %v", value, again, err)
		}
	}
}
