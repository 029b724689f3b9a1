package status

import (
	"strings"
	"time"
	"unicode"
)

// Plain makes text safe to show: what comes from labels may hold escape sequences that a terminal would obey.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Joined joins two sentences, either of which may be empty.
func Joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// Lasting says for how long something has been so; nothing of what has only just begun.
func Lasting(since time.Time) string {
	d := time.Since(since)
	if d < time.Second {
		return ""
	}
	return ", for " + d.Round(time.Second).String()
}
