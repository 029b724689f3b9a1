package status

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status/statustest"
	"berth/pkg/target"
)

// short says of a row what most tests ask: "web-1 web 8080/tcp :32768 healthy".
func short(r Row) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s :%d %s", r.Run, r.Group, r.ContainerPort, r.Target.Port, r.State))
}

func shorts(rows []Row) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = short(r)
	}
	return out
}

func TestJoin_states(t *testing.T) {
	w := statustest.Want("web", "web-1", 8080, 32768)
	has := func(phase ledger.Phase, health, reason string) registrar.TargetStatus {
		return registrar.TargetStatus{
			Target: statustest.Target(32768), Phase: phase, Health: health, Reason: reason, Since: statustest.T2,
			Wants: []target.Want{w}, Run: w.Run,
		}
	}
	claim := func(phase ledger.Phase) registrar.TargetStatus {
		return registrar.TargetStatus{Target: statustest.Target(32768), Phase: phase, Since: statustest.T2, Run: w.Run}
	}
	trouble := func(state string, ts ...registrar.TargetStatus) registrar.GroupStatus {
		g := statustest.Group(ts...)
		g.State, g.Err, g.Change = state, "AccessDenied: not allowed", "attach the policy"
		return g
	}
	unwanted := func(v discovery.Verdict, why string) *discovery.Snapshot {
		d := statustest.Discovery()
		d.Decisions = []discovery.Decision{statustest.Decided(w, v, why)}
		return d
	}
	refusing := statustest.Group()
	refusing.Refusals = []registrar.Refusal{{Want: w, Why: "the group speaks UDP", Change: "publish 8080/udp"}}
	unclaiming := statustest.Group()
	unclaiming.Unclaimed = []target.Target{statustest.Target(80)}
	left := statustest.Group(claim(ledger.Registered))
	left.Keys = nil
	starting := statustest.Discovery()
	starting.Unknown = []string{w.Run.ID}
	undecided := unwanted(discovery.NotYet, "its drains cannot be read")
	undecided.Unknown = []string{w.Run.ID}
	offline := statustest.Registrar(statustest.Group())
	offline.Connected = false

	tests := map[string]struct {
		d      *discovery.Snapshot
		r      *registrar.Snapshot
		want   string
		why    string // part of the sentence
		change string // part of it; "-" for none
	}{
		"nothing asked yet":            {statustest.Discovery(w), nil, "web-1 web 8080/tcp :0 registering", "only just started", "-"},
		"no credentials":               {statustest.Discovery(w), offline, "web-1 web 8080/tcp :0 registering", "identity and AWS credentials", "-"},
		"group not known":              {statustest.Discovery(w), statustest.Registrar(), "web-1 web 8080/tcp :0 registering", "not been looked up", "-"},
		"about to be sent":             {statustest.Discovery(w), statustest.Registrar(statustest.Group()), "web-1 web 8080/tcp :0 registering", "about to be registered", "-"},
		"sent":                         {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Intended, "", ""))), "web-1 web 8080/tcp :32768 registering", "has been sent", "-"},
		"deregistered a moment ago":    {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Removing, "draining", ""))), "web-1 web 8080/tcp :32768 registering", "registered again next", "-"},
		"throttled":                    {statustest.Discovery(w), statustest.Registrar(trouble(registrar.StateThrottled)), "web-1 web 8080/tcp :0 registering", "fewer calls", "attach"},
		"retrying":                     {statustest.Discovery(w), statustest.Registrar(trouble(registrar.StateWaiting)), "web-1 web 8080/tcp :0 registering", "trying again: AccessDenied", "attach"},
		"denied":                       {statustest.Discovery(w), statustest.Registrar(trouble(registrar.StateDenied)), "web-1 web 8080/tcp :0 blocked", "AccessDenied: not allowed", "attach the policy"},
		"gone":                         {statustest.Discovery(w), statustest.Registrar(trouble(registrar.StateGone, has(ledger.Intended, "", ""))), "web-1 web 8080/tcp :32768 blocked", "AccessDenied", "attach"},
		"full":                         {statustest.Discovery(w), statustest.Registrar(trouble(registrar.StateFull)), "web-1 web 8080/tcp :0 blocked", "AccessDenied", "attach"},
		"misconfigured":                {statustest.Discovery(w), statustest.Registrar(trouble(registrar.StateMisconfigured)), "web-1 web 8080/tcp :0 blocked", "AccessDenied", "attach"},
		"registered, in trouble since": {statustest.Discovery(w), statustest.Registrar(trouble(registrar.StateDenied, has(ledger.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
		"no look yet":                  {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "", ""))), "web-1 web 8080/tcp :32768 registered", "not been looked at", "-"},
		"initial":                      {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "initial", "Elb.InitialHealthChecking"))), "web-1 web 8080/tcp :32768 initial", "first health checks", "-"},
		"healthy":                      {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
		"unhealthy":                    {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "unhealthy", "Target.Timeout"))), "web-1 web 8080/tcp :32768 unhealthy", "no answer in time", "security group"},
		"unhealthy.draining":           {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "unhealthy.draining", ""))), "web-1 web 8080/tcp :32768 unhealthy", "no reason", "-"},
		"unused":                       {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "unused", "Target.NotInUse"))), "web-1 web 8080/tcp :32768 unused", "no load balancer", "listener"},
		"unavailable":                  {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "unavailable", "Target.HealthCheckDisabled"))), "web-1 web 8080/tcp :32768 unavailable", "turned off", "-"},
		"health of a later year":       {statustest.Discovery(w), statustest.Registrar(statustest.Group(has(ledger.Registered, "sleepy", "Elb.Tired"))), "web-1 web 8080/tcp :32768 registered", "sleepy (Elb.Tired)", "-"},
		"refused by the group":         {statustest.Discovery(w), statustest.Registrar(refusing), "web-1 web 8080/tcp :0 refused", "speaks UDP", "8080/udp"},

		"not yet":                 {unwanted(discovery.NotYet, "its HEALTHCHECK has not reported yet"), statustest.Registrar(statustest.Group()), "web-1 web 8080/tcp :0 not_yet", "HEALTHCHECK", "-"},
		"refused":                 {unwanted(discovery.Refused, "bound to 127.0.0.1"), statustest.Registrar(statustest.Group()), "web-1 web 8080/tcp :0 refused", "127.0.0.1", "-"},
		"ignored":                 {unwanted(discovery.Ignored, "it opted out"), nil, "web-1 web 8080/tcp :0 ignored", "opted out", "-"},
		"drained and gone":        {unwanted(discovery.Drained, "root drained it"), statustest.Registrar(statustest.Group()), "web-1 web 8080/tcp :0 drained", "root drained it", "-"},
		"drained, leaving":        {unwanted(discovery.Drained, "root drained it."), statustest.Registrar(statustest.Group(claim(ledger.Registered))), "web-1 web 8080/tcp :32768 leaving", "root drained it; it is about to be deregistered", "-"},
		"drained, draining":       {unwanted(discovery.Drained, "root drained it"), statustest.Registrar(statustest.Group(claim(ledger.Removing))), "web-1 web 8080/tcp :32768 draining", "root drained it; it is deregistered", "-"},
		"drained, absent":         {unwanted(discovery.Drained, "root drained it"), statustest.Registrar(statustest.Group(claim(ledger.Absent))), "web-1 web 8080/tcp :32768 drained", "root drained it", "-"},
		"stopped, not acted on":   {unwanted(discovery.Leaving, "SIGTERM was sent"), statustest.Registrar(statustest.Group(has(ledger.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 leaving", "SIGTERM was sent", "-"},
		"stopped, denied":         {unwanted(discovery.Leaving, "SIGTERM was sent"), statustest.Registrar(trouble(registrar.StateDenied, claim(ledger.Registered))), "web-1 web 8080/tcp :32768 leaving", "cannot be deregistered now: AccessDenied", "attach"},
		"container is gone":       {statustest.Discovery(), statustest.Registrar(statustest.Group(claim(ledger.Registered))), "web-1 web 0/tcp :32768 leaving", "no container wants it", "-"},
		"container is gone, late": {statustest.Discovery(), statustest.Registrar(statustest.Group(claim(ledger.Absent))), "web-1 web 0/tcp :32768 leaving", "it is deregistered", "-"},
		"perhaps drained":         {undecided, statustest.Registrar(statustest.Group(claim(ledger.Registered))), "web-1 web 8080/tcp :32768 registered", "cannot be read; it stays as it was", "-"},
		"not inspected yet":       {starting, statustest.Registrar(statustest.Group(claim(ledger.Registered))), "web-1 web 0/tcp :32768 registered", "not been inspected", "-"},
		"nobody's":                {statustest.Discovery(), statustest.Registrar(statustest.Group(registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Removing})), "web 0/tcp :32768 draining", "open requests", "-"},
		"unclaimed":               {statustest.Discovery(), statustest.Registrar(unclaiming), "web 0/tcp :80 unclaimed", "did not register it", "berth prune"},
		"group left":              {statustest.Discovery(), statustest.Registrar(left), "web-1 web-prod 0/tcp :32768 leaving", "no container wants it", "-"},

		"registrar alone":          {nil, statustest.Registrar(statustest.Group(has(ledger.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
		"registrar alone, refusal": {nil, statustest.Registrar(refusing), "web-1 web 8080/tcp :0 refused", "speaks UDP", "8080/udp"},
		"group not computed":       {&discovery.Snapshot{}, statustest.Registrar(statustest.Group(has(ledger.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rows := Join(tt.d, tt.r)
			if diff := cmp.Diff([]string{tt.want}, shorts(rows)); diff != "" {
				t.Fatalf("rows (-want +got):\n%s", diff)
			}
			if !strings.Contains(rows[0].Why, tt.why) {
				t.Errorf("why: got %q; want it to contain %q", rows[0].Why, tt.why)
			}
			if tt.change == "-" && rows[0].Change != "" || tt.change != "-" && !strings.Contains(rows[0].Change, tt.change) {
				t.Errorf("change: got %q; want %q", rows[0].Change, tt.change)
			}
		})
	}
}

func TestJoin_since(t *testing.T) {
	w := statustest.Want("web", "web-1", 8080, 32768)
	d := statustest.Discovery(w)
	d.Decisions = []discovery.Decision{statustest.Decided(w, discovery.Wanted, "its label names web")}
	if got := Join(d, statustest.Registrar(statustest.Group()))[0].Since; !got.Equal(statustest.T1) {
		t.Errorf("before registration: got %v; want the decision's %v", got, statustest.T1)
	}
	ts := registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Registered, Health: "healthy", Since: statustest.T2, Wants: []target.Want{w}}
	if got := Join(d, statustest.Registrar(statustest.Group(ts)))[0].Since; !got.Equal(statustest.T2) {
		t.Errorf("after registration: got %v; want the load balancer's %v", got, statustest.T2)
	}
}

// The same container, restarted: the old run's target goes while the new run's comes.
func TestJoin_restart(t *testing.T) {
	before := statustest.Want("web", "web-1", 8080, 32768)
	after := statustest.Want("web", "web-1", 8080, 32769)
	after.Run.StartedAt = statustest.T1
	d := statustest.Discovery(after)
	d.Decisions = []discovery.Decision{statustest.Decided(after, discovery.Wanted, "its label names web")}
	r := statustest.Registrar(statustest.Group(
		registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Removing, Run: before.Run},
		registrar.TargetStatus{Target: statustest.Target(32769), Phase: ledger.Intended, Run: after.Run, Wants: []target.Want{after}},
	))
	want := []string{"web-1 web 0/tcp :32768 draining", "web-1 web 8080/tcp :32769 registering"}
	if diff := cmp.Diff(want, shorts(Join(d, r))); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// One port of the host went from one container to another before the registrar acted.
func TestJoin_portReuse(t *testing.T) {
	old, now := statustest.Want("web", "old", 8080, 32768), statustest.Want("web", "new", 8080, 32768)
	d := statustest.Discovery(now)
	d.Decisions = []discovery.Decision{statustest.Decided(now, discovery.Wanted, ""), statustest.Decided(old, discovery.Leaving, "it died")}
	r := statustest.Registrar(statustest.Group(registrar.TargetStatus{
		Target: statustest.Target(32768), Phase: ledger.Registered, Health: "healthy", Run: old.Run, Wants: []target.Want{old},
	}))
	want := []string{"new web 8080/tcp :0 registering", "old web 8080/tcp :32768 leaving"}
	if diff := cmp.Diff(want, shorts(Join(d, r))); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// Both halves of a TCP_UDP group are one target and two rows, and count as one.
func TestJoin_sharedTarget(t *testing.T) {
	tcp, udp := statustest.Want("dns", "dns-1", 53, 32768), statustest.Want("dns", "dns-1", 53, 32768)
	udp.Protocol = target.UDP
	g := statustest.Group(registrar.TargetStatus{
		Target: statustest.Target(32768), Phase: ledger.Registered, Health: "healthy", Wants: []target.Want{tcp, udp}, Run: tcp.Run,
	})
	g.Keys = []string{"dns"}
	rows := Join(&discovery.Snapshot{Wants: map[string][]target.Want{"dns": {udp, tcp}}}, statustest.Registrar(g))
	want := []string{"dns-1 dns 53/tcp :32768 healthy", "dns-1 dns 53/udp :32768 healthy"}
	if diff := cmp.Diff(want, shorts(rows)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if got, want := CountRows(rows)["dns"], (Counts{Desired: 1, Registered: 1, Healthy: 1}); got != want {
		t.Errorf("counts: got %+v; want %+v", got, want)
	}
}

// A drain of a whole container is one decision and explains each of its targets.
func TestJoin_containerDecision(t *testing.T) {
	a, b := statustest.Want("web", "web-1", 8080, 32768), statustest.Want("web", "web-1", 9090, 32769)
	d := statustest.Discovery()
	d.Decisions = []discovery.Decision{{Run: a.Run, Verdict: discovery.Drained, Why: "root drained it", Since: statustest.T1}}
	r := statustest.Registrar(statustest.Group(
		registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Removing, Run: a.Run},
		registrar.TargetStatus{Target: statustest.Target(32769), Phase: ledger.Registered, Run: b.Run},
	))
	rows := Join(d, r)
	want := []string{"web-1 web 0/tcp :32768 draining", "web-1 web 0/tcp :32769 leaving"}
	if diff := cmp.Diff(want, shorts(rows)); diff != "" {
		t.Fatalf("rows (-want +got):\n%s", diff)
	}
	for _, row := range rows {
		if !strings.HasPrefix(row.Why, "root drained it; ") {
			t.Errorf("why: got %q; want the drain's sentence first", row.Why)
		}
	}
}

// Two ports of one run leave one group, and the claims do not say which target was which: neither port is guessed.
func TestJoin_ambiguousClaims(t *testing.T) {
	a, b := statustest.Want("web", "web-1", 8080, 32768), statustest.Want("web", "web-1", 9090, 32769)
	d := statustest.Discovery()
	d.Decisions = []discovery.Decision{statustest.Decided(a, discovery.Leaving, "SIGTERM"), statustest.Decided(b, discovery.Leaving, "SIGTERM")}
	r := statustest.Registrar(statustest.Group(
		registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Removing, Run: a.Run},
		registrar.TargetStatus{Target: statustest.Target(32769), Phase: ledger.Removing, Run: b.Run},
	))
	for _, row := range Join(d, r) {
		if row.Target.Port != 0 && row.ContainerPort.Port != 0 {
			t.Errorf("row %s names a port that nothing proves", short(row))
		}
	}
}

func TestJoin_nothing(t *testing.T) {
	if rows := Join(nil, nil); len(rows) != 0 {
		t.Errorf("got %d rows; want none", len(rows))
	}
}

// Every want of discovery is in exactly one row. Every target of the registrar is in a row: in one for each want of
// discovery that it serves, in exactly one where it serves none. The order does not depend on that of the input.
func TestJoin_properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, r := drawDiscovery(t), drawRegistrar(t)
		rows := Join(d, r)

		perWant := map[portKey]int{}
		perTarget := map[string]int{}
		for _, row := range rows {
			if row.State.Wanted() || row.State == Refused {
				perWant[rowKey(row)]++
			}
			if row.Target.ID != "" {
				perTarget[row.Target.String()]++
			}
			if row.Why == "" {
				t.Errorf("row %s has no reason", short(row))
			}
		}
		if d != nil {
			for _, ws := range d.Wants {
				for _, w := range ws {
					if got := perWant[keyOf(w)]; got != 1 {
						t.Errorf("want %+v is in %d rows; want 1", w, got)
					}
				}
			}
		}
		if r != nil {
			for _, g := range r.Groups {
				for _, ts := range g.Targets {
					if got, want := perTarget[ts.Target.String()], max(1, served(d, ts)); got != want {
						t.Errorf("target %s is in %d rows; want %d", ts.Target, got, want)
					}
				}
				for _, u := range g.Unclaimed {
					if got := perTarget[u.String()]; got != 1 {
						t.Errorf("unclaimed target %s is in %d rows; want 1", u, got)
					}
				}
			}
		}
		for i := range 3 { // maps are walked in another order each time
			if diff := cmp.Diff(rows, Join(d, r), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
				t.Fatalf("order changed at attempt %d:\n%s", i, diff)
			}
		}
	})
}

func rowKey(r Row) portKey {
	return portKey{r.Group, r.Run.ID, r.Run.StartedAt.UnixNano(), r.ContainerPort}
}

// served counts the wants of a target that discovery confirms or is silent about.
func served(d *discovery.Snapshot, ts registrar.TargetStatus) int {
	n := 0
	for _, w := range ts.Wants {
		var computed bool
		var wanted []target.Want
		if d != nil {
			wanted, computed = d.Wants[w.Group]
		}
		if !computed || slices.ContainsFunc(wanted, func(o target.Want) bool { return keyOf(o) == keyOf(w) }) {
			n++
		}
	}
	return n
}

func drawWant(t *rapid.T, group string) target.Want {
	w := statustest.Want(group, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "container"),
		rapid.Uint16Range(1, 3).Draw(t, "port"), rapid.Uint16Range(32768, 32775).Draw(t, "host port"))
	if rapid.Bool().Draw(t, "restarted") {
		w.Run.StartedAt = statustest.T1
	}
	w.Protocol = rapid.SampledFrom([]target.Protocol{target.TCP, target.UDP}).Draw(t, "protocol")
	return w
}

func drawDiscovery(t *rapid.T) *discovery.Snapshot {
	if rapid.IntRange(0, 9).Draw(t, "discovery is silent") == 0 {
		return nil
	}
	d := &discovery.Snapshot{Seq: 7, Wants: map[string][]target.Want{}}
	wanted := map[portKey]bool{}
	for _, group := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"web", "api", "dns"}), 0, 3, rapid.ID[string]).Draw(t, "groups") {
		d.Wants[group] = nil
		for range rapid.IntRange(0, 4).Draw(t, "wants") {
			w := drawWant(t, group)
			if !wanted[keyOf(w)] {
				wanted[keyOf(w)] = true
				d.Wants[group] = append(d.Wants[group], w)
				d.Decisions = append(d.Decisions, statustest.Decided(w, discovery.Wanted, "wanted"))
			}
		}
	}
	verdicts := []discovery.Verdict{discovery.NotYet, discovery.Leaving, discovery.Drained, discovery.Ignored}
	for range rapid.IntRange(0, 4).Draw(t, "decisions") {
		c := statustest.Decided(drawWant(t, rapid.SampledFrom([]string{"web", "api", "dns", ""}).Draw(t, "group")),
			rapid.SampledFrom(verdicts).Draw(t, "verdict"), "because")
		if c.Group == "" || rapid.Bool().Draw(t, "about the container") {
			c.Port, c.Protocol = 0, target.TCP
		}
		if !wanted[keyOfDecision(&c)] {
			d.Decisions = append(d.Decisions, c)
		}
	}
	if rapid.Bool().Draw(t, "one not inspected") {
		d.Unknown = []string{statustest.Run("z").ID} // which therefore no want and no decision is about
	}
	return d
}

// drawRegistrar draws groups whose targets are all distinct, each want in at most one of them.
func drawRegistrar(t *rapid.T) *registrar.Snapshot {
	if rapid.IntRange(0, 9).Draw(t, "registrar is silent") == 0 {
		return nil
	}
	r := &registrar.Snapshot{At: statustest.T2, Connected: rapid.Bool().Draw(t, "connected")}
	port := uint16(32768)
	taken := map[portKey]bool{}
	keys := [][]string{{"web"}, {"api", "dns"}, nil}
	for i := range rapid.IntRange(0, 3).Draw(t, "groups") {
		g := registrar.GroupStatus{
			ARN: fmt.Sprint("arn:", i), Keys: keys[i],
			State: rapid.SampledFrom([]string{registrar.StateOK, registrar.StateDenied, registrar.StateWaiting}).Draw(t, "state"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "targets") {
			port++
			ts := registrar.TargetStatus{
				Target: statustest.Target(port), Since: statustest.T2,
				Phase:  rapid.SampledFrom([]ledger.Phase{ledger.Intended, ledger.Registered, ledger.Removing, ledger.Absent}).Draw(t, "phase"),
				Health: rapid.SampledFrom([]string{"", "healthy", "unhealthy", "draining", "new"}).Draw(t, "health"),
			}
			for range rapid.IntRange(0, 2).Draw(t, "wants of the target") {
				if len(g.Keys) == 0 {
					break
				}
				w := drawWant(t, rapid.SampledFrom(g.Keys).Draw(t, "key"))
				if !taken[keyOf(w)] {
					taken[keyOf(w)] = true
					ts.Wants = append(ts.Wants, w)
				}
			}
			if rapid.Bool().Draw(t, "claimed") {
				ts.Run = drawWant(t, "").Run
			} else if rapid.Bool().Draw(t, "claimed by one not inspected") {
				ts.Run = statustest.Run("z")
			}
			g.Targets = append(g.Targets, ts)
		}
		for range rapid.IntRange(0, 2).Draw(t, "refusals") {
			if len(g.Keys) > 0 {
				g.Refusals = append(g.Refusals, registrar.Refusal{Want: drawWant(t, g.Keys[0]), Why: "no"})
			}
		}
		for range rapid.IntRange(0, 2).Draw(t, "unclaimed") {
			port++
			g.Unclaimed = append(g.Unclaimed, statustest.Target(port))
		}
		r.Groups = append(r.Groups, g)
	}
	return r
}

// A key names a group that is not there, or has not accepted its target: the group before has a row of its own, and the key's
// row says which it is.
func TestJoin_held(t *testing.T) {
	w := statustest.Want("web", "web-1", 8080, 32768)
	before := statustest.Group(registrar.TargetStatus{
		Target: statustest.Target(32768), Phase: ledger.Registered, Health: "healthy", Wants: []target.Want{w}, Run: w.Run,
	})
	before.Keys, before.ARN = nil, "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web-prod/0123456789abcdef"
	before.Held = []registrar.Held{{Key: "web", Why: `the name "wbe" is not found`}}
	gone := registrar.GroupStatus{Keys: []string{"web"}, Name: "wbe", State: registrar.StateGone, Err: "TargetGroupNotFound", Change: "correct the name", Tried: true}
	unregistered := statustest.Group(registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Absent, Wants: []target.Want{w}, Run: w.Run})
	registered := statustest.Group(registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Registered, Health: "initial", Wants: []target.Want{w}, Run: w.Run})
	refusing := statustest.Group()
	refusing.Refusals = []registrar.Refusal{{Want: w, Why: "the group speaks UDP", Change: "publish 8080/udp"}}
	for name, c := range map[string]struct {
		now  registrar.GroupStatus
		d    *discovery.Snapshot
		want []string
		why  string // of the key's row
	}{
		"not found":           {gone, statustest.Discovery(w), []string{"web-1 web 8080/tcp :0 blocked", "web-1 web-prod/0123456789abcdef 8080/tcp :32768 healthy"}, "target group web-prod/0123456789abcdef still serves it"},
		"not accepted":        {unregistered, statustest.Discovery(w), []string{"web-1 web 8080/tcp :32768 registering", "web-1 web-prod/0123456789abcdef 8080/tcp :32768 healthy"}, "still serves it"},
		"refused":             {refusing, statustest.Discovery(w), []string{"web-1 web 8080/tcp :0 refused", "web-1 web-prod/0123456789abcdef 8080/tcp :32768 healthy"}, "speaks UDP; target group web-prod/0123456789abcdef still serves it"},
		"accepted":            {registered, statustest.Discovery(w), []string{"web-1 web 8080/tcp :32768 initial", "web-1 web-prod/0123456789abcdef 8080/tcp :32768 healthy"}, "says initial"},
		"nobody wants it":     {gone, statustest.Discovery(), []string{"web-1 web 8080/tcp :32768 leaving"}, "about to be deregistered"},
		"discovery is silent": {gone, nil, []string{"web-1 web-prod/0123456789abcdef 8080/tcp :32768 healthy"}, "stays here for web, because the name"},
	} {
		t.Run(name, func(t *testing.T) {
			rows := Join(c.d, statustest.Registrar(c.now, before))
			if diff := cmp.Diff(c.want, shorts(rows)); diff != "" {
				t.Fatalf("rows (-want +got):\n%s", diff)
			}
			if !strings.Contains(rows[0].Why, c.why) {
				t.Errorf("why: got %q; want it to contain %q", rows[0].Why, c.why)
			}
			s := Of(statustest.T2, AgentV1{}, Host{}, c.d, statustest.Registrar(c.now, before))
			if g := GroupNamed(&s, "web-prod/0123456789abcdef"); g == nil || len(g.Held) != 1 || g.Counts.Registered != 1 && c.d != nil && len(c.d.Wants["web"]) > 0 {
				t.Errorf("group %+v; want it held, with one target", g)
			}
		})
	}
}
