package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/pkg/discovery"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/status"
	"berth/pkg/target"
)

// mixed publishes one container of each kind.
func (a *shownAgent) mixed() {
	healthy, slow, refused, ignored := testWant("web-1", 32768), testWant("web-with-a-name", 32769),
		testWant("web-10", 32770), testWant("sidecar", 0)
	about := decide(ignored, discovery.Ignored, "nothing asks for it", "")
	about.Group, about.Port = "", 0
	a.show(1, []target.Want{healthy, slow}, []discovery.Decision{
		decide(healthy, discovery.Wanted, "its label names web", ""),
		decide(slow, discovery.Wanted, "its label names web", ""),
		decide(refused, discovery.Refused, "its port is bound to 127.0.0.1 alone", "publish it on all addresses: -p 8080"),
		about,
	}, registered(healthy, "healthy", ""), registered(slow, "unhealthy", "Target.ResponseCodeMismatch"))
}

func TestStatus_table(t *testing.T) {
	a := newShownAgent(t)
	a.mixed()
	code, out, stderr := a.run(t.Context(), "status")
	if code != 0 || stderr != "" {
		t.Fatalf("got %d %s; want 0", code, stderr)
	}
	want := `berth 1.2.3 on i-0123456789abcdef0 (eu-central-1): ready

CONTAINER        PORT      GROUP  TARGET                     STATE      SINCE  WHY
web-1            8080/tcp  web    i-0123456789abcdef0:32768  healthy    3h
web-10           8080/tcp  web    -                          refused    3h     its port is bound to 127.0.0.1 alone
                                                                               → publish it on all addresses: -p 8080
web-with-a-name  8080/tcp  web    i-0123456789abcdef0:32769  unhealthy  3h     its health checks get another status code than the target group expects
                                                                               → compare the health check's path and success codes in the target group with what the application answers there

1 container is left alone (--all shows it)
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if _, out, _ := a.run(t.Context(), "status", "--all"); !strings.Contains(out, "sidecar") || strings.Contains(out, "--all") {
		t.Errorf("--all: got\n%s\nwant the sidecar and no hint", out)
	}
}

func TestStatus_selected(t *testing.T) {
	a := newShownAgent(t)
	a.mixed()
	code, out, _ := a.run(t.Context(), "status", "web-10")
	if code != 0 || !strings.Contains(out, "web-10") || strings.Contains(out, "web-1 ") {
		t.Errorf("got %d\n%s\nwant web-10 alone", code, out)
	}
	code, _, stderr := a.run(t.Context(), "status", "web-2")
	if code != exitFailure || !strings.Contains(stderr, `no container "web-2"`) {
		t.Errorf("unknown: got %d %s; want %d", code, stderr, exitFailure)
	}
}

func TestStatus_empty(t *testing.T) {
	a := newShownAgent(t)
	code, out, _ := a.run(t.Context(), "status")
	for _, want := range []string{"not identified yet: not ready", "docker: not reached yet", "no container asks for a target group"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("got %d\n%s\nwant it to contain %q", code, out, want)
		}
	}
}

func TestStatus_trouble(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.disc.Set(&discovery.Snapshot{
		Seq: 1, Wants: map[string][]target.Want{"web": {w}}, Stream: discovery.Stream{Up: true},
		Drains: []discovery.Drain{{ID: "1", Cause: "operator", By: "root", Since: testStart}, {ID: "2", Container: "c"}},
	})
	a.reg.Set(&registrar.Snapshot{
		Connected: true, Self: elb.Self{InstanceID: testInstance},
		Groups: []registrar.GroupStatus{{
			Keys: []string{"web"}, State: registrar.StateDenied, Tried: true, Err: "AccessDenied: no", Change: "attach the policy",
		}},
	})
	_, out, _ := a.run(t.Context(), "status")
	for _, want := range []string{
		": ready\n", "  target_group web: denied: AccessDenied: no\n    attach the policy\n",
		"  the host drains: operator, by root, since 3h\n", "blocked", ":32768",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant it to contain %q", out, want)
		}
	}
}

func TestStatus_json(t *testing.T) {
	a := newShownAgent(t)
	a.mixed()
	code, out, _ := a.run(t.Context(), "status", "--json")
	var s status.V1
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 || len(s.Rows) != 4 || s.API != "v1" {
		t.Errorf("got %d %s, %v; want the whole status", code, out, err)
	}
}

func TestStatus_noAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "berth.sock")
	env := map[string]string{"BERTH_CONTROL_SOCKET": socket, "BERTH_STATUS_LISTEN": "127.0.0.1:1"}
	for _, command := range []string{"status", "status --watch", "wait x"} {
		code, out, stderr := runCommand(t.Context(), env, strings.Fields(command)...)
		if code != exitNoAgent || out != "" || !strings.Contains(stderr, socket) || !strings.Contains(stderr, "systemctl status berth") {
			t.Errorf("%s: got %d %q %q; want %d, and what to do", command, code, out, stderr, exitNoAgent)
		}
	}
}

// notify is a buffer that says when something was written.
type notify struct {
	bytes.Buffer
	wrote chan string
}

func (n *notify) Write(p []byte) (int, error) {
	n.wrote <- string(p)
	return n.Buffer.Write(p)
}

func TestStatus_watch(t *testing.T) {
	for _, flag := range []string{"--json", "--all"} {
		a := newShownAgent(t)
		a.show(1, nil, nil)
		out := &notify{wrote: make(chan string)}
		ctx, cancel := context.WithCancel(t.Context())
		code := make(chan int, 1)
		go func() {
			code <- execute(ctx, []string{"status", "--watch", flag, "--control-socket", a.socket}, &environment{
				stdout: out, stderr: io.Discard, getenv: func(string) string { return "" },
			})
		}()
		if first := <-out.wrote; strings.Contains(first, "web-1") {
			t.Errorf("%s: the first already shows it: %s", flag, first)
		}
		w := testWant("web-1", 32768)
		a.show(2, []target.Want{w}, nil, registered(w, "healthy", ""))
		for shown := ""; !strings.Contains(shown, "web-1") || !strings.Contains(shown, "healthy"); {
			shown = <-out.wrote // discovery's change may be shown before the registrar's
		}
		<-a.asked
		a.mu.Lock()
		if !a.followed["web"] {
			t.Errorf("%s: the group is not followed while it is watched", flag)
		}
		a.mu.Unlock()
		cancel()
		go func() {
			for range out.wrote { // what was under way
			}
		}()
		if got := <-code; got != 0 {
			t.Errorf("%s: interrupted: got %d; want 0", flag, got)
		}
		close(out.wrote)
	}
}

// On a terminal a watched table replaces itself.
func TestStatusCommand_draw_terminal(t *testing.T) {
	var out bytes.Buffer
	c := &statusCommand{env: &environment{stdout: &out}}
	if err := c.draw(display{width: 80, tty: true}, &status.V1{}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "\x1b[H\x1b[2J") {
		t.Errorf("got %q; want the screen cleared first", out.String())
	}
}

func TestTable_colours(t *testing.T) {
	rows := []status.Row{{State: status.Healthy}, {State: status.Refused, Why: "no"}, {State: status.Initial}, {State: status.Drained}}
	var out bytes.Buffer
	tb := &table{w: &out, show: display{colour: true}, now: testStart}
	tb.rows(rows, testInstance)
	for _, want := range []string{"\x1b[32mhealthy\x1b[0m", "\x1b[31mrefused\x1b[0m", "\x1b[33minitial\x1b[0m", "\x1b[2mdrained\x1b[0m"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q; want it to contain %q", out.String(), want)
		}
	}
	out.Reset()
	(&table{w: &out, now: testStart}).rows(rows, testInstance)
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("got %q; want no colours", out.String())
	}
}

// On a narrow terminal the instance's own id goes first, then the sentences move below.
func TestTable_rows_narrow(t *testing.T) {
	rows := []status.Row{{
		Run: testRun("web-1"), Group: "web", ContainerPort: target.PortProto{Port: 8080},
		Target: target.Target{ID: testInstance, Port: 32768}, State: status.Unhealthy, Since: testStart,
		Why: "its health checks get no answer in time",
	}}
	for width, want := range map[int]string{
		120: "CONTAINER  PORT      GROUP  TARGET                     STATE      SINCE  WHY\n" +
			"web-1      8080/tcp  web    i-0123456789abcdef0:32768  unhealthy  60s    its health checks get no answer in time\n",
		90: "CONTAINER  PORT      GROUP  TARGET     STATE      SINCE  WHY\n" +
			"web-1      8080/tcp  web    i-…:32768  unhealthy  60s    its health checks get no answer\n" +
			"                                                         in time\n",
		60: "CONTAINER  PORT      GROUP  TARGET     STATE      SINCE\n" +
			"web-1      8080/tcp  web    i-…:32768  unhealthy  60s\n" +
			"    its health checks get no answer in time\n",
	} {
		var out bytes.Buffer
		(&table{w: &out, show: display{width: width}, now: testStart.Add(time.Minute)}).rows(rows, testInstance)
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("width %d (-want +got):\n%s", width, diff)
		}
	}
}

// Whatever containers and labels hold, nothing of it reaches the terminal as a control sequence.
func TestTable_escapes(t *testing.T) {
	evil := "\x1b]0;pwned\x07\u009b2J\x9b2J"
	s := status.V1{
		Agent:     status.AgentV1{Build: status.Build{Version: evil}},
		Host:      status.Host{InstanceID: evil, Region: evil},
		Readiness: status.Readiness{Checks: []status.Check{{Name: evil, Detail: evil, Change: evil}}},
		Drains:    []status.DrainV1{{Cause: evil, By: evil}},
		Rows:      []status.Row{{Run: target.Run{ID: "x", Name: evil}, Group: evil, State: status.Refused, Why: evil, Change: evil}},
	}
	var out bytes.Buffer
	c := &statusCommand{env: &environment{}}
	if err := c.printTo(&out, display{width: 80}, &s); err != nil {
		t.Fatal(err)
	}
	if !utf8.ValidString(out.String()) {
		t.Errorf("raw bytes reach the terminal: %q", out.String())
	}
	if i := strings.IndexFunc(out.String(), func(r rune) bool { return r == '\x1b' || r == '\x07' || r == 0x9b }); i >= 0 {
		t.Errorf("a control character reaches the terminal: %q", out.String()[i:])
	}
}

func TestWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.StringMatching(`[a-zü→]{1,12}`)).Draw(t, "words")
		width := rapid.IntRange(12, 60).Draw(t, "width")
		lines := wrap(strings.Join(words, " "), width)
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > width {
				t.Errorf("line %q has %d columns; want at most %d", line, n, width)
			}
		}
		if diff := cmp.Diff(words, strings.Fields(strings.Join(lines, " ")), cmp.Transformer("", func(s []string) string { return strings.Join(s, " ") })); diff != "" {
			t.Errorf("words (-want +got):\n%s", diff)
		}
	})
	if got := wrap("as long as it gets", 0); len(got) != 1 {
		t.Errorf("without a width: got %q; want one line", got)
	}
	if got := wrap("a verylongword b", 4); len(got) != 3 {
		t.Errorf("a word that does not fit: got %q; want it on a line of its own", got)
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m",
		2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * time.Hour: "41d",
	} {
		if got := ago(testStart.Add(d), testStart); got != want {
			t.Errorf("%v: got %s; want %s", d, got, want)
		}
	}
	if got := ago(testStart, time.Time{}); got != "-" {
		t.Errorf("unknown: got %s; want -", got)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestStatus_brokenPipe(t *testing.T) {
	c := &statusCommand{env: &environment{getenv: func(string) string { return "" }}}
	if err := c.print(brokenPipe{}, &status.V1{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v; want the error of writing", err)
	}
}

// Watching goes on while the agent is replaced, and while the named container is.
func TestStatus_watch_outlives(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "berth.sock")
	w := testWant("web-1", 32768)
	_, end := beginAgent(t, socket, w, "initial")
	out, stderr := &notify{wrote: make(chan string)}, &notify{wrote: make(chan string, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, []string{"status", "web-1", "--watch", "--control-socket", socket, "--status-listen", "127.0.0.1:1"},
			&environment{stdout: out, stderr: stderr, getenv: func(string) string { return "" }})
	}()
	until := func(want string) {
		for shown := ""; !strings.Contains(shown, want); {
			shown = <-out.wrote
		}
	}
	until("initial")
	end()
	if said := <-stderr.wrote; !strings.Contains(said, "trying again") {
		t.Errorf("without an agent: got %q; want that it tries again", said)
	}
	second, end := beginAgent(t, socket, w, "healthy")
	defer end()
	until("healthy")
	second.show(2, nil, nil)
	until("no container")
	cancel()
	go func() {
		for range out.wrote { // what was under way
		}
	}()
	if got := <-code; got != 0 {
		t.Errorf("interrupted: got %d; want 0", got)
	}
	close(out.wrote)
}

// No line is wider than the terminal, as long as the columns before the sentences fit.
func TestTable_rows_fit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rows []status.Row
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			rows = append(rows, status.Row{
				Run:    target.Run{ID: "x", Name: rapid.StringMatching(`[a-z]{1,14}`).Draw(t, "name")},
				Group:  rapid.StringMatching(`[a-z]{1,10}`).Draw(t, "group"),
				Target: target.Target{ID: testInstance, Port: 32768},
				State:  rapid.SampledFrom(status.States()).Draw(t, "state"),
				Why:    rapid.StringMatching(`([a-z]{1,12} ){0,20}`).Draw(t, "why"),
				Change: rapid.StringMatching(`([a-z]{1,12} ){0,20}`).Draw(t, "change"),
			})
		}
		width := rapid.IntRange(80, 200).Draw(t, "width")
		var out bytes.Buffer
		(&table{w: &out, show: display{width: width}, now: testStart}).rows(rows, testInstance)
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("line of %d columns on a terminal of %d: %q", n, width, line)
			}
		}
	})
}

// Above the table stands why the host drains, and what EC2 has scheduled.
func TestTable_header_host(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	s := &status.V1{
		Agent: status.AgentV1{Build: status.Build{Version: "1"}}, Readiness: status.Readiness{Ready: true},
		Host: status.Host{InstanceID: testInstance, Notices: []host.Notice{
			{Kind: host.Maintenance, Action: "system-reboot", Deadline: now.Add(time.Hour)}, {Kind: host.Spot, Action: "terminate"},
		}},
		Drains: []status.DrainV1{{Cause: "operator", By: "alice", Reason: "new kernel", Since: now.Add(-3 * time.Hour)}, {Container: "c", Cause: "operator"}},
	}
	(&table{w: &out, now: now}).header(s)
	want := "berth 1 on " + testInstance + ": ready\n" +
		"  the host drains: operator, by alice, since 3h: new kernel\n" +
		"  EC2 has scheduled maintenance: system-reboot at 2026-11-22T11:00:00Z (it is not acted on: berth drain --all)\n\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
