package registrar

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestBoard_once: each group of the configuration is on the board once, whoever has spoken of it, in whatever order.
func TestBoard_once(t *testing.T) {
	b := newBoard()
	check := func(when string, want ...string) {
		t.Helper()
		s, _ := b.snapshot()
		var got []string
		for _, g := range s.Groups {
			got = append(got, g.ARN+" "+firstKey(g.Keys))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	sought := func(keys ...string) {
		b.edit(func() {
			b.sought = map[string]GroupStatus{}
			for _, k := range keys {
				b.sought[k] = GroupStatus{Keys: []string{k}, State: StateWaiting}
			}
		})
	}
	sought("api", "web")
	check("looked for", " api", " web")
	b.put("arn:1", GroupStatus{ARN: "arn:1", Keys: []string{"web"}})
	check("web is found", " api", "arn:1 web")
	b.put("arn:1", GroupStatus{ARN: "arn:1", Keys: []string{"api", "web"}})
	check("both are one group", "arn:1 api")
	b.put("arn:1", GroupStatus{ARN: "arn:1"})
	check("both keys name others now", " api", " web", "arn:1 \xff")
	sought("api")
	b.remove("arn:1")
	check("web has left the configuration", " api")
}
