package agent_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/pkg/client"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// TestDaemon runs the whole agent in fake time and takes a container from its start to healthy and out. The bubble ends
// only when every goroutine of the agent has.
func TestDaemon(t *testing.T) {
	said := hearNotices(t, func() { synctest.Test(t, takeThrough) })
	for _, want := range []string{"READY=1", "WATCHDOG=1", "STOPPING=1"} {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("the service manager was told %q; want %q", said, want)
		}
	}
}

func takeThrough(t *testing.T) {
	const delay = 30 * time.Second
	sim := elbsim.New(elbsim.Config{Latency: 20 * time.Millisecond})
	if _, err := sim.AddGroup(elbsim.Group{Name: "web", DeregistrationDelay: delay}); err != nil {
		t.Fatal(err)
	}
	sim.SetAutoScaling(elbsim.AutoScaling{
		Group: "fleet", Hooks: []elbsim.LifecycleHook{{Name: "in", Transition: "autoscaling:EC2_INSTANCE_LAUNCHING"}},
	})
	if err := sim.SetMetadata("", elbsim.PathLifecycleState, "InService"); err != nil {
		t.Fatal(err)
	}
	engine, network := enginetest.New(), agenttest.NewNetwork()
	web := agenttest.Group("web")
	web.Required = true
	o := agenttest.Memory(engine, sim, web)
	o.Listeners = network.Listen
	o.Config.Lifecycle.LaunchHook = "in"
	dir := t.TempDir()
	o.Config.StateDir, o.Config.ControlSocket = filepath.Join(dir, "state"), filepath.Join(dir, "c.sock")
	d := &daemon{T: t, Agent: agenttest.StartOn(t, network.Dial, o), http: &http.Client{Transport: &http.Transport{DialContext: network.Dial}}}
	defer d.http.CloseIdleConnections()

	// Before the agent knows anything it is alive and not ready.
	if code, body := d.get(o.Config.Listen, "/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz at the start: %d\n%s; want 503", code, body)
	}
	d.until("ready", func(status.V1) bool {
		code, _ := d.get(o.Config.Listen, "/readyz")
		return code == http.StatusOK
	})

	id := engine.Run(enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	facts, _ := engine.Facts(id)
	want := target.Target{ID: agenttest.Instance, Port: facts.Published[0].HostPort}
	d.until("registered", func(status.V1) bool { return slices.Equal(sim.Registered("web"), []target.Target{want}) })
	s := d.until("healthy", func(s status.V1) bool { return d.state(s) == status.Healthy })
	if r := s.Rows[0]; r.Run.ID != id || r.Target != want || r.Group != "web" {
		t.Errorf("row %+v; want that of web-1, at %v in web", r, want)
	}
	d.until("the launch hook let go", func(status.V1) bool { return len(sim.CallsOf("CompleteLifecycleAction")) > 0 })
	if code, body := d.get(o.Config.Listen, "/metrics"); code != http.StatusOK || !strings.Contains(body, "berth_build_info") {
		t.Errorf("/metrics: %d\n%s; want 200 and berth_build_info", code, body)
	}
	var page status.V1
	if code, body := d.get(o.Config.StatusListen, "/v1/status"); code != http.StatusOK {
		t.Errorf("/v1/status: %d\n%s; want 200", code, body)
	} else if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Error(err)
	} else if diff := cmp.Diff(s.Rows, page.Rows); diff != "" {
		t.Errorf("rows over the socket (-) and the status address (+):\n%s", diff)
	}

	// The signal alone takes the target out; the container may go on answering what it has been sent.
	engine.Signal(id, 15)
	asked := time.Now()
	d.until("deregistered", func(status.V1) bool { return len(sim.Registered("web")) == 0 })
	if took := time.Since(asked); took > 2*time.Second {
		t.Errorf("deregistered %v after the signal; want it at once", took)
	}
	d.until("draining", func(s status.V1) bool { return d.state(s) == status.Draining })
	engine.Die(id, 0)
	engine.Remove(id)
	d.until("gone", func(s status.V1) bool { return len(s.Rows) == 0 && len(sim.Targets("web")) == 0 })
	if took := time.Since(asked); took < delay {
		t.Errorf("gone %v after the signal; want the deregistration delay of %v first", took, delay)
	}
	if entries := o.Ledger.Entries(); len(entries) != 0 {
		t.Errorf("the ledger has %v; want nothing", entries)
	}
	writes := len(sim.CallsOf("RegisterTargets")) + len(sim.CallsOf("DeregisterTargets"))
	if writes != 2 {
		t.Errorf("%d writes; want one registration and one deregistration", writes)
	}

	if err := d.Stop(); err != nil {
		t.Errorf("agent: %v", err)
	}
	if n := network.Listening(); n != 0 {
		t.Errorf("%d listeners are open after the end", n)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("on disk: %v, %v; want nothing", files, err)
	}
	if _, err := d.Client.Status(t.Context(), client.StatusQuery{}); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("status after the end: %v; want %v", err, client.ErrNotRunning)
	}
}

// daemon is the agent of the test, asked as operators and load balancers ask it.
type daemon struct {
	*testing.T
	*agenttest.Agent
	http *http.Client
}

// until waits for something and returns the status in which it holds.
func (d *daemon) until(what string, holds func(status.V1) bool) status.V1 {
	d.Helper()
	for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(100 * time.Millisecond) {
		s, err := d.Client.Status(d.T.Context(), client.StatusQuery{Follow: []string{"*"}})
		if err != nil {
			d.Fatal(err)
		}
		if holds(s) {
			return s
		}
	}
	s := d.Agent.Status()
	d.Fatalf("not within five minutes: %s; rows %+v\n%s", what, s.Rows, s.Readiness.Text())
	return s
}

// state is that of the only row; empty where there is none.
func (d *daemon) state(s status.V1) status.State {
	d.Helper()
	switch len(s.Rows) {
	case 0:
		return ""
	case 1:
		return s.Rows[0].State
	}
	d.Fatalf("rows %+v; want one at most", s.Rows)
	return ""
}

// get asks a listener and returns code and body.
func (d *daemon) get(listen, path string) (int, string) {
	d.Helper()
	if strings.HasPrefix(listen, ":") {
		listen = "berth.example" + listen
	}
	req, err := http.NewRequestWithContext(d.T.Context(), http.MethodGet, "http://"+listen+path, http.NoBody)
	if err != nil {
		d.Fatal(err)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// hearNotices runs f with a service manager, and returns what that was told. Its socket is a real one: it is read outside
// the bubble, and never full.
func hearNotices(t *testing.T, f func()) []string {
	t.Helper()
	path := filepath.Join(agenttest.ShortDir(t), "notify.sock")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", "")
	var said []string
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		b := make([]byte, 4096)
		for {
			n, err := socket.Read(b)
			if err != nil || string(b[:n]) == "end" {
				return
			}
			said = append(said, string(b[:n]))
		}
	}()
	defer func() {
		_ = socket.Close()
		<-heard
	}()
	f()
	end, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = end.Close() }()
	if _, err := end.Write([]byte("end")); err != nil {
		t.Fatal(err)
	}
	<-heard
	return said
}
