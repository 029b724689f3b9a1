package registrar

// The ledger's file: JSON lines, each with a CRC-32C of what follows it, and zeros up to the end of the file.
//
//	{"crc":"8f6a1c02","header":{"schema":1,"instance_id":"i-…","boot_id":"…","written":"…"}}
//	{"crc":"17c3b5aa","entries":[{"group_arn":"arn:…","id":"i-…","port":32768,"instance_id":"i-…","boot_id":"…",…}]}
//	{"crc":"0e44d1f7","entries":[{"group_arn":"arn:…","id":"i-…","port":32768,"gone":true}]}
//
// The first line is a header. Of the entries with one group_arn, id and port the last one counts; gone ends it. One
// line is one group commit, so that a commit is there as a whole or not at all, and only the last line can be torn.
//
// For all versions: the frame of a line, the names header, entries and gone, and in an entry group_arn, id, port,
// instance_id and boot_id (the last two may be left to the header). Everything else may be absent, or may be more than
// this version knows: it is kept, as it was written, for as long as the entry or the file lives.

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/pkg/target"
)

// ledgerSchema is the version that this program writes.
const ledgerSchema = 1

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

// ledgerHeader is the first line of the file.
type ledgerHeader struct {
	Schema     int       `json:"schema"`
	InstanceID string    `json:"instance_id"`
	BootID     string    `json:"boot_id"`
	Written    time.Time `json:"written,omitzero"`
	extra      []member
}

// ledgerContent is what a file says.
type ledgerContent struct {
	header  ledgerHeader
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
	lost *ledgerContent
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
func appendHeader(b []byte, h ledgerHeader) ([]byte, error) {
	return appendLine(b, func(b []byte) ([]byte, error) {
		return appendObject(append(b, `"header":`...), h, h.extra)
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

// parseLedger reads a file. Its error is a *corruptError.
func parseLedger(data []byte) (*ledgerContent, error) {
	d := &ledgerDecoder{
		content: &ledgerContent{records: map[claim]*record{}},
		text:    map[string]string{}, groups: map[string]interned[Group]{}, facts: map[string]interned[GroupFacts]{},
	}
	var corrupt *corruptError
	data = bytes.TrimRight(data, "\x00")
	for number := 1; number == 1 || len(data) > 0; number++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte{'\n'})
		whole := checkLine(line)
		if !whole && number > 1 && len(data) == 0 {
			d.content.torn = len(line)
			break
		}
		err := fmt.Errorf("checksum does not match (%d bytes)", len(line))
		if whole {
			err = d.line(line)
		}
		if err == nil && !d.seenHeader {
			err = errors.New("header missing")
		}
		if err != nil && corrupt == nil {
			corrupt = &corruptError{line: number, reason: err.Error(), lost: d.content}
		}
	}
	if corrupt != nil {
		return nil, corrupt
	}
	return d.content, nil
}

// ledgerDecoder reads lines one after another. Text that repeats from entry to entry is kept once.
type ledgerDecoder struct {
	content    *ledgerContent
	seenHeader bool
	text       map[string]string
	groups     map[string]interned[Group]
	facts      map[string]interned[GroupFacts]
}

// interned is a decoded object, by its bytes in the file.
type interned[T any] struct {
	value T
	extra []member
	err   error
}

func (d *ledgerDecoder) line(line []byte) error {
	known := false
	err := eachMember(line, func(name, value []byte) error {
		switch {
		case string(name) == "header":
			known = true
			return d.header(value)
		case string(name) == "entries":
			known = true
			return eachElement(value, d.entry)
		}
		return nil
	})
	if err == nil && !known {
		d.content.other = append(d.content.other, bytes.Clone(line))
	}
	return err
}

func (d *ledgerDecoder) header(value []byte) error {
	var h ledgerHeader
	if err := json.Unmarshal(value, &h); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	var err error
	if h.extra, err = unknownMembers(value, headerNames); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	d.content.header, d.seenHeader = h, true
	return nil
}

// entry reads one entry. One that names no target is left out and said so; it does not make the file unreadable.
func (d *ledgerDecoder) entry(value []byte) error {
	r := &record{instance: d.content.header.InstanceID}
	r.BootID = d.content.header.BootID
	var x extra
	var arn string
	gone := false
	err := eachMember(value, func(name, value []byte) error {
		var err error
		switch string(name) {
		case "group_arn":
			arn, err = d.string(value)
		case "id":
			r.Target.ID, err = d.string(value)
		case "port":
			r.Target.Port, err = readPort(value)
		case "instance_id":
			r.instance, err = d.string(value)
		case "boot_id":
			r.BootID, err = d.string(value)
		case "gone":
			gone = string(value) == "true"
		default:
			return d.soft(r, &x, name, value)
		}
		if err != nil {
			return fmt.Errorf("%s %.100s: %w", name, value, err)
		}
		return nil
	})
	if err == nil {
		r.Facts.ARN = arn
		r.Phase = cmp.Or(r.Phase, Intended) // it may be registered: that is all that is sure
		err = r.check()
	}
	if err != nil {
		d.content.skipped = append(d.content.skipped, fmt.Sprintf("%s: %.300s", err, value))
		return nil
	}
	if gone {
		delete(d.content.records, r.key())
		return nil
	}
	d.complete(r)
	if len(x.entry)+len(x.run)+len(x.group)+len(x.facts) > 0 {
		r.extra = &x
	}
	d.content.records[r.key()] = r
	return nil
}

// soft reads a member that is not frozen. What cannot be read, or is not known, is kept as it is. Of two with one name
// the last counts.
func (d *ledgerDecoder) soft(r *record, x *extra, name, value []byte) error {
	var err error
	switch string(name) {
	case "phase":
		r.Phase, err = d.phase(value)
	case "run":
		r.Run, x.run, err = d.run(value)
	case "intended":
		r.Intended, err = readTime(value)
	case "confirmed":
		r.Confirmed, err = readTime(value)
	case "removed":
		r.Removed, err = readTime(value)
	case "group":
		g := intern(d.groups, value, groupNames)
		r.Group, x.group, err = g.value, g.extra, g.err
	case "facts":
		f := intern(d.facts, value, factsNames)
		r.Facts, x.facts, err = f.value, f.extra, f.err
	default:
		err = errUnknown
	}
	if err == nil {
		x.entry = dropMember(x.entry, string(name))
		return nil
	}
	if !json.Valid(value) {
		return errJSON
	}
	x.entry = setMember(x.entry, string(name), value)
	return nil
}

var errUnknown = errors.New("unknown member")

func (d *ledgerDecoder) phase(value []byte) (Phase, error) {
	text, err := d.string(value)
	switch p := Phase(text); {
	case err != nil:
		return "", err
	case p != Intended && p != Registered && p != Removing:
		return "", errUnknown
	default:
		return p, nil
	}
}

func (d *ledgerDecoder) run(value []byte) (target.Run, []member, error) {
	var run target.Run
	var unknown []member
	err := eachMember(value, func(name, value []byte) error {
		var err error
		switch string(name) {
		case "id":
			run.ID, err = readString(value)
		case "name":
			run.Name, err = d.string(value)
		case "started_at":
			run.StartedAt, err = readTime(value)
		default:
			if !json.Valid(value) {
				return errJSON
			}
			unknown = setMember(unknown, string(name), value)
		}
		return err
	})
	if err != nil {
		return target.Run{}, nil, err
	}
	return run, unknown, nil
}

// complete fills in what an older version did not write and the identity gives away.
func (d *ledgerDecoder) complete(r *record) {
	if r.Group == (Group{}) {
		r.Group.ARN = r.Facts.ARN
	}
	if r.Facts.Name == "" {
		r.Facts.Name = arnName(r.Facts.ARN)
	}
	if r.Facts.TargetType == "" {
		r.Facts.TargetType = "ip"
		if strings.HasPrefix(r.Target.ID, "i-") {
			r.Facts.TargetType = "instance"
		}
	}
}

// string reads a string that is likely to come again.
func (d *ledgerDecoder) string(value []byte) (string, error) {
	if s, ok := d.text[string(value)]; ok {
		return s, nil
	}
	s, err := readString(value)
	if err == nil && len(d.text) < 10_000 {
		d.text[string(value)] = s
	}
	return s, err
}

func readString(value []byte) (string, error) {
	if text, ok := plain(value); ok {
		return string(text), nil
	}
	var s *string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", err
	}
	if s == nil {
		return "", errJSON
	}
	return *s, nil
}

func readPort(value []byte) (uint16, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, target.ErrPort
	}
	return target.CheckPort(n)
}

// intern decodes an object, once for all entries that have the same.
func intern[T any](known map[string]interned[T], value []byte, names map[string]bool) interned[T] {
	if v, ok := known[string(value)]; ok {
		return v
	}
	var v interned[T]
	if v.err = json.Unmarshal(value, &v.value); v.err == nil {
		v.extra, v.err = unknownMembers(value, names)
	}
	if v.err != nil {
		v = interned[T]{err: v.err}
	}
	if len(known) < 10_000 {
		known[string(value)] = v
	}
	return v
}

var (
	headerNames = memberNames[ledgerHeader]()
	groupNames  = memberNames[Group]()
	factsNames  = memberNames[GroupFacts]()
)

// memberNames returns the names that T's fields have in JSON.
func memberNames[T any]() map[string]bool {
	names := map[string]bool{}
	for field := range reflect.TypeFor[T]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names[name] = true
	}
	return names
}

// unknownMembers returns the members of an object that are not among names. The object is known to be valid.
func unknownMembers(object []byte, names map[string]bool) ([]member, error) {
	var out []member
	err := eachMember(object, func(name, value []byte) error {
		if !names[string(name)] {
			out = setMember(out, string(name), value)
		}
		return nil
	})
	return out, err
}

// dropMember returns members less the one of that name. It does not change members.
func dropMember(members []member, name string) []member {
	for i := range members {
		if members[i].name == name {
			return slices.Concat(members[:i], members[i+1:])
		}
	}
	return members
}

// setMember adds a member with a copy of value; of two with one name the last counts.
func setMember(members []member, name string, value []byte) []member {
	m := member{name, bytes.Clone(value)}
	for i := range members {
		if members[i].name == name {
			members[i] = m
			return members
		}
	}
	return append(members, m)
}
