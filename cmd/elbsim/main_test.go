package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"berth/internal/elbsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin runs the program until the test ends, and returns the lines that it prints.
func begin(t *testing.T, args ...string) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in, err := os.Pipe() // unlike io.Pipe it holds what nobody has read yet
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, args, in, &stderr)
		_ = in.Close()
	}()
	t.Cleanup(func() {
		cancel()
		defer out.Close()
		if code := <-ended; code != 0 {
			t.Errorf("got exit code %d, %s; want 0", code, stderr.String())
		}
	})
	return bufio.NewReader(out)
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	text, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(text, "\n")
}

func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

var anywhere = []string{"--listen", "127.0.0.1:0", "--imds", "127.0.0.1:0"}

func TestRun_flags(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"Statement": {"Effect": "Allow", "Action": "elasticloadbalancing:Describe*", "Resource": "*"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out := begin(t, append([]string{
		"--json", "--calls", "--region", "eu-west-1", "--account", "111122223333", "--instance-id", "i-0aaaaaaaaaaaaaaaa",
		"--instance-id", "i-0bbbbbbbbbbbbbbbb", "--imds", "i-0bbbbbbbbbbbbbbbb=127.0.0.1:0", "--private-ip", "10.1.2.3",
		"--target-group", "web:http:80", "--target-group", "db:TCP:5432:ip", "--forward", "web=127.0.0.1:0", "--forward", "db=127.0.0.1:0",
		"--latency", "1ms", "--describe-lag", "3s", "--deregistration-delay", "0s", "--throttle", "--throttle-rejected-takes", "--policy", policy,
	}, anywhere...)...)
	var r ready
	if err := json.Unmarshal([]byte(line(t, out)), &r); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.TargetGroups["web"], "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/") || len(r.TargetGroups) != 2 {
		t.Errorf("target groups: got %v", r.TargetGroups)
	}
	if len(r.Listeners) != 2 || r.Listeners[0].Protocol != "HTTP" || r.Listeners[1].Protocol != "TCP" {
		t.Errorf("listeners: got %v", r.Listeners)
	}
	if len(r.IMDS) == 0 || len(r.Env) == 0 {
		t.Errorf("got %+v", r)
	}
	if status, _ := ask(t, http.MethodGet, "http://"+r.Listeners[0].Address, ""); status != http.StatusServiceUnavailable {
		t.Errorf("a listener without targets: got %d", status)
	}
	_, settings := ask(t, http.MethodGet, r.API+"/_elbsim/settings", "")
	for _, want := range []string{`"latency": "1ms"`, `"describe": "3s"`, `"register": "2s"`, `"on": true`, `"rejected_takes": true`} {
		if !strings.Contains(settings, want) {
			t.Errorf("settings: got %s; want %s", settings, want)
		}
	}
	_, document := ask(t, http.MethodGet, r.API+"/_elbsim/imds", "")
	if !strings.Contains(document, "10.1.2.3") || !strings.Contains(document, "i-0aaaaaaaaaaaaaaaa") {
		t.Errorf("metadata: got %s", document)
	}
	status, body := ask(t, http.MethodPost, r.API, "Action=RegisterTargets&Version=2015-12-01&Targets.member.1.Id=i-0aaaaaaaaaaaaaaaa&TargetGroupArn="+r.TargetGroups["web"])
	if status != http.StatusForbidden || !strings.Contains(body, "AccessDenied") {
		t.Errorf("what the policy does not allow: got %d %s", status, body)
	}
	var call elbsim.Call
	if err := json.Unmarshal([]byte(line(t, out)), &call); err != nil {
		t.Fatal(err)
	}
	if call.Action != "RegisterTargets" || call.Outcome != "AccessDenied" {
		t.Errorf("printed call: got %+v", call)
	}
}

func TestRun_forPeople(t *testing.T) {
	out := begin(t, append([]string{"--calls", "--target-group", "web:HTTP:80", "--any-instance", "--auto-attach"}, anywhere...)...)
	var lines []string
	var api, arn string
	for {
		text := line(t, out)
		lines = append(lines, text)
		if rest, ok := strings.CutPrefix(text, "ELBv2 on "); ok {
			api, _, _ = strings.Cut(rest, " ")
		}
		if rest, ok := strings.CutPrefix(text, "target group web: "); ok {
			arn = rest
		}
		if text == "ready" {
			break
		}
	}
	if api == "" || arn == "" || !strings.Contains(strings.Join(lines, "\n"), "export AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2="+api) {
		t.Fatalf("got %s", strings.Join(lines, "\n"))
	}
	status, body := ask(t, http.MethodPost, api, "Action=RegisterTargets&Version=2015-12-01&Targets.member.1.Id=i-0cccccccccccccccc&Targets.member.1.Port=32768&TargetGroupArn="+arn)
	if status != http.StatusOK {
		t.Fatalf("got %d %s", status, body)
	}
	text := line(t, out)
	if _, rest, _ := strings.Cut(text, " "); rest != "RegisterTargets "+arn+" i-0cccccccccccccccc:32768 ok" {
		t.Errorf("printed call: got %q", text)
	}
	if _, targets := ask(t, http.MethodGet, api+"/_elbsim/targets", ""); !strings.Contains(targets, `"initial"`) {
		t.Errorf("in an attached group: got %s", targets)
	}
}

func TestRun_config(t *testing.T) {
	file := filepath.Join(t.TempDir(), "account.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:1\ninstances: [{id: i-0123456789abcdef0, imds: \"127.0.0.1:1\"}]\nregion: eu-west-1\nlatency: 5ms\nlags: {register: 7s}\ntarget_groups: [{name: orders}]\nload_balancers:\n  - name: lb\n    listeners: [{address: \"127.0.0.1:0\", default: {forward: orders}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A flag that is given wins over the file, one that is not leaves it alone.
	out := begin(t, append([]string{"--json", "--config", file, "--latency", "1ms", "--account", "111122223333"}, anywhere...)...)
	var r ready
	if err := json.Unmarshal([]byte(line(t, out)), &r); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(t, http.MethodGet, r.API+"/_elbsim/", ""); status != http.StatusOK { // not at the file's port
		t.Errorf("index: got %d", status)
	}
	if !strings.Contains(r.TargetGroups["orders"], ":eu-west-1:111122223333:") || len(r.Listeners) != 1 {
		t.Errorf("got %+v", r)
	}
	_, settings := ask(t, http.MethodGet, r.API+"/_elbsim/settings", "")
	for _, want := range []string{`"latency": "1ms"`, `"register": "7s"`, `"deregister": "2s"`} {
		if !strings.Contains(settings, want) {
			t.Errorf("settings: got %s; want %s", settings, want)
		}
	}
}

// A mistake is one line that names what is wrong, exit code 2, and nothing served.
func TestRun_mistakes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("target_groups:\n  - name: web\nload_balancers:\n  - name: lb\n    listeners:\n      - address: 127.0.0.1:0\n        default: {forward: wep}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"unknown argument":                     {"serve"},
		"unknown flag: --lister":               {"--lister"},
		`--target-group "web": must be`:        {"--target-group", "web"},
		`--target-group "web:HTTP:0": port`:    {"--target-group", "web:HTTP:0"},
		"--target-group web:SMTP:25: ":         {"--target-group", "web:SMTP:25"},
		`--forward "web": must be`:             {"--forward", "web"},
		"--forward web=127.0.0.1:0: ":          {"--forward", "web=127.0.0.1:0"},
		`--instance-id: "web-1"`:               {"--instance-id", "web-1"},
		`--instance-id: add instance: "web-2"`: {"--instance-id", "i-0123456789abcdef0", "--instance-id", "web-2"},
		"--latency -1s: must not":              {"--latency", "-1s"},
		"--policy: read policy":                {"--policy", filepath.Join(dir, "none.json")},
		"read configuration":                   {"--config", filepath.Join(dir, "none.yaml")},
		bad + ":7: load_balancers[0].listeners[0].default.forward: target group wep: not in this account": {"--config", bad},
		"--config: describes": {"--config", bad, "--target-group", "web:HTTP:80"},
		`--imds "i-0123456789abcdef9=127.0.0.1:0": instance i-0123456789abcdef9: not in this account`: {"--imds", "i-0123456789abcdef9=127.0.0.1:0"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append(args, "--listen", "127.0.0.1:0"), &stdout, &stderr)
		if code != 2 || !strings.HasPrefix(stderr.String(), "elbsim: ") || !strings.Contains(stderr.String(), want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%v: got exit code %d and %q; want 2 and %q", args, code, stderr.String(), want)
		}
		if diff := cmp.Diff("", stdout.String()); diff != "" {
			t.Errorf("%v: printed %s", args, diff)
		}
	}
}

func TestRun_addressInUse(t *testing.T) {
	out := begin(t, append([]string{"--json"}, anywhere...)...)
	var r ready
	if err := json.Unmarshal([]byte(line(t, out)), &r); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"--listen", strings.TrimPrefix(r.API, "http://"), "--imds", "127.0.0.1:0"}, &stdout, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "listen for the API") {
		t.Errorf("got exit code %d and %q; want 1", code, stderr.String())
	}
}
