package registrar

import (
	"testing"

	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// TestReconciler_boot: what is not known to be of this boot is no proof that it is registered.
func TestReconciler_boot(t *testing.T) {
	x := target.Target{ID: "i-1", Port: 1}
	for _, tt := range []struct {
		entry, now string
		want       ledger.Phase
	}{
		{"a", "a", ledger.Registered}, {"a", "b", ledger.Intended}, {"", "b", ledger.Intended}, {"a", "", ledger.Intended}, {"", "", ledger.Intended},
	} {
		r := New(nil, ledger.NewMemory(), Options{BootID: tt.now})
		rec := newReconciler("arn:web", r.env, []ledger.Entry{{Target: x, Run: target.Run{ID: "c1"}, Phase: ledger.Registered, BootID: tt.entry}})
		if got := rec.have[x].Phase; got != tt.want {
			t.Errorf("entry of boot %q, in boot %q: %s; want %s", tt.entry, tt.now, got, tt.want)
		}
		if over := rec.have[x].Run.ID == ""; over != (tt.entry == "a" && tt.now == "b") {
			t.Errorf("entry of boot %q, in boot %q: its run is over: %v", tt.entry, tt.now, over)
		}
	}
}
