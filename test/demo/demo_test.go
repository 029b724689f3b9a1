package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// balancer is a load balancer whose requests these containers answer in turn; "" is a failure.
func balancer(t *testing.T, names ...string) string {
	t.Helper()
	turn := make(chan string, len(names))
	for _, name := range names {
		turn <- name
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		name := <-turn
		turn <- name
		if name == "" {
			http.Error(w, "no target", http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"name": name})
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestLoad_send(t *testing.T) {
	l := newLoad(map[string]string{"a": balancer(t, "a-1", "a-2"), "b": balancer(t, "b-1")})
	l.send(t.Context(), 40)
	if l.sent != 40 || l.failed != 0 {
		t.Errorf("%d sent, %d failed (%v); want 40 and none", l.sent, l.failed, l.err)
	}
	if got := l.answers["a"]; got["a-1"] != 10 || got["a-2"] != 10 {
		t.Errorf("answers in a: %v; want ten each", got)
	}
	if got := l.answers["b"]["b-1"]; got != 20 {
		t.Errorf("b-1 answered %d; want 20", got)
	}
	for i, want := range []string{"a-1 10,  a-2 10", "b-1 20"} {
		if got := l.summary()[i]; !strings.Contains(got, want) {
			t.Errorf("summary %q; want it to say %s", got, want)
		}
	}
}

func TestLoad_send_countsEveryKindOfFailure(t *testing.T) {
	for name, test := range map[string]struct {
		container string
		want      string // of the error
	}{
		"an error":               {"", "503"},
		"a foreign container":    {"b-1", `"b-1" answered`},
		"a name that only looks": {"ab-1", `"ab-1" answered`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoad(map[string]string{"a": balancer(t, test.container)})
			l.send(t.Context(), 4)
			if l.sent != 4 || l.failed != 4 || l.err == nil || !strings.Contains(l.err.Error(), test.want) {
				t.Errorf("%d sent, %d failed with %v; want all of 4 to fail with %s", l.sent, l.failed, l.err, test.want)
			}
			if err := (&demo{out: &screen{out: io.Discard}}).report(l); err == nil {
				t.Error("the demo is content with that")
			}
		})
	}
}

func TestProcess(t *testing.T) {
	p, err := begin("/bin/bash", []string{"-c", `trap 'echo ending; exit 0' TERM; echo more >&2; echo ready; while :; do sleep 0.01; done`}, os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	if line, err := p.firstLine(t.Context()); err != nil || line != "ready" {
		t.Errorf("first line %q, %v; want ready", line, err)
	}
	if err := p.end(t.Context()); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"ready", "more", "ending"} {
		if !strings.Contains(p.tail(), want+"\n") {
			t.Errorf("its last words %q lack %q", p.tail(), want)
		}
	}
	if err := p.end(t.Context()); err != nil {
		t.Errorf("ended twice: %v", err)
	}
}

func TestProcess_stubborn(t *testing.T) {
	p, err := begin("/bin/bash", []string{"-c", `trap '' TERM; echo ready; while :; do sleep 0.01; done`}, os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.firstLine(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no patience
	if err := p.end(ctx); err == nil {
		t.Error("nothing says that it had to be killed")
	}
	<-p.ended
}

func TestProcess_endsBeforeItIsReady(t *testing.T) {
	p, err := begin("/bin/bash", []string{"-c", `echo "no such thing" >&2; exit 1`}, os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.firstLine(t.Context()); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v; want its last words", err)
	}
	if _, err := begin("/no/such/program", nil, nil); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v; want what makes the program", err)
	}
}

func TestScreen_coloursAreForTerminals(t *testing.T) {
	paint := func(s *screen) string {
		var b strings.Builder
		s.out = &b
		s.step("Title")
		s.command("docker ps")
		s.good("%d good", 1)
		s.quote("berth.yaml", "a: 1\nb: 2\n")
		return b.String()
	}
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want := "\n1. Title\n   $ docker ps\n   1 good\n   berth.yaml:\n     a: 1\n     b: 2\n"
	if got := paint(newScreen(file)); got != want {
		t.Errorf("in a file %q; want %q", got, want)
	}
	if got := paint(&screen{colour: true}); !strings.Contains(got, "\x1b[") {
		t.Errorf("on a terminal %q; want colours", got)
	}
}

func TestRun_badFlags(t *testing.T) {
	if err := run(t.Context(), []string{"--no-such-flag"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("run = %v; want a word on its flags", err)
	}
}
