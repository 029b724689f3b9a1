// Package docker is the engine behind discovery's Engine: Docker, or Podman's compatible socket. It is the only package that
// imports Docker's client.
//
//	docker.go  events, list and inspection, as discovery's facts
//	socket.go  the engine's unix socket: why it cannot be reached, and how not to wake an engine that is stopped
package docker

// This file alone imports Docker's client: moving to its successor is this file's work.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api"
	dockertypes "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"berth/pkg/discovery"
	"berth/pkg/target"
)

// minAPI is the oldest version of the API that is supported: Docker 20.10, as Debian 11 and 12 have it.
const minAPI = "1.41"

// Engine is the Engine of a real Docker, or of Podman's compatible socket.
type Engine struct {
	socket socket
	ping   *http.Client
	// session is the client for the API version that was negotiated last. An engine that is replaced by another version
	// underneath gets a new one with the next ping, whichever way the version moved.
	session atomic.Pointer[negotiated]
}

type negotiated struct {
	client  *client.Client
	version string
}

// New makes an Engine of the Docker that listens on host, "unix:///var/run/docker.sock" if empty. Nothing is
// asked of it yet. There is no time limit on the client as a whole, which would end the event stream: every call is
// bounded by its context.
func New(host string) (*Engine, error) {
	s, err := parseHost(host)
	if err != nil {
		return nil, err
	}
	return &Engine{socket: s, ping: &http.Client{Transport: s.transport()}}, nil
}

// transport keeps a few connections: an inspection that has to connect first takes a third longer.
func (s socket) transport() *http.Transport {
	return &http.Transport{
		DialContext: s.dial, DisableCompression: true,
		MaxIdleConns: 16, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
	}
}

// Close drops idle connections.
func (d *Engine) Close() {
	d.ping.CloseIdleConnections()
	if s := d.session.Load(); s != nil {
		_ = s.client.Close()
	}
}

// Ping implements Engine. It negotiates the version of the API anew.
func (d *Engine) Ping(ctx context.Context) (discovery.EngineInfo, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+client.DummyHost+"/_ping", http.NoBody)
	if err != nil {
		return discovery.EngineInfo{}, fmt.Errorf("ping docker: %w", err)
	}
	response, err := d.ping.Do(request)
	if err != nil {
		return discovery.EngineInfo{}, plain(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return discovery.EngineInfo{}, fmt.Errorf("ping docker: status %s", response.Status)
	}
	info := engineInfo(response.Header)
	if info.APIVersion == "" || versions.LessThan(info.APIVersion, minAPI) {
		return info, &discovery.EngineError{
			Host: d.socket.host, Why: fmt.Sprintf("it speaks version %q of the API", info.APIVersion),
			Change: "use Docker 20.10 (API " + minAPI + ") or later", Err: errors.ErrUnsupported,
		}
	}
	if versions.GreaterThan(info.APIVersion, api.DefaultVersion) {
		info.APIVersion = api.DefaultVersion
	}
	return info, d.use(info.APIVersion)
}

// engineInfo reads the headers of a ping: "Server: Docker/20.10.24 (linux)", "Api-Version: 1.41".
func engineInfo(h http.Header) discovery.EngineInfo {
	product, _, _ := strings.Cut(h.Get("Server"), " ")
	name, version, _ := strings.Cut(product, "/")
	if strings.EqualFold(name, "libpod") {
		name = "podman"
	}
	return discovery.EngineInfo{Name: strings.ToLower(name), Version: version, APIVersion: h.Get("Api-Version")}
}

// use makes a client of the given version, unless the present one is.
func (d *Engine) use(version string) error {
	old := d.session.Load()
	if old != nil && old.version == version {
		return nil
	}
	c, err := client.NewClientWithOpts(
		client.WithHTTPClient(&http.Client{Transport: d.socket.transport(), CheckRedirect: client.CheckRedirect}),
		client.WithHost("unix://"+d.socket.path),
		client.WithDialContext(d.socket.dial),
		client.WithVersion(version),
	)
	if err != nil {
		return fmt.Errorf("make docker client: %w", err)
	}
	d.session.Store(&negotiated{c, version})
	if old != nil {
		_ = old.client.Close()
	}
	return nil
}

// current returns the client that was negotiated, or negotiates one.
func (d *Engine) current(ctx context.Context) (*client.Client, error) {
	if s := d.session.Load(); s != nil {
		return s.client, nil
	}
	if _, err := d.Ping(ctx); err != nil {
		return nil, err
	}
	return d.session.Load().client, nil
}

// watched are the actions that Docker is asked for. What is not among them, above all the three exec_* events of each
// health check, is never sent. Podman says died and remove where Docker says die and destroy.
var watched = []events.Action{
	events.ActionStart, events.ActionDie, "died", events.ActionStop, events.ActionKill, events.ActionPause, events.ActionUnPause,
	events.ActionRename, events.ActionDestroy, events.ActionRemove, events.ActionHealthStatus, events.ActionConnect, events.ActionDisconnect,
}

// watchedFilters asks for what is watched, of containers and networks.
func watchedFilters() filters.Args {
	args := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("type", string(events.NetworkEventType)))
	for _, action := range watched {
		args.Add("event", string(action))
	}
	return args
}

// Events implements Engine.
func (d *Engine) Events(ctx context.Context, since time.Time) (<-chan discovery.Event, <-chan error) {
	out, failed := make(chan discovery.Event), make(chan error, 1)
	c, err := d.current(ctx)
	if err != nil {
		failed <- err
		close(failed)
		return out, failed
	}
	messages, errs := c.Events(ctx, events.ListOptions{Since: timestamp(since), Filters: watchedFilters()})
	go func() {
		defer close(failed)
		for {
			select {
			case m := <-messages:
				select {
				case out <- event(&m):
				case <-ctx.Done():
					failed <- ctx.Err()
					return
				}
			case err := <-errs:
				failed <- plain(err)
				return
			}
		}
	}()
	return out, failed
}

// Past implements Historian.
func (d *Engine) Past(ctx context.Context, since time.Time) ([]discovery.Event, error) {
	c, err := d.current(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the client's goroutine ends with it
	now := time.Now()
	if now.Before(since) {
		return nil, nil
	}
	messages, errs := c.Events(ctx, events.ListOptions{Since: timestamp(since), Until: timestamp(now), Filters: watchedFilters()})
	var past []discovery.Event
	for {
		select {
		case m := <-messages:
			past = append(past, event(&m))
		case err := <-errs: // it comes after the last message has been taken
			if !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read past events: %w", plain(err))
			}
			return past, nil
		}
	}
}

// timestamp is a time as Docker's event API has it.
func timestamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

func event(m *events.Message) discovery.Event {
	e := discovery.Event{
		Action: string(m.Action), Container: m.Actor.ID, Name: m.Actor.Attributes["name"],
		Signal: m.Actor.Attributes["signal"], ExitCode: m.Actor.Attributes["exitCode"],
	}
	switch {
	case m.TimeNano != 0:
		e.Time = time.Unix(0, m.TimeNano)
	case m.Time != 0:
		e.Time = time.Unix(m.Time, 0)
	}
	switch e.Action {
	case "died":
		e.Action = discovery.ActionDie
	case string(events.ActionRemove):
		e.Action = discovery.ActionDestroy
	}
	if m.Type == events.NetworkEventType {
		e.Container, e.Network, e.Name = m.Actor.Attributes["container"], m.Actor.ID, ""
	}
	return e
}

// List implements Engine.
func (d *Engine) List(ctx context.Context) ([]discovery.Listed, error) {
	c, err := d.current(ctx)
	if err != nil {
		return nil, err
	}
	all, err := c.ContainerList(ctx, dockertypes.ListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", plain(err))
	}
	lines := make([]discovery.Listed, 0, len(all))
	for i := range all {
		ports := make([]uint16, 0, len(all[i].Ports))
		for _, p := range all[i].Ports {
			if p.PublicPort != 0 {
				ports = append(ports, p.PublicPort)
			}
		}
		slices.Sort(ports)
		lines = append(lines, discovery.Listed{ID: all[i].ID, State: all[i].State, HostPorts: slices.Compact(ports)})
	}
	return lines, nil
}

// Inspect implements Engine.
func (d *Engine) Inspect(ctx context.Context, id string) (discovery.Facts, error) {
	c, err := d.current(ctx)
	if err != nil {
		return discovery.Facts{}, err
	}
	r, err := c.ContainerInspect(ctx, id)
	switch {
	case errdefs.IsNotFound(err):
		return discovery.Facts{}, fmt.Errorf("inspect container %s: %w: %w", target.Run{ID: id}.Short(), discovery.ErrNotFound, err)
	case err != nil && strings.Contains(strings.ToLower(err.Error()), "multiple ids found"):
		// Engine 20.10 gives it status 500, newer ones 400: the text is all there is.
		return discovery.Facts{}, fmt.Errorf("inspect container %s: %w: %w", target.Run{ID: id}.Short(), discovery.ErrAmbiguous, err)
	case err != nil:
		return discovery.Facts{}, fmt.Errorf("inspect container %s: %w", target.Run{ID: id}.Short(), plain(err))
	case r.ContainerJSONBase == nil || r.State == nil || r.Config == nil || r.ID == "":
		return discovery.Facts{}, fmt.Errorf("inspect container %s: the answer is incomplete", target.Run{ID: id}.Short())
	}
	return facts(&r), nil
}

func facts(r *dockertypes.InspectResponse) discovery.Facts {
	f := discovery.Facts{
		ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Image: r.Config.Image, Labels: r.Config.Labels,
		State: r.State.Status, StartedAt: clock(r.State.StartedAt), FinishedAt: clock(r.State.FinishedAt), Restarts: r.RestartCount,
		StopSignal: r.Config.StopSignal, StopTimeout: 10 * time.Second, Health: health(r),
		Asked: make(map[target.PortProto][]uint16),
	}
	if r.Config.StopTimeout != nil {
		f.StopTimeout = time.Duration(*r.Config.StopTimeout) * time.Second
	}
	exposed := make(map[target.PortProto]struct{})
	for p := range r.Config.ExposedPorts {
		if port, ok := portProto(p); ok {
			exposed[port] = struct{}{}
		}
	}
	if r.HostConfig != nil {
		f.NetworkMode = string(r.HostConfig.NetworkMode)
		for p, bindings := range r.HostConfig.PortBindings {
			port, ok := portProto(p)
			for _, b := range bindings {
				// A range, or nothing, leaves the choice to Docker.
				if n, err := target.ParsePort(b.HostPort); ok && err == nil {
					f.Asked[port] = append(f.Asked[port], n)
				}
			}
		}
	}
	if r.NetworkSettings != nil {
		f.Networks = len(r.NetworkSettings.Networks)
		f.Published = published(r.NetworkSettings.Ports, exposed)
	}
	for port := range exposed {
		f.Exposed = append(f.Exposed, port)
	}
	slices.SortFunc(f.Exposed, target.PortProto.Compare)
	return f
}

// published reads what Docker has bound, in order, and adds the container's ports to exposed.
func published(ports nat.PortMap, exposed map[target.PortProto]struct{}) []discovery.Published {
	var out []discovery.Published
	for p, bindings := range ports {
		port, ok := portProto(p)
		if !ok {
			continue
		}
		exposed[port] = struct{}{}
		for _, b := range bindings {
			ip, _ := netip.ParseAddr(b.HostIP)
			host, _ := target.ParsePort(b.HostPort) // empty in routed gateway mode: 0
			out = append(out, discovery.Published{PortProto: port, HostIP: ip, HostPort: host})
		}
	}
	slices.SortFunc(out, discovery.Published.Compare)
	return out
}

func portProto(p nat.Port) (target.PortProto, bool) {
	port, err := target.ParsePortProto(string(p))
	return port, err == nil
}

// clock reads a time as Docker writes it; what never happened is zero.
func clock(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1970 {
		return time.Time{}
	}
	return t.UTC()
}

// health reads the state of a HEALTHCHECK without its phantoms. Whenever the monitor of a container is stopped, as by
// a pause, Docker writes "unhealthy" without a failed probe and without an event, and it stays there until the next
// probe. A real one has as many failures in a row as the check's retries. The log of probes outlives a restart of the
// container, and the count of failures does not: what an earlier run's last probe said is nothing of this run's.
// Source: CloseMonitorChannel in moby's container/health.go, handleProbeResult in daemon/health.go.
func health(r *dockertypes.InspectResponse) discovery.Health {
	h := r.State.Health
	if h == nil {
		return discovery.HealthNone
	}
	switch h.Status {
	case dockertypes.Healthy:
		return discovery.HealthHealthy
	case dockertypes.Starting:
		return discovery.HealthStarting
	case dockertypes.Unhealthy:
	default: // "none", or nothing at all
		return discovery.HealthNone
	}
	retries := 3 // Docker's default
	if r.Config.Healthcheck != nil && r.Config.Healthcheck.Retries > 0 {
		retries = r.Config.Healthcheck.Retries
	}
	switch {
	case h.FailingStreak >= retries:
		return discovery.HealthUnhealthy
	case h.FailingStreak == 0 && passed(h.Log, clock(r.State.StartedAt)):
		return discovery.HealthHealthy
	}
	return discovery.HealthStarting
}

// passed reports whether the last probe of a run passed.
func passed(log []*dockertypes.HealthcheckResult, started time.Time) bool {
	if len(log) == 0 {
		return false
	}
	last := log[len(log)-1]
	return last != nil && last.ExitCode == 0 && !last.Start.Before(started)
}
