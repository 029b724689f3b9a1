package registrar

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
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

// TestBoard_groupLeft: a group that the ledger alone knows is on the board before any that is configured has been looked
// at, so that nobody takes these for all there is.
func TestBoard_groupLeft(t *testing.T) {
	const arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"
	r := New(nil, ledger.NewMemory(), Options{})
	r.recovered[arn] = []ledger.Entry{{Facts: elb.Facts{ARN: arn, Name: "web"}, Target: target.Target{ID: "i-1", Port: 1}, Phase: ledger.Registered}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no reconciler gets to say anything
	r.Apply(Desired{Seq: 1})
	r.apply(ctx)
	r.children.Wait()
	s, _ := r.Snapshot()
	want := []GroupStatus{{ARN: arn, Name: "web", State: StateWaiting, Facts: elb.Facts{ARN: arn, Name: "web"}}}
	if diff := cmp.Diff(want, s.Groups); s.Seq != 1 || diff != "" {
		t.Errorf("snapshot of %d (-want +got):\n%s", s.Seq, diff)
	}
}
