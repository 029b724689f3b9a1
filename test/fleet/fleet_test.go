package fleet

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	hosts  = flag.Int("fleet.hosts", 50, "how many hosts")
	only   = flag.String("fleet.only", "deploy,staggered,cold", "scenarios to run, by name, comma between them; empty: all")
	report = flag.String("fleet.report", "", "append the results to this file, a JSON object a line")
)

// simulate runs a scenario in fake time and shows what came of it.
func simulate(t *testing.T, s Size, scenario func(Size) (*Result, error)) *Result {
	t.Helper()
	begun := time.Now()
	var r *Result
	synctest.Test(t, func(t *testing.T) {
		var err error
		if r, err = scenario(s); err != nil {
			t.Fatal(err)
		}
	})
	r.Real = time.Since(begun).Round(time.Millisecond)
	t.Logf("%s, %s, %d hosts, peers %s: %.2f × the least time of %v (99 %% by %.2f), %.2f × the least writes (%d rejected), %d looks (%d rejected), peak %.1f/s, foreign %d of %d, %d not exact, %d removals, the longest wait for a first attempt %v at an interval of %v, %d late; took %v",
		r.Scenario, r.Policy, r.Hosts, r.Peers, r.Took.Seconds()/r.Least.Seconds(), r.Least, r.Took99.Seconds()/r.Least.Seconds(),
		float64(r.Writes)/float64(max(1, r.Needed)), r.Rejected, r.Looks, r.LooksRej, r.Peak, r.Served, r.Foreign, r.Unserved,
		r.Removals, r.Longest.Round(time.Millisecond), r.Interval.Round(time.Millisecond), r.Late, r.Real)
	if *report != "" {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(*report, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(f, "%s\n", b); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func wanted(name string) bool { return *only == "" || strings.Contains(","+*only+",", ","+name+",") }

func TestFleet(t *testing.T) {
	for _, known := range []bool{true, false} {
		s := Size{Hosts: *hosts, Known: known}
		for name, scenario := range map[string]func(Size) (*Result, error){
			"deploy": Deploy, "staggered": Staggered, "cold": ColdStart, "outage": Outage, "silence": Silence, "steady": Steady,
		} {
			if !wanted(name) {
				continue
			}
			t.Run(fmt.Sprintf("%s/known=%v", name, known), func(t *testing.T) {
				r := simulate(t, s, scenario)
				if r.Unserved > 0 {
					t.Errorf("%d hosts were never exact", r.Unserved)
				}
				if r.Late > 0 {
					t.Errorf("%d removals waited longer than the pacer's interval for their first attempt, the longest %v at one of %v", r.Late, r.Longest, r.Interval)
				}
				if known && float64(r.Writes) > 3.5*float64(r.Needed) && name != "steady" {
					t.Errorf("%d writes for %d that were needed; want at most 3.5 times as many", r.Writes, r.Needed)
				}
				if name == "steady" && r.Writes > 0 {
					t.Errorf("%d writes though nothing happened", r.Writes)
				}
			})
		}
	}
	if wanted("jitter") {
		t.Run("jitter", func(t *testing.T) { simulate(t, Size{Hosts: *hosts}, FullJitter) })
	}
}
