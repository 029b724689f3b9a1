package server

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
	"berth/pkg/target"
)

var (
	t0 = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	t1 = t0.Add(time.Minute)
	t2 = t0.Add(2 * time.Minute)
)

const instance = "i-0123456789abcdef0"

func runOf(name string) target.Run {
	return target.Run{ID: strings.Repeat(fmt.Sprintf("%02x", name[0]), 32), Name: name, StartedAt: t0}
}

func wantOf(group, name string, port, hostPort uint16) target.Want {
	return target.Want{Group: group, Run: runOf(name), Port: port, HostPort4: hostPort, Dynamic: true}
}

func at(port uint16) target.Target { return target.Target{ID: instance, Port: port} }

func decided(w target.Want, v discovery.Verdict, why string) discovery.Decision {
	return discovery.Decision{Run: w.Run, Group: w.Group, Port: w.Port, Protocol: w.Protocol, Verdict: v, Why: why, Since: t1}
}

// wants builds a snapshot of discovery for group web.
func wants(w ...target.Want) *discovery.Snapshot {
	return &discovery.Snapshot{Seq: 1, Wants: map[string][]target.Want{"web": w}}
}

// groups builds a connected snapshot of the registrar.
func groups(g ...registrar.GroupStatus) *registrar.Snapshot {
	return &registrar.Snapshot{At: t2, Seq: 1, Connected: true, Groups: g}
}

func okGroup(ts ...registrar.TargetStatus) registrar.GroupStatus {
	return registrar.GroupStatus{
		ARN: "arn:web", Name: "web-prod", Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 1, Targets: ts,
	}
}

// wellSnapshots are of a host with one healthy container.
func wellSnapshots() (*discovery.Snapshot, *registrar.Snapshot) {
	w := wantOf("web", "web-1", 8080, 32768)
	d := wants(w)
	d.Generation = 1
	d.Stream = discovery.Stream{Up: true, Since: t0, Engine: "docker 28.5.2", APIVersion: "1.51"}
	d.Decisions = []discovery.Decision{decided(w, discovery.Wanted, "its label names web")}
	r := groups(okGroup(registrar.TargetStatus{
		Target: at(32768), Phase: registrar.Registered, Health: "healthy", Since: t2, Wants: []target.Want{w}, Run: w.Run,
	}))
	r.Self = registrar.Self{InstanceID: instance, Region: "eu-central-1", Account: "123456789012"}
	r.Groups[0].VerifiedAt = t2
	return d, r
}

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
	w := wantOf("web", "web-1", 8080, 32768)
	has := func(phase registrar.Phase, health, reason string) registrar.TargetStatus {
		return registrar.TargetStatus{
			Target: at(32768), Phase: phase, Health: health, Reason: reason, Since: t2,
			Wants: []target.Want{w}, Run: w.Run,
		}
	}
	claim := func(phase registrar.Phase) registrar.TargetStatus {
		return registrar.TargetStatus{Target: at(32768), Phase: phase, Since: t2, Run: w.Run}
	}
	trouble := func(state string, ts ...registrar.TargetStatus) registrar.GroupStatus {
		g := okGroup(ts...)
		g.State, g.Err, g.Change = state, "AccessDenied: not allowed", "attach the policy"
		return g
	}
	unwanted := func(v discovery.Verdict, why string) *discovery.Snapshot {
		d := wants()
		d.Decisions = []discovery.Decision{decided(w, v, why)}
		return d
	}
	refusing := okGroup()
	refusing.Refusals = []registrar.Refusal{{Want: w, Why: "the group speaks UDP", Change: "publish 8080/udp"}}
	unclaiming := okGroup()
	unclaiming.Unclaimed = []target.Target{at(80)}
	left := okGroup(claim(registrar.Registered))
	left.Keys = nil
	starting := wants()
	starting.Unknown = []string{w.Run.ID}
	offline := groups(okGroup())
	offline.Connected = false

	tests := map[string]struct {
		d      *discovery.Snapshot
		r      *registrar.Snapshot
		want   string
		why    string // part of the sentence
		change string // part of it; "-" for none
	}{
		"nothing asked yet":            {wants(w), nil, "web-1 web 8080/tcp :0 registering", "only just started", "-"},
		"no credentials":               {wants(w), offline, "web-1 web 8080/tcp :0 registering", "identity and AWS credentials", "-"},
		"group not known":              {wants(w), groups(), "web-1 web 8080/tcp :0 registering", "not been looked up", "-"},
		"about to be sent":             {wants(w), groups(okGroup()), "web-1 web 8080/tcp :0 registering", "about to be registered", "-"},
		"sent":                         {wants(w), groups(okGroup(has(registrar.Intended, "", ""))), "web-1 web 8080/tcp :32768 registering", "has been sent", "-"},
		"deregistered a moment ago":    {wants(w), groups(okGroup(has(registrar.Removing, "draining", ""))), "web-1 web 8080/tcp :32768 registering", "registered again next", "-"},
		"throttled":                    {wants(w), groups(trouble(registrar.StateThrottled)), "web-1 web 8080/tcp :0 registering", "fewer calls", "attach"},
		"retrying":                     {wants(w), groups(trouble(registrar.StateWaiting)), "web-1 web 8080/tcp :0 registering", "trying again: AccessDenied", "attach"},
		"denied":                       {wants(w), groups(trouble(registrar.StateDenied)), "web-1 web 8080/tcp :0 blocked", "AccessDenied: not allowed", "attach the policy"},
		"gone":                         {wants(w), groups(trouble(registrar.StateGone, has(registrar.Intended, "", ""))), "web-1 web 8080/tcp :32768 blocked", "AccessDenied", "attach"},
		"full":                         {wants(w), groups(trouble(registrar.StateFull)), "web-1 web 8080/tcp :0 blocked", "AccessDenied", "attach"},
		"misconfigured":                {wants(w), groups(trouble(registrar.StateMisconfigured)), "web-1 web 8080/tcp :0 blocked", "AccessDenied", "attach"},
		"registered, in trouble since": {wants(w), groups(trouble(registrar.StateDenied, has(registrar.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
		"no look yet":                  {wants(w), groups(okGroup(has(registrar.Registered, "", ""))), "web-1 web 8080/tcp :32768 registered", "not been looked at", "-"},
		"initial":                      {wants(w), groups(okGroup(has(registrar.Registered, "initial", "Elb.InitialHealthChecking"))), "web-1 web 8080/tcp :32768 initial", "first health checks", "-"},
		"healthy":                      {wants(w), groups(okGroup(has(registrar.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
		"unhealthy":                    {wants(w), groups(okGroup(has(registrar.Registered, "unhealthy", "Target.Timeout"))), "web-1 web 8080/tcp :32768 unhealthy", "no answer in time", "security group"},
		"unhealthy.draining":           {wants(w), groups(okGroup(has(registrar.Registered, "unhealthy.draining", ""))), "web-1 web 8080/tcp :32768 unhealthy", "no reason", "-"},
		"unused":                       {wants(w), groups(okGroup(has(registrar.Registered, "unused", "Target.NotInUse"))), "web-1 web 8080/tcp :32768 unused", "no load balancer", "listener"},
		"unavailable":                  {wants(w), groups(okGroup(has(registrar.Registered, "unavailable", "Target.HealthCheckDisabled"))), "web-1 web 8080/tcp :32768 unavailable", "turned off", "-"},
		"health of a later year":       {wants(w), groups(okGroup(has(registrar.Registered, "sleepy", "Elb.Tired"))), "web-1 web 8080/tcp :32768 registered", "sleepy (Elb.Tired)", "-"},
		"refused by the group":         {wants(w), groups(refusing), "web-1 web 8080/tcp :0 refused", "speaks UDP", "8080/udp"},

		"not yet":                 {unwanted(discovery.NotYet, "its HEALTHCHECK has not reported yet"), groups(okGroup()), "web-1 web 8080/tcp :0 not_yet", "HEALTHCHECK", "-"},
		"refused":                 {unwanted(discovery.Refused, "bound to 127.0.0.1"), groups(okGroup()), "web-1 web 8080/tcp :0 refused", "127.0.0.1", "-"},
		"ignored":                 {unwanted(discovery.Ignored, "it opted out"), nil, "web-1 web 8080/tcp :0 ignored", "opted out", "-"},
		"drained and gone":        {unwanted(discovery.Drained, "root drained it"), groups(okGroup()), "web-1 web 8080/tcp :0 drained", "root drained it", "-"},
		"drained, leaving":        {unwanted(discovery.Drained, "root drained it."), groups(okGroup(claim(registrar.Registered))), "web-1 web 8080/tcp :32768 leaving", "root drained it; it is about to be deregistered", "-"},
		"drained, draining":       {unwanted(discovery.Drained, "root drained it"), groups(okGroup(claim(registrar.Removing))), "web-1 web 8080/tcp :32768 draining", "root drained it; it is deregistered", "-"},
		"drained, absent":         {unwanted(discovery.Drained, "root drained it"), groups(okGroup(claim(registrar.Absent))), "web-1 web 8080/tcp :32768 drained", "root drained it", "-"},
		"stopped, not acted on":   {unwanted(discovery.Leaving, "SIGTERM was sent"), groups(okGroup(has(registrar.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 leaving", "SIGTERM was sent", "-"},
		"stopped, denied":         {unwanted(discovery.Leaving, "SIGTERM was sent"), groups(trouble(registrar.StateDenied, claim(registrar.Registered))), "web-1 web 8080/tcp :32768 leaving", "cannot be deregistered now: AccessDenied", "attach"},
		"container is gone":       {wants(), groups(okGroup(claim(registrar.Registered))), "web-1 web 0/tcp :32768 leaving", "no container wants it", "-"},
		"container is gone, late": {wants(), groups(okGroup(claim(registrar.Absent))), "web-1 web 0/tcp :32768 leaving", "it is deregistered", "-"},
		"not inspected yet":       {starting, groups(okGroup(claim(registrar.Registered))), "web-1 web 0/tcp :32768 registered", "not been inspected", "-"},
		"nobody's":                {wants(), groups(okGroup(registrar.TargetStatus{Target: at(32768), Phase: registrar.Removing})), "web 0/tcp :32768 draining", "open requests", "-"},
		"unclaimed":               {wants(), groups(unclaiming), "web 0/tcp :80 unclaimed", "did not register it", "berth prune"},
		"group left":              {wants(), groups(left), "web-1 web-prod 0/tcp :32768 leaving", "no container wants it", "-"},

		"registrar alone":          {nil, groups(okGroup(has(registrar.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
		"registrar alone, refusal": {nil, groups(refusing), "web-1 web 8080/tcp :0 refused", "speaks UDP", "8080/udp"},
		"group not computed":       {&discovery.Snapshot{}, groups(okGroup(has(registrar.Registered, "healthy", ""))), "web-1 web 8080/tcp :32768 healthy", "passes", "-"},
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
	w := wantOf("web", "web-1", 8080, 32768)
	d := wants(w)
	d.Decisions = []discovery.Decision{decided(w, discovery.Wanted, "its label names web")}
	if got := Join(d, groups(okGroup()))[0].Since; !got.Equal(t1) {
		t.Errorf("before registration: got %v; want the decision's %v", got, t1)
	}
	ts := registrar.TargetStatus{Target: at(32768), Phase: registrar.Registered, Health: "healthy", Since: t2, Wants: []target.Want{w}}
	if got := Join(d, groups(okGroup(ts)))[0].Since; !got.Equal(t2) {
		t.Errorf("after registration: got %v; want the load balancer's %v", got, t2)
	}
}

// The same container, restarted: the old run's target goes while the new run's comes.
func TestJoin_restart(t *testing.T) {
	before := wantOf("web", "web-1", 8080, 32768)
	after := wantOf("web", "web-1", 8080, 32769)
	after.Run.StartedAt = t1
	d := wants(after)
	d.Decisions = []discovery.Decision{decided(after, discovery.Wanted, "its label names web")}
	r := groups(okGroup(
		registrar.TargetStatus{Target: at(32768), Phase: registrar.Removing, Run: before.Run},
		registrar.TargetStatus{Target: at(32769), Phase: registrar.Intended, Run: after.Run, Wants: []target.Want{after}},
	))
	want := []string{"web-1 web 0/tcp :32768 draining", "web-1 web 8080/tcp :32769 registering"}
	if diff := cmp.Diff(want, shorts(Join(d, r))); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// One port of the host went from one container to another before the registrar acted.
func TestJoin_portReuse(t *testing.T) {
	old, now := wantOf("web", "old", 8080, 32768), wantOf("web", "new", 8080, 32768)
	d := wants(now)
	d.Decisions = []discovery.Decision{decided(now, discovery.Wanted, ""), decided(old, discovery.Leaving, "it died")}
	r := groups(okGroup(registrar.TargetStatus{
		Target: at(32768), Phase: registrar.Registered, Health: "healthy", Run: old.Run, Wants: []target.Want{old},
	}))
	want := []string{"new web 8080/tcp :0 registering", "old web 8080/tcp :32768 leaving"}
	if diff := cmp.Diff(want, shorts(Join(d, r))); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// Both halves of a TCP_UDP group are one target and two rows, and count as one.
func TestJoin_sharedTarget(t *testing.T) {
	tcp, udp := wantOf("dns", "dns-1", 53, 32768), wantOf("dns", "dns-1", 53, 32768)
	udp.Protocol = target.UDP
	g := okGroup(registrar.TargetStatus{
		Target: at(32768), Phase: registrar.Registered, Health: "healthy", Wants: []target.Want{tcp, udp}, Run: tcp.Run,
	})
	g.Keys = []string{"dns"}
	rows := Join(&discovery.Snapshot{Wants: map[string][]target.Want{"dns": {udp, tcp}}}, groups(g))
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
	a, b := wantOf("web", "web-1", 8080, 32768), wantOf("web", "web-1", 9090, 32769)
	d := wants()
	d.Decisions = []discovery.Decision{{Run: a.Run, Verdict: discovery.Drained, Why: "root drained it", Since: t1}}
	r := groups(okGroup(
		registrar.TargetStatus{Target: at(32768), Phase: registrar.Removing, Run: a.Run},
		registrar.TargetStatus{Target: at(32769), Phase: registrar.Registered, Run: b.Run},
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
	a, b := wantOf("web", "web-1", 8080, 32768), wantOf("web", "web-1", 9090, 32769)
	d := wants()
	d.Decisions = []discovery.Decision{decided(a, discovery.Leaving, "SIGTERM"), decided(b, discovery.Leaving, "SIGTERM")}
	r := groups(okGroup(
		registrar.TargetStatus{Target: at(32768), Phase: registrar.Removing, Run: a.Run},
		registrar.TargetStatus{Target: at(32769), Phase: registrar.Removing, Run: b.Run},
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
	w := wantOf(group, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "container"),
		rapid.Uint16Range(1, 3).Draw(t, "port"), rapid.Uint16Range(32768, 32775).Draw(t, "host port"))
	if rapid.Bool().Draw(t, "restarted") {
		w.Run.StartedAt = t1
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
				d.Decisions = append(d.Decisions, decided(w, discovery.Wanted, "wanted"))
			}
		}
	}
	verdicts := []discovery.Verdict{discovery.NotYet, discovery.Leaving, discovery.Drained, discovery.Ignored}
	for range rapid.IntRange(0, 4).Draw(t, "decisions") {
		c := decided(drawWant(t, rapid.SampledFrom([]string{"web", "api", "dns", ""}).Draw(t, "group")),
			rapid.SampledFrom(verdicts).Draw(t, "verdict"), "because")
		if c.Group == "" || rapid.Bool().Draw(t, "about the container") {
			c.Port, c.Protocol = 0, target.TCP
		}
		if !wanted[keyOfDecision(&c)] {
			d.Decisions = append(d.Decisions, c)
		}
	}
	if rapid.Bool().Draw(t, "one not inspected") {
		d.Unknown = []string{runOf("z").ID} // which therefore no want and no decision is about
	}
	return d
}

// drawRegistrar draws groups whose targets are all distinct, each want in at most one of them.
func drawRegistrar(t *rapid.T) *registrar.Snapshot {
	if rapid.IntRange(0, 9).Draw(t, "registrar is silent") == 0 {
		return nil
	}
	r := &registrar.Snapshot{At: t2, Connected: rapid.Bool().Draw(t, "connected")}
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
				Target: at(port), Since: t2,
				Phase:  rapid.SampledFrom([]registrar.Phase{registrar.Intended, registrar.Registered, registrar.Removing, registrar.Absent}).Draw(t, "phase"),
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
				ts.Run = runOf("z")
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
			g.Unclaimed = append(g.Unclaimed, at(port))
		}
		r.Groups = append(r.Groups, g)
	}
	return r
}
