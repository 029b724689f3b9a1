package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/google/go-cmp/cmp"

	"berth/pkg/discovery"
)

func TestParseHost(t *testing.T) {
	for host, want := range map[string]string{
		"":                                "/var/run/docker.sock",
		"unix:///var/run/docker.sock":     "/var/run/docker.sock",
		"unix:///run/podman//podman.sock": "/run/podman/podman.sock",
	} {
		if s, err := parseHost(host); err != nil || s.path != want {
			t.Errorf("parseHost(%q): got %q, %v; want %q", host, s.path, err, want)
		}
	}
	for _, host := range []string{"tcp://127.0.0.1:2375", "tcp://10.0.0.1:2376", "ssh://host", "npipe:////./pipe/docker_engine", "/var/run/docker.sock", "unix://docker.sock", "unix://", "http://x"} {
		d, err := New(host)
		if err == nil || d != nil || !strings.Contains(err.Error(), "unix:///path/to/docker.sock") {
			t.Errorf("New(%q): got %v, %v; want an error that says what to write", host, d, err)
		}
	}
}

func TestSocket_explain(t *testing.T) {
	dir := t.TempDir()
	deaf := filepath.Join(dir, "deaf.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: deaf, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file.sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ path, why, change string }{
		"missing":      {filepath.Join(dir, "none.sock"), "no such socket", "systemctl start docker"},
		"deaf":         {deaf, "nobody listens", "systemctl start docker"},
		"not a socket": {file, "nobody listens", "start"},
	} {
		d, err := New("unix://" + tc.path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Ping(t.Context())
		var e *discovery.EngineError
		if !errors.As(err, &e) || !strings.Contains(e.Why, tc.why) || !strings.Contains(e.Change, tc.change) {
			t.Errorf("%s: got %v; want %q and %q", name, err, tc.why, tc.change)
			continue
		}
		if want := "reach docker at unix://" + tc.path; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %q; want it to begin with %q", name, err, want)
		}
		// The calls that go through Docker's own client say the same.
		_, listErr := d.List(t.Context())
		_, inspectErr := d.Inspect(t.Context(), "x")
		_, errs := d.Events(t.Context(), time.Now())
		for what, got := range map[string]error{"List": listErr, "Inspect": inspectErr, "Events": <-errs} {
			if got == nil || got.Error() != err.Error() {
				t.Errorf("%s: %s: got %v; want %v", name, what, got, err)
			}
		}
		d.Close()
	}
	// Root may open any socket, so the kernel cannot be made to refuse here.
	s, _ := parseHost("")
	err = s.explain(&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", fs.ErrPermission)})
	if !strings.Contains(err.Error(), "usermod -aG docker") || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("permission denied: got %v", err)
	}
	if err := s.explain(io.ErrUnexpectedEOF); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("anything else: got %v", err)
	}
}

// A socket that systemd holds for an engine that somebody stopped is not connected to: that would start the engine.
func TestSocket_wakesNobody(t *testing.T) {
	for name, tc := range map[string]struct {
		socket string
		units  []string
		wake   bool // connecting would wake it
	}{
		"no systemd to be seen":          {"docker.sock", nil, false},
		"engine runs, by its socket":     {"docker.sock", []string{"docker.socket", "docker.service"}, false},
		"engine stopped, socket active":  {"docker.sock", []string{"docker.socket"}, true},
		"engine runs without the socket": {"docker.sock", []string{"docker.service"}, false},
		"other units":                    {"docker.sock", []string{"containerd.service"}, false},
		"podman comes when it is called": {"podman.sock", []string{"podman.socket"}, false},
		"a socket of another name":       {"engine", []string{"docker.socket"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			units := filepath.Join(dir, "units")
			if tc.units != nil {
				if err := os.Mkdir(units, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, unit := range tc.units {
				// As systemd does: a link to nowhere, whose text is the invocation's id.
				if err := os.Symlink("5e0f6fdc", filepath.Join(units, "invocation:"+unit)); err != nil {
					t.Fatal(err)
				}
			}
			var connections atomic.Int32
			l, err := net.Listen("unix", filepath.Join(dir, tc.socket))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			server := &http.Server{
				Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Api-Version", "1.41")
				}),
				ConnState: func(_ net.Conn, s http.ConnState) {
					if s == http.StateNew {
						connections.Add(1)
					}
				},
			}
			go func() { _ = server.Serve(l) }()
			defer server.Close()
			s, err := parseHost("unix://" + filepath.Join(dir, tc.socket))
			if err != nil {
				t.Fatal(err)
			}
			s.units = units
			d := &Engine{socket: s, ping: &http.Client{Transport: s.transport()}}
			defer d.Close()
			_, err = d.Ping(t.Context())
			if tc.wake != errors.Is(err, discovery.ErrEngineStopped) || !tc.wake && err != nil {
				t.Errorf("Ping: got %v; want ErrEngineStopped %t", err, tc.wake)
			}
			if n := connections.Load(); tc.wake != (n == 0) {
				t.Errorf("%d connections were made; waking %t", n, tc.wake)
			}
		})
	}
}

// scripted is an engine on a unix socket that answers as it is told.
type scripted struct {
	mu       sync.Mutex // guards all below
	version  string
	minimum  string
	server   string
	answers  map[string]string // by path without the version
	versions []string          // of requests
	queries  map[string]string
	events   []events.Message
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Server", s.server)
	w.Header().Set("Api-Version", s.version)
	if r.URL.Path == "/_ping" {
		_, _ = io.WriteString(w, "OK")
		return
	}
	version, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
	s.versions = append(s.versions, version)
	if version < s.minimum { // all of one length here
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"message":"client version %s is too old. Minimum supported API version is %s"}`, version, s.minimum)
		return
	}
	if s.queries == nil {
		s.queries = make(map[string]string)
	}
	s.queries[path] = r.URL.RawQuery
	if path == "events" {
		w.WriteHeader(http.StatusOK)
		for _, e := range s.events {
			_ = json.NewEncoder(w).Encode(e)
		}
		return
	}
	body, ok := s.answers[path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		body = `{"message":"No such container: x"}`
	}
	if strings.HasPrefix(body, "500 ") {
		w.WriteHeader(http.StatusInternalServerError)
		body = body[4:]
	}
	_, _ = io.WriteString(w, body)
}

func serve(t testing.TB, s *scripted) *Engine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	go func() { _ = server.Serve(l) }()
	d, err := New("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); _ = server.Close() })
	return d
}

func TestDocker_negotiates(t *testing.T) {
	s := &scripted{version: "1.44", server: "Docker/25.0.18 (linux)", answers: map[string]string{"containers/json": "[]"}}
	d := serve(t, s)
	list := func() {
		t.Helper()
		if _, err := d.List(t.Context()); err != nil {
			t.Errorf("List: %v", err)
		}
	}
	list() // without a ping before
	for _, tc := range []struct{ engine, minimum, want string }{
		{"1.44", "", "1.44"},
		{"1.52", "1.44", "1.51"}, // newer than the client library
		{"1.41", "", "1.41"},     // an engine replaced by an older one
		{"1.47", "1.44", "1.47"}, // and by one that no longer speaks what was negotiated
	} {
		s.mu.Lock()
		s.version, s.minimum, s.versions = tc.engine, tc.minimum, nil
		s.mu.Unlock()
		info, err := d.Ping(t.Context())
		if err != nil || info != (discovery.EngineInfo{Name: "docker", Version: "25.0.18", APIVersion: tc.want}) {
			t.Errorf("Ping of %s: got %+v, %v; want %s", tc.engine, info, err, tc.want)
		}
		list()
		if !slices.Equal(s.versions, []string{tc.want}) {
			t.Errorf("engine with %s: asked with versions %v; want %s", tc.engine, s.versions, tc.want)
		}
	}
	for _, old := range []string{"1.40", "", "nonsense"} {
		s.mu.Lock()
		s.version = old
		s.mu.Unlock()
		_, err := d.Ping(t.Context())
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "20.10") {
			t.Errorf("Ping of version %q: got %v; want an error that names 20.10", old, err)
		}
	}
}

func TestDocker_podman(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	s := &scripted{
		version: "1.41", server: "Libpod/4.3.1 (linux)",
		events: []events.Message{
			{Type: "container", Action: "died", Actor: events.Actor{ID: "c", Attributes: map[string]string{"name": "web", "exitCode": "1"}}, TimeNano: at.UnixNano()},
			{Type: "container", Action: "remove", Actor: events.Actor{ID: "c"}, Time: at.Unix()},
			{Type: "network", Action: "disconnect", Actor: events.Actor{ID: "n", Attributes: map[string]string{"container": "c", "name": "bridge"}}, TimeNano: at.UnixNano()},
			{Type: "container", Action: "kill", Actor: events.Actor{ID: "c", Attributes: map[string]string{"signal": "15"}}, TimeNano: at.UnixNano()},
		},
	}
	d := serve(t, s)
	info, err := d.Ping(t.Context())
	if err != nil || info.Name != "podman" || info.Version != "4.3.1" {
		t.Errorf("Ping: got %+v, %v", info, err)
	}
	out, errs := d.Events(t.Context(), at)
	want := []discovery.Event{
		{Action: discovery.ActionDie, Container: "c", Name: "web", ExitCode: "1", Time: at},
		{Action: discovery.ActionDestroy, Container: "c", Time: at.Truncate(time.Second)},
		{Action: discovery.ActionDisconnect, Container: "c", Network: "n", Time: at},
		{Action: discovery.ActionKill, Container: "c", Signal: "15", Time: at},
	}
	for _, w := range want {
		if got := <-out; !got.Time.Equal(w.Time) || !cmp.Equal(got, w, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })) {
			t.Errorf("event: got %+v; want %+v", got, w)
		}
	}
	if err := <-errs; !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: got %v; want EOF", err)
	}
	if _, ok := <-errs; ok {
		t.Error("the error channel gives more than one error")
	}
	q := s.queries["events"]
	if !strings.Contains(q, fmt.Sprintf("since=%d.%09d", at.Unix(), at.Nanosecond())) {
		t.Errorf("query: got %s; want the time to the nanosecond", q)
	}
	if strings.Contains(q, "exec") || !strings.Contains(q, "health_status") || !strings.Contains(q, "died") {
		t.Errorf("query: got %s; want a filter by action, without exec", q)
	}
}

// Whatever an engine answers, it is an error or it is facts: never a panic, never an empty answer out of a broken one.
func TestDocker_answers(t *testing.T) {
	s := &scripted{version: "1.41", server: "Docker/20.10.24 (linux)", answers: map[string]string{
		"containers/empty/json":    "",
		"containers/object/json":   "{}",
		"containers/null/json":     "null",
		"containers/broken/json":   `{"Id":"x","State":{"Status":"runn`,
		"containers/failing/json":  `500 {"message":"no space left"}`,
		"containers/html/json":     "<html>proxy</html>",
		"containers/nostate/json":  `{"Id":"x","Config":{}}`,
		"containers/noconfig/json": `{"Id":"x","State":{"Status":"running"}}`,
	}}
	d := serve(t, s)
	for _, id := range []string{"empty", "object", "null", "broken", "failing", "html", "nostate", "noconfig"} {
		if f, err := d.Inspect(t.Context(), id); err == nil || errors.Is(err, discovery.ErrNotFound) {
			t.Errorf("Inspect(%s): got %+v, %v; want an error that is not ErrNotFound", id, f, err)
		}
	}
	if _, err := d.Inspect(t.Context(), "missing"); !errors.Is(err, discovery.ErrNotFound) {
		t.Errorf("Inspect(missing): got %v; want ErrNotFound", err)
	}
	for _, body := range []string{"", "{}", `[{"Id":"x"`, `500 {"message":"x"}`, "<html>"} {
		s.mu.Lock()
		s.answers["containers/json"] = body
		s.mu.Unlock()
		if lines, err := d.List(t.Context()); err == nil {
			t.Errorf("List of %q: got %v; want an error", body, lines)
		}
	}
	s.mu.Lock()
	s.answers["containers/json"] = `[{"Id":"a","State":"running","Ports":[{"PublicPort":2},{"PublicPort":1},{"PublicPort":2},{"PrivatePort":5}]},{"Id":"b","State":"exited"}]`
	s.mu.Unlock()
	got, err := d.List(t.Context())
	want := []discovery.Listed{{ID: "a", State: "running", HostPorts: []uint16{1, 2}}, {ID: "b", State: "exited", HostPorts: []uint16{}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("List: %v (-want +got):\n%s", err, diff)
	}
}

// Every call ends with its context, also when the engine hangs.
func TestDocker_deadlines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", path) // it accepts in the backlog, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := New("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.use("1.41"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, pingErr := d.Ping(ctx)
	_, listErr := d.List(ctx)
	_, inspectErr := d.Inspect(ctx, "x")
	_, errs := d.Events(ctx, time.Now())
	for what, err := range map[string]error{"Ping": pingErr, "List": listErr, "Inspect": inspectErr, "Events": <-errs} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v; want DeadlineExceeded", what, err)
		}
	}
}

// After a pause Docker says unhealthy, whatever the probes said: then the last probe of this run counts, and none of an
// earlier run's, which Docker keeps in the log.
func TestHealth(t *testing.T) {
	started := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	failed, passed := &container.HealthcheckResult{ExitCode: 1, Start: started.Add(time.Second)}, &container.HealthcheckResult{Start: started.Add(time.Second)}
	before := &container.HealthcheckResult{Start: started.Add(-time.Minute)}
	for name, tc := range map[string]struct {
		health  *container.Health
		retries int
		want    discovery.Health
	}{
		"no check":                      {nil, 0, discovery.HealthNone},
		"none":                          {&container.Health{Status: "none"}, 0, discovery.HealthNone},
		"nothing":                       {&container.Health{}, 0, discovery.HealthNone},
		"starting":                      {&container.Health{Status: "starting"}, 0, discovery.HealthStarting},
		"healthy":                       {&container.Health{Status: "healthy"}, 0, discovery.HealthHealthy},
		"unhealthy":                     {&container.Health{Status: "unhealthy", FailingStreak: 3, Log: []*container.HealthcheckResult{failed}}, 0, discovery.HealthUnhealthy},
		"unhealthy at once":             {&container.Health{Status: "unhealthy", FailingStreak: 1, Log: []*container.HealthcheckResult{failed}}, 1, discovery.HealthUnhealthy},
		"paused while healthy":          {&container.Health{Status: "unhealthy", Log: []*container.HealthcheckResult{passed}}, 3, discovery.HealthHealthy},
		"paused before the first probe": {&container.Health{Status: "unhealthy"}, 3, discovery.HealthStarting},
		"paused, passed before":         {&container.Health{Status: "unhealthy", Log: []*container.HealthcheckResult{before}}, 3, discovery.HealthStarting},
		"paused, passed again":          {&container.Health{Status: "unhealthy", Log: []*container.HealthcheckResult{before, passed}}, 3, discovery.HealthHealthy},
		"paused, failed once":           {&container.Health{Status: "unhealthy", Log: []*container.HealthcheckResult{failed}}, 3, discovery.HealthStarting},
		"paused with a failure or two":  {&container.Health{Status: "unhealthy", FailingStreak: 2, Log: []*container.HealthcheckResult{passed, failed, failed}}, 0, discovery.HealthStarting},
	} {
		r := &container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{StartedAt: started.Format(time.RFC3339Nano), Health: tc.health}},
			Config:            &container.Config{Healthcheck: &container.HealthConfig{Retries: tc.retries}},
		}
		if got := health(r); got != tc.want {
			t.Errorf("%s: got %q; want %q", name, got, tc.want)
		}
	}
}

// Whatever an engine says of a container, reading it and deciding about it stands.
func FuzzInspect(f *testing.F) {
	f.Add(`{"Id":"c","Name":"/web","State":{"Status":"running","StartedAt":"2026-01-02T03:04:05.6Z","Health":{"Status":"unhealthy","Log":[null]}},"Config":{"Image":"i","Labels":{"berth.targets":"web"},"StopTimeout":5,"ExposedPorts":{"80/tcp":{},"x":{}}},"HostConfig":{"NetworkMode":"bridge","PortBindings":{"80/tcp":[{"HostPort":"8000-8010"}]}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"32768"},{"HostIp":"::","HostPort":""}],"81/udp":null},"Networks":{"a":null}}}`)
	f.Add(`{"Id":"c","State":{"Status":"running"},"Config":{"Labels":{"berth.targets":"web:80"}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"not an address","HostPort":"70000"}]}}}`)
	f.Add(`{"Id":"c","State":{"Status":"paused"},"Config":{},"HostConfig":{"NetworkMode":"container:"}}`)
	s := &scripted{version: "1.41", server: "Docker/20.10.24 (linux)", answers: make(map[string]string)}
	d := serve(f, s)
	if _, err := d.Ping(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s.mu.Lock()
		s.answers["containers/c/json"] = body
		s.mu.Unlock()
		facts, err := d.Inspect(t.Context(), "c")
		if err != nil {
			return
		}
		for _, p := range facts.Published {
			if p.Port == 0 {
				t.Errorf("published: %+v", p)
			}
		}
		res := discovery.Resolve(discovery.Input{
			Containers: []discovery.Container{{Facts: &facts}},
			Rules:      []discovery.Rule{{Group: "web", Match: &discovery.Match{Name: "*"}, Healthy: true}, {Group: "api", Match: &discovery.Match{Image: "*"}, NoLabels: true}},
			Now:        time.Now(),
		})
		if len(res.Decisions) == 0 {
			t.Error("no decision")
		}
		for _, wants := range res.Wants {
			for _, w := range wants {
				if w.HostPort4 == 0 && w.HostPort6 == 0 {
					t.Errorf("wanted without a host port: %+v", w)
				}
			}
		}
	})
}
