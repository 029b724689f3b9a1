package ledger

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// parse reads a file. Its error is a *corruptError.
func parse(data []byte) (*content, error) {
	d := &decoder{
		content: &content{records: map[claim]*record{}},
		text:    map[string]string{}, groups: map[string]interned[elb.Group]{}, facts: map[string]interned[elb.Facts]{},
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

// decoder reads lines one after another. Text that repeats from entry to entry is kept once.
type decoder struct {
	content    *content
	seenHeader bool
	text       map[string]string
	groups     map[string]interned[elb.Group]
	facts      map[string]interned[elb.Facts]
}

// interned is a decoded object, by its bytes in the file.
type interned[T any] struct {
	value T
	extra []member
	err   error
}

func (d *decoder) line(line []byte) error {
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

func (d *decoder) header(value []byte) error {
	var h fileHeader
	if err := json.Unmarshal(value, &h); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	var err error
	if h.extra, err = unknownMembers(value, headerNames); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	for _, m := range slices.Clone(h.extra) {
		switch m.name {
		case peersName:
			if n, err := strconv.Atoi(string(m.value)); err == nil && n > 0 && n <= peersMost {
				h.peers, h.extra = n, dropMember(h.extra, peersName)
			}
		case servesName:
			if serves, ok := readServes(m.value); ok {
				h.serves, h.extra = serves, dropMember(h.extra, servesName)
			}
		}
	}
	d.content.header, d.seenHeader = h, true
	return nil
}

// readServes reads the header's member of that name; false where it has anything that is not known here.
func readServes(value []byte) (map[string]elb.Facts, bool) {
	var serves map[string]elb.Facts
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	if d.Decode(&serves) != nil || len(serves) == 0 {
		return nil, false
	}
	for _, facts := range serves {
		if facts.ARN == "" {
			return nil, false
		}
	}
	return serves, true
}

// entry reads one entry. One that names no target is left out and said so; it does not make the file unreadable.
func (d *decoder) entry(value []byte) error {
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
func (d *decoder) soft(r *record, x *extra, name, value []byte) error {
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

func (d *decoder) phase(value []byte) (Phase, error) {
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

func (d *decoder) run(value []byte) (target.Run, []member, error) {
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
func (d *decoder) complete(r *record) {
	if r.Group == (elb.Group{}) {
		r.Group.ARN = r.Facts.ARN
	}
	if r.Facts.Name == "" {
		r.Facts.Name = elb.NameOf(r.Facts.ARN)
	}
	if r.Facts.TargetType == "" {
		r.Facts.TargetType = "ip"
		if strings.HasPrefix(r.Target.ID, "i-") {
			r.Facts.TargetType = "instance"
		}
	}
}

// string reads a string that is likely to come again.
func (d *decoder) string(value []byte) (string, error) {
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
	headerNames = memberNames[fileHeader]()
	groupNames  = memberNames[elb.Group]()
	factsNames  = memberNames[elb.Facts]()
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
