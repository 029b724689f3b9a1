package discovery

import "testing"

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
