package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"berth/pkg/agent"
	"berth/pkg/client"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// controlled is an agent of this process on the sockets of this host.
type controlled struct {
	*agenttest.Agent
	engine *enginetest.Engine
	http   *http.Client
}

func newControlled(t *testing.T) *controlled {
	t.Helper()
	agenttest.Account(t, "web")
	c := &controlled{engine: enginetest.New()}
	c.Agent = agenttest.StartReady(t, agenttest.Host(t, c.engine, "web"))
	c.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Config.ControlSocket)
	}}}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func (c *controlled) web(t *testing.T, name string) string {
	t.Helper()
	id := c.engine.Run(enginetest.Spec{Name: name, Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	agenttest.Eventually(t, name+" known", func() bool {
		s := c.Seen()
		for _, w := range s.Wants["web"] {
			if w.Run.ID == id {
				return true
			}
		}
		return false
	})
	return id
}

// drains are those in force, by id.
func (c *controlled) drains() map[string]discovery.Drain {
	out := map[string]discovery.Drain{}
	s := c.Seen()
	for _, d := range s.Drains {
		out[d.ID] = d
	}
	return out
}

// do sends a request as it is and returns status and body.
func (c *controlled) do(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://berth"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// Whatever is sent, the answer says what is wrong with it, and nothing is drained, pruned or reloaded.
func TestControl_nonsense(t *testing.T) {
	c := newControlled(t)
	c.web(t, "web-1")
	c.engine.FailInspect("c0ffee", fmt.Errorf("inspect container c0ffee: %w", discovery.ErrAmbiguous))
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/drains", "", 400},
		{"POST", "/v1/drains", "{", 400},
		{"POST", "/v1/drains", "[]", 400},
		{"POST", "/v1/drains", "{}", 400},
		{"POST", "/v1/drains", `{"container": "web-1", "host": true}`, 400},
		{"POST", "/v1/drains", `{"container": "web-1"} {"host": true}`, 400},
		{"POST", "/v1/drains", `{"container": "web-1", "hold": "for ever"}`, 400},
		{"POST", "/v1/drains", `{"container": "web-1", "holdd": "run"}`, 400},
		{"POST", "/v1/drains", `{"container": "web-1", "cause": "shutdown"}`, 400},
		{"POST", "/v1/drains", `{"host": true, "hold": "run"}`, 400},
		{"POST", "/v1/drains", `{"host": true, "cause": "spot"}`, 400},
		{"POST", "/v1/drains", `{"container": "web-1", "reason": "` + strings.Repeat("x", agent.MaxReason+1) + `"}`, 400},
		{"POST", "/v1/drains", `{"container": "../../info"}`, 400},
		{"POST", "/v1/drains", `{"container": "web-1\u001b[2J"}`, 400},
		{"POST", "/v1/drains", `{"container": "` + strings.Repeat("a", agent.MaxReference+1) + `"}`, 400},
		{"POST", "/v1/drains", `{"container": "` + strings.Repeat("a", 100<<10) + `"}`, 400},
		{"POST", "/v1/drains", `{"container": "nobody"}`, 404},
		{"DELETE", "/v1/drains", "", 400},
		{"DELETE", "/v1/drains?host=true&container=web-1", "", 400},
		{"DELETE", "/v1/drains?container=../../info", "", 400},
		{"DELETE", "/v1/drains?id=nonsense", "", 404},
		{"POST", "/v1/prune", `{"targets": []}`, 400},
		{"POST", "/v1/prune", `{"targets": [{"target_group": "web", "target": {"port": 70000}}]}`, 400},
		{"POST", "/v1/drains", `{"container": "c0ffee"}`, 409},
		{"DELETE", "/v1/drains?container=c0ffee", "", 409},
		{"GET", "/v1/explain?container=c0ffee", "", 409},
		{"GET", "/v1/explain", "", 400},
		{"GET", "/v1/explain?container=nobody", "", 404},
		{"GET", "/v1/reload", "", 405},
		{"POST", "/v1/nonsense", "", 404},
		{"POST", "/v1/status", "", 404},
	} {
		seen, body := c.do(t, test.method, test.path, test.body)
		if seen != test.status {
			t.Errorf("%s %s %.80s: %d %.200s; want %d", test.method, test.path, test.body, seen, body, test.status)
		}
		var e status.ErrorV1
		if seen != http.StatusMethodNotAllowed && test.path != "/v1/nonsense" && test.path != "/v1/status" && (json.Unmarshal([]byte(body), &e) != nil || e.Err == "") {
			t.Errorf("%s %s: the answer says nothing: %q", test.method, test.path, body)
		}
	}
	if d := c.drains(); len(d) > 0 {
		t.Errorf("drains %v; want none", d)
	}
	if generation := c.Generation(); generation != 1 {
		t.Errorf("generation %d; want 1", generation)
	}
}

// As many targets as the documentation promises can be named, however long their names; more are too many, and a body
// beyond all of them is not read to its end.
func TestControl_pruneMany(t *testing.T) {
	c := newControlled(t)
	longest := status.GroupTargetV1{
		Group:  strings.Repeat("k", 64),
		Target: target.Target{ID: "2001:0db8:ffff:ffff:ffff:ffff:ffff:ffff", Port: 65535},
	}
	named := slices.Repeat([]status.GroupTargetV1{longest}, agent.MaxPrune+1)
	got, err := c.Client.Prune(t.Context(), status.PruneV1{Targets: named[:agent.MaxPrune]})
	if err != nil || len(got.Left) != agent.MaxPrune {
		t.Errorf("%d targets named: %d answered for, %v; want all", agent.MaxPrune, len(got.Left), err)
	}
	var refused *client.APIError
	if _, err := c.Client.Prune(t.Context(), status.PruneV1{Targets: named}); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || !strings.Contains(refused.Message, "at most 1000") {
		t.Errorf("%d targets named: %v; want 400, and how many can be", agent.MaxPrune+1, err)
	}
	if status, body := c.do(t, "POST", "/v1/prune", `{"targets": [`+strings.Repeat(" ", 256<<10)+`]}`); status != http.StatusBadRequest || !strings.Contains(body, "too large") {
		t.Errorf("a body of more than 256 KiB: %d %s; want 400 too large", status, body)
	}
}

// Drains of different holds stand beside each other, and each ends with its own reason.
func TestControl_holds(t *testing.T) {
	c := newControlled(t)
	id := c.web(t, "web-1")
	keep, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: "web-1", Reason: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	run, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: id, Hold: "run"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Client.Hold(t.Context(), status.DrainRequestV1{Container: id})
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Client.Hold(t.Context(), status.DrainRequestV1{Container: id})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.drains()); n != 4 {
		t.Fatalf("%d drains: %v; want 4", n, c.drains())
	}
	if d := c.drains()[keep.Drain.ID]; d.By == "" || d.Reason != "kept" || d.Since.IsZero() {
		t.Errorf("got %+v; want who, why and when", d)
	}
	first.Release()
	agenttest.Eventually(t, "the first connection's drain ended", func() bool { return len(c.drains()) == 3 })
	if _, ok := c.drains()[second.Drain.ID]; !ok {
		t.Error("the second connection's drain ended with the first")
	}
	c.engine.Restart(id)
	agenttest.Eventually(t, "the run's drain ended", func() bool { _, holds := c.drains()[run.Drain.ID]; return !holds })
	second.Release()
	if _, err := c.Client.Undrain(t.Context(), "web-1"); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, "no drain", func() bool { return len(c.drains()) == 0 })
	// Who asked is in the log, as the kernel names it.
	asked := c.Log.FilterField(zap.String("operation", "drain")).All()
	if len(asked) != 4 || asked[0].ContextMap()["uid"] != uint32(os.Getuid()) || asked[0].ContextMap()["pid"] != int32(os.Getpid()) {
		t.Errorf("the log says %v; want four drains by this process", asked)
	}
}

// A thousand clients that hold drains and never read get an answer or are turned away; memory and goroutines are bounded,
// and the loop goes on.
func TestControl_thousandClients(t *testing.T) {
	c := newControlled(t)
	c.web(t, "web-1")
	before := runtime.NumGoroutine()
	body := `{"container": "web-1", "hold": "connection"}`
	var conns []net.Conn
	for range 1000 {
		conn, err := net.Dial("unix", c.Config.ControlSocket)
		if err != nil {
			continue // turned away
		}
		conns = append(conns, conn)
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = fmt.Fprintf(conn, "POST /v1/drains HTTP/1.1\r\nHost: berth\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	agenttest.Eventually(t, "as many drains as may be", func() bool { n := len(c.drains()); return n > 0 && n <= agent.MaxHolds })
	if n := runtime.NumGoroutine() - before; n > 1000 {
		t.Errorf("%d more goroutines", n)
	}
	// Docker's events are acted on meanwhile.
	c.engine.Run(enginetest.Spec{Name: "web-2", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	agenttest.Eventually(t, "web-2 wanted", func() bool { s := c.Seen(); return len(s.Wants["web"]) == 1 })
	if n := len(c.drains()); n > agent.MaxHolds {
		t.Errorf("%d drains; want at most %d", n, agent.MaxHolds)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	agenttest.Eventually(t, "all drains ended", func() bool { return len(c.drains()) == 0 })
	agenttest.Eventually(t, "all goroutines ended", func() bool { return runtime.NumGoroutine() <= before+20 })
}

// A client that goes away while its drain is being made leaves none behind.
func TestControl_goneWhileDraining(t *testing.T) {
	c := newControlled(t)
	c.web(t, "web-1")
	handler := c.ControlHandler()
	for range 500 {
		ctx, cancel := context.WithCancel(t.Context())
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/drains", strings.NewReader(`{"container": "web-1", "hold": "connection"}`))
		left := make(chan struct{})
		go func() {
			defer close(left)
			time.Sleep(rand.N(time.Millisecond)) // anywhere from the look at the container to the answer
			cancel()
		}()
		handler.ServeHTTP(httptest.NewRecorder(), req)
		<-left
	}
	agenttest.Eventually(t, "all drains ended", func() bool { return len(c.drains()) == 0 })
}
