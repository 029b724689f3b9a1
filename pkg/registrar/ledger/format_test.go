package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
	"berth/test/memdisk"
)

// encodeLedger writes a file of some schema with one line for each commit.
func encodeLedger(t testing.TB, schema int, commits ...[]Entry) []byte {
	t.Helper()
	b, err := appendHeader(nil, fileHeader{Schema: schema, InstanceID: ledgerInstance, BootID: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, entries := range commits {
		var changes []change
		for _, e := range entries {
			r := &record{Entry: e.normal(), instance: ledgerInstance}
			changes = append(changes, change{r.key(), r})
		}
		if b, err = appendCommit(b, changes); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// ledgerLines writes lines with these members, whatever they are, and the right checksums.
func ledgerLines(lines ...string) []byte {
	var b []byte
	for _, line := range lines {
		b, _ = appendLine(b, func(b []byte) ([]byte, error) { return append(b, line...), nil })
	}
	return b
}

const ledgerHeader1 = `"header":{"schema":1,"instance_id":"` + ledgerInstance + `","boot_id":"boot-1"}`

// minimal is an entry of the frozen fields alone, and what more is given.
func minimal(port, more string) string {
	return fmt.Sprintf(`{"group_arn":%q,"id":%q,"port":%s%s}`, ledgerARN, ledgerInstance, port, more)
}

// The file of schema 1 stays readable, byte for byte, by every version to come.
func TestParseLedger_golden(t *testing.T) {
	e := ledgerEntry(32768, "a")
	e.Phase, e.Confirmed = Registered, e.Intended.Add(time.Second)
	left := ledgerEntry(32769, "b")
	left.Phase, left.Removed = Removing, left.Intended.Add(time.Minute)
	v6 := ledgerEntry(32770, "c")
	v6.Target.ID, v6.Facts.TargetType = "fd00::1", "ip"
	written := encodeLedger(t, 1, []Entry{e, left}, []Entry{v6})
	gone, err := appendCommit(nil, []change{{claim{ledgerARN, v6.Target}, nil}})
	if err != nil {
		t.Fatal(err)
	}
	written = append(written, gone...)
	path := filepath.Join("testdata", "ledger_v1.json")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, written, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(written)); diff != "" {
		t.Errorf("what is written changed (-golden +now):\n%s", diff)
	}
	content, err := parse(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Entry{e, left}, contentEntries(content)); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	for number, line := range strings.Split(strings.TrimSpace(string(golden)), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("line %d is no JSON for other tools", number+1)
		}
	}
}

func contentEntries(c *content) []Entry {
	var out []Entry
	for _, r := range c.records {
		out = append(out, r.Entry)
	}
	slices.SortFunc(out, Entry.Compare)
	return out
}

func TestParseLedger(t *testing.T) {
	plain := func(port uint16) Entry {
		return Entry{
			Group:  elb.Group{ARN: ledgerARN},
			Facts:  elb.Facts{ARN: ledgerARN, Name: "web-prod", TargetType: "instance"},
			Target: target.Target{ID: ledgerInstance, Port: port}, Phase: Intended, BootID: "boot-1",
		}
	}
	with := func(e Entry, f func(*Entry)) []Entry {
		f(&e)
		return []Entry{e}
	}
	good := ledgerLines(ledgerHeader1, `"entries":[`+minimal("1", "")+`]`)
	bad := strings.Replace(string(ledgerLines(`"entries":[`+minimal("2", "")+`]`)), `"port":2`, `"port":3`, 1)
	more := string(ledgerLines(`"entries":[` + minimal("4", "") + `]`))
	for _, tt := range []struct {
		name    string
		data    []byte
		want    []Entry
		corrupt string // part of the error; empty: none
		torn    bool
		skipped int
	}{
		{name: "header alone", data: ledgerLines(ledgerHeader1)},
		{name: "older: the frozen fields alone", data: good, want: []Entry{plain(1)}},
		{
			name: "newer: unknown members everywhere, a phase and a run of another form",
			data: ledgerLines(`"header":{"schema":2,"instance_id":"`+ledgerInstance+`","boot_id":"boot-1","flavour":[1]}`,
				`"entries":[`+minimal("1", `,"phase":"verifying","run":"abc","weight":{"a":[1,"]}"]},"instance_id":"i-2","boot_id":"boot-7"`)+`]`,
				`"journal":{"x":1}`),
			want: with(plain(1), func(e *Entry) { e.BootID = "boot-7" }),
		},
		{
			name: "duplicates: the last counts", data: ledgerLines(ledgerHeader1,
				`"entries":[`+minimal("1", `,"boot_id":"a"`)+`,`+minimal("1", `,"boot_id":"b"`)+`]`,
				`"entries":[`+minimal("1", `,"boot_id":"c"`)+`]`),
			want: with(plain(1), func(e *Entry) { e.BootID = "c" }),
		},
		{name: "gone", data: ledgerLines(ledgerHeader1, `"entries":[`+minimal("1", "")+`,`+minimal("2", "")+`]`,
			`"entries":[`+minimal("1", `,"gone":true`)+`]`), want: []Entry{plain(2)}},
		{name: "gone and back", data: ledgerLines(ledgerHeader1, `"entries":[`+minimal("1", `,"gone":true`)+`]`,
			`"entries":[`+minimal("1", `,"gone":false`)+`]`), want: []Entry{plain(1)}},
		{
			name: "an address", data: ledgerLines(ledgerHeader1, `"entries":[`+strings.Replace(minimal("1", ""), ledgerInstance, "10.0.0.7", 1)+`]`),
			want: with(plain(1), func(e *Entry) { e.Target.ID, e.Facts.TargetType = "10.0.0.7", "ip" }),
		},
		{
			name: "no target: ports", data: ledgerLines(ledgerHeader1, `"entries":[`+minimal("0", "")+`,`+minimal("70000", "")+`,`+
				minimal("-1", "")+`,`+minimal("1.5", "")+`,`+minimal(`"80"`, "")+`,`+minimal("null", "")+`,`+minimal("1", "")+`]`),
			want: []Entry{plain(1)}, skipped: 6,
		},
		{
			name: "no target: ids and ARNs", data: ledgerLines(ledgerHeader1, `"entries":[{"port":1},{"group_arn":"","id":"i","port":1},`+
				`{"group_arn":"a","id":null,"port":1},{"group_arn":7,"id":"i","port":1},{"group_arn":"a","id":"","port":1},[],"x",{}]`),
			skipped: 8,
		},
		{
			name: "spaces and escapes", data: ledgerLines(ledgerHeader1,
				` "entries" : [ { "group_\u0061rn" : "a\"\u00e9" , "id":"i-1" ,"port": 1, "boot_id": "b" } ] `),
			want: []Entry{{
				Group: elb.Group{ARN: `a"é`}, Facts: elb.Facts{ARN: `a"é`, TargetType: "instance"},
				Target: target.Target{ID: "i-1", Port: 1}, Phase: Intended, BootID: "b",
			}},
		},
		{name: "zeros to the end", data: append(slices.Clone(good), make([]byte, 5000)...), want: []Entry{plain(1)}},
		{name: "no newline at the end", data: good[:len(good)-1], want: []Entry{plain(1)}},
		{name: "last line bad", data: append(slices.Clone(good), bad...), want: []Entry{plain(1)}, torn: true},

		{name: "empty", data: nil, corrupt: "line 1"},
		{name: "zeros", data: make([]byte, 100), corrupt: "line 1"},
		{name: "another file", data: []byte("<html>\n<body>\n"), corrupt: "line 1"},
		{name: "header bad", data: []byte(strings.Replace(string(good), "boot-1", "boot-2", 1)), corrupt: "line 1: checksum"},
		{name: "header alone and bad", data: []byte(bad), corrupt: "line 1: checksum"},
		{name: "no header", data: ledgerLines(`"entries":[]`), corrupt: "line 1: header missing"},
		{name: "header of another form", data: ledgerLines(`"header":7`), corrupt: "line 1: header"},
		{name: "a bad line within", data: []byte(string(good) + bad + more), corrupt: "line 3: checksum"},
		{name: "two bad lines at the end", data: []byte(string(good) + bad + bad), corrupt: "line 3: checksum"},
		{name: "a newline lost", data: []byte(string(good[:len(good)-1]) + more + more), corrupt: "line 2: checksum"},
		{name: "checksum of nonsense", data: ledgerLines(ledgerHeader1, `"entries":[}`), corrupt: "line 2"},
		{name: "unknown member that is no JSON", data: ledgerLines(ledgerHeader1, `"entries":[`+minimal("1", `,"x":nul`)+`]`), skipped: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			content, err := parse(tt.data)
			var corrupt *corruptError
			switch {
			case tt.corrupt == "" && err != nil:
				t.Fatal(err)
			case tt.corrupt != "":
				if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), tt.corrupt) {
					t.Fatalf("got %v; want an error with %q", err, tt.corrupt)
				}
				return
			}
			if diff := cmp.Diff(tt.want, contentEntries(content)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			if (content.torn > 0) != tt.torn || len(content.skipped) != tt.skipped {
				t.Errorf("torn %d bytes, skipped %q; want torn %v and %d skipped", content.torn, content.skipped, tt.torn, tt.skipped)
			}
		})
	}
}

// What the error log can tell of a corrupt file comes from all of its lines that are whole.
func TestParseLedger_lost(t *testing.T) {
	one, two := `"entries":[`+minimal("1", "")+`]`, `"entries":[`+minimal("2", "")+`]`
	data := string(ledgerLines(ledgerHeader1, one)) + "garbage\n" + string(ledgerLines(two))
	_, err := parse([]byte(data))
	var corrupt *corruptError
	if !errors.As(err, &corrupt) || corrupt.line != 3 {
		t.Fatalf("got %v; want line 3", err)
	}
	if got := len(corrupt.lost.records); got != 2 {
		t.Errorf("%d entries known to be lost; want 2", got)
	}
}

// What a newer version wrote survives this version, as long as the entry does.
func TestLedger_unknownFieldsSurvive(t *testing.T) {
	d := memdisk.New()
	d.Put(memPath, ledgerLines(
		`"header":{"schema":2,"instance_id":"`+ledgerInstance+`","boot_id":"boot-1","flavour":["x",{"y":1}]}`,
		`"journal":{"kept":true}`,
		`"entries":[`+minimal("1", `,"weight":1.50,"run":{"id":"r","name":"n","shard":"s"},"group":{"key":"web","tier":"gold"},"facts":{"protocol":"HTTP","az":["a"]}`)+
			`,`+minimal("2", `,"run":{"v2":"form","id":7},"confirmed":1234567,"phase":["odd"]`)+`,`+minimal("3", `,"weight":3`)+`]`))
	rewrite := func() string {
		l := openOn(t, d, Options{})
		e := ledgerEntry(9, "z")
		mustIntend(t, l, e)
		l.Note(ledgerARN, []target.Target{{ID: ledgerInstance, Port: 1}}, Registered)
		l.Note(ledgerARN, []target.Target{{ID: ledgerInstance, Port: 3}, e.Target}, Absent)
		closeLedger(t, l)
		return strings.TrimRight(string(d.Content(memPath)), "\x00")
	}
	rewrite()
	text := rewrite() // and twice
	for _, want := range []string{
		`"flavour":["x",{"y":1}]`, `"journal":{"kept":true}`, `"weight":1.50`, `"shard":"s"`, `"tier":"gold"`, `"az":["a"]`,
		`"run":{"v2":"form","id":7}`, `"confirmed":1234567`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lost %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, `"weight":3`) {
		t.Errorf("an entry that is gone left something behind:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	// A new run of the same target keeps what belongs to the entry and the group, not what belonged to the run.
	l := openOn(t, d, Options{})
	mustIntend(t, l, ledgerEntry(1, "new"), ledgerEntry(2, "new"))
	closeLedger(t, l)
	text = rewrite()
	if !strings.Contains(text, `"weight":1.50`) || !strings.Contains(text, `"tier":"gold"`) ||
		strings.Contains(text, "shard") || strings.Contains(text, `"v2"`) {
		t.Errorf("rewritten claim: %s", text)
	}
}

// anyEntry draws entries with everything that a name can be.
func anyEntry() *rapid.Generator[Entry] {
	text := rapid.OneOf(rapid.StringMatching(`[a-z0-9:/\-]{0,20}`), rapid.String().Filter(func(s string) bool {
		return strings.ToValidUTF8(s, "") == s
	}))
	at := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(-1e10, 1e12).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
	})
	return rapid.Custom(func(t *rapid.T) Entry {
		return Entry{
			Group: elb.Group{Key: text.Draw(t, "key"), Name: text.Draw(t, "name"), ARN: text.Draw(t, "arn"), Source: text.Draw(t, "source")},
			Facts: elb.Facts{
				ARN: "arn:" + text.Draw(t, "arn"), Name: "n" + text.Draw(t, "name"), TargetType: "t" + text.Draw(t, "type"),
				Protocol: text.Draw(t, "protocol"), Port: rapid.Uint16().Draw(t, "default"),
				LoadBalancers: rapid.SliceOfN(text, 0, 2).Draw(t, "load balancers"),
			},
			Target: target.Target{ID: "i" + text.Draw(t, "id"), Port: rapid.Uint16Min(1).Draw(t, "port")},
			Run:    target.Run{ID: text.Draw(t, "run"), Name: text.Draw(t, "container"), StartedAt: at.Draw(t, "started")},
			Phase:  rapid.SampledFrom([]Phase{"", Intended, Registered, Removing}).Draw(t, "phase"),
			BootID: text.Draw(t, "boot"), Intended: at.Draw(t, "intended"), Confirmed: at.Draw(t, "confirmed"), Removed: at.Draw(t, "removed"),
		}
	})
}

// Whatever is written is read back as it was.
func TestLedgerFormat_roundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[claim]Entry{}
		b, err := appendHeader(nil, fileHeader{Schema: 1, InstanceID: "i", BootID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 4).Draw(t, "commits") {
			var changes []change
			for range rapid.IntRange(0, 4).Draw(t, "entries") {
				r := &record{Entry: anyEntry().Draw(t, "entry").normal(), instance: "i"}
				if len(r.Facts.LoadBalancers) == 0 {
					r.Facts.LoadBalancers = nil // omitempty
				}
				want[r.key()] = r.Entry
				changes = append(changes, change{r.key(), r})
			}
			if len(want) > 0 && rapid.Bool().Draw(t, "drop") {
				keys := slices.SortedFunc(maps.Keys(want), claim.compare)
				key := rapid.SampledFrom(keys).Draw(t, "dropped")
				delete(want, key)
				changes = append(changes, change{key, nil})
			}
			if b, err = appendCommit(b, changes); err != nil {
				t.Fatal(err)
			}
		}
		content, err := parse(b)
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		got := map[claim]Entry{}
		for key, r := range content.records {
			got[key] = r.Entry
		}
		for key, e := range want {
			if e.Group == (elb.Group{}) {
				e.Group.ARN = e.Facts.ARN
				want[key] = e
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// eachMember finds in an object what encoding/json finds.
func FuzzEachMember(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : 1 , "b":[{"c":"}"}],"\u0064":"\"","e":null,"a":true}`, `{"a":1,}`, `{"a"}`, `{`, `{"a":"\`, `[]`, `{"a":{]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := map[string]string{}
		err := eachMember(b, func(name, value []byte) error {
			got[string(name)] = string(value)
			return nil
		})
		var want map[string]json.RawMessage
		if json.Unmarshal(b, &want) != nil || want == nil {
			return // it may be more lenient, never panic
		}
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if len(got) != len(want) {
			t.Fatalf("got %v; want %v", got, want)
		}
		for name, value := range want {
			if got[name] != string(value) {
				t.Fatalf("%q is %s; want %s", name, got[name], value)
			}
		}
	})
}

// Whatever a line holds, with a right checksum or without: reading never panics, what it accepts can be written, and
// what was written reads the same.
func FuzzParseLedger(f *testing.F) {
	f.Add([]byte(ledgerHeader1), []byte(`"entries":[`+minimal("1", `,"x":{"y":[]},"run":{"id":"r","z":1}`)+`]`), []byte{})
	f.Add([]byte(ledgerHeader1), []byte(`"entries":[`+minimal("1", `,"phase":7,"phase":"registered","intended":"2026-01-02T03:04:05Z"`)+`]`), []byte("torn"))
	f.Add([]byte(`"header":{"schema":9,"q":1}`), []byte(`"group":{}`), []byte("\x00\x00"))
	f.Add([]byte(ledgerHeader1), []byte(`"entries":[`+minimal("70000", "")+`,`+minimal("1", `,"group":null,"facts":{"port":99999}`)+`]`), []byte("\n"))
	f.Fuzz(func(t *testing.T, header, line, tail []byte) {
		clean := func(b []byte) string { return strings.ReplaceAll(string(b), "\n", " ") }
		data := append(ledgerLines(clean(header), clean(line)), tail...)
		first, err := parse(data)
		if err != nil {
			return
		}
		write := func(c *content) []byte {
			b, err := appendHeader(nil, c.header)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range c.other {
				b = append(append(b, line...), '\n')
			}
			for _, key := range slices.SortedFunc(maps.Keys(c.records), claim.compare) {
				if b, err = appendCommit(b, []change{{key, c.records[key]}}); err != nil {
					t.Fatal(err)
				}
			}
			return b
		}
		written := write(first)
		second, err := parse(written)
		if err != nil {
			t.Fatalf("%v in what was written:\n%s", err, written)
		}
		if diff := cmp.Diff(contentEntries(first), contentEntries(second)); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		if again := write(second); string(again) != string(written) {
			t.Fatalf("written again:\n%s\nbefore:\n%s", again, written)
		}
	})
}
