package target

import (
	"errors"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// The signals that stop a container whatever its StopSignal says. They are Linux's on every architecture that Docker's
// engine and EC2 share; the numbers that differ elsewhere (mips, sparc) are of no concern here.
const (
	SIGKILL = 9
	SIGTERM = 15
)

const (
	// The real-time signals as Docker counts them: from 34, because glibc and Go keep 32 and 33 for themselves.
	// Source: https://github.com/moby/sys/blob/main/signal/signal_linux.go
	sigRTMIN = 34
	sigRTMAX = 64
)

// signalNumbers are the names that Docker knows on Linux, without SIG.
var signalNumbers = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": SIGKILL,
	"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": SIGTERM, "STKFLT": 16, "CHLD": 17, "CLD": 17,
	"CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26,
	"PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "UNUSED": 31,
}

// ParseSignal reads a signal in every spelling that Docker accepts for StopSignal or docker kill: "SIGTERM", "TERM",
// "term", "15", "SIGRTMIN", "RTMIN+3", "SIGRTMAX-2". It reports whether it could.
func ParseSignal(s string) (int, bool) {
	s = strings.TrimSpace(s)
	if n, err := strconv.Atoi(s); err == nil {
		return n, n >= 1 && n <= sigRTMAX && s[0] != '+'
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := signalNumbers[name]; ok {
		return n, true
	}
	if offset, ok := strings.CutPrefix(name, "RTMIN"); ok {
		return realTime(sigRTMIN, offset, "+")
	}
	if offset, ok := strings.CutPrefix(name, "RTMAX"); ok {
		return realTime(sigRTMAX, offset, "-")
	}
	return 0, false
}

func realTime(base int, offset, sign string) (int, bool) {
	if offset == "" {
		return base, true
	}
	digits, ok := strings.CutPrefix(offset, sign)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || digits[0] == '+' || int(n) > sigRTMAX-sigRTMIN {
		return 0, false
	}
	if sign == "-" {
		return base - int(n), true
	}
	return base + int(n), true
}

// ErrSignal says that a signal cannot be read.
var ErrSignal = errors.New("must be a signal, like INT, SIGQUIT, RTMIN+3 or 2")

// Signals is a set of signals. The zero value is the empty one.
type Signals uint64

// With returns the set with signal n, from 1 to 64.
func (s Signals) With(n int) Signals { return s | 1<<(n-1) }

// Has reports whether signal n is in the set.
func (s Signals) Has(n int) bool { return n >= 1 && n <= sigRTMAX && s&(1<<(n-1)) != 0 }

// String returns the signals as ParseSignals reads them, in the order of their numbers: "INT,QUIT".
func (s Signals) String() string {
	names := make([]string, 0, bits.OnesCount64(uint64(s)))
	for n := 1; n <= sigRTMAX; n++ {
		if s.Has(n) {
			names = append(names, signalName(n))
		}
	}
	return strings.Join(names, ",")
}

// signalName returns the first of a signal's names, or its number.
func signalName(n int) string {
	var names []string
	for name, number := range signalNumbers {
		if number == n {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return strconv.Itoa(n)
	}
	return slices.Min(names)
}
