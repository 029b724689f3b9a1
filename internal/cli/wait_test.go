package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/client"
	"berth/pkg/discovery"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
	"berth/pkg/target"
)

func TestWait_reached(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, []target.Want{w}, nil, registered(w, "initial", "Elb.InitialHealthChecking"))
	go func() {
		<-a.asked // it waits, and follows
		a.show(2, []target.Want{w}, nil, registered(w, "healthy", ""))
	}()
	code, out, stderr := a.run(t.Context(), "wait", "web-1", "--for", "healthy")
	if code != 0 || out != "web-1: healthy in web\n" {
		t.Errorf("got %d %q; want 0", code, out)
	}
	if want := "web-1: initial in web: the load balancer is running its first health checks"; !strings.Contains(stderr, want) {
		t.Errorf("progress: got %q; want it to contain %q", stderr, want)
	}
}

func TestWait_several(t *testing.T) {
	a := newShownAgent(t)
	one, two := testWant("web-1", 32768), testWant("web-10", 32769)
	a.show(1, []target.Want{one, two}, nil, registered(one, "healthy", ""), registered(two, "initial", ""))
	code, out, _ := a.run(t.Context(), "wait", "web-1", "web-10", "web-1", "--for", "registered", "--json")
	var got waitResult
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || !got.Reached || got.For != status.GoalRegistered {
		t.Fatalf("got %d %s, %v; want reached", code, out, err)
	}
	if len(got.Containers) != 2 || got.Containers[1].Outcome != status.Reached || len(got.Containers[1].Rows) != 1 {
		t.Errorf("got %+v; want both, once", got.Containers)
	}
}

func TestWait_timeout(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, []target.Want{w}, nil, registered(w, "unhealthy", "Target.Timeout"))
	code, out, stderr := a.run(t.Context(), "wait", "web-1", "--timeout", "1s", "--json")
	if code != exitFailure {
		t.Errorf("got %d; want %d", code, exitFailure)
	}
	for _, want := range []string{"not healthy after 1s", "Target.Timeout", "security group"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("got %q; want it to contain %q", stderr, want)
		}
	}
	var got waitResult
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Reached || got.Containers[0].Outcome != status.Pending {
		t.Errorf("--json: got %s, %v", out, err)
	}
}

func TestWait_never(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, nil, []discovery.Decision{decide(w, discovery.Refused, "its port is bound to 127.0.0.1 alone", "publish it with -p 8080")})
	code, out, stderr := a.run(t.Context(), "wait", "web-1")
	if code != exitNever || out != "" || !strings.Contains(stderr, "can never be healthy: refused in web: its port is bound to 127.0.0.1 alone; publish it") {
		t.Errorf("got %d %q %q; want %d and why", code, out, stderr, exitNever)
	}
}

func TestWait_drained(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	drained := []discovery.Decision{decide(w, discovery.Drained, "root drained it", "")}
	leaving := registered(w, "draining", "")
	leaving.Phase, leaving.Wants = ledger.Removing, nil
	a.show(1, nil, drained, leaving)
	go func() {
		<-a.asked
		a.show(2, nil, drained)
	}()
	code, out, stderr := a.run(t.Context(), "wait", "web-1", "--for=drained")
	if code != 0 || out != "web-1: nothing of it is registered\n" || !strings.Contains(stderr, "draining in web: root drained it; ") {
		t.Errorf("got %d %q %q; want 0", code, out, stderr)
	}
}

func TestWait_usage(t *testing.T) {
	for name, args := range map[string][]string{
		"no container": {"wait"}, "goal": {"wait", "x", "--for", "happy"},
		"timeout": {"wait", "x", "--timeout", "0s"}, "duration": {"wait", "x", "--timeout", "soon"},
	} {
		if code, _, stderr := runCommand(t.Context(), nil, args...); code != exitUsage || stderr == "" {
			t.Errorf("%s: got %d %q; want %d", name, code, stderr, exitUsage)
		}
	}
}

func TestWait_interrupted(t *testing.T) {
	a := newShownAgent(t)
	w := testWant("web-1", 32768)
	a.show(1, []target.Want{w}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-a.asked
		cancel()
	}()
	code, _, stderr := a.run(ctx, "wait", "web-1")
	if code != exitFailure || !strings.Contains(stderr, "interrupted") {
		t.Errorf("got %d %q; want %d", code, stderr, exitFailure)
	}
}

// The agent is upgraded while somebody waits: waiting goes on.
func TestWait_agentRestarts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "berth.sock")
	w := testWant("web-1", 32768)
	first, end := beginAgent(t, socket, w, "initial")
	done := make(chan func(), 1)
	go func() {
		<-first.asked
		end()
		_, end := beginAgent(t, socket, w, "healthy")
		done <- end
	}()
	code, out, stderr := first.run(t.Context(), "wait", "web-1")
	(<-done)()
	if code != 0 || out != "web-1: healthy in web\n" {
		t.Errorf("got %d %q %q; want 0", code, out, stderr)
	}
}

// An agent answers before it has listed Docker's containers: that a container has no row then does not say that it is gone.
func TestWait_agentListsLate(t *testing.T) {
	w := testWant("web-1", 32768)
	drained := []discovery.Decision{decide(w, discovery.Drained, "root drained it", "")}
	removing := registered(w, "draining", "")
	removing.Phase, removing.Wants = ledger.Removing, nil
	for name, test := range map[status.Goal]struct {
		before, after func(*shownAgent)
		want          string
	}{
		status.GoalHealthy: {
			func(a *shownAgent) { a.show(1, []target.Want{w}, nil, registered(w, "initial", "")) },
			func(a *shownAgent) { a.show(2, []target.Want{w}, nil, registered(w, "healthy", "")) },
			"web-1: healthy in web\n",
		},
		goalDrained: {
			func(a *shownAgent) { a.show(1, nil, drained, removing) },
			func(a *shownAgent) { a.show(2, nil, drained) },
			"web-1: nothing of it is registered\n",
		},
	} {
		t.Run(string(name), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "berth.sock")
			first := &shownAgent{asked: make(chan struct{}, 100), socket: socket}
			second := &shownAgent{asked: make(chan struct{}, 100), socket: socket}
			test.before(first)
			end := first.serve(t)
			restarted := make(chan func(), 1)
			go func() {
				<-first.asked
				end()
				restarted <- second.serve(t)
			}()
			var out strings.Builder
			stderr := noticingWriter{text: "has not seen Docker's containers yet", then: func() { test.after(second) }}
			code := execute(t.Context(), []string{"wait", "web-1", "--for", string(name)}, &environment{
				stdin: strings.NewReader(""), stdout: &out, stderr: &stderr,
				getenv: func(k string) string { return map[string]string{"BERTH_CONTROL_SOCKET": socket}[k] },
			})
			(<-restarted)()
			if code != 0 || out.String() != test.want {
				t.Errorf("got %d %q %q; want 0 %q, as the second agent has it", code, out.String(), stderr.String(), test.want)
			}
		})
	}
}

// noticingWriter keeps what is written, and does something once a text has been.
type noticingWriter struct {
	strings.Builder
	text string
	then func()
}

func (w *noticingWriter) Write(p []byte) (int, error) {
	n, err := w.Builder.Write(p)
	if w.then != nil && strings.Contains(w.String(), w.text) {
		w.then()
		w.then = nil
	}
	return n, err
}

// On a terminal progress is one line, not wider than the terminal, that is gone in the end.
func TestReporter_say_terminal(t *testing.T) {
	master, tty := terminal(t, 40)
	c := newReporter(&environment{stderr: tty, getenv: func(string) string { return "" }})
	c.say("web-1", strings.Repeat("long ", 30), time.Now().Add(time.Minute))
	c.clear()
	buf := make([]byte, 4096)
	n, err := master.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(buf[:n], []byte("\r"))
	if len(line) != 39 || !bytes.HasPrefix(line, []byte("web-1: long")) {
		t.Errorf("got %q; want one line of 39 columns", line)
	}
}

func TestReporter_say_oncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := newReporter(&environment{stderr: &out, getenv: func(string) string { return "" }})
		for _, what := range []string{"a", "a", "b", "b", "a"} {
			c.say("web-1", what, time.Now())
		}
		if want := "web-1: a\nweb-1: b\nweb-1: a\n"; out.String() != want {
			t.Errorf("got %q; want %q", out.String(), want)
		}
	})
}

func TestBusy(t *testing.T) {
	if !busy(fmt.Errorf("ask: %w", &client.APIError{Status: 503})) || busy(&client.APIError{Status: 400}) || busy(errors.New("x")) {
		t.Error("busy is for 503 alone")
	}
}
