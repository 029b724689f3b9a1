package target

import (
	"fmt"
	"strconv"
	"strings"
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

// What a set is written as is what it is read from.
func TestSignals(t *testing.T) {
	var all, none Signals
	for n := 1; n <= 64; n++ {
		if all.Has(n) {
			t.Errorf("%d is in %v", n, all)
		}
		if all = all.With(n); !all.Has(n) || none.Has(n) {
			t.Errorf("%d is in %v: %v; in the empty set: %v", n, all, all.Has(n), none.Has(n))
		}
	}
	for _, n := range []int{-1, 0, 65, 128} {
		if all.Has(n) {
			t.Errorf("%d is a signal", n)
		}
	}
	if got := none.With(3).With(2).With(37).With(6).With(2).String(); got != "INT,QUIT,ABRT,37" {
		t.Errorf("got %q", got)
	}
	var again Signals
	for name := range strings.SplitSeq(all.String(), ",") {
		n, ok := ParseSignal(name)
		if !ok {
			t.Errorf("%q is no signal", name)
		}
		again = again.With(n)
	}
	if again != all {
		t.Errorf("read again: got %v; want %v", again, all)
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
