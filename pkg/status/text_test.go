package status

import (
	"testing"
)

func TestPlain(t *testing.T) {
	if got, want := Plain("web\x1b[2J\r\n\tü→\u202e"), "web?[2J?  ü→?"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}
