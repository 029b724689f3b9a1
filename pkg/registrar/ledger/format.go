package ledger

// The ledger's file: JSON lines, each with a CRC-32C of what follows it, and zeros up to the end of the file.
//
//	{"crc":"8f6a1c02","header":{"schema":1,"instance_id":"i-…","boot_id":"…","written":"…"}}
//	{"crc":"17c3b5aa","entries":[{"group_arn":"arn:…","id":"i-…","port":32768,"instance_id":"i-…","boot_id":"…",…}]}
//	{"crc":"0e44d1f7","entries":[{"group_arn":"arn:…","id":"i-…","port":32768,"gone":true}]}
//
// The first line is a header. One that comes later takes its place: it has another number of peers, or says that
// another group serves a key. Of the entries with one
// group_arn, id and port the last one counts; gone ends it. One line is one group commit, so that a commit is there as a
// whole or not at all, and only the last line can be torn.
//
// For all versions: the frame of a line, the names header, entries and gone, and in an entry group_arn, id, port,
// instance_id and boot_id (the last two may be left to the header). Everything else may be absent, or may be more than
// this version knows: it is kept, as it was written, for as long as the entry or the file lives.

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// schema is the version that this program writes.
const schema = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// claim is the identity of an entry.
type claim struct {
	arn    string
	target target.Target
}

// record is an entry with what the file has besides. It is never changed: a new state is a new record.
type record struct {
	Entry
	instance string // that wrote it
	extra    *extra // nil: nothing
	// claimed is the sequence number from which the disk has to know that this host may have the target for this run.
	claimed uint64
}

func (r *record) key() claim { return claim{r.Facts.ARN, r.Target} }

// extra is what an entry has beyond what this version knows: members of the entry and of the objects in it. Those of
// the entry include known ones in a form that is not known. It is never changed.
type extra struct{ entry, run, group, facts []member }

// without returns x less the entry's members of these names, and less the run's own if the run is another.
func (x *extra) without(otherRun bool, names ...string) *extra {
	if x == nil {
		return nil
	}
	kept := *x
	for _, name := range names {
		kept.entry = dropMember(kept.entry, name)
	}
	if otherRun {
		kept.run = nil
	}
	return &kept
}

// fileHeader is the first line of the file.
type fileHeader struct {
	Schema     int       `json:"schema"`
	InstanceID string    `json:"instance_id"`
	BootID     string    `json:"boot_id"`
	Written    time.Time `json:"written,omitzero"`
	// peers is how many hosts share the account's rate limits, as far as was seen; 0: nothing is known. Its member "peers"
	// is no more than a hint: one in a form that is not known here stays among extra.
	peers int
	// serves are the groups that last accepted a target of each key. Its member "serves", an object of facts by key, is a hint,
	// too. The map is never changed.
	serves map[string]elb.Facts
	extra  []member
}

const (
	peersName  = "peers"
	servesName = "serves"
	// peersMost is the largest number of hosts that is believed: more than any account has.
	peersMost = 1_000_000
)

// content is what a file says.
type content struct {
	header  fileHeader
	records map[claim]*record
	other   [][]byte // whole lines of kinds that this version does not know
	torn    int      // bytes of a last line that was not written whole, and is left out
	skipped []string // entries that name no target, and why
}

// corruptError says that a file is no ledger from some line on.
type corruptError struct {
	line   int
	reason string
	// lost is what the other lines say.
	lost *content
}

func (e *corruptError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

const (
	linePrefix = `{"crc":"`
	lineSep    = `",`
	lineHead   = len(linePrefix) + 8 + len(lineSep)
)

// appendLine appends one line whose members are appended by body.
func appendLine(b []byte, body func([]byte) ([]byte, error)) ([]byte, error) {
	start := len(b)
	b = append(b, linePrefix+"00000000"+lineSep...)
	b, err := body(b)
	if err != nil {
		return b[:start], err
	}
	b = append(b, '}')
	sum := crc32.Checksum(b[start+lineHead:], castagnoli)
	hex.Encode(b[start+len(linePrefix):], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return append(b, '\n'), nil
}

// checkLine reports whether line, without its newline, is whole.
func checkLine(line []byte) bool {
	if len(line) <= lineHead || string(line[:len(linePrefix)]) != linePrefix ||
		string(line[lineHead-len(lineSep):lineHead]) != lineSep {
		return false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[len(linePrefix):lineHead-len(lineSep)]); err != nil {
		return false
	}
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	return crc32.Checksum(line[lineHead:], castagnoli) == want
}

// appendHeader appends the line that begins a file.
func appendHeader(b []byte, h fileHeader) ([]byte, error) {
	return appendLine(b, func(b []byte) ([]byte, error) {
		extra := slices.Clone(h.extra)
		foreign := func(name string) bool {
			return slices.ContainsFunc(extra, func(m member) bool { return m.name == name })
		}
		if h.peers > 0 && !foreign(peersName) {
			extra = append(extra, member{peersName, strconv.AppendInt(nil, int64(h.peers), 10)})
		}
		if len(h.serves) > 0 && !foreign(servesName) {
			value, err := json.Marshal(h.serves)
			if err != nil {
				return b, fmt.Errorf("write which groups serve: %w", err)
			}
			extra = append(extra, member{servesName, value})
		}
		return appendObject(append(b, `"header":`...), h, extra)
	})
}

// appendCommit appends one line with the present state of some claims: a nil record is gone.
func appendCommit(b []byte, changes []change) ([]byte, error) {
	return appendLine(b, func(b []byte) ([]byte, error) {
		var err error
		b = append(b, `"entries":[`...)
		for i, c := range changes {
			if i > 0 {
				b = append(b, ',')
			}
			if c.record == nil {
				b = appendGone(b, c.claim)
			} else if b, err = appendRecord(b, c.record); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	})
}

// change is the present state of one claim.
type change struct {
	claim  claim
	record *record
}

func appendClaim(b []byte, c claim) []byte {
	b = appendString(append(b, `{"group_arn":`...), c.arn)
	b = appendString(append(b, `,"id":`...), c.target.ID)
	return strconv.AppendUint(append(b, `,"port":`...), uint64(c.target.Port), 10)
}

func appendGone(b []byte, c claim) []byte {
	return append(appendClaim(b, c), `,"gone":true}`...)
}

func appendRecord(b []byte, r *record) ([]byte, error) {
	x := r.extra
	if x == nil {
		x = &extra{}
	}
	// A member that another version writes in a form unknown here stays in that form.
	foreign := func(name string) bool {
		return slices.ContainsFunc(x.entry, func(m member) bool { return m.name == name })
	}
	var err error
	b = appendClaim(b, r.key())
	b = appendString(append(b, `,"instance_id":`...), r.instance)
	b = appendString(append(b, `,"boot_id":`...), r.BootID)
	if !foreign("phase") {
		b = appendString(append(b, `,"phase":`...), string(r.Phase))
	}
	if !foreign("run") && (r.Run != target.Run{} || len(x.run) > 0) {
		b = appendString(append(b, `,"run":{"id":`...), r.Run.ID)
		b = appendString(append(b, `,"name":`...), r.Run.Name)
		b = appendTime(b, "started_at", r.Run.StartedAt)
		b = append(appendMembers(b, x.run), '}')
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"intended", r.Intended}, {"confirmed", r.Confirmed}, {"removed", r.Removed}} {
		if !foreign(t.name) {
			b = appendTime(b, t.name, t.at)
		}
	}
	if !foreign("group") {
		if b, err = appendObject(append(b, `,"group":`...), r.Group, x.group); err != nil {
			return b, err
		}
	}
	if !foreign("facts") {
		if b, err = appendObject(append(b, `,"facts":`...), r.Facts, x.facts); err != nil {
			return b, err
		}
	}
	return append(appendMembers(b, x.entry), '}'), nil
}
