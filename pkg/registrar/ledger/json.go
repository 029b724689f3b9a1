package ledger

// Reading and writing the members of JSON objects one by one. The ledger has to keep members that it does not know,
// and to read 100,000 entries in a fraction of a second: encoding/json does either, not both. What is unusual (escapes,
// anything but ASCII) is left to encoding/json.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// member is one member of a JSON object, its value as it was written.
type member struct {
	name  string
	value json.RawMessage
}

var errJSON = errors.New("malformed JSON")

// eachMember calls f with every member of the object that b is. It checks the object's own structure; of the values it
// only finds the end: whoever uses one checks it. The value is a part of b.
func eachMember(b []byte, f func(name, value []byte) error) error {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return errJSON
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return atEnd(b, i+1)
	}
	for {
		nameEnd := stringEnd(b, i)
		if nameEnd < 0 {
			return errJSON
		}
		name, ok := plain(b[i:nameEnd])
		if !ok {
			var decoded string
			if json.Unmarshal(b[i:nameEnd], &decoded) != nil {
				return errJSON
			}
			name = []byte(decoded)
		}
		i = skipSpace(b, nameEnd)
		if i >= len(b) || b[i] != ':' {
			return errJSON
		}
		i = skipSpace(b, i+1)
		end := valueEnd(b, i)
		if end < 0 {
			return errJSON
		}
		if err := f(name, b[i:end]); err != nil {
			return err
		}
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == '}':
			return atEnd(b, i+1)
		default:
			return errJSON
		}
	}
}

// eachElement calls f with every element of the array that b is, under the rules of eachMember.
func eachElement(b []byte, f func(value []byte) error) error {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '[' {
		return errJSON
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return atEnd(b, i+1)
	}
	for {
		end := valueEnd(b, i)
		if end < 0 {
			return errJSON
		}
		if err := f(b[i:end]); err != nil {
			return err
		}
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == ']':
			return atEnd(b, i+1)
		default:
			return errJSON
		}
	}
}

func atEnd(b []byte, i int) error {
	if skipSpace(b, i) != len(b) {
		return errJSON
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// stringEnd returns the index after the string that begins at i, or -1.
func stringEnd(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	i++
	n := bytes.IndexByte(b[i:], '"')
	if n < 0 {
		return -1
	}
	if bytes.IndexByte(b[i:i+n], '\\') < 0 {
		return i + n + 1 // all but a few strings
	}
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// valueEnd returns the index after the value that begins at i, or -1.
func valueEnd(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		depth := 0
		for ; i < len(b); i++ {
			switch b[i] {
			case '"':
				end := stringEnd(b, i)
				if end < 0 {
					return -1
				}
				i = end - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return -1
	}
	start := i
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] > ' ' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// plain returns the text of a JSON string that needs no decoding: ASCII without escapes.
func plain(value []byte) ([]byte, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return nil, false
	}
	text := value[1 : len(value)-1]
	for _, c := range text {
		if c < ' ' || c > '~' || c == '\\' || c == '"' {
			return nil, false
		}
	}
	return text, true
}

// readTime reads an RFC 3339 time.
func readTime(value []byte) (time.Time, error) {
	var t time.Time
	if text, ok := plain(value); ok {
		if err := t.UnmarshalText(text); err != nil {
			return time.Time{}, err
		}
		return onDisk(t), nil
	}
	if err := json.Unmarshal(value, &t); err != nil {
		return time.Time{}, err
	}
	return onDisk(t), nil
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\\' || c == '"' {
			quoted, _ := json.Marshal(s) // of a string: cannot fail
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendName appends `,"name":`, without the comma at the beginning of an object.
func appendName(b []byte, name string) []byte {
	if last := b[len(b)-1]; last != '{' {
		b = append(b, ',')
	}
	b = appendString(b, name)
	return append(b, ':')
}

// appendTime appends a member with a time, nothing where t is zero.
func appendTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(appendName(b, name), '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendMembers appends members that this version does not know, as they were read.
func appendMembers(b []byte, extra []member) []byte {
	for _, m := range extra {
		b = append(appendName(b, m.name), m.value...)
	}
	return b
}

// appendObject appends v, which must marshal to an object, with the members of extra that v does not have.
func appendObject(b []byte, v any, extra []member) ([]byte, error) {
	object, err := json.Marshal(v)
	if err != nil {
		return b, fmt.Errorf("encode %T: %w", v, err)
	}
	if len(extra) == 0 {
		return append(b, object...), nil
	}
	b = append(b, object[:len(object)-1]...)
	return append(appendMembers(b, extra), '}'), nil
}
