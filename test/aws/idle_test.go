package aws

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// nothing are events of a container that change nothing, as Docker's engine emits them all day.
var nothing = []discovery.Event{
	{Action: "exec_create: /bin/healthcheck"},
	{Action: "exec_start: /bin/healthcheck"},
	{Action: "exec_die", ExitCode: "0"},
	{Action: discovery.ActionHealthy},
	{Action: discovery.ActionHealthy},
	{Action: discovery.ActionUnhealthy},
	{Action: discovery.ActionHealthy},
	{Action: "resize"},
	{Action: "attach"},
	{Action: "detach"},
	{Action: "top"},
	{Action: "commit"},
	{Action: "copy"},
	{Action: "update"},
	{Action: "archive-path"},
	{Action: "export"},
	{Action: discovery.ActionKill, Signal: "1"},
	{Action: discovery.ActionKill, Signal: "10"},
}

// The budget of a host where nothing happens (docs/operations.md, what the agent costs): each group is looked at every max(5 min, peers × groups
// × 1 s), at most 30 % sooner and 40 % later, and once a day as a whole, so that a whole fleet makes no more than a call a
// second. That is all it does in a day, and a hundred thousand events that change nothing
// cause no call: neither a write nor a look before its time.
func TestIdle(t *testing.T) {
	const day, events = 24 * time.Hour, 100_000
	for _, tt := range []struct {
		groups, peers int
		every         time.Duration
		events        int
	}{
		{1, 1, 5 * time.Minute, events},
		{3, 1, 5 * time.Minute, 0},
		{3, 200, 10 * time.Minute, events},
		{5, 1000, 5000 * time.Second, 0},
	} {
		t.Run(fmt.Sprintf("%d groups, %d peers, %d events", tt.groups, tt.peers, tt.events), func(t *testing.T) {
			var groups []config.Group
			var keys []string
			for i := range tt.groups {
				key := fmt.Sprintf("group-%d", i)
				keys = append(keys, key)
				groups = append(groups, agenttest.Group(key))
			}
			prepare := func(sim *elbsim.Sim) {
				for _, key := range keys {
					if _, err := sim.AddGroup(elbsim.Group{Name: key}); err != nil {
						t.Fatal(err)
					}
					for i := range tt.peers - 1 {
						if err := sim.Register(key, target.Target{ID: fmt.Sprintf("i-%017x", i+1), Port: 40000}); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			account := elbsim.Config{AnyInstance: true, RecordLimit: 100_000, Quotas: elbsim.Quotas{TargetsPerGroup: -1, TargetsPerLoadBalancer: -1}}
			inFakeTime(t, account, groups, prepare, func(h *host) {
				id := h.run(keys...)
				h.after(time.Hour)
				for _, key := range keys {
					if n := len(h.sim.Registered(key)); n != tt.peers {
						t.Fatalf("%d targets in %s; want the host's and those of its peers, %d", n, key, tt.peers)
					}
				}
				h.after(2 * tt.every) // a whole interval with what is known of the peers
				h.sim.ResetCalls()
				begun := time.Now()
				for i := range tt.events {
					ev := nothing[i%len(nothing)]
					ev.Container, ev.Name, ev.Time = id, "web", time.Now()
					h.engine.Emit(ev)
					h.after(day / time.Duration(tt.events))
				}
				h.after(time.Until(begun.Add(day)))
				h.budget(keys, tt.every, day)
				if f, ok := h.engine.Facts(id); !ok || len(h.sim.Registered(keys[0])) != tt.peers {
					t.Errorf("the container is %+v, and %d targets are registered", f, len(h.sim.Registered(keys[0])))
				}
			})
		})
	}
}

// budget checks the calls of a day.
func (h *host) budget(keys []string, every, day time.Duration) {
	h.Helper()
	looks := map[string][]time.Time{}
	calls := h.sim.Calls()
	for _, c := range calls {
		if c.Action != "DescribeTargetHealth" || len(c.Groups) != 1 {
			h.Errorf("%s %v at %v: an idle host only looks at its groups", c.Action, c.Groups, c.Time)
			continue
		}
		key := c.Groups[0]
		if parts := strings.Split(key, "/"); len(parts) == 3 {
			key = parts[1]
		}
		looks[key] = append(looks[key], c.Time)
	}
	h.Logf("%d calls in a day, of a budget of %d; the mean is %.0f", len(calls), len(keys)*(int(day/(every*7/10))+2), float64(len(keys))*float64(day)/float64(every))
	if mean := float64(len(keys)) * float64(day) / float64(every); float64(len(calls)) > 1.15*mean+float64(len(keys)) {
		h.Errorf("%d calls in a day; want about %.0f", len(calls), mean)
	}
	for _, key := range keys {
		at := looks[key]
		slices.SortFunc(at, time.Time.Compare)
		early := 0
		for i := 1; i < len(at); i++ {
			gap := at[i].Sub(at[i-1])
			if gap < every*7/10-time.Second {
				early++
			}
			if gap > every*14/10+time.Second {
				h.Errorf("%s was not looked at for %v; want a look every %v, at most 40 %% later", key, gap, every)
			}
		}
		if early > 1 { // the one at the whole group, daily
			h.Errorf("%s: %d of %d looks came more than 30 %% before their time, every %v", key, early, len(at), every)
		}
		if n, most := len(at), int(day/(every*7/10))+2; n > most {
			h.Errorf("%s: %d looks in a day; the budget is %d", key, n, most)
		}
	}
	if n := len(h.logs.FilterMessageSnippet("registered").All()); n > len(keys)+1 { // each once, and who we are
		h.Errorf("%d lines about registrations; want each group's one", n)
	}
}
