package status

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

func TestRowsOf(t *testing.T) {
	one := Row{Run: target.Run{ID: "abab1" + strings.Repeat("0", 59), Name: "web"}}
	two := Row{Run: target.Run{ID: "abab2" + strings.Repeat("0", 59), Name: "abab1"}}
	gone := Row{Run: target.Run{ID: "ffff" + strings.Repeat("0", 60), Name: "web"}, State: Draining}
	rows := []Row{one, two, gone, {State: Unclaimed}}
	for ref, want := range map[string][]Row{
		"web": {one, gone}, "/web": {one, gone}, "abab1": {two}, "abab10": {one}, one.Run.ID: {one}, "ffff": {gone},
		"aba": nil, "fff": nil, "": nil, "/": nil, "we": nil,
	} {
		got, err := RowsOf(rows, ref)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", ref, err, diff)
		}
	}
	var ambiguous *AmbiguousError
	if _, err := RowsOf(rows, "abab"); !errors.As(err, &ambiguous) || ambiguous.Containers != 2 {
		t.Errorf("a beginning of two: got %v; want an AmbiguousError", err)
	}
}

func TestShownAs(t *testing.T) {
	id := judgedRun("web-1").ID
	for _, tt := range []struct{ ref, name, want string }{
		{id, "web-1", "web-1"},
		{id[:12], "web-1", "web-1"},
		{id, "", id},
		{"web-1", "web-1", "web-1"},
		{"/web-1", "web-1", "/web-1"},
		{"abc", "web-1", "abc"},
		{"other", "web-1", "other"},
	} {
		if got := shownAs(tt.ref, id, tt.name); got != tt.want {
			t.Errorf("%q: got %q; want %q", tt.ref, got, tt.want)
		}
	}
}
