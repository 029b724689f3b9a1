package discovery

import (
	"fmt"
	"strconv"
	"testing"
)

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]int{
		"SIGTERM": 15, "TERM": 15, "term": 15, "SigTerm": 15, "15": 15, " 15 ": 15, "015": 15,
		"SIGKILL": 9, "9": 9, "QUIT": 3, "INT": 2, "HUP": 1, "USR1": 10, "WINCH": 28, "28": 28,
		"SIGRTMIN": 34, "RTMIN": 34, "SIGRTMIN+3": 37, "rtmin+30": 64, "37": 37,
		"SIGRTMAX": 64, "RTMAX-1": 63, "RTMAX-14": 50, "RTMAX-30": 34, "64": 64,
		"IOT": 6, "CLD": 17, "POLL": 29,
	} {
		if got, ok := ParseSignal(s); !ok || got != want {
			t.Errorf("ParseSignal(%q): got %d, %t; want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", " ", "SIG", "NOPE", "0", "65", "-1", "-9", "+15", "1.5", "0x0f", "SIGRTMIN-1", "RTMIN+", "RTMIN+31", "RTMIN++1",
		"RTMAX+1", "RTMAX-31", "RTMAX-", "SIGSIGTERM", "TERM KILL", "999999999999999999999",
	} {
		if got, ok := ParseSignal(s); ok {
			t.Errorf("ParseSignal(%q): got %d; want none", s, got)
		}
	}
}

func TestStops(t *testing.T) {
	for _, tc := range []struct {
		signal     int
		stopSignal string
		want       bool
	}{
		{15, "", true},
		{9, "", true},
		{1, "", false},
		{3, "", false},
		{2, "", false},
		{10, "", false},
		{3, "SIGQUIT", true},
		{3, "QUIT", true},
		{3, "3", true},
		{2, "INT", true},
		{28, "SIGWINCH", true},
		{28, "28", true},
		{37, "SIGRTMIN+3", true},
		{37, "RTMIN+3", true},
		{37, "37", true},
		{38, "RTMIN+3", false},
		{15, "SIGQUIT", true},  // an explicit SIGTERM, whatever stops it otherwise
		{3, "SIGUSR1", false},  // a thread dump
		{1, "nonsense", false}, // Docker falls back to SIGTERM
		{15, "nonsense", true},
	} {
		if got := stops(tc.signal, tc.stopSignal); got != tc.want {
			t.Errorf("stops(%d, %q): got %t; want %t", tc.signal, tc.stopSignal, got, tc.want)
		}
	}
}

// No spelling crashes it, what it takes is a signal, and the number is a spelling of its own.
func FuzzSignal(f *testing.F) {
	for _, s := range []string{"SIGTERM", "15", "RTMIN+3", "RTMAX-14", "", "+", "RTMIN+255", "SIG"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := ParseSignal(s)
		if !ok {
			return
		}
		if n < 1 || n > 64 {
			t.Fatalf("ParseSignal(%q): got %d", s, n)
		}
		for _, again := range []string{strconv.Itoa(n), fmt.Sprintf(" %d ", n)} {
			if m, ok := ParseSignal(again); !ok || m != n {
				t.Fatalf("ParseSignal(%q): got %d, %t; want %d", again, m, ok, n)
			}
		}
	})
}
