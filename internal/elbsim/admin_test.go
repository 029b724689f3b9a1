package elbsim

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// page asks a page of elbsim and returns status and body.
func page(t *testing.T, c *http.Client, url, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url+"/_elbsim/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
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

// The pages do what the Go API does, over both transports.
func TestPages(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		s := New(Config{})
		testPages(t, s, s.HTTPClient(), "http://elb.test")
	})
	t.Run("socket", func(t *testing.T) {
		s := New(Config{})
		testPages(t, s, newTransport(t), serve(t, s).URL())
	})
}

func testPages(t *testing.T, s *Sim, hc *http.Client, url string) {
	c := clientWith(hc, url)
	arn := addGroup(t, s, Group{Name: "web"})
	do := func(method, path, body string) string {
		t.Helper()
		status, got := page(t, hc, url, method, path, body)
		if status != http.StatusOK {
			t.Fatalf("%s %s: got %d %s", method, path, status, got)
		}
		return got
	}
	read := func(path string, v any) {
		t.Helper()
		if err := json.Unmarshal([]byte(do("GET", path, "")), v); err != nil {
			t.Fatal(err)
		}
	}
	if index := do("GET", "", ""); !strings.Contains(index, "/_elbsim/faults") {
		t.Errorf("index: got %s", index)
	}

	register(t, c, arn, on(1, 2)...)
	var calls []Call
	read("calls?action=RegisterTargets", &calls)
	if len(calls) != 1 || calls[0].Outcome != "ok" || cmp.Diff(on(1, 2), calls[0].Targets) != "" || calls[0].Groups[0] != arn || calls[0].EffectAt.IsZero() {
		t.Errorf("calls: got %+v", calls)
	}
	var targets map[string][]Target
	read("targets", &targets)
	if len(targets["web"]) != 2 || targets["web"][0].Port != 1 || targets["web"][0].State != StateInitial {
		t.Errorf("targets: got %+v", targets)
	}

	var added struct{ ID string }
	if err := json.Unmarshal([]byte(do("POST", "faults", `{"kind": "error", "code": "AccessDenied", "action": "Register*", "times": 1}`)), &added); err != nil || added.ID == "" {
		t.Fatalf("added fault: %v, %v", added, err)
	}
	wantCode(t, tryRegister(t.Context(), c, arn, on(3)...), "AccessDenied")
	var faults []Fault
	read("faults", &faults)
	if len(faults) != 1 || faults[0].Struck != 1 || faults[0].ID != added.ID {
		t.Errorf("faults: got %+v", faults)
	}
	do("DELETE", "faults/"+added.ID, "")
	do("POST", "faults", `{"kind": "hang"}`)
	do("DELETE", "faults", "")
	if len(s.Faults()) != 0 {
		t.Errorf("faults remain: %+v", s.Faults())
	}

	do("PUT", "imds/spot/instance-action", `{"action": "terminate"}`)
	do("PUT", "imds/latest/meta-data/autoscaling/target-lifecycle-state", "Terminated")
	var metadata map[string]string
	read("imds", &metadata)
	if metadata[PathSpotAction] != `{"action": "terminate"}` || metadata[PathLifecycleState] != "Terminated" {
		t.Errorf("imds: got %v", metadata)
	}
	do("DELETE", "imds/spot/instance-action", "")
	if _, there := s.Metadata("")[PathSpotAction]; there {
		t.Error("the path is still there")
	}
	token := s.token(time.Now().Add(time.Hour))
	do("POST", "imds-tokens/revoke", "")
	if s.validToken(token, time.Now()) {
		t.Error("the token is still valid")
	}

	do("PATCH", "settings", `{"latency": "1ms", "lags": {"deregister": 5}, "throttling": {"on": true, "rejected_takes": true}}`)
	var set settings
	read("settings", &set)
	if time.Duration(*set.Latency) != time.Millisecond || time.Duration(*set.Lags.Deregister) != 5*time.Second || time.Duration(*set.Lags.Register) != 2*time.Second || !set.Throttling.On || !set.Throttling.RejectedTakes {
		t.Errorf("settings: got %+v", set)
	}
	do("PATCH", "settings", `{"throttling": {"on": false}}`)

	do("PUT", "instances/"+testInstance, `{"state": "stopped"}`)
	if got := statesOf(s, "web"); got[0] != StateUnused {
		t.Errorf("of a stopped instance: got %v", got)
	}
	do("PUT", "instances/"+otherInstance, `{"vpc": "vpc-b", "private_ip": "10.1.0.1", "tags": {"a": "b"}}`)
	do("PUT", "instances/"+otherInstance, `{}`)
	if got := s.Metadata(otherInstance)[metaPrefix+"local-ipv4"]; got != "10.1.0.1" {
		t.Errorf("the new instance has address %q", got)
	}
	do("PUT", "health/web/"+testInstance+"/1", `{"state": "unhealthy", "reason": "Target.Timeout"}`)
	if got := described(t, c, arn)[on(1)[0]]; got != "unhealthy/Target.Timeout" {
		t.Errorf("forced: got %s", got)
	}
	do("DELETE", "health/web/"+testInstance+"/1", "")
	if got := described(t, c, arn)[on(1)[0]]; got == "unhealthy/Target.Timeout" {
		t.Error("still forced")
	}

	var counts []Count
	read("counts", &counts)
	if diff := cmp.Diff([]Count{{"DescribeTargetHealth", "ok", 2}, {"RegisterTargets", "AccessDenied", 1}, {"RegisterTargets", "ok", 1}}, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	do("DELETE", "calls", "")
	read("calls", &calls)
	if len(calls) != 0 || len(s.Counts()) != 0 {
		t.Errorf("after the reset: %v, %v", calls, s.Counts())
	}
	if got := do("GET", "stats", ""); strings.TrimSpace(got) != "[]" {
		t.Errorf("stats without a load balancer: got %s", got)
	}

	for _, bad := range []struct{ method, path, body string }{
		{"POST", "faults", `{"kind": "explode"}`},
		{"POST", "faults", `{"kind": "hang", "colour": "red"}`},
		{"POST", "faults", `nonsense`},
		{"DELETE", "faults/f-99", ""},
		{"PATCH", "settings", `{"latency": "soon"}`},
		{"PATCH", "settings", `{"latency": "-1s"}`},
		{"PUT", "imds/x?instance=i-1", "y"},
		{"DELETE", "imds/x?instance=i-1", ""},
		{"PUT", "instances/" + testInstance, `{"state": "asleep"}`},
		{"PUT", "instances/web-1", `{}`},
		{"PUT", "instances/" + testInstance, `[]`},
		{"PUT", "health/web/" + testInstance + "/0", `{}`},
		{"PUT", "health/web/" + testInstance + "/9", `{"state": "healthy"}`},
		{"PUT", "health/nowhere/" + testInstance + "/1", `{}`},
		{"PUT", "health/web/" + testInstance + "/1", `x`},
	} {
		if status, body := page(t, hc, url, bad.method, bad.path, bad.body); status != http.StatusBadRequest || !strings.Contains(body, `"error"`) {
			t.Errorf("%s %s %s: got %d %s; want 400 with an error", bad.method, bad.path, bad.body, status, body)
		}
	}
	if status, _ := page(t, hc, url, "GET", "nowhere", ""); status != http.StatusNotFound {
		t.Errorf("an unknown page: got %d", status)
	}
}

func TestRecord_ring(t *testing.T) {
	var told []string
	s := New(Config{RecordLimit: 3, OnCall: func(c Call) { told = append(told, c.Targets[0].String()) }})
	c := clientOf(s)
	arn := addGroup(t, s, Group{Name: "web"})
	for port := uint16(1); port <= 5; port++ {
		register(t, c, arn, on(port)...)
	}
	var got []uint16
	for _, call := range s.Calls() {
		got = append(got, call.Targets[0].Port)
	}
	if diff := cmp.Diff([]uint16{3, 4, 5}, got); diff != "" {
		t.Errorf("the last three calls (-want +got):\n%s", diff)
	}
	if len(told) != 5 || told[0] != testInstance+":1" {
		t.Errorf("OnCall was told %v", told)
	}
	s.ResetCalls()
	register(t, c, arn, on(6)...)
	if got := s.Calls(); len(got) != 1 || got[0].Targets[0].Port != 6 {
		t.Errorf("after the reset: got %v", got)
	}
	off := New(Config{RecordLimit: -1})
	arn = addGroup(t, off, Group{Name: "web"})
	register(t, clientOf(off), arn, on(1)...)
	if len(off.Calls()) != 0 || len(off.Counts()) != 1 {
		t.Errorf("without a record: got %v and counts %v", off.Calls(), off.Counts())
	}
}
