package docker_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/google/go-cmp/cmp"

	"berth/pkg/discovery"
	"berth/pkg/discovery/docker"
	"berth/pkg/target"
	"berth/test/harness"
)

// realEngine returns the host's engine, once for making containers and once as discovery sees it.
func realEngine(t *testing.T) (*harness.Engine, *docker.Engine) {
	t.Helper()
	engine := harness.RequireDocker(t)
	docker, err := docker.New(engine.Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(docker.Close)
	return engine, docker
}

func TestDocker_Ping(t *testing.T) {
	engine, docker := realEngine(t)
	info, err := docker.Ping(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	version, err := engine.Client.ServerVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := discovery.EngineInfo{Name: "docker", Version: version.Version, APIVersion: engine.Client.ClientVersion()}
	if info != want {
		t.Errorf("Ping: got %+v; want %+v", info, want)
	}
}

// heard collects the first n events about one container.
func heard(t *testing.T, docker *docker.Engine, since time.Time, id string, n int) []discovery.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	events, errs := docker.Events(ctx, since)
	var out []discovery.Event
	for len(out) < n {
		select {
		case e := <-events:
			if e.Container != id {
				continue
			}
			if e.Time.IsZero() {
				t.Errorf("event %+v has no time", e)
			}
			out = append(out, e)
		case err := <-errs:
			t.Fatalf("waiting for %d events, got %v so far: %v", n, actions(out), err)
		}
	}
	return out
}

func actions(events []discovery.Event) []string {
	out := []string{}
	for _, e := range events {
		a := e.Action
		if e.Signal != "" {
			a += " " + e.Signal
		}
		out = append(out, a)
	}
	return out
}

func TestDocker_Events(t *testing.T) {
	engine, docker := realEngine(t)
	networked := engine.CreateNetwork(t)
	for name, tc := range map[string]struct {
		spec harness.Spec
		do   func(t *testing.T, c *harness.Container)
		// After connect and start come these, in order; then those, in an order that Docker leaves open.
		inOrder, inAny []string
	}{
		"run": {do: func(*testing.T, *harness.Container) {}},
		"stop": {
			do:      func(t *testing.T, c *harness.Container) { c.Stop(t) },
			inOrder: []string{"kill 15"}, inAny: []string{"die", "disconnect", "stop"},
		},
		"stop with a signal of its own": {
			spec:    harness.Spec{StopSignal: "SIGQUIT"},
			do:      func(t *testing.T, c *harness.Container) { c.Stop(t) },
			inOrder: []string{"kill 3"}, inAny: []string{"die", "disconnect", "stop"},
		},
		"hang up": {
			do:      func(t *testing.T, c *harness.Container) { c.Signal(t, "HUP") },
			inOrder: []string{"kill 1"},
		},
		"pause and unpause": {
			do:      func(t *testing.T, c *harness.Container) { c.Pause(t); c.Unpause(t) },
			inOrder: []string{"pause", "unpause"},
		},
		"remove by force": {
			do:      func(t *testing.T, c *harness.Container) { c.Remove(t) },
			inOrder: []string{"kill 9"}, inAny: []string{"destroy", "die", "disconnect"},
		},
		"rename": {
			do:      func(t *testing.T, c *harness.Container) { c.Rename(t, harness.Unique("renamed")) },
			inOrder: []string{"rename"},
		},
		"network disconnect": {
			spec: harness.Spec{Network: networked},
			do: func(t *testing.T, c *harness.Container) {
				if err := engine.Client.NetworkDisconnect(t.Context(), networked, c.ID, false); err != nil {
					t.Fatal(err)
				}
			},
			inOrder: []string{"disconnect"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			since := time.Now()
			c := engine.Run(t, tc.spec)
			tc.do(t, c)
			want := append([]string{"connect", "start"}, tc.inOrder...)
			ordered := len(want)
			want = append(want, tc.inAny...)
			got := actions(heard(t, docker, since, c.ID, len(want)))
			slices.Sort(got[ordered:])
			if !slices.Equal(got, want) {
				t.Errorf("events: got %v; want %v, the last %d in any order", got, want, len(tc.inAny))
			}
		})
	}
}

// A health check runs a command in the container every second, with three events each time. None may arrive.
func TestDocker_Events_noneOfHealthChecks(t *testing.T) {
	engine, docker := realEngine(t)
	since := time.Now()
	c := engine.Run(t, harness.Spec{Modify: func(config *container.Config, _ *container.HostConfig) {
		config.Healthcheck = &container.HealthConfig{
			Test: []string{"CMD", "/web", "healthcheck"}, Interval: 200 * time.Millisecond, Retries: 1,
		}
	}})
	got := actions(heard(t, docker, since, c.ID, 3))
	if want := []string{"connect", "start", discovery.ActionHealthy}; !slices.Equal(got, want) {
		t.Errorf("events: got %v; want %v", got, want)
	}
	f, err := docker.Inspect(t.Context(), c.ID)
	if err != nil || f.Health != discovery.HealthHealthy {
		t.Errorf("health: got %q, %v; want healthy", f.Health, err)
	}
	c.Pause(t)
	c.Unpause(t)
	// Docker may say unhealthy now, though no probe has failed: until the next probe that is a phantom.
	if f, err = docker.Inspect(t.Context(), c.ID); err != nil || f.Health != discovery.HealthHealthy {
		t.Errorf("health after a pause: got %q, %v; want healthy", f.Health, err)
	}
}

// bindings are a container's published ports as text, with "N" for every port that Docker chose.
func bindings(f discovery.Facts) []string {
	out := []string{}
	for _, p := range f.Published {
		port := fmt.Sprint(p.HostPort)
		if !slices.Contains(f.Asked[p.PortProto], p.HostPort) {
			port = "N"
		}
		out = append(out, fmt.Sprintf("%s %s", p.PortProto, netip.AddrPortFrom(p.HostIP, 0).Addr())+" "+port)
	}
	return out
}

func TestDocker_Inspect_ports(t *testing.T) {
	engine, docker := realEngine(t)
	fixed := harness.FreePort(t)
	for name, tc := range map[string]struct {
		spec harness.Spec
		want []string
	}{
		"all declared": {
			want: []string{"8080/tcp 0.0.0.0 N", "8080/tcp :: N"},
		},
		"one": {
			spec: harness.Spec{Publish: []string{"9090"}},
			want: []string{"9090/tcp 0.0.0.0 N", "9090/tcp :: N"},
		},
		"a given host port": {
			spec: harness.Spec{Publish: []string{fmt.Sprintf("%d:8080", fixed)}},
			want: []string{fmt.Sprintf("8080/tcp 0.0.0.0 %d", fixed), fmt.Sprintf("8080/tcp :: %d", fixed)},
		},
		"on one address": {
			spec: harness.Spec{Publish: []string{"127.0.0.1::8080"}},
			want: []string{"8080/tcp 127.0.0.1 N"},
		},
		"tcp and udp": {
			spec: harness.Spec{Publish: []string{"53/tcp", "53/udp"}},
			want: []string{"53/tcp 0.0.0.0 N", "53/tcp :: N", "53/udp 0.0.0.0 N", "53/udp :: N"},
		},
		"none":           {spec: harness.Spec{Publish: []string{}}, want: []string{}},
		"host's network": {spec: harness.Spec{Network: "host", Args: []string{"--listen=127.0.0.1:0"}}, want: []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			c := engine.Create(t, tc.spec)
			if err := engine.Client.ContainerStart(t.Context(), c.ID, container.StartOptions{}); err != nil {
				t.Fatal(err)
			}
			f, err := docker.Inspect(t.Context(), c.ID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, bindings(f)); diff != "" {
				t.Errorf("published ports (-want +got):\n%s", diff)
			}
			lines, err := docker.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(lines, func(l discovery.Listed) bool { return l.ID == c.ID })
			if i < 0 {
				t.Fatal("it is not in the list")
			}
			var ports []uint16
			for _, p := range f.Published {
				ports = append(ports, p.HostPort)
			}
			slices.Sort(ports)
			// What a list shows must agree with an inspection, or every resync would inspect everything.
			if got, want := lines[i].HostPorts, slices.Compact(ports); !slices.Equal(got, want) || got == nil {
				t.Errorf("host ports in the list: got %v; want %v", got, want)
			}
		})
	}
}

func TestDocker_Inspect_facts(t *testing.T) {
	engine, docker := realEngine(t)
	c := engine.Run(t, harness.Spec{
		Labels: map[string]string{discovery.TargetsLabel: "web"}, StopSignal: "SIGRTMIN+3", StopTimeout: 7 * time.Second,
	})
	truth := c.Inspect(t)
	started, err := time.Parse(time.RFC3339Nano, truth.State.StartedAt)
	if err != nil {
		t.Fatal(err)
	}
	f, err := docker.Inspect(t.Context(), c.Name)
	if err != nil {
		t.Fatal(err)
	}
	if f.Labels[discovery.TargetsLabel] != "web" {
		t.Errorf("labels: got %v", f.Labels)
	}
	f.Labels, f.Published, f.Asked = nil, nil, nil
	want := discovery.Facts{
		ID: c.ID, Name: c.Name, Image: truth.Config.Image, State: "running", StartedAt: started,
		StopSignal: "SIGRTMIN+3", StopTimeout: 7 * time.Second, NetworkMode: "default", Networks: 1,
		Exposed: []target.PortProto{{Port: 8080}},
	}
	if f.NetworkMode == "bridge" {
		want.NetworkMode = "bridge" // as newer engines call it
	}
	if diff := cmp.Diff(want, f, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
}

func TestDocker_Inspect_afterReconnectingItsNetwork(t *testing.T) {
	engine, docker := realEngine(t)
	name := engine.CreateNetwork(t)
	c := engine.Run(t, harness.Spec{Network: name})
	before, err := docker.Inspect(t.Context(), c.ID)
	if err != nil || len(before.Published) == 0 {
		t.Fatalf("got %+v, %v", before, err)
	}
	if err := engine.Client.NetworkDisconnect(t.Context(), name, c.ID, false); err != nil {
		t.Fatal(err)
	}
	gone, err := docker.Inspect(t.Context(), c.ID)
	if err != nil || len(gone.Published) != 0 || gone.Networks != 0 || gone.State != "running" {
		t.Errorf("disconnected: got %+v, %v; want running, without ports and networks", gone, err)
	}
	if err := engine.Client.NetworkConnect(t.Context(), name, c.ID, &network.EndpointSettings{}); err != nil {
		t.Fatal(err)
	}
	after, err := docker.Inspect(t.Context(), c.ID)
	if err != nil || len(after.Published) == 0 || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("connected again: got %+v, %v; want ports, and the same run", after, err)
	}
}

func TestDocker_Inspect_notFound(t *testing.T) {
	_, docker := realEngine(t)
	_, err := docker.Inspect(t.Context(), strings.Repeat("0", 64))
	if !errors.Is(err, discovery.ErrNotFound) {
		t.Errorf("got %v; want ErrNotFound", err)
	}
}

func TestDocker_Inspect_ambiguous(t *testing.T) {
	engine, docker := realEngine(t)
	byFirst := map[string]bool{}
	for {
		first := engine.Create(t, harness.Spec{}).ID[:1]
		if !byFirst[first] { // at most 16 times
			byFirst[first] = true
			continue
		}
		if _, err := docker.Inspect(t.Context(), first); !errors.Is(err, discovery.ErrAmbiguous) || errors.Is(err, discovery.ErrNotFound) {
			t.Errorf("got %v; want ErrAmbiguous", err)
		}
		return
	}
}

// A watcher on the real engine: what one container goes through, asserted on what is wanted.
func TestWatcher_onRealEngine(t *testing.T) {
	engine, docker := realEngine(t)
	group := harness.Unique("web") // other tests' containers name other groups
	w, err := discovery.New(docker, nil, func(*discovery.Snapshot) {}, discovery.Options{Rules: []discovery.Rule{{Group: group}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	wanted := func(what string, port func() uint16) {
		t.Helper()
		harness.Eventually(t, harness.Patience, what, func() error {
			s := w.Snapshot()
			if s == nil {
				return errors.New("nothing published")
			}
			var got []uint16
			for _, want := range s.Wants[group] {
				got = append(got, want.HostPort4)
			}
			var want []uint16
			if port != nil {
				want = []uint16{port()}
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("wanted ports: got %v; want %v", got, want)
			}
			return nil
		})
	}
	wanted("an empty group", nil)
	c := engine.Run(t, harness.Spec{Labels: map[string]string{discovery.TargetsLabel: group}, Args: []string{"--drain=1h"}})
	published := func() uint16 { return c.Port(t, "8080/tcp") }
	wanted("wanted once it runs", published)
	c.Signal(t, "HUP")
	c.Restart(t)
	wanted("wanted on its new port", published)
	c.Ask(t) // it has to be listening for signals, too
	waitStop := c.BeginStop(t, time.Hour)
	wanted("out at the signal", nil)
	if !c.Inspect(t).State.Running {
		t.Error("it was taken out by its death, not by its signal")
	}
	c.Signal(t, "KILL")
	waitStop()
	c.Start(t)
	wanted("wanted again", published)
	c.Remove(t)
	wanted("out when removed", nil)
}

func TestDocker_Past(t *testing.T) {
	engine, docker := realEngine(t)
	since := time.Now()
	c := engine.Run(t, harness.Spec{})
	c.Signal(t, "HUP")
	c.Rename(t, harness.Unique("renamed"))
	past := func(since time.Time) []string {
		all, err := docker.Past(t.Context(), since)
		if err != nil {
			t.Fatal(err)
		}
		of := slices.DeleteFunc(all, func(e discovery.Event) bool { return e.Container != c.ID })
		return actions(of)
	}
	want := []string{discovery.ActionConnect, discovery.ActionStart, discovery.ActionKill + " 1", discovery.ActionRename}
	if got := past(since); !slices.Equal(got, want) {
		t.Errorf("since the start: got %v; want %v", got, want)
	}
	if got := past(time.Now()); len(got) != 0 {
		t.Errorf("since now: got %v; want nothing", got)
	}
	if got := past(time.Now().Add(time.Hour)); len(got) != 0 {
		t.Errorf("since a time to come: got %v; want nothing", got)
	}
}
