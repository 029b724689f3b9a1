package discovery

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

var (
	t0  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id1 = strings.Repeat("1", 64)
	id2 = strings.Repeat("2", 64)
)

// bind is one binding: "8080/tcp 0.0.0.0 32768".
func bind(s string) Published {
	fields := strings.Fields(s)
	port, err := target.ParsePortProto(fields[0])
	if err != nil {
		panic(err)
	}
	p := Published{PortProto: port}
	if fields[1] != "-" {
		p.HostIP = netip.MustParseAddr(fields[1])
	}
	if _, err := fmt.Sscan(fields[2], &p.HostPort); err != nil {
		panic(err)
	}
	return p
}

// dashP is what -P makes of a port.
func dashP(port string, host int) []Published {
	return []Published{bind(fmt.Sprintf("%s 0.0.0.0 %d", port, host)), bind(fmt.Sprintf("%s :: %d", port, host))}
}

// running is a container that asks for group web with its only port; the changes make it another one.
func running(changes ...func(*Container)) Container {
	c := Container{Facts: &Facts{
		ID: id1, Name: "web-1", Image: "my/web:v1", State: "running", StartedAt: t0, NetworkMode: "bridge", Networks: 1,
		Labels: map[string]string{TargetsLabel: "web"}, Published: dashP("8080/tcp", 32768),
		Asked: map[target.PortProto][]uint16{},
	}}
	for _, change := range changes {
		change(&c)
	}
	return c
}

func label(value string) func(*Container) {
	return func(c *Container) { c.Labels = map[string]string{TargetsLabel: value} }
}

func labels(kv ...string) func(*Container) {
	return func(c *Container) {
		c.Labels = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			c.Labels[kv[i]] = kv[i+1]
		}
	}
}

func ports(bindings ...string) func(*Container) {
	return func(c *Container) {
		c.Published = nil
		for _, b := range bindings {
			c.Published = append(c.Published, bind(b))
		}
	}
}

func image(ref string) func(*Container) { return func(c *Container) { c.Image = ref } }

func healthy(h Health) func(*Container) { return func(c *Container) { c.Health = h } }

func network(mode string) func(*Container) {
	return func(c *Container) { c.NetworkMode, c.Published = mode, nil }
}

// said is a decision in short: "web 8080/tcp wanted". The fragments have to occur in its reason, and in its change.
type said struct{ text, why, change string }

func brief(d Decision) string {
	port := "-"
	if d.Port != 0 {
		port = target.PortProto{Port: d.Port, Protocol: d.Protocol}.String()
	}
	group := d.Group
	if group == "" {
		group = "-"
	}
	return fmt.Sprintf("%s %s %s", group, port, d.Verdict)
}

func briefWant(w target.Want) string {
	s := fmt.Sprintf("%s %s %d %d", w.Group, w.PortProto(), w.HostPort4, w.HostPort6)
	if w.HostIP.IsValid() {
		s += " " + w.HostIP.String()
	}
	if w.Dynamic {
		s += " dynamic"
	}
	return s
}

type resolveCase struct {
	container Container
	others    []Container
	rules     []Rule
	drains    []Drain
	after     time.Duration // since t0
	want      []string
	decide    []said
}

func (tc resolveCase) run(t *testing.T) {
	t.Helper()
	if tc.rules == nil {
		tc.rules = []Rule{{Group: "web"}, {Group: "admin"}}
	}
	in := Input{Containers: append(slices.Clone(tc.others), tc.container), Rules: tc.rules, Drains: tc.drains, Now: t0.Add(tc.after)}
	res := Resolve(in)
	var got []string
	for _, r := range tc.rules {
		wants, ok := res.Wants[r.Group]
		if !ok {
			t.Errorf("no key for group %s", r.Group)
		}
		for _, w := range wants {
			if w.Run.ID == tc.container.ID {
				got = append(got, briefWant(w))
			}
		}
	}
	if len(res.Wants) != len(tc.rules) {
		t.Errorf("wants have %d keys; want one for each of the %d groups", len(res.Wants), len(tc.rules))
	}
	if diff := cmp.Diff(tc.want, got); diff != "" {
		t.Errorf("wants (-want +got):\n%s", diff)
	}
	var decisions []Decision
	for _, d := range res.Decisions {
		if d.Run.ID == tc.container.ID {
			decisions = append(decisions, d)
		}
	}
	for i, want := range tc.decide {
		if i >= len(decisions) {
			t.Errorf("decision %d is missing: %v", i, want)
			continue
		}
		d := decisions[i]
		if brief(d) != want.text || !strings.Contains(d.Why, want.why) || !strings.Contains(d.Change, want.change) {
			t.Errorf("decision %d: got %q, %q, %q; want %q, mentioning %q, %q", i, brief(d), d.Why, d.Change, want.text, want.why, want.change)
		}
		if want.change == "" && (d.Verdict == Wanted || d.Verdict == NotYet) && d.Change != "" {
			t.Errorf("decision %d asks for a change where none is needed: %q", i, d.Change)
		}
		if d.Verdict == Refused && d.Change == "" {
			t.Errorf("decision %d refuses without saying what to change: %q", i, d.Why)
		}
	}
	for _, d := range decisions[min(len(tc.decide), len(decisions)):] {
		t.Errorf("a decision too many: %s: %s", brief(d), d.Why)
	}
}

func runCases(t *testing.T, cases map[string]resolveCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, tc.run)
	}
}

func TestResolve_labelsAndRules(t *testing.T) {
	byName := []Rule{{Group: "web", Match: &Match{Name: "web-*"}}, {Group: "admin"}}
	noLabels := []Rule{{Group: "web", Match: &Match{Name: "web-*"}, NoLabels: true}, {Group: "admin"}}
	two := ports("8080/tcp 0.0.0.0 32768", "9090/tcp 0.0.0.0 32769")
	runCases(t, map[string]resolveCase{
		"its only port": {
			container: running(),
			want:      []string{"web 8080/tcp 32768 32768 dynamic"},
			decide:    []said{{"web 8080/tcp wanted", "running", ""}},
		},
		"several ports, several groups": {
			container: running(label("web:8080,admin:9090/tcp"), two),
			want:      []string{"web 8080/tcp 32768 0 dynamic", "admin 9090/tcp 32769 0 dynamic"},
			decide:    []said{{"admin 9090/tcp wanted", "", ""}, {"web 8080/tcp wanted", "", ""}},
		},
		"one port, several groups": {
			container: running(label("web,admin")),
			want:      []string{"web 8080/tcp 32768 32768 dynamic", "admin 8080/tcp 32768 32768 dynamic"},
			decide:    []said{{"admin 8080/tcp wanted", "", ""}, {"web 8080/tcp wanted", "", ""}},
		},
		"several ports, one group": {
			container: running(label("web:8080,web:9090"), two),
			want:      []string{"web 8080/tcp 32768 0 dynamic", "web 9090/tcp 32769 0 dynamic"},
			decide:    []said{{"web 8080/tcp wanted", "", ""}, {"web 9090/tcp wanted", "", ""}},
		},
		"said twice in two ways": {
			container: running(label("web,web:8080")),
			want:      []string{"web 8080/tcp 32768 32768 dynamic"},
			decide:    []said{{"web 8080/tcp wanted", "", ""}},
		},
		"nothing asks for it": {
			container: running(labels()),
			decide:    []said{{"- - ignored", "no rule matches", ""}},
		},
		"nothing asks for it, by the id of its image": {
			container: running(labels(), image("sha256:"+id1)), rules: []Rule{{Group: "web", Match: &Match{Image: "my/*"}}, {Group: "admin"}},
			decide: []said{{"- - ignored", "no rule matches it: it was run by its image's id", TargetsLabel + "=web"}},
		},
		"nothing asks for it, by a short id of its image": {
			container: running(labels(), image(id1[:12])), rules: []Rule{{Group: "web", Match: &Match{Image: "my/*"}}},
			decide: []said{{"- - ignored", "it was run by its image's id", "image's name"}},
		},
		"nothing asks for it, by the id of its image, and rules ask for no image": {
			container: running(labels(), image(id1)), rules: []Rule{{Group: "web", Match: &Match{Name: "other"}}},
			decide: []said{{"- - ignored", "no rule matches it", ""}},
		},
		"a name that could almost be an id": {
			container: running(labels(), image("deadbeefcafe/x")), rules: []Rule{{Group: "web", Match: &Match{Image: "my/*"}}},
			decide: []said{{"- - ignored", "no rule matches it", ""}},
		},
		"opt out": {
			container: running(label("")), rules: byName,
			decide: []said{{"- - ignored", "opted out", ""}},
		},
		"opt out wins over labels: false": {
			container: running(label(" ")), rules: noLabels,
			decide: []said{{"- - ignored", "opted out", ""}},
		},
		"a rule": {
			container: running(labels()), rules: byName,
			want:   []string{"web 8080/tcp 32768 32768 dynamic"},
			decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"two rules": {
			container: running(labels()),
			rules:     []Rule{{Group: "web", Match: &Match{Name: "web-*"}}, {Group: "admin", Match: &Match{Image: "my/*"}}},
			want:      []string{"web 8080/tcp 32768 32768 dynamic", "admin 8080/tcp 32768 32768 dynamic"},
			decide:    []said{{"admin 8080/tcp wanted", "", ""}, {"web 8080/tcp wanted", "", ""}},
		},
		"a rule's port": {
			container: running(labels(), two),
			rules:     []Rule{{Group: "web", Match: &Match{Name: "web-*"}, Port: tcp(9090)}},
			want:      []string{"web 9090/tcp 32769 0 dynamic"},
			decide:    []said{{"web 9090/tcp wanted", "", ""}},
		},
		"a label replaces rules": {
			container: running(label("admin")), rules: byName,
			want:   []string{"admin 8080/tcp 32768 32768 dynamic"},
			decide: []said{{"admin 8080/tcp wanted", "", ""}},
		},
		"but not in a group with labels: false": {
			container: running(label("admin")), rules: noLabels,
			want:   []string{"web 8080/tcp 32768 32768 dynamic", "admin 8080/tcp 32768 32768 dynamic"},
			decide: []said{{"admin 8080/tcp wanted", "", ""}, {"web 8080/tcp wanted", "", ""}},
		},
		"a label for a group with labels: false": {
			container: running(label("web"), func(c *Container) { c.Facts.Name = "other" }), rules: noLabels,
			decide: []said{{"web - refused", "takes no labels", "labels: true"}},
		},
		"unknown group": {
			container: running(label("wbe")),
			decide:    []said{{"wbe - refused", `no group "wbe"`, "one of admin, web"}},
		},
		"unknown group beside a known one": {
			container: running(label("web,wbe:80")),
			want:      []string{"web 8080/tcp 32768 32768 dynamic"},
			decide:    []said{{"wbe 80/tcp refused", `no group "wbe"`, "admin, web"}, {"web 8080/tcp wanted", "", ""}},
		},
		"unknown group, none configured": {
			container: running(), rules: []Rule{},
			decide: []said{{"web - refused", "no group", "there is none"}},
		},
		"malformed label": {
			container: running(label("web:http")), rules: byName,
			decide: []said{{"- - refused", `"web:http"`, "group:port"}},
		},
		"malformed label and labels: false": {
			container: running(label("web:http")), rules: noLabels,
			want:   []string{"web 8080/tcp 32768 32768 dynamic"},
			decide: []said{{"- - refused", `"web:http"`, "group:port"}, {"web 8080/tcp wanted", "", ""}},
		},
		"managed by ECS": {
			container: running(labels("com.amazonaws.ecs.cluster", "c")), rules: byName,
			decide: []said{{"- - ignored", "ECS", TargetsLabel}},
		},
		"managed by ECS, labelled on purpose": {
			container: running(labels("com.amazonaws.ecs.cluster", "c", TargetsLabel, "admin")), rules: noLabels,
			want:   []string{"admin 8080/tcp 32768 32768 dynamic"},
			decide: []said{{"admin 8080/tcp wanted", "", ""}},
		},
		"managed by ECS, malformed label": {
			container: running(labels("com.amazonaws.ecs.cluster", "c", TargetsLabel, ":")), rules: byName,
			decide: []said{{"- - refused", "cannot be read", "group:port"}},
		},
		"one-off run of compose": {
			container: running(labels("com.docker.compose.oneoff", "True")), rules: byName,
			decide: []said{{"- - ignored", "one-off", TargetsLabel}},
		},
		"service of compose": {
			container: running(labels("com.docker.compose.oneoff", "False")), rules: byName,
			want:   []string{"web 8080/tcp 32768 32768 dynamic"},
			decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"a label without a port uses the rule's": {
			container: running(two), rules: []Rule{{Group: "web", Port: tcp(9090)}},
			want:   []string{"web 9090/tcp 32769 0 dynamic"},
			decide: []said{{"web 9090/tcp wanted", "", ""}},
		},
		"a label's port wins over the rule's": {
			container: running(label("web:8080"), two), rules: []Rule{{Group: "web", Port: tcp(9090)}},
			want:   []string{"web 8080/tcp 32768 0 dynamic"},
			decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
	})
}

func TestResolve_ports(t *testing.T) {
	asked := func(port target.PortProto, host uint16) func(*Container) {
		return func(c *Container) { c.Asked[port] = []uint16{host} }
	}
	exposed := func(p ...target.PortProto) func(*Container) { return func(c *Container) { c.Exposed = p } }
	webRule := []Rule{{Group: "web", Match: &Match{Name: "*"}}}
	runCases(t, map[string]resolveCase{
		"IPv4 and IPv6, equal numbers": {
			container: running(ports("80/tcp 0.0.0.0 32768", "80/tcp :: 32768")),
			want:      []string{"web 80/tcp 32768 32768 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"IPv4 and IPv6, different numbers": {
			container: running(ports("80/tcp 0.0.0.0 32768", "80/tcp :: 32769")),
			want:      []string{"web 80/tcp 32768 32769 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"IPv6 alone": {
			container: running(ports("80/tcp :: 32768")),
			want:      []string{"web 80/tcp 0 32768 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"no address given": {
			container: running(ports("80/tcp - 32768")),
			want:      []string{"web 80/tcp 32768 32768 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"a fixed port": {
			container: running(ports("80/tcp 0.0.0.0 80", "80/tcp :: 80"), asked(tcp(80), 80)),
			want:      []string{"web 80/tcp 80 80"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"two host ports for one": {
			container: running(ports("80/tcp 0.0.0.0 8081", "80/tcp 0.0.0.0 8080")),
			want:      []string{"web 80/tcp 8080 0 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"one address": {
			container: running(ports("80/tcp 10.0.0.5 32768")),
			want:      []string{"web 80/tcp 32768 0 10.0.0.5 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"two addresses": {
			container: running(ports("80/tcp fd00::5 32769", "80/tcp 10.0.0.5 32768")),
			want:      []string{"web 80/tcp 32768 0 10.0.0.5 dynamic", "web 80/tcp 0 32769 fd00::5 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"one address and all of them": {
			container: running(ports("80/tcp 10.0.0.5 32768", "80/tcp 0.0.0.0 32769")),
			want:      []string{"web 80/tcp 32769 0 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"loopback": {
			container: running(ports("80/tcp 127.0.0.1 32768")),
			decide:    []said{{"web - refused", "80/tcp is published on loopback alone", "-p 80"}},
		},
		"IPv6 loopback, udp": {
			container: running(label("web:53/udp"), ports("53/udp ::1 32768")),
			decide:    []said{{"web 53/udp refused", "loopback", "-p 53/udp"}},
		},
		"IPv4 loopback inside IPv6": {
			container: running(ports("80/tcp ::ffff:127.0.0.1 32768")),
			decide:    []said{{"web - refused", "loopback", ""}},
		},
		"loopback and an address": {
			container: running(ports("80/tcp 127.0.0.1 32768", "80/tcp 10.0.0.5 32769")),
			want:      []string{"web 80/tcp 32769 0 10.0.0.5 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"another port on loopback is no choice": {
			container: running(ports("80/tcp 0.0.0.0 32768", "9090/tcp 127.0.0.1 32769")),
			want:      []string{"web 80/tcp 32768 0 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"no host port bound": {
			container: running(ports("80/tcp 0.0.0.0 0")),
			decide:    []said{{"web - refused", "no host port", "gateway mode"}},
		},
		"ambiguous, by label": {
			container: running(label("admin:9090,web"), ports("8080/tcp 0.0.0.0 32768", "9090/tcp 0.0.0.0 32769")),
			want:      []string{"admin 9090/tcp 32769 0 dynamic"},
			decide: []said{
				{"admin 9090/tcp wanted", "", ""},
				{"web - refused", "8080/tcp, 9090/tcp", "berth.targets=admin:9090,web:8080"},
			},
		},
		"ambiguous, by rule": {
			container: running(labels(), ports("8080/tcp 0.0.0.0 32768", "9090/tcp 0.0.0.0 32769")), rules: webRule,
			decide: []said{{"web - refused", "8080/tcp, 9090/tcp", "berth.targets=web:8080, or set container_port: 8080/tcp for group web"}},
		},
		"tcp and udp are ambiguous": {
			container: running(ports("53/tcp 0.0.0.0 32768", "53/udp 0.0.0.0 32769")),
			decide:    []said{{"web - refused", "53/tcp, 53/udp", "web:53"}},
		},
		"tcp and udp, both named": {
			container: running(label("web:53/tcp,web:53/udp"), ports("53/tcp 0.0.0.0 32768", "53/udp 0.0.0.0 32769")),
			want:      []string{"web 53/tcp 32768 0 dynamic", "web 53/udp 32769 0 dynamic"},
			decide:    []said{{"web 53/tcp wanted", "", ""}, {"web 53/udp wanted", "", ""}},
		},
		"udp alone": {
			container: running(ports("53/udp 0.0.0.0 32768")),
			want:      []string{"web 53/udp 32768 0 dynamic"},
			decide:    []said{{"web 53/udp wanted", "", ""}},
		},
		"tcp asked, udp published": {
			container: running(label("web:53"), ports("53/udp 0.0.0.0 32768")),
			decide:    []said{{"web 53/tcp refused", "53/udp, not 53/tcp", "berth.targets=web:53/udp"}},
		},
		"sctp": {
			container: running(ports("80/sctp 0.0.0.0 32768")),
			decide:    []said{{"web - refused", "sctp", "publish"}},
		},
		"sctp beside tcp": {
			container: running(ports("80/sctp 0.0.0.0 32768", "80/tcp 0.0.0.0 32768")),
			want:      []string{"web 80/tcp 32768 0 dynamic"},
			decide:    []said{{"web 80/tcp wanted", "", ""}},
		},
		"nothing published": {
			container: running(ports()),
			decide:    []said{{"web - refused", "publishes no port", "-P"}},
		},
		"named, declared, not published": {
			container: running(label("web:8080"), ports(), exposed(tcp(8080))),
			decide:    []said{{"web 8080/tcp refused", "not published", "run it with -P"}},
		},
		"named, not published, others are": {
			container: running(label("web:8080"), ports("9090/tcp 0.0.0.0 32768")),
			decide:    []said{{"web 8080/tcp refused", "not published, but 9090/tcp", "-p 8080, or label it berth.targets=web:9090"}},
		},
		"a rule's port is not published": {
			container: running(labels(), ports("9090/tcp 0.0.0.0 32768")),
			rules:     []Rule{{Group: "web", Match: &Match{Name: "*"}, Port: tcp(8080)}},
			decide:    []said{{"web 8080/tcp refused", "not published", "container_port: 9090/tcp"}},
		},
		"host's network, port by label": {
			container: running(label("web:8080"), network("host")),
			want:      []string{"web 8080/tcp 8080 8080"},
			decide:    []said{{"web 8080/tcp wanted", "", ""}},
		},
		"host's network, port by rule": {
			container: running(labels(), network("host")),
			rules:     []Rule{{Group: "web", Match: &Match{Name: "*"}, Port: udp(53)}},
			want:      []string{"web 53/udp 53 53"},
			decide:    []said{{"web 53/udp wanted", "", ""}},
		},
		"host's network, no port": {
			container: running(network("host"), exposed(tcp(3000))),
			decide:    []said{{"web - refused", "host's network", "berth.targets=web:3000"}},
		},
		"another container's network": {
			container: running(label("web:8080"), network("container:"+id2)),
			decide:    []said{{"web 8080/tcp refused", "222222222222", "put the label berth.targets on container 222222222222"}},
		},
		"no network": {
			container: running(network("none")),
			decide:    []said{{"web - refused", "no network", "run it with a network"}},
		},
		"several networks": {
			container: running(func(c *Container) { c.NetworkMode, c.Networks = "front", 3 }),
			want:      []string{"web 8080/tcp 32768 32768 dynamic"},
			decide:    []said{{"web 8080/tcp wanted", "", ""}},
		},
	})
}

func TestResolve_lifeOfAContainer(t *testing.T) {
	healthyRule := []Rule{{Group: "web", Healthy: true}}
	strict := []Rule{{Group: "web", DeregisterUnhealthy: true}}
	wanted := []string{"web 8080/tcp 32768 32768 dynamic"}
	paused := func(at time.Duration) func(*Container) {
		return func(c *Container) { c.State, c.PausedAt = "paused", t0.Add(at) }
	}
	crashed := func(n int) func(*Container) { return func(c *Container) { c.Crashes = n } }
	drain := func(d Drain) []Drain {
		if d.ID == "" {
			d.ID = DrainID(d.Cause, d.Container)
		}
		d.Since = t0.Add(time.Minute)
		return []Drain{d}
	}
	runCases(t, map[string]resolveCase{
		"exited": {
			container: running(func(c *Container) { c.State = "exited" }),
			decide:    []said{{"- - ignored", "not running (exited)", ""}},
		},
		"restarting": {
			container: running(func(c *Container) { c.State = "restarting" }),
			decide:    []said{{"- - ignored", "not running (restarting)", ""}},
		},
		"ended since": {
			container: running(func(c *Container) { c.Ended = true }),
			decide:    []said{{"- - ignored", "not running", ""}},
		},
		"disconnected": {
			container: running(func(c *Container) { c.Disconnected = true }),
			decide:    []said{{"web - leaving", "network was disconnected", ""}},
		},
		"told to stop": {
			container: running(), drains: drain(Drain{Cause: CauseStopSignal, Container: id1, Hold: HoldRun, StartedAt: t0}),
			decide: []said{{"web 8080/tcp leaving", "told to stop", ""}},
		},
		"told to stop in an earlier run": {
			container: running(), drains: drain(Drain{Cause: CauseStopSignal, Container: id1, Hold: HoldRun, StartedAt: t0.Add(-time.Hour)}),
			want: wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"another one was told to stop": {
			container: running(), drains: drain(Drain{Cause: CauseStopSignal, Container: id2, Hold: HoldRun, StartedAt: t0}),
			want: wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"drained": {
			container: running(), drains: drain(Drain{Cause: CauseOperator, Container: id1, By: "ann"}),
			decide: []said{{"web 8080/tcp drained", "drained by ann", "berth undrain 111111111111"}},
		},
		"its name drained": {
			container: running(), drains: drain(Drain{Cause: CauseOperator, Container: id2, Name: "web-1", By: "ann"}),
			decide: []said{{"web 8080/tcp drained", "its name was drained by ann", "berth undrain web-1"}},
		},
		"this run drained": {
			container: running(), drains: drain(Drain{Cause: CauseOperator, Container: id1, Hold: HoldRun, StartedAt: t0}),
			decide: []said{{"web 8080/tcp drained", "this run", ""}},
		},
		"the run at the time drained": {
			container: running(), drains: drain(Drain{Cause: CauseOperator, Container: id1, Hold: HoldRun}),
			decide: []said{{"web 8080/tcp drained", "this run", ""}},
		},
		"the run at the time was an earlier one": {
			container: running(func(c *Container) { c.StartedAt = t0.Add(time.Hour) }), after: 2 * time.Hour,
			drains: drain(Drain{Cause: CauseOperator, Container: id1, Hold: HoldRun}),
			want:   wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"being stopped by berth": {
			container: running(), drains: drain(Drain{Cause: CauseOperator, Container: id1, Hold: HoldConnection, By: "ann"}),
			decide: []said{{"web 8080/tcp drained", "being taken out by ann", ""}},
		},
		"the operator drained the host": {
			container: running(), drains: drain(Drain{Cause: CauseOperator}),
			decide: []said{{"web 8080/tcp drained", "the host was drained", "berth undrain --all"}},
		},
		"spot notice": {
			container: running(), drains: drain(Drain{Cause: CauseSpot}),
			decide: []said{{"web 8080/tcp drained", "the host is draining (spot)", ""}},
		},
		"a drained host does not hide what is refused": {
			container: running(ports()), drains: drain(Drain{Cause: CauseSpot}),
			decide: []said{{"web - refused", "publishes no port", "-P"}},
		},
		"paused for a moment": {
			container: running(paused(time.Minute)), after: time.Minute + 4*time.Second,
			want: wanted, decide: []said{{"web 8080/tcp wanted", "paused", ""}},
		},
		"paused": {
			container: running(paused(time.Minute)), after: time.Minute + 5*time.Second,
			decide: []said{{"web 8080/tcp leaving", "paused", "unpause"}},
		},
		"died once": {
			container: running(crashed(1)), after: 9 * time.Second,
			decide: []said{{"web 8080/tcp not_yet", "died once by itself: it has to run for 10s", ""}},
		},
		"died once, a while ago": {
			container: running(crashed(1)), after: 10 * time.Second,
			want: wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"died three times": {
			container: running(crashed(3)), after: 39 * time.Second,
			decide: []said{{"web 8080/tcp not_yet", "3 times in a row by itself: it has to run for 40s", ""}},
		},
		"died without end": {
			container: running(crashed(60)), after: 299 * time.Second,
			decide: []said{{"web 8080/tcp not_yet", "5m0s", ""}},
		},
		"not healthy yet": {
			container: running(healthy(HealthStarting)), rules: healthyRule,
			decide: []said{{"web 8080/tcp not_yet", "has not passed yet", ""}},
		},
		"unhealthy from the start": {
			container: running(healthy(HealthUnhealthy)), rules: healthyRule,
			decide: []said{{"web 8080/tcp not_yet", "has not passed yet", ""}},
		},
		"healthy": {
			container: running(healthy(HealthHealthy)), rules: healthyRule,
			want: wanted, decide: []said{{"web 8080/tcp wanted", "healthy", ""}},
		},
		"once healthy": {
			container: running(healthy(HealthUnhealthy), func(c *Container) { c.WasHealthy = true }), rules: healthyRule,
			want: wanted, decide: []said{{"web 8080/tcp wanted", "load balancer judges", ""}},
		},
		"registered by an earlier agent": {
			container: running(healthy(HealthStarting), func(c *Container) { c.Admitted = map[string]bool{"web": true} }), rules: healthyRule,
			want: wanted, decide: []said{{"web 8080/tcp wanted", "let in before", ""}},
		},
		"registered elsewhere by an earlier agent": {
			container: running(healthy(HealthStarting), func(c *Container) { c.Admitted = map[string]bool{"admin": true} }), rules: healthyRule,
			decide: []said{{"web 8080/tcp not_yet", "has not passed yet", ""}},
		},
		"no HEALTHCHECK": {
			container: running(), rules: healthyRule,
			decide: []said{{"web 8080/tcp refused", "no HEALTHCHECK", "register_when: running"}},
		},
		"no HEALTHCHECK, none needed": {
			container: running(), rules: strict,
			want: wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"unhealthy, deregister_when_unhealthy": {
			container: running(healthy(HealthUnhealthy), func(c *Container) { c.WasHealthy = true }), rules: strict,
			decide: []said{{"web 8080/tcp leaving", "unhealthy", ""}},
		},
		"unhealthy, and the load balancer judges": {
			container: running(healthy(HealthUnhealthy)),
			want:      wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"its port belongs to a later run": {
			container: running(),
			others: []Container{running(func(c *Container) {
				c.ID, c.Name, c.StartedAt = id2, "thief", t0.Add(time.Second)
			}, label("admin"))},
			after:  time.Minute,
			decide: []said{{"web 8080/tcp not_yet", "belongs to thief", ""}},
		},
		"its port belonged to an earlier run": {
			container: running(),
			others: []Container{running(func(c *Container) {
				c.ID, c.Name, c.StartedAt = id2, "old", t0.Add(-time.Second)
			}, label("admin"))},
			want: wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"a later run has the number in udp": {
			container: running(),
			others: []Container{running(func(c *Container) {
				c.ID, c.Name, c.StartedAt = id2, "dns", t0.Add(time.Second)
			}, ports("53/udp 0.0.0.0 32768"))},
			after: time.Minute,
			want:  wanted, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"a later run has the number on the other family": {
			container: running(ports("8080/tcp 0.0.0.0 32768", "8080/tcp :: 32769")),
			others: []Container{running(func(c *Container) {
				c.ID, c.Name, c.StartedAt = id2, "crossed", t0.Add(time.Second)
			}, ports("8080/tcp 0.0.0.0 32769", "8080/tcp :: 32768"))},
			after:  time.Minute,
			want:   []string{"web 8080/tcp 32768 32769 dynamic"},
			decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
		"a later run has the number on another address": {
			container: running(ports("8080/tcp 10.0.0.5 8080")),
			others: []Container{running(func(c *Container) {
				c.ID, c.Name, c.StartedAt = id2, "local", t0.Add(time.Second)
			}, ports("8080/tcp 127.0.0.1 8080"))},
			after: time.Minute,
			want:  []string{"web 8080/tcp 8080 0 10.0.0.5 dynamic"}, decide: []said{{"web 8080/tcp wanted", "", ""}},
		},
	})
}

// The signal's drain and the operator's may both hold: the signal is the news. Of the others, the first is named.
func TestResolve_severalDrains(t *testing.T) {
	in := Input{
		Containers: []Container{running()}, Rules: []Rule{{Group: "web"}}, Now: t0.Add(time.Hour),
		Drains: []Drain{
			{ID: "1", Container: id1, Cause: CauseOperator, By: "bob", Since: t0.Add(2 * time.Minute)},
			{ID: "2", Container: id1, Cause: CauseOperator, By: "ann", Since: t0.Add(time.Minute)},
			{ID: "3", Container: id1, Cause: CauseOperator, Hold: HoldRun, By: "old", StartedAt: t0.Add(-time.Hour), Since: t0.Add(-time.Hour)},
		},
	}
	if d := Resolve(in).Decisions[0]; d.Verdict != Drained || !strings.Contains(d.Why, "ann") || !d.Since.Equal(t0.Add(time.Minute)) {
		t.Errorf("got %+v; want the first of the operator's drains", d)
	}
	in.Drains = append(in.Drains, Drain{ID: "4", Container: id1, Cause: CauseStopSignal, Hold: HoldRun, StartedAt: t0, Since: t0.Add(3 * time.Minute)})
	if d := Resolve(in).Decisions[0]; d.Verdict != Leaving {
		t.Errorf("got %+v; want the stop signal", d)
	}
	in.Drains = append(in.Drains, Drain{ID: "5", Cause: CauseLifecycle, Since: t0.Add(4 * time.Minute)}, Drain{ID: "6", Cause: CauseSpot, Since: t0.Add(3 * time.Minute)})
	if d := Resolve(in).Decisions[0]; d.Verdict != Drained || !strings.Contains(d.Why, "spot") {
		t.Errorf("got %+v; want the host's first drain", d)
	}
}

func TestResolve_next(t *testing.T) {
	for name, tc := range map[string]struct {
		container Container
		after     time.Duration
		want      time.Duration // 0: never
	}{
		"nothing to wait for": {running(), time.Minute, 0},
		"a pause":             {running(func(c *Container) { c.State, c.PausedAt = "paused", t0.Add(time.Minute) }), time.Minute, 65 * time.Second},
		"a long pause":        {running(func(c *Container) { c.State, c.PausedAt = "paused", t0 }), time.Minute, 0},
		"a crash":             {running(func(c *Container) { c.Crashes = 2 }), time.Second, 20 * time.Second},
		"an old crash":        {running(func(c *Container) { c.Crashes = 2 }), 20 * time.Second, 0},
	} {
		next := Resolve(Input{Containers: []Container{tc.container}, Rules: []Rule{{Group: "web"}}, Now: t0.Add(tc.after)}).Next
		if got := next.Sub(t0); !next.IsZero() && got != tc.want || next.IsZero() && tc.want != 0 {
			t.Errorf("%s: got %v; want %v after t0", name, next, tc.want)
		}
	}
}

func TestResolve_allotted(t *testing.T) {
	other := func(name string, start time.Duration, bindings ...string) Container {
		return running(func(c *Container) {
			c.ID, c.Name, c.StartedAt = strings.Repeat(name[:1], 64), name, t0.Add(start)
		}, labels(), ports(bindings...))
	}
	in := Input{Rules: []Rule{{Group: "web"}}, Now: t0.Add(time.Hour), Containers: []Container{
		running(),
		other("a", 0, "53/tcp 0.0.0.0 40000", "53/udp :: 40000"),
		other("b", 0, "80/tcp 127.0.0.1 40001", "80/tcp 10.0.0.5 40002"), // on one address: no proof
		other("c", 0, "80/tcp 0.0.0.0 0"),
		func() Container { c := other("d", 0, "80/tcp 0.0.0.0 40003"); c.Ended = true; return c }(),
		func() Container { c := other("e", 0, "80/tcp 0.0.0.0 40004"); c.State = "paused"; return c }(),
		other("f", 0, "80/tcp 0.0.0.0 40005"),
		other("g", time.Second, "81/tcp 0.0.0.0 40005"), // f's port is g's now
		func() Container { c := other("h", 0, "80/tcp 0.0.0.0 40006"); c.Disconnected = true; return c }(),
		func() Container { // the user chose the number
			c := other("i", 0, "80/tcp 0.0.0.0 40007")
			c.Asked = map[target.PortProto][]uint16{{Port: 80}: {40007}}
			return c
		}(),
		func() Container {
			c := other("j", 0, "80/tcp 0.0.0.0 40008")
			c.Labels = map[string]string{TargetsLabel: ""}
			return c
		}(),
		func() Container {
			c := other("k", 0, "80/tcp 0.0.0.0 40009")
			c.Labels = map[string]string{"com.amazonaws.ecs.cluster": "default"}
			return c
		}(),
		other("l", 0, "80/tcp 0.0.0.0 40010", "80/tcp :: 40011"), // before Docker 27 the numbers could differ
	}}
	res := Resolve(in)
	var got []string
	for _, a := range res.Allotted {
		line := fmt.Sprintf("%s %d/%s", a.Run.Name, a.HostPort, a.Protocol)
		if a.IPv6 {
			line += " ipv6"
		}
		if !a.Proof {
			line += " no proof"
		}
		got = append(got, line)
	}
	want := []string{
		"web-1 32768/tcp", "web-1 32768/tcp ipv6", "a 40000/tcp", "a 40000/udp ipv6", "e 40004/tcp", "g 40005/tcp",
		"i 40007/tcp no proof", "j 40008/tcp no proof", "k 40009/tcp no proof", "l 40010/tcp", "l 40011/tcp ipv6",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("allotted (-want +got):\n%s", diff)
	}
}

// A container whose port another one has is asked about again.
func TestResolve_shadowed(t *testing.T) {
	later := running(func(c *Container) { c.ID, c.Name, c.StartedAt = id2, "later", t0.Add(time.Second) })
	res := Resolve(Input{Containers: []Container{running(), later}, Rules: []Rule{{Group: "web"}}, Now: t0.Add(time.Hour)})
	if !slices.Equal(res.Shadowed, []string{id1}) {
		t.Errorf("shadowed: got %v; want %s", res.Shadowed, id1)
	}
	if len(res.Wants["web"]) != 1 || res.Wants["web"][0].Run.ID != id2 {
		t.Errorf("wanted: got %v; want the later run alone", res.Wants)
	}
}

// The order in which anything is given changes nothing, and nothing is written to.
func TestResolve_orderDoesNotMatter(t *testing.T) {
	in := Input{Rules: []Rule{{Group: "web"}, {Group: "admin", Match: &Match{Name: "*"}}, {Group: "api", Match: &Match{Image: "*"}, NoLabels: true}}, Now: t0.Add(time.Hour)}
	values := []string{"web", "admin,web", "web:8080", "nope", ":", "", "web:1"}
	for i := range 30 {
		in.Containers = append(in.Containers, running(func(c *Container) {
			c.ID, c.Name = fmt.Sprintf("%064d", i), fmt.Sprintf("c%d", i%7) // names may repeat in what we are told
			c.StartedAt = t0.Add(time.Duration(i%3) * time.Second)
			c.Published = dashP("8080/tcp", 32768+i%20)
			c.Crashes = i % 2
			if i%5 != 0 {
				c.Labels = map[string]string{TargetsLabel: values[i%len(values)]}
			} else {
				c.Labels = nil
			}
		}))
	}
	in.Drains = []Drain{
		{ID: "a", Container: in.Containers[3].ID, Cause: CauseOperator, Since: t0},
		{ID: "b", Container: in.Containers[3].ID, Cause: CauseOperator, Hold: HoldConnection, Since: t0},
		{ID: "c", Container: in.Containers[4].ID, Cause: CauseStopSignal, Hold: HoldRun, StartedAt: in.Containers[4].StartedAt, Since: t0},
	}
	equal := []cmp.Option{cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
	want := Resolve(in)
	slices.Sort(want.Shadowed)
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		shuffled := in
		shuffled.Containers, shuffled.Rules, shuffled.Drains = slices.Clone(in.Containers), slices.Clone(in.Rules), slices.Clone(in.Drains)
		r.Shuffle(len(in.Containers), func(i, j int) {
			shuffled.Containers[i], shuffled.Containers[j] = shuffled.Containers[j], shuffled.Containers[i]
		})
		r.Shuffle(len(in.Rules), func(i, j int) { shuffled.Rules[i], shuffled.Rules[j] = shuffled.Rules[j], shuffled.Rules[i] })
		r.Shuffle(len(in.Drains), func(i, j int) {
			shuffled.Drains[i], shuffled.Drains[j] = shuffled.Drains[j], shuffled.Drains[i]
		})
		got := Resolve(shuffled)
		slices.Sort(got.Shadowed)
		if diff := cmp.Diff(want, got, equal...); diff != "" {
			t.Fatalf("another order, another resolution (-first +shuffled):\n%s", diff)
		}
	}
}

// 1,000 ports and 64 KiB of label are answered with a few Decisions that say what was done.
func TestResolve_absurdSizes(t *testing.T) {
	c := running()
	c.Published = nil
	for port := range 1000 {
		c.Published = append(c.Published, dashP(fmt.Sprintf("%d/tcp", port+1), 30000+port)...)
	}
	for name, tc := range map[string]struct{ value, verdict, why string }{
		"1,000 ports, none named": {"web", "web - refused", "1/tcp, 2/tcp, 3/tcp, 4/tcp, 5/tcp and 995 more"},
		"1,000 ports, one named":  {"web:1000", "web 1000/tcp wanted", ""},
		"a label of 64 KiB":       {strings.Repeat("web,", 16<<10), "- - refused", "65536 bytes"},
		"a long word":             {strings.Repeat("x", 10<<10), "- - refused", "letters"},
	} {
		label(tc.value)(&c)
		res := Resolve(Input{Containers: []Container{c}, Rules: []Rule{{Group: "web"}}, Now: t0.Add(time.Hour)})
		if len(res.Decisions) != 1 || brief(res.Decisions[0]) != tc.verdict || !strings.Contains(res.Decisions[0].Why, tc.why) {
			t.Errorf("%s: got %d decisions, the first %+v; want %s, mentioning %q", name, len(res.Decisions), res.Decisions[0], tc.verdict, tc.why)
		}
		if n := len(res.Decisions[0].Why) + len(res.Decisions[0].Change); n > 1000 {
			t.Errorf("%s: the decision has %d bytes", name, n)
		}
	}
}

// thousand is a container that names a thousand ports, and publishes a thousand from the given one on.
func thousand(from int) Container {
	return running(label(manyOf("web", 1000)), func(c *Container) {
		c.Published = nil
		for port := range 1000 {
			c.Published = append(c.Published, dashP(fmt.Sprintf("%d/tcp", from+port), 30000+port)...)
		}
	})
}

func TestResolve_thousandClaims(t *testing.T) {
	rules := []Rule{{Group: "web"}}
	res := Resolve(Input{Containers: []Container{thousand(1)}, Rules: rules, Now: t0.Add(time.Hour)})
	if len(res.Decisions) != 1000 || len(res.Wants["web"]) != 1000 {
		t.Errorf("each published: got %d decisions, %d wants; want 1000 each", len(res.Decisions), len(res.Wants["web"]))
	}
	res = Resolve(Input{Containers: []Container{thousand(2000)}, Rules: rules, Now: t0.Add(time.Hour)})
	if len(res.Decisions) != 1000 || len(res.Wants["web"]) != 0 {
		t.Fatalf("none published: got %d decisions, %d wants; want 1000 and none", len(res.Decisions), len(res.Wants["web"]))
	}
	for _, d := range res.Decisions {
		if !strings.Contains(d.Why, "is not published, but 2000/tcp") || !strings.Contains(d.Change, "web:2000") && d.Port < 10 {
			t.Fatalf("%+v; want why and what to change", d)
		}
		if len(d.Why)+len(d.Change) > 1000 {
			t.Fatalf("a decision has %d bytes", len(d.Why)+len(d.Change))
		}
	}
}

func BenchmarkResolve_thousandRefused(b *testing.B) {
	in := Input{Containers: []Container{thousand(2000)}, Rules: []Rule{{Group: "web"}}, Now: t0.Add(time.Hour)}
	for b.Loop() {
		Resolve(in)
	}
}

func BenchmarkResolve(b *testing.B) {
	in := Input{Rules: []Rule{{Group: "web"}, {Group: "admin", Match: &Match{Name: "admin-*"}}, {Group: "api", Match: &Match{Image: "x/*"}}}, Now: t0.Add(time.Hour)}
	for i := range 500 {
		in.Containers = append(in.Containers, running(func(c *Container) {
			c.ID, c.Name = fmt.Sprintf("%064d", i), fmt.Sprintf("web-%d", i)
			c.Published = dashP("8080/tcp", 32768+i)
		}))
	}
	for b.Loop() {
		Resolve(in)
	}
}
