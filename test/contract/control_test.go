package contract

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// member returns one member of a JSON object.
func member(t *testing.T, object, name string) string {
	t.Helper()
	var v map[string]json.RawMessage
	if err := json.Unmarshal([]byte(object), &v); err != nil {
		t.Fatal(err)
	}
	return string(v[name]) + "\n"
}

// asked sends a request over the control socket that has to be answered with a status, and returns the answer.
func (w *world) asked(code int, method, path, body string) string {
	w.t.Helper()
	got, answer, err := w.ask(method, path, body)
	if err != nil || got != code {
		w.t.Fatalf("%s %s %s: %d %s, %v; want %d", method, path, body, got, answer, err, code)
	}
	return answer
}

// transcript is what was asked and answered.
type transcript struct {
	w *world
	b strings.Builder
}

// ask sends a request and notes it with its answer. base is "" for the control socket, else a listener's URL.
func (tr *transcript) ask(base, method, path, body string, header ...string) {
	t, w := tr.w.t, tr.w
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, to := dialSocket(w.path("c.sock")), "http://berth"
	if base != "" {
		client, to = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, base
	}
	req, err := http.NewRequestWithContext(ctx, method, to+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(answer)
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		text = pretty(t, text)
	}
	where := "control socket"
	if base != "" {
		where = base
	}
	fmt.Fprintf(&tr.b, "> %s: %s %s %s\n< %d %s\n%s\n", where, method, path, strings.Join(append([]string{body}, header...), " "),
		resp.StatusCode, resp.Header.Get("Content-Type"), text)
}

// What HTTP answers beside the page and /metrics: the requests are what clients send, byte for byte.
func TestHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.engine.run("web-1", "web", 32768)
	w.engine.run("slow-1", "slow", 32769)
	w.foreign("web", 9)
	w.up()
	w.must(0, "wait", "web-1", "slow-1")
	for _, part := range []struct {
		name string
		ask  func(ask func(base, method, path, body string, header ...string))
	}{
		{"read", func(ask func(base, method, path, body string, header ...string)) {
			monitoring, status := "http://"+w.ip+":9797", "http://"+w.ip+":9798"
			for _, base := range []string{monitoring, status, ""} {
				ask(base, "GET", "/healthz", "")
				ask(base, "GET", "/readyz", "")
				ask(base, "GET", "/readyz?format=json", "")
				ask(base, "GET", "/readyz", "", "Accept", "application/json")
			}
			ask(monitoring, "GET", "/", "")
			ask(monitoring, "GET", "/v1/status", "")
			ask(status, "GET", "/v1/status", "")
			ask(status, "GET", "/metrics", "")
			ask("", "GET", "/v1/status?follow=web,slow&after=0-0&timeout=5s", "")
			ask("", "GET", "/v1/status?timeout=soon", "")
			ask("", "GET", "/v1/nonsense", "")
			ask(status, "POST", "/v1/reload", "")
			ask(status, "POST", "/v1/drains", `{"host":true}`)
			ask(status, "GET", "/v1/explain?container=web-1", "")
		}},
		{"explain", func(ask func(base, method, path, body string, header ...string)) {
			ask("", "GET", "/v1/explain?container=web-1", "")
			ask("", "GET", "/v1/explain?container="+web.id[:63], "")
			ask("", "GET", "/v1/explain?container=nobody", "")
			ask("", "GET", "/v1/explain", "")
			ask("", "POST", "/v1/explain?container=web-1", "")
		}},
		{"drains", func(ask func(base, method, path, body string, header ...string)) {
			ask("", "POST", "/v1/drains", `{"container":"slow-1","reason":"a look inside"}`)
			ask("", "POST", "/v1/drains", `{"container":"slow-1","hold":"run","cause":"operator"}`)
			ask("", "POST", "/v1/drains", `{"host":true,"hold":"keep"}`)
			ask("", "POST", "/v1/drains", `{"host":true,"cause":"shutdown"}`)
			ask("", "POST", "/v1/drains", `{"host":true,"hold":"run"}`)
			ask("", "POST", "/v1/drains", `{"container":"slow-1","hold":"forever"}`)
			ask("", "POST", "/v1/drains", `{"container":"slow-1","cause":"shutdown"}`)
			ask("", "POST", "/v1/drains", `{"container":"slow-1","cause":"spot"}`)
			ask("", "POST", "/v1/drains", `{"container":"slow-1","host":true}`)
			ask("", "POST", "/v1/drains", `{"container":"slow-1","until":"noon"}`)
			ask("", "POST", "/v1/drains", `{"container":"slow-1","reason":"`+strings.Repeat("x", 201)+`"}`)
			ask("", "POST", "/v1/drains", `{"container":"nobody"}`)
			ask("", "POST", "/v1/drains", `{"container":"no body"}`)
			ask("", "POST", "/v1/drains", `{}`)
			ask("", "POST", "/v1/drains", `{} {}`)
			ask("", "POST", "/v1/drains", `nonsense`)
			ask("", "GET", "/v1/drains", "")
			ask("", "DELETE", "/v1/drains?container=slow-1", "")
			ask("", "DELETE", "/v1/drains?id=nonsense", "")
			ask("", "DELETE", "/v1/drains?host=true", "")
			ask("", "DELETE", "/v1/drains?host=true", "")
			ask("", "DELETE", "/v1/drains?container=slow-1", "")
			ask("", "DELETE", "/v1/drains?container=nobody", "")
			ask("", "DELETE", "/v1/drains?container=web-1&host=true", "")
			ask("", "DELETE", "/v1/drains", "")
		}},
		{"prune", func(ask func(base, method, path, body string, header ...string)) {
			ask("", "POST", "/v1/prune", `{"targets":[{"target_group":"web","target":{"id":"i-0123456789abcdef0","port":9}},`+
				`{"target_group":"web","target":{"id":"i-0123456789abcdef0","port":32768}}]}`)
			ask("", "POST", "/v1/prune", `{"targets":[]}`)
			ask("", "POST", "/v1/prune", `{"targets":[{"target_group":"nosuch","target":{"id":"i-0123456789abcdef0","port":9}}]}`)
			ask("", "POST", "/v1/prune", `{"all":true}`)
		}},
		{"reload", func(ask func(base, method, path, body string, header ...string)) {
			ask("", "POST", "/v1/reload", "")
			w.configure("{web: {nonsense: 1}}")
			ask("", "POST", "/v1/reload", "")
			ask("", "GET", "/v1/reload", "")
		}},
	} {
		t.Run(part.name, func(t *testing.T) {
			w.t = t
			tr := &transcript{w: w}
			part.ask(tr.ask)
			golden(t, "http/"+part.name+".txt", w.mask(tr.b.String()))
		})
	}
}

// A drain that lasts as long as the connection that asked for it: one line is answered, and the answer stays open.
func TestHTTP_connection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.run("lone", "", 32768)
	w.up()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://berth/v1/drains", strings.NewReader(`{"container":"lone","hold":"connection"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := dialSocket(w.path("c.sock")).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "http/connection.json", w.mask(pretty(t, line)+pretty(t, member(t, w.follow(), "drains"))))
	cancel()
	w.eventually("the drain is over", func() bool { return member(t, w.follow(), "drains") == "[]\n" })
}

// recorder is a proxy before the control socket that notes what is asked.
type recorder struct {
	mu       sync.Mutex // guards requests
	requests []string
	close    func() // ends it; the test's end does
}

// polls reports whether somebody has waited for another status.
func (rec *recorder) polls() bool {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.ContainsFunc(rec.requests, func(r string) bool { return strings.Contains(r, "after=") })
}

func (rec *recorder) take() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	requests := rec.requests
	rec.requests = nil
	return requests
}

func (w *world) record() *recorder {
	w.t.Helper()
	rec := &recorder{}
	l, err := net.Listen("unix", w.path("p.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "berth"}) },
		Transport:     dialSocket(w.path("c.sock")).Transport,
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) {}, // a client that has gone
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec.mu.Lock()
		rec.requests = append(rec.requests, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)))
		rec.mu.Unlock()
		proxy.ServeHTTP(rw, r)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	rec.close = func() {
		_ = server.Close()
		<-ended
	}
	w.t.Cleanup(rec.close)
	return rec
}

var pollPattern = regexp.MustCompile(`\b(after|timeout)=[^& ]+`)

// What the commands send to the control socket, each different request once. How often a command that waits asks for the
// status is a matter of time: of those only the first is shown, but of a wait that cannot end.
func TestRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.run("web-1", "web", 32768)
	w.engine.run("lone", "", 32769)
	w.foreign("web", 9)
	w.up()
	w.must(0, "wait", "--for", "registered", "web-1")
	rec := w.record()
	w.env = append(w.env, "BERTH_CONTROL_SOCKET="+w.path("p.sock"))
	w.system("stopping")
	var b strings.Builder
	for _, c := range []struct {
		code int
		args string
	}{
		{0, "status"},
		{0, "status --json web-1"},
		{0, "wait --for registered web-1"},
		{1, "wait --for drained --timeout 3s web-1"},
		{1, "wait --for drained --group web --timeout 3s web-1"},
		{0, "explain web-1"},
		{0, "check"},
		{0, "plan"},
		{0, "ledger"},
		{0, "drain lone"},
		{0, "drain --wait --settle 0s --reason why lone"},
		{0, "drain --all"},
		{0, "undrain --all"},
		{0, "undrain lone"},
		{0, "prune --yes web"},
		{0, "prune --yes"},
		{0, "reload"},
		{0, "stop --settle 0s lone"},
		{0, "__complete stop ''"},
		{0, "__complete wait --group ''"},
		{0, "shutdown-drain"},
	} {
		args := strings.Fields(c.args)
		if last := len(args) - 1; args[last] == "''" {
			args[last] = ""
		}
		w.must(c.code, args...)
		fmt.Fprintf(&b, "berth %s\n", c.args)
		seen, polls := []string{}, 0
		for _, request := range rec.take() {
			if strings.HasPrefix(request, "GET /v1/status") {
				polls++
				if polls > 1 && !strings.HasPrefix(c.args, "wait --for drained") {
					continue
				}
			}
			request = pollPattern.ReplaceAllString(w.mask(request), "$1=<$1>")
			if !slices.Contains(seen, request) {
				seen = append(seen, request)
				fmt.Fprintf(&b, "  %s\n", request)
			}
		}
	}
	golden(t, "http/requests.txt", b.String())
}
