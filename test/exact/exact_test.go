package exact

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/pkg/target"
)

const host, other = "i-0123456789abcdef0", "i-0fedcba9876543210"

func at(id string, ports ...uint16) []target.Target {
	var out []target.Target
	for _, p := range ports {
		out = append(out, target.Target{ID: id, Port: p})
	}
	return out
}

func TestCompare(t *testing.T) {
	for name, tt := range map[string]struct {
		registered, ours, foreign Targets
		want                      Diff
		says                      string // empty: exact
	}{
		"nothing":        {want: Diff{}},
		"exact":          {Targets{"web": at(host, 2, 1)}, Targets{"web": at(host, 1, 2)}, nil, Diff{}, ""},
		"beside another": {Targets{"web": append(at(host, 1), at(other, 1)...)}, Targets{"web": at(host, 1)}, Targets{"web": at(other, 1)}, Diff{}, ""},
		"empty is none":  {Targets{"web": nil}, Targets{"api": nil}, nil, Diff{}, ""},
		"missing": {
			Targets{"web": at(host, 1)},
			Targets{"web": at(host, 3, 1, 2)},
			nil,
			Diff{Missing: []Place{{"web", at(host, 2)[0]}, {"web", at(host, 3)[0]}}},
			"not exact: not registered: [" + host + ":2 in web " + host + ":3 in web]",
		},
		"stale": {
			Targets{"web": at(host, 1, 2)},
			Targets{"web": at(host, 1)},
			nil,
			Diff{Stale: []Place{{"web", at(host, 2)[0]}}},
			"not exact: registered and should not be: [" + host + ":2 in web]",
		},
		"in the wrong group": {
			Targets{"web": at(host, 1)},
			Targets{"api": at(host, 1)},
			nil,
			Diff{Missing: []Place{{"api", at(host, 1)[0]}}, Stale: []Place{{"web", at(host, 1)[0]}}},
			"not exact: not registered: [" + host + ":1 in api]; registered and should not be: [" + host + ":1 in web]",
		},
		"wanted twice": {
			Targets{"web": at(host, 1)},
			Targets{"web": at(host, 1, 1)},
			nil,
			Diff{Missing: []Place{{"web", at(host, 1)[0]}}},
			"not exact: not registered: [" + host + ":1 in web]",
		},
		"another's is gone": {
			Targets{"web": at(host, 1)},
			Targets{"web": at(host, 1)},
			Targets{"web": at(other, 1)},
			Diff{Gone: []Place{{"web", at(other, 1)[0]}}},
			"not exact: somebody else's and gone: [" + other + ":1 in web]",
		},
		"another's that nobody expects": {
			Targets{"web": at(other, 1)},
			nil,
			nil,
			Diff{Stale: []Place{{"web", at(other, 1)[0]}}},
			"not exact: registered and should not be: [" + other + ":1 in web]",
		},
	} {
		got := Compare(tt.registered, tt.ours, tt.foreign)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		says := ""
		if err := got.Err(); err != nil {
			says = err.Error()
		}
		if says != tt.says {
			t.Errorf("%s: %q; want %q", name, says, tt.says)
		}
	}
}

func TestRegistered(t *testing.T) {
	sim := elbsim.New(elbsim.Config{})
	for _, g := range []string{"web", "api"} {
		if _, err := sim.AddGroup(elbsim.Group{Name: g}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sim.Register("web", at(host, 1)...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Targets{"web": at(host, 1), "api": nil}, Registered(sim, "web", "api")); diff != "" {
		t.Errorf("registered (-want +got):\n%s", diff)
	}
}

func TestForeign(t *testing.T) {
	ours := func(x target.Target) bool { return x.ID == host }
	both := append(at(host, 1), at(other, 1)...)
	for action, want := range map[string][]target.Target{
		"RegisterTargets": at(other, 1), "DeregisterTargets": at(other, 1), "DescribeTargetHealth": nil,
	} {
		if diff := cmp.Diff(want, Foreign(&elbsim.Call{Action: action, Targets: both}, ours)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", action, diff)
		}
	}
}
