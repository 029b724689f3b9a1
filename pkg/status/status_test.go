package status

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status/statustest"
	"berth/pkg/target"
)

const wellStatus = `{
  "api": "v1",
  "at": "2026-11-22T10:05:00Z",
  "revision": "1-18ea55c83f09f000",
  "seq": 1,
  "generation": 1,
  "connected": true,
  "agent": {"version": "1.2.3", "revision": "0123abc", "go_version": "go1.26", "pid": 7, "started_at": "2026-11-22T10:00:00Z"},
  "readiness": {
    "ready": true,
    "checks": [
      {"name": "docker", "ok": true, "detail": "the event stream is up (docker 28.5.2, API 1.51)"},
      {"name": "identity", "ok": true, "detail": "i-0123456789abcdef0"},
      {"name": "credentials", "ok": true, "detail": "calls to AWS can be made"},
      {"name": "target_group web", "ok": true, "detail": "ok, 1 target"}
    ]
  },
  "host": {"instance_id": "i-0123456789abcdef0", "region": "eu-central-1"},
  "docker": {"up": true, "since": "2026-11-22T10:00:00Z", "reconnects": 0, "engine": "docker 28.5.2", "api_version": "1.51"},
  "drains": [],
  "target_groups": [
    {
      "keys": ["web"], "name": "web-prod", "arn": "arn:web", "state": "ok", "seq": 1, "tried": true,
      "verified_at": "2026-11-22T10:02:00Z",
      "counts": {"desired": 1, "registered": 1, "healthy": 1, "refused": 0, "unclaimed": 0}
    }
  ],
  "rows": [
    {
      "container": {"id": "%s", "name": "web-1", "started_at": "2026-11-22T10:00:00Z"},
      "target_group": "web", "container_port": {"port": 8080, "protocol": "tcp"}, "host_port": 32768,
      "target": {"id": "i-0123456789abcdef0", "port": 32768}, "state": "healthy", "since": "2026-11-22T10:02:00Z",
      "why": "it passes its health checks", "health": "healthy"
    }
  ]
}`

// The JSON is an interface: this test changes only when a field is added.
func TestStatusOf_golden(t *testing.T) {
	d, r := statustest.Well()
	build := Build{Version: "1.2.3", Revision: "0123abc", GoVersion: "go1.26"}
	s := Of(statustest.T0.Add(5*time.Minute), AgentV1{build, 7, statustest.T0}, Host{InstanceID: statustest.Instance, Region: "eu-central-1"}, d, r)
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(fmt.Appendf(nil, wellStatus, statustest.Run("web-1").ID), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	var back V1
	if err := json.Unmarshal(body, &back); err != nil {
		t.Fatalf("the answer does not fit its own type: %v", err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestStatusOf_drains(t *testing.T) {
	d := statustest.Discovery()
	d.Drains = []discovery.Drain{
		{ID: "1", Cause: "spot", Since: statustest.T0},
		{ID: "2", Cause: "stop_signal", Container: "c", Hold: discovery.HoldRun},
		{ID: "3", Cause: "operator", By: "uid 1000", Container: "c", Hold: discovery.HoldConnection},
	}
	want := []DrainV1{
		{ID: "1", Cause: "spot", Since: statustest.T0, Hold: "keep"},
		{ID: "2", Cause: "stop_signal", Container: "c", Hold: "run"},
		{ID: "3", Cause: "operator", By: "uid 1000", Container: "c", Hold: "connection"},
	}
	if diff := cmp.Diff(want, Of(statustest.T0, AgentV1{}, Host{}, d, nil).Drains); diff != "" {
		t.Errorf("drains (-want +got):\n%s", diff)
	}
}

// What is configured is shown before anything of it is known, and that nothing is.
func TestStatusOf_untaken(t *testing.T) {
	d := &discovery.Snapshot{Seq: 3, Wants: map[string][]target.Want{"web": nil, "api": {statustest.Want("api", "api-1", 8080, 32768)}}}
	untaken := []GroupV1{
		{Keys: []string{"api"}, State: registrar.StateWaiting, Counts: Counts{Desired: 1}},
		{Keys: []string{"web"}, State: registrar.StateWaiting},
	}
	for name, r := range map[string]*registrar.Snapshot{
		"no registrar":            nil,
		"not connected":           {},
		"connected, nothing told": {Connected: true},
	} {
		s := Of(statustest.T0, AgentV1{}, Host{}, d, r)
		if diff := cmp.Diff(untaken, s.Groups); diff != "" || s.Connected {
			t.Errorf("%s: connected %v, groups (-want +got):\n%s", name, s.Connected, diff)
		}
	}
	left := registrar.GroupStatus{ARN: "arn:old", Name: "a", State: registrar.StateWaiting}
	s := Of(statustest.T0, AgentV1{}, Host{}, d, statustest.Registrar(statustest.Group(), left))
	var labels []string
	for _, g := range s.Groups {
		labels = append(labels, g.Label()+" "+g.State)
	}
	if diff := cmp.Diff([]string{"api waiting", "web ok", "a waiting"}, labels); diff != "" || !s.Connected {
		t.Errorf("one taken up: connected %v, groups (-want +got):\n%s", s.Connected, diff)
	}
}

// Two keys of one group that want one target: the group has one.
func TestStatusOf_twoKeys(t *testing.T) {
	a, b := statustest.Want("web", "web-1", 8080, 32768), statustest.Want("www", "web-1", 8080, 32768)
	g := statustest.Group(registrar.TargetStatus{Target: statustest.Target(32768), Phase: ledger.Registered, Health: "healthy", Wants: []target.Want{a, b}})
	g.Keys = []string{"web", "www"}
	s := Of(statustest.T0, AgentV1{}, Host{}, &discovery.Snapshot{Wants: map[string][]target.Want{"web": {a}, "www": {b}}}, statustest.Registrar(g))
	if got, want := s.Groups[0].Counts, (Counts{Desired: 1, Registered: 1, Healthy: 1}); got != want {
		t.Errorf("counts: got %+v; want %+v", got, want)
	}
	if len(s.Rows) != 2 {
		t.Errorf("got %d rows; want one for each key", len(s.Rows))
	}
}

func TestMeaningOf(t *testing.T) {
	for reason, m := range meanings {
		if got := meaningOf("unhealthy", reason); got != m || got.why == "" {
			t.Errorf("%s: got %+v; want %+v", reason, got, m)
		}
	}
	for _, tt := range [][3]string{
		{"healthy", "", "it passes its health checks"},
		{"", "", "it is registered; its health has not been looked at yet"},
		{"initial", "", "the load balancer says initial and gives no reason"},
		{"unhealthy", "Target.New", "the load balancer says unhealthy (Target.New)"},
	} {
		if got := meaningOf(tt[0], tt[1]).why; got != tt[2] {
			t.Errorf("%q, %q: got %q; want %q", tt[0], tt[1], got, tt[2])
		}
	}
}
