package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/status"
	"berth/pkg/status/statustest"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// An agent with many groups is looked at while it is at the first of them: the others are not tried yet, which is no
// failure. One that failed is, whether or not it counts as tried, and so is whatever else keeps the agent from being ready.
func TestCheck_agentAtItsStart(t *testing.T) {
	d, _ := statustest.Well()
	d.Wants = map[string][]target.Want{"web": nil, "api": nil, "dns": nil, "old": nil}
	ready := statustest.Group()
	sought := registrar.GroupStatus{Keys: []string{"api"}, State: registrar.StateWaiting}
	refused := registrar.GroupStatus{Keys: []string{"dns"}, State: registrar.StateMisconfigured, Err: "it is of another region"}
	waiting := []string{"[ok  ] agent", "[warn] agent: target_group api: not tried yet", "[warn] agent: target_group old: not tried yet"}
	for name, tt := range map[string]struct {
		groups []registrar.GroupStatus
		stream discovery.Stream
		want   []string // lines of the agent, without what is ok
		fails  bool
	}{
		"at the first group": {[]registrar.GroupStatus{ready, sought}, d.Stream, append(slices.Clone(waiting), "[warn] agent: target_group dns: not tried yet"), false},
		"one is in trouble":  {[]registrar.GroupStatus{ready, sought, refused}, d.Stream, append(slices.Clone(waiting), "[fail] agent: target_group dns: it is of another region"), true},
		"without Docker":     {[]registrar.GroupStatus{ready, sought}, discovery.Stream{}, append(slices.Clone(waiting), "[fail] agent: docker: not reached yet"), true},
	} {
		t.Run(name, func(t *testing.T) {
			seen := *d
			seen.Stream = tt.stream
			r := statustest.Registrar(tt.groups...)
			r.Self = elb.Self{InstanceID: statustest.Instance}
			s := status.Of(statustest.T2, status.AgentV1{}, status.Host{InstanceID: statustest.Instance}, &seen, r)
			cfg := config.Default()
			cfg.ControlSocket, cfg.StatusListen = filepath.Join(agenttest.ShortDir(t), "b.sock"), ""
			l, err := net.Listen("unix", cfg.ControlSocket)
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(s) }))
			if err := srv.Listener.Close(); err != nil {
				t.Fatal(err)
			}
			srv.Listener = l
			srv.Start()
			defer srv.Close()
			var out bytes.Buffer
			c := &checkCommand{env: &environment{stdout: &out, getenv: func(string) string { return "" }}}
			c.agent(t.Context(), cfg)
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("got:\n%s\nwant %q", out.String(), want)
				}
			}
			if failed := c.conclude(exitFailure) != nil; failed != tt.fails {
				t.Errorf("it fails: %v; want %v:\n%s", failed, tt.fails, out.String())
			}
		})
	}
}
