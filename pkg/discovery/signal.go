package discovery

import (
	"strconv"
	"strings"
)

// The signals that stop a container whatever its StopSignal says. They are Linux's on every architecture that Docker's
// engine and EC2 share; the numbers that differ elsewhere (mips, sparc) are of no concern here.
const (
	sigKILL = 9
	sigTERM = 15
	// The real-time signals as Docker counts them: from 34, because glibc and Go keep 32 and 33 for themselves.
	// Source: https://github.com/moby/sys/blob/main/signal/signal_linux.go
	sigRTMIN = 34
	sigRTMAX = 64
)

// signalNumbers are the names that Docker knows on Linux, without SIG.
var signalNumbers = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": sigKILL,
	"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": sigTERM, "STKFLT": 16, "CHLD": 17, "CLD": 17,
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

// stops reports whether signal n tells a container to end: SIGTERM and SIGKILL do, and whatever its StopSignal is.
// Everything else is the application's own business (HUP reloads, USR1 rotates, QUIT dumps threads).
//
// A StopSignal that cannot be read counts as SIGTERM, which is what Docker falls back to.
func stops(n int, stopSignal string) bool {
	if n == sigTERM || n == sigKILL {
		return true
	}
	own, ok := ParseSignal(stopSignal)
	return ok && n == own
}
