package contract

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The frame of a line, for all versions: {"crc":"XXXXXXXX",REST} with the CRC-32C of REST and its brace.
const frame = `{"crc":"00000000",`

func checksum(line string) string {
	sum := crc32.Checksum([]byte(line[len(frame):]), crc32.MakeTable(crc32.Castagnoli))
	return hex.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// sealed gives a line its checksum.
func sealed(line string) string {
	at := len(`{"crc":"`)
	return line[:at] + checksum(line) + line[at+8:]
}

// ledgerLines returns the lines of a ledger, without the zeros at its end. Each has to be whole.
func ledgerLines(t *testing.T, file []byte) []string {
	t.Helper()
	text := strings.TrimRight(string(file), "\x00")
	if !strings.HasSuffix(text, "\n") {
		t.Fatalf("the last line has no end: %q", text)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		if len(line) <= len(frame) || sealed(line) != line || !json.Valid([]byte(line)) {
			t.Fatalf("a line's frame, JSON or checksum (%s) is wrong:\n%s", checksum(line), line)
		}
	}
	return lines
}

var (
	peers  = regexp.MustCompile(`,"peers":\d+`)
	serves = regexp.MustCompile(`,"serves":\{.*\}\}(\}\})$`) // with the end of the header
)

// steady returns a ledger in a form that two runs share: one header, with the last number of peers and without the groups that serve, which are in it some seconds later, and one entry a line, by
// target, the first of each phase or the last of all (a call that takes long has one more), with fixed times, the boot id of
// nobody, and checksums that fit. It is a ledger itself.
func (w *world) steady(lines []string, last bool) string {
	t := w.t
	t.Helper()
	var rest []string // whatever is no entry
	var header string // the first one, without the number of peers and its end
	entries, phases := map[string][]string{}, map[string]bool{}
	for _, line := range lines {
		line = serves.ReplaceAllString(line, "$1")
		var v struct {
			Header  json.RawMessage   `json:"header"`
			Entries []json.RawMessage `json:"entries"`
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		if v.Header != nil && header != "" { // the number of peers has changed
			rest[0] = header + peers.FindString(line) + "}}"
			continue
		}
		if v.Header != nil {
			header = strings.TrimSuffix(peers.ReplaceAllString(line, ""), "}}")
		}
		if v.Entries == nil {
			rest = append(rest, line)
			continue
		}
		for _, raw := range v.Entries {
			var key struct {
				ARN   string `json:"group_arn"`
				ID    string `json:"id"`
				Port  int    `json:"port"`
				Phase any    `json:"phase"`
				Gone  bool   `json:"gone"`
			}
			if err := json.Unmarshal(raw, &key); err != nil {
				t.Fatal(err)
			}
			at := fmt.Sprintf("%s %s %05d", key.ARN, key.ID, key.Port)
			phase := fmt.Sprint(at, key.Phase, key.Gone)
			switch {
			case last:
				entries[at] = []string{string(raw)}
			case !phases[phase]:
				phases[phase] = true
				entries[at] = append(entries[at], string(raw))
			}
		}
	}
	var keys []string
	for key := range entries {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		for _, raw := range entries[key] {
			rest = append(rest, frame+`"entries":[`+raw+`]}`)
		}
	}
	text := strings.NewReplacer(bootID(t), nobodysBoot, w.dir, "/etc/berth").Replace(strings.Join(rest, "\n"))
	text = eachTime(text, func(n int) string { return fmt.Sprintf("2001-02-03T05:%02d:00.123456789Z", n) })
	var b strings.Builder
	for line := range strings.Lines(text + "\n") {
		b.WriteString(sealed(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}

const nobodysBoot = "00000000-0000-4000-8000-000000000000"

// ofThisBoot makes a golden ledger one that this boot has written.
func ofThisBoot(t *testing.T, file []byte) string {
	t.Helper()
	var b strings.Builder
	for _, line := range ledgerLines(t, file) {
		b.WriteString(sealed(strings.ReplaceAll(line, nobodysBoot, bootID(t))) + "\n")
	}
	return b.String()
}

// ledgerHas waits until the ledger on disk has a container's target in a phase.
func (w *world) ledgerHas(name, phase string) {
	w.t.Helper()
	w.eventually("the ledger has "+name+" "+phase, func() bool {
		w.follow()
		file, err := os.ReadFile(w.path("state/ledger.json"))
		if err != nil {
			return false
		}
		var found any
		for line := range bytes.Lines(bytes.TrimRight(file, "\x00")) {
			var v struct {
				Entries []struct {
					Phase any // a string, in all that this version writes
					Run   struct{ Name string }
				}
			}
			if json.Unmarshal(line, &v) != nil {
				return false
			}
			for _, e := range v.Entries {
				if e.Run.Name == name {
					found = e.Phase
				}
			}
		}
		return found == phase
	})
}

// ledger returns the agent's ledger, steady.
func (w *world) ledger(last bool) string {
	w.t.Helper()
	file, err := os.ReadFile(w.path("state/ledger.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.steady(ledgerLines(w.t, file), last)
}

// What the agent writes of a target that is registered, and of one that is being taken out.
func TestLedger_written(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.up()
	w.engine.run("web-1", "web", 32768)
	w.ledgerHas("web-1", "registered")
	w.engine.run("slow-1", "slow", 32769)
	w.ledgerHas("slow-1", "registered")
	w.must(0, "drain", "slow-1")
	w.ledgerHas("slow-1", "leaving")
	w.down()
	golden(t, "ledger/ledger.json", w.ledger(false))
	info, err := os.Stat(w.path("state/ledger.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().String(); got != "-rw-r-----" {
		t.Errorf("mode: got %s; want -rw-r-----", got)
	}
}

// What berth ledger reads from the golden files: from the one of TestLedger_written, and from one that a newer version
// wrote, with members, lines and forms that this one does not know.
func TestLedger_printed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"ledger", "newer"} {
		w.write("state/ledger.json", string(goldenFile(t, "ledger/"+name+".json")))
		golden(t, "ledger/"+name+"_printed.json", w.must(0, "ledger", "--json"))
		golden(t, "ledger/"+name+"_printed.txt", w.must(0, "ledger"))
	}
}

// What the agent reads from the golden files, as the state of its own boot: whose the registered targets are, so that
// none is registered again, and that of a container which is not there is taken out. What it does not know it keeps.
func TestLedger_read(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ledger", "newer"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.write("state/ledger.json", ofThisBoot(t, goldenFile(t, "ledger/"+name+".json")))
			w.engine.run("web-1", "web", 32768)
			w.foreign("web", 32768)
			w.foreign("slow", 32770) // newer.json has it
			w.up()
			w.must(0, "wait", "--for", "registered", "web-1")
			if name == "newer" {
				w.ledgerHas("slow-2", "leaving")
			}
			golden(t, "ledger/"+name+"_read.txt", standing(t, w.follow()))
			if calls := w.sim.CallsOf("RegisterTargets"); len(calls) != 0 {
				t.Errorf("%d registrations of what is registered: %+v", len(calls), calls)
			}
			w.down()
			golden(t, "ledger/"+name+"_after.json", w.ledger(true))
		})
	}
}

// standing is how a status says that targets stand: without what a look at the load balancer adds, which comes some time
// in the first half minute, and without targets that are nobody's, of which only a look can tell.
func standing(t *testing.T, status string) string {
	t.Helper()
	var v struct {
		Rows []struct {
			Container struct{ Name string }
			Group     string `json:"target_group"`
			Target    struct {
				ID   string
				Port int
			}
			State string
		}
	}
	if err := json.Unmarshal([]byte(status), &v); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range v.Rows {
		switch r.State {
		case "unclaimed":
			continue
		case "healthy", "unhealthy", "initial", "unused", "unavailable":
			r.State = "registered"
		}
		fmt.Fprintf(&b, "%s %s %s:%d %s\n", r.Container.Name, r.Group, r.Target.ID, r.Target.Port, r.State)
	}
	return b.String()
}
