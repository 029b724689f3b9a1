package elbsim

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim/limits"
)

const wholeFile = `listen: 127.0.0.1:4567
region: eu-west-1
account: "111122223333"
any_instance: true
auto_attach: false
latency: 30ms
lags: {register: 1s, deregister: 0s, describe: 500ms}
throttling:
  enabled: true
  rejected_takes: true
  code: RequestLimitExceeded
  describe: {capacity: 5, per_second: 1}
quotas: {targets_per_group: 10, targets_per_load_balancer: 20, registrations_per_target: -1, groups_per_region: 5, targets_per_call: 200}
unverified: {draining_counts: true, partial_register: true, refuse_draining_ip: true}
policy: policy.json
instances:
  - {id: i-0aaaaaaaaaaaaaaaa, vpc: vpc-1, private_ip: 10.0.0.1, tags: {Name: first}}
  - {id: i-0bbbbbbbbbbbbbbbb, vpc: vpc-1, state: stopped, address: 127.0.0.2, imds: "127.0.0.1:1339"}
metadata:
  spot/instance-action: '{"action": "stop"}'
target_groups:
  - name: orders
    port: 9000
    vpc: vpc-1
    health_check: {path: /up, interval: 200ms, timeout: 1s, healthy_threshold: 2, unhealthy_threshold: 3, codes: "200-299"}
    deregistration_delay: 0s
    tags: {team: shop}
    targets:
      - {id: i-0aaaaaaaaaaaaaaaa}
      - {id: i-0aaaaaaaaaaaaaaaa, port: 9001}
  - {name: users, vpc: vpc-1}
  - {name: db, protocol: TCP, port: 5432, type: ip, vpc: vpc-1, health_check: {protocol: HTTP, port: "8080"}}
load_balancers:
  - name: front
    idle_timeout: 10s
    listeners:
      - address: 127.0.0.1:0
        default: {fixed_response: {status: 404, content_type: text/plain, body: nothing here}}
        rules:
          - {priority: 10, path_pattern: ["/orders*"], http_request_method: [GET], forward: orders}
          - {priority: 20, host_header: ["*.example.com"], http_header: {X-A: ["1"]}, source_ip: [127.0.0.0/8], weighted: {orders: 9, users: 1}}
  - name: tcp
    type: network
    listeners:
      - {address: "127.0.0.1:0", default: {forward: db}}
`

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "account.yaml")
	for name, content := range map[string]string{"account.yaml": wholeFile, "policy.json": testPolicy} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := f.Config
	if got.Policy == nil || got.Policy.Len() != 4 {
		t.Errorf("policy: got %+v", got.Policy)
	}
	if diff := cmp.Diff(Listen{API: "127.0.0.1:4567", IMDS: map[string]string{"i-0bbbbbbbbbbbbbbbb": "127.0.0.1:1339"}}, f.Listen); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	got.Policy = nil
	want := Config{
		Region: "eu-west-1", Account: "111122223333", AnyInstance: true, Latency: 30 * time.Millisecond,
		Lags:       &Lags{Register: time.Second, Describe: 500 * time.Millisecond},
		Throttling: &limits.Throttling{Register: limits.Bucket{Capacity: 20, PerSecond: 4}, Describe: limits.Bucket{Capacity: 5, PerSecond: 1}, All: limits.Bucket{Capacity: 40, PerSecond: 10}, RejectedTakes: true, Code: "RequestLimitExceeded"},
		Quotas:     Quotas{TargetsPerGroup: 10, TargetsPerLoadBalancer: 20, RegistrationsPerTarget: -1, GroupsPerRegion: 5, TargetsPerCall: 200},
		Unverified: Unverified{true, true, true},
		Instance:   Instance{ID: "i-0aaaaaaaaaaaaaaaa", VPC: "vpc-1", PrivateIP: "10.0.0.1", Tags: map[string]string{"Name": "first"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
	f.Config.Policy, f.Config.Latency = nil, 0
	s := New(f.Config)
	if err := f.Populate(s); err != nil {
		t.Fatal(err)
	}
	g := s.byName["orders"]
	if g.spec.DeregistrationDelay != 0 || g.tags["team"] != "shop" || g.spec.Port != 9000 {
		t.Errorf("group: got %+v", g.spec)
	}
	if diff := cmp.Diff(HealthCheck{"HTTP", "traffic-port", "/up", 200 * time.Millisecond, time.Second, 2, 3, "200-299"}, g.spec.HealthCheck); diff != "" {
		t.Errorf("health check (-want +got):\n%s", diff)
	}
	var targets []string
	for _, one := range s.Registered("orders") {
		targets = append(targets, one.String())
	}
	if diff := cmp.Diff([]string{"i-0aaaaaaaaaaaaaaaa:9000", "i-0aaaaaaaaaaaaaaaa:9001"}, targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
	if s.Metadata("")[PathSpotAction] == "" || s.instances["i-0bbbbbbbbbbbbbbbb"].spec.Address != "127.0.0.2" {
		t.Error("metadata or the second instance is missing")
	}
	if len(s.balancers) != 2 || len(s.balancers[0].listeners[0].rules) != 3 || len(s.byName["db"].users) != 1 || len(s.byName["users"].users) != 1 {
		t.Errorf("load balancers: got %+v", s.balancers)
	}
	srv := serve(t, s)
	if len(srv.Listeners()) != 2 {
		t.Errorf("listeners: got %v", srv.Listeners())
	}
	resp, err := newTransport(t).Get("http://" + srv.ListenerAddr("orders") + "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusNotFound || string(b) != "nothing here" {
		t.Errorf("default action: got %d %q, %v", resp.StatusCode, b, err)
	}
}

func TestFile_empty(t *testing.T) {
	f, err := ParseFile("empty.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Populate(New(f.Config)); err != nil {
		t.Error(err)
	}
}

// Every mistake is one error with file, line, key and rule.
func TestFile_errors(t *testing.T) {
	const group = "target_groups:\n  - name: web\n    "
	const lb = "target_groups: [{name: web}, {name: tcp, protocol: TCP}]\nload_balancers:\n  - name: lb\n    "
	for name, test := range map[string]struct{ yaml, want string }{
		"syntax":                     {"a: [", "f.yaml:1: "},
		"unknown key":                {"region: x\nregon: y\n", `f.yaml:2: unknown field "regon"`},
		"unknown deep key":           {group + "port: 1\n    prot: TCP\n", `f.yaml:4: unknown field "prot"`},
		"duplicate key":              {"region: x\naccount: a\nregion: y\n", "f.yaml:3: "},
		"wrong type":                 {"account: a\nquotas: many\n", "f.yaml:2: "},
		"wrong scalar":               {group + "port: eighty\n", "f.yaml:3: "},
		"duration":                   {"account: a\nlatency: soon\n", `f.yaml:2: latency: "soon": must be a duration`},
		"negative duration":          {"lags:\n  register: 1s\n  deregister: -1s\n", `f.yaml:3: lags.deregister: "-1s": must be a duration`},
		"policy":                     {"policy: nowhere.json\n", "f.yaml:1: policy: read policy: "},
		"instance id":                {"instances:\n  - id: web-1\n", `f.yaml:2: instances[0].id: "web-1": must be an instance id`},
		"instance state":             {"instances:\n  - id: i-0123456789abcdef0\n  - id: i-0123456789abcdef1\n    state: asleep\n", "f.yaml:4: instances[1].state: "},
		"group name":                 {"target_groups:\n  - name: -web\n", "f.yaml:2: target_groups[0].name: "},
		"group name missing":         {"target_groups:\n  - port: 80\n", "f.yaml:2: target_groups[0].name: "},
		"group name twice":           {"target_groups:\n  - name: web\n  - name: web\n", `f.yaml:3: target_groups[1].name: "web": is taken`},
		"group port":                 {group + "port: 70000\n", "f.yaml:3: target_groups[0].port: port 70000: must be a port"},
		"group protocol":             {group + "protocol: SMTP\n", "f.yaml:3: target_groups[0].protocol: "},
		"group type":                 {group + "type: lambda\n", "f.yaml:3: target_groups[0].type: "},
		"health check":               {group + "health_check:\n      interval: 10s\n      timeout: 20s\n", "f.yaml:5: target_groups[0].health_check.timeout: "},
		"matcher":                    {group + "health_check: {codes: all}\n", "f.yaml:3: target_groups[0].health_check.codes: "},
		"delay":                      {group + "deregistration_delay: 2h\n", "f.yaml:3: target_groups[0].deregistration_delay: "},
		"target's port":              {group + "targets:\n      - {id: i-0123456789abcdef0, port: -1}\n", "f.yaml:4: target_groups[0].targets[0].port: "},
		"unknown target":             {group + "targets:\n      - {id: i-0123456789abcdef9}\n", "f.yaml:4: target_groups[0].targets[0]: InvalidTarget: "},
		"missing group":              {lb + "listeners:\n      - address: 127.0.0.1:0\n        default: {forward: web}\n        rules:\n          - priority: 1\n            path_pattern: [/]\n            forward: wep\n", "f.yaml:10: load_balancers[0].listeners[0].rules[0].forward: target group wep: not in this account"},
		"missing default":            {lb + "listeners:\n      - address: 127.0.0.1:0\n", "f.yaml:5: load_balancers[0].listeners[0].default: exactly one of forward and fixed_response"},
		"missing address":            {lb + "listeners:\n      - default: {forward: web}\n", "f.yaml:5: load_balancers[0].listeners[0].address: missing"},
		"protocol that does not fit": {lb + "listeners:\n      - address: 127.0.0.1:0\n        default:\n          forward: tcp\n", "f.yaml:7: load_balancers[0].listeners[0].default.forward: target group tcp: protocol TCP does not fit"},
		"priority":                   {lb + "listeners:\n      - address: 127.0.0.1:0\n        default: {forward: web}\n        rules: [{priority: 0, path_pattern: [/], forward: web}]\n", "rules[0].priority: 0: must be"},
		"idle timeout":               {lb + "idle_timeout: long\n", "f.yaml:4: load_balancers[0].idle_timeout: "},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := ParseFile("f.yaml", []byte(test.yaml))
			if err == nil {
				err = f.Populate(New(f.Config))
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "f.yaml:") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v; want %q", err, test.want)
			}
		})
	}
	if _, err := LoadFile(filepath.Join(t.TempDir(), "none.yaml")); err == nil {
		t.Error("loaded a file that is not there")
	}
}
