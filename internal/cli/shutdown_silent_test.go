package cli

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/server"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// The agent takes the drain in and dies, as everything does while a system stops. What it has registered is in the ledger,
// and goes from there.
func TestShutdownDrain_agentDiesAfterItTookTheDrain(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := agenttest.ShortDir(t)
	registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
	l, err := net.Listen("unix", filepath.Join(dir, "b.sock"))
	if err != nil {
		t.Fatal(err)
	}
	// Time enough for what a silent agent is given, and for the ledger after it.
	const longest = "15s"
	mux := http.NewServeMux()
	agent := &http.Server{Handler: mux}
	var drained atomic.Bool
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		if drained.Load() {
			_ = agent.Close() // with this connection, and the socket
			return
		}
		run := target.Run{ID: strings.Repeat("a", 64), Name: "web-1", StartedAt: time.Now()}
		server.WriteJSON(w, http.StatusOK, status.V1{
			API: "v1", At: time.Now(), Seq: 1, Connected: true,
			Groups: []status.GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 1}},
			Rows:   []status.Row{{Run: run, Group: "web", State: status.Healthy, Target: target.Target{ID: agenttest.Instance, Port: 32768}}},
		})
	})
	mux.HandleFunc("POST /v1/drains", func(w http.ResponseWriter, _ *http.Request) {
		drained.Store(true)
		server.WriteJSON(w, http.StatusCreated, status.DrainedV1{Seq: 2, MaxWait: longest})
	})
	served := make(chan error, 1)
	go func() { served <- agent.Serve(l) }()
	defer func() {
		_ = agent.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()

	t.Setenv("BERTH_STATE_DIR", dir)
	t.Setenv("BERTH_TARGET_GROUP", "web")
	t.Setenv("BERTH_CONTROL_SOCKET", filepath.Join(dir, "b.sock"))
	t.Setenv("BERTH_STATUS_LISTEN", "127.0.0.1:1") // where nobody listens
	t.Setenv("BERTH_DRAIN_SHUTDOWN_MAX_WAIT", longest)
	var out, errs strings.Builder
	env := &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: os.Getenv}
	c := &shutdownDrain{env: env, state: func(context.Context) string { return "stopping" }, settle: sleep}
	err = c.run(t.Context())
	if !drained.Load() {
		t.Fatalf("the agent was not asked to drain:\n%s", errs.String())
	}
	if err != nil {
		t.Errorf("got %v; want that it deregisters what the ledger holds\n%s", err, errs.String())
	}
	if left := sim.Registered("web"); len(left) > 0 {
		t.Errorf("%v is still registered", left)
	}
}
