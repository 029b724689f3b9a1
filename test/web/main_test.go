package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// process is the program, running in this process.
type process struct {
	t       *testing.T
	lines   chan string // of its output
	signals chan os.Signal
	code    chan int
	http    string // its address
}

// begin runs the program and waits until it listens on as many addresses as want.
func begin(t *testing.T, args ...string) *process {
	t.Helper()
	opts, err := parse(append([]string{"--listen=127.0.0.1:0"}, args...), io.Discard)
	if err != nil {
		t.Fatalf("parse(%q): %v", args, err)
	}
	reader, writer := io.Pipe()
	p := &process{t: t, lines: make(chan string, 100), signals: make(chan os.Signal), code: make(chan int, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		code, err := serve(ctx, opts, p.signals, writer)
		if err != nil {
			fmt.Fprintf(writer, "error: %v\n", err)
		}
		writer.Close()
		p.code <- code
	}()
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return p
}

// line waits for a line of output with that prefix, and returns what follows it.
func (p *process) line(prefix string) string {
	p.t.Helper()
	for line := range p.lines {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return rest
		}
	}
	p.t.Fatalf("it ended without saying %q", prefix)
	return ""
}

// url waits until the program listens.
func (p *process) url(path string) string {
	p.t.Helper()
	if p.http == "" {
		p.http = p.line("web: http on ")
	}
	return "http://" + p.http + path
}

// do makes a request and returns its status and body.
func (p *process) do(method, path, body string) (int, string) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), method, p.url(path), strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, string(answer)
}

// refused reports whether nothing listens any more.
func (p *process) refused() bool {
	c, err := net.Dial("tcp", p.http)
	if err != nil {
		return true
	}
	c.Close()
	return false
}

func TestServe_saysWhoItIs(t *testing.T) {
	p := begin(t, "--service=shop", "--name=shop-1")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/any/where?at=all"} {
		status, body := p.do(http.MethodGet, path, "")
		var got Identity
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
			t.Fatalf("GET %s: %d, %v: %q", path, status, err, body)
		}
		if got.Service != "shop" || got.Name != "shop-1" || got.Host != hostname || len(got.Run) != 8 {
			t.Errorf("GET %s = %+v; want service shop, name shop-1, host %s and a run", path, got, hostname)
		}
	}

	_, first := p.do(http.MethodGet, "/", "")
	_, other := begin(t, "--service=shop", "--name=shop-1").do(http.MethodGet, "/", "")
	if first == other {
		t.Errorf("two runs of one program cannot be told apart: both say %s", first)
	}
}

func TestParse_nameFromEnvironment(t *testing.T) {
	t.Setenv("WEB_NAME", "from-env")
	t.Setenv("WEB_SERVICE", "service-from-env")
	o, err := parse(nil, io.Discard)
	if err != nil || o.name != "from-env" || o.service != "service-from-env" {
		t.Errorf("parse = %+v, %v; want the names of the environment", o, err)
	}
	if o, err = parse([]string{"--name=flag"}, io.Discard); err != nil || o.name != "flag" {
		t.Errorf("parse = %+v, %v; want the flag to win", o, err)
	}
}

func TestServe_health(t *testing.T) {
	p := begin(t)
	check := func(path string, want int) {
		t.Helper()
		if got, _ := p.do(http.MethodGet, path, ""); got != want {
			t.Errorf("GET %s = %d; want %d", path, got, want)
		}
	}
	check("/healthz", 200)
	check("/livez", 200)
	if got, body := p.do(http.MethodPut, "/healthz", "503"); got != http.StatusNoContent {
		t.Fatalf("PUT /healthz = %d %s", got, body)
	}
	check("/healthz", 503)
	check("/livez", 200)
	for _, bad := range []string{"", "ill", "99", "600", "503503503503503503503"} {
		if got, _ := p.do(http.MethodPut, "/livez", bad); got != http.StatusBadRequest {
			t.Errorf("PUT /livez %q = %d; want 400", bad, got)
		}
	}
	check("/livez", 200)

	if status, _ := begin(t, "--unhealthy").do(http.MethodGet, "/healthz", ""); status != 503 {
		t.Errorf("--unhealthy: GET /healthz = %d; want 503", status)
	}
}

func TestRun_healthcheck(t *testing.T) {
	p := begin(t)
	ask := func() int { return run(t.Context(), []string{"healthcheck", p.url("/livez")}, io.Discard) }
	if got := ask(); got != 0 {
		t.Errorf("healthcheck of a healthy server = %d; want 0", got)
	}
	p.do(http.MethodPut, "/livez", "500")
	if got := ask(); got != 1 {
		t.Errorf("healthcheck of a sick server = %d; want 1", got)
	}
	p.signals <- syscall.SIGTERM
	<-p.code
	if got := ask(); got != 1 {
		t.Errorf("healthcheck of a dead server = %d; want 1", got)
	}
}

func TestServe_gracefulStopServesOnAndFinishesRequests(t *testing.T) {
	p := begin(t, "--drain=1s")
	p.url("/")
	slow := make(chan int)
	go func() {
		status, _ := p.do(http.MethodGet, "/slow?for=2s", "")
		slow <- status
	}()
	for status := 0; status != http.StatusOK; { // the slow request is on its way, the server answers
		status, _ = p.do(http.MethodGet, "/", "")
	}
	signalled := time.Now()
	p.signals <- syscall.SIGTERM
	p.line("web: terminated")
	if status, _ := p.do(http.MethodGet, "/", ""); status != http.StatusOK && time.Since(signalled) < time.Second {
		t.Errorf("while it drains: GET / = %d; want 200", status)
	}
	if got := <-slow; got != http.StatusOK {
		t.Errorf("the request in flight = %d; want 200", got)
	}
	if got := <-p.code; got != 0 {
		t.Errorf("exit code %d; want 0", got)
	}
	if !p.refused() {
		t.Error("it still listens after its end")
	}
	if lived := time.Since(signalled); lived < time.Second {
		t.Errorf("it lived on for %v; want at least --drain", lived)
	}
}

func TestServe_diesAtOnce(t *testing.T) {
	p := begin(t, "--stop=die", "--drain=1h")
	p.url("/")
	p.signals <- syscall.SIGTERM
	if got := <-p.code; got != 0 {
		t.Errorf("exit code %d; want 0", got)
	}
	if !p.refused() {
		t.Error("it still listens after its end")
	}
}

func TestServe_survivesWhatIsNoStop(t *testing.T) {
	p := begin(t)
	p.url("/")
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		p.signals <- s
		p.line("web: " + s.String())
	}
	if status, _ := p.do(http.MethodGet, "/", ""); status != http.StatusOK {
		t.Errorf("GET / = %d; want 200", status)
	}

	ignorant := begin(t, "--stop=ignore")
	ignorant.url("/")
	ignorant.signals <- syscall.SIGTERM
	ignorant.line("web: terminated")
	if status, _ := ignorant.do(http.MethodGet, "/", ""); status != http.StatusOK {
		t.Errorf("--stop=ignore: GET / = %d; want 200", status)
	}
}

func TestServe_exit(t *testing.T) {
	asked := begin(t)
	if status, _ := asked.do(http.MethodPost, "/exit?code=7", ""); status != http.StatusNoContent {
		t.Errorf("POST /exit = %d; want 204", status)
	}
	if got := <-asked.code; got != 7 {
		t.Errorf("exit code %d; want 7", got)
	}
	if got := <-begin(t, "--exit-after=10ms", "--exit-code=9").code; got != 9 {
		t.Errorf("--exit-after: exit code %d; want 9", got)
	}
}

func TestServe_startDelay(t *testing.T) {
	begun := time.Now()
	p := begin(t, "--start-delay=200ms")
	p.url("/")
	if waited := time.Since(begun); waited < 200*time.Millisecond {
		t.Errorf("it listened after %v; want no sooner than --start-delay", waited)
	}

	early := begin(t, "--start-delay=1h")
	early.signals <- syscall.SIGTERM
	if got := <-early.code; got != 0 {
		t.Errorf("stopped before it listened: exit code %d; want 0", got)
	}
}

func TestServe_echo(t *testing.T) {
	p := begin(t, "--echo-tcp=127.0.0.1:0", "--echo-udp=127.0.0.1:0")
	for _, network := range []string{"tcp", "udp"} {
		c, err := net.Dial(network, p.line("web: "+network+" echo on "))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Errorf("%s echo = %q, %v; want hello", network, got, err)
		}
		c.Close()
	}
}

func TestRun_badInput(t *testing.T) {
	for _, args := range [][]string{{"--stop=slowly"}, {"--no-such-flag"}, {"--drain=soon"}} {
		var out strings.Builder
		if got := run(t.Context(), args, &out); got != 2 || out.Len() == 0 {
			t.Errorf("run(%q) = %d and says %q; want 2 and a message", args, got, out.String())
		}
	}
	var out strings.Builder
	if got := run(t.Context(), []string{"--listen=127.0.0.1:no-port"}, &out); got != 1 || !strings.Contains(out.String(), "no-port") {
		t.Errorf("run with a bad address = %d and says %q; want 1 and the address", got, out.String())
	}
}
