package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"
)

// Spec says which container to make. The zero value is a web server whose declared ports are all published, as
// `docker run -P` does.
type Spec struct {
	// Name is the beginning of the container's name; a random suffix follows. Empty: "web".
	Name string
	// Image is the image's tag; empty: the web server's plain image.
	Image string
	// Args are the program's arguments (see test/web): "--drain=5s".
	Args []string
	// Env are variables: "WEB_NAME=shop-1". WEB_NAME is the container's name where it is not given.
	Env []string
	// Labels are the container's, besides the harness's own.
	Labels map[string]string
	// Publish are ports as `docker run -p` has them ("127.0.0.1::8080", "9090:8080/tcp"). Nil: all declared ports (-P).
	// An empty list publishes none.
	Publish []string
	// Network is the network's name, "host", "none" or "container:ID"; empty: the default bridge.
	Network string
	// Restart is the restart policy ("always"); empty: none.
	Restart string
	// StopSignal and StopTimeout are as in `docker run`; zero: the image's and Docker's own.
	StopSignal  string
	StopTimeout time.Duration
	// Modify changes what is sent to the engine, for all that has no field of its own.
	Modify func(*container.Config, *container.HostConfig)
}

// Container is one container that the test made.
type Container struct {
	ID   string
	Name string // without the slash

	engine *Engine
}

// Create makes a container without starting it. It is removed when the test ends.
func (e *Engine) Create(t testing.TB, spec Spec) *Container {
	t.Helper()
	c, err := e.create(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Run makes and starts a container. It is removed when the test ends.
func (e *Engine) Run(t testing.TB, spec Spec) *Container {
	t.Helper()
	return e.RunAll(t, spec)[0]
}

// RunAll makes containers one after the other and then starts all of them at once. They are removed when the test
// ends.
func (e *Engine) RunAll(t testing.TB, specs ...Spec) []*Container {
	t.Helper()
	made := make([]*Container, len(specs))
	for i, spec := range specs {
		made[i] = e.Create(t, spec)
	}
	if e.bridges == "" && len(made) > 1 {
		t.Cleanup(func() { // before that of each alone, and quicker
			var wg sync.WaitGroup
			for _, c := range made {
				wg.Go(func() { _ = c.remove(context.Background()) })
			}
			wg.Wait()
		})
	}
	EachOf(t, made, func(ctx context.Context, c *Container) error {
		return e.start(ctx, c.ID)
	})
	return made
}

// start starts a container. Two engines on one machine do not know of each other's ports: where one has allotted what the
// other holds, the next attempt gets another port.
func (e *Engine) start(ctx context.Context, id string) error {
	for attempt := 1; ; attempt++ {
		err := e.Client.ContainerStart(ctx, id, container.StartOptions{})
		if err == nil || attempt == 10 || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
}

// CreateNetwork makes a bridge network and returns its name. It is removed when the test ends: make it before the
// containers that use it.
func (e *Engine) CreateNetwork(t testing.TB) string {
	t.Helper()
	name := Unique("berth-test")
	options := network.CreateOptions{Labels: map[string]string{LabelOwner: Owner(), LabelTest: t.Name()}}
	if e.bridges != "" {
		options.Options = map[string]string{"com.docker.network.bridge.name": e.bridges + Suffix()}
	}
	created, err := e.Client.NetworkCreate(t.Context(), name, options)
	if err != nil {
		t.Fatalf("create network %s: %v", name, err)
	}
	if e.bridges == "" {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), Patience)
			defer cancel()
			if err := e.Client.NetworkRemove(ctx, created.ID); err != nil && !errdefs.IsNotFound(err) {
				t.Errorf("remove network %s: %v", name, err)
			}
		})
	}
	return name
}

// EachOf calls f for all containers at once and waits for all of them. It fails the test with every error.
func EachOf(t testing.TB, containers []*Container, f func(context.Context, *Container) error) {
	t.Helper()
	errs := make([]error, len(containers))
	var wg sync.WaitGroup
	for i, c := range containers {
		wg.Go(func() {
			if err := f(t.Context(), c); err != nil {
				errs[i] = fmt.Errorf("container %s: %w", c.Name, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func (e *Engine) create(t testing.TB, spec Spec) (*Container, error) {
	if spec.Image == "" {
		spec.Image = e.WebImage(t, Image{})
	}
	name := Unique("web")
	if spec.Name != "" {
		name = Unique(spec.Name)
	}
	config, host, err := spec.config(name, t.Name())
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", name, err)
	}
	created, err := e.Client.ContainerCreate(t.Context(), config, host, nil, nil, name)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", name, err)
	}
	c := &Container{ID: created.ID, Name: name, engine: e}
	if e.bridges != "" {
		return c, nil
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := c.remove(ctx); err != nil {
			t.Errorf("remove container %s: %v", c.Name, err)
		}
	})
	return c, nil
}

func (s Spec) config(name, test string) (*container.Config, *container.HostConfig, error) {
	labels := map[string]string{LabelOwner: Owner(), LabelTest: test}
	maps.Copy(labels, s.Labels)
	config := &container.Config{
		Image:      s.Image,
		Cmd:        s.Args,
		Env:        append([]string{"WEB_NAME=" + name}, s.Env...),
		Labels:     labels,
		StopSignal: s.StopSignal,
	}
	if s.StopTimeout > 0 {
		seconds := int(s.StopTimeout.Seconds())
		config.StopTimeout = &seconds
	}
	host := &container.HostConfig{
		PublishAllPorts: s.Publish == nil,
		NetworkMode:     container.NetworkMode(s.Network),
		RestartPolicy:   container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart)},
	}
	if len(s.Publish) > 0 {
		exposed, bindings, err := nat.ParsePortSpecs(s.Publish)
		if err != nil {
			return nil, nil, fmt.Errorf("publish %q: %w", s.Publish, err)
		}
		config.ExposedPorts, host.PortBindings = exposed, bindings
	}
	if s.Modify != nil {
		s.Modify(config, host)
	}
	return config, host, nil
}

// remove takes the container away, running or not. One that is gone already is no error.
func (c *Container) remove(ctx context.Context) error {
	err := c.engine.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil && strings.Contains(err.Error(), "is already in progress") { // Docker has no other word for it
		return nil
	}
	return err
}

// check fails the test if an operation on the container failed.
func (c *Container) check(t testing.TB, operation string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s container %s: %v", operation, c.Name, err)
	}
}

// Start starts it.
func (c *Container) Start(t testing.TB) {
	t.Helper()
	c.check(t, "start", c.engine.start(t.Context(), c.ID))
}

// Stop is `docker stop`: it returns when the container is dead.
func (c *Container) Stop(t testing.TB) {
	t.Helper()
	c.check(t, "stop", c.engine.Client.ContainerStop(t.Context(), c.ID, container.StopOptions{}))
}

// BeginStop is `docker stop` in the background, with a timeout before SIGKILL. The function it returns waits for its
// end; if it is never called, the test's end does not wait either.
func (c *Container) BeginStop(t testing.TB, timeout time.Duration) (wait func()) {
	t.Helper()
	ctx := t.Context()
	seconds := int(timeout.Seconds())
	done := make(chan error, 1)
	go func() { done <- c.engine.Client.ContainerStop(ctx, c.ID, container.StopOptions{Timeout: &seconds}) }()
	return func() {
		t.Helper()
		c.check(t, "stop", <-done)
	}
}

// Restart is `docker restart`.
func (c *Container) Restart(t testing.TB) {
	t.Helper()
	c.check(t, "restart", c.engine.Client.ContainerRestart(t.Context(), c.ID, container.StopOptions{}))
}

// Signal is `docker kill -s`: it sends a signal ("SIGTERM", "HUP", "9") and does not wait.
func (c *Container) Signal(t testing.TB, signal string) {
	t.Helper()
	c.check(t, "send "+signal+" to", c.engine.Client.ContainerKill(t.Context(), c.ID, signal))
}

// Pause freezes it.
func (c *Container) Pause(t testing.TB) {
	t.Helper()
	c.check(t, "pause", c.engine.Client.ContainerPause(t.Context(), c.ID))
}

// Unpause lets it go on.
func (c *Container) Unpause(t testing.TB) {
	t.Helper()
	c.check(t, "unpause", c.engine.Client.ContainerUnpause(t.Context(), c.ID))
}

// Rename gives it another name.
func (c *Container) Rename(t testing.TB, name string) {
	t.Helper()
	c.check(t, "rename", c.engine.Client.ContainerRename(t.Context(), c.ID, name))
	c.Name = name
}

// Remove is `docker rm -f`.
func (c *Container) Remove(t testing.TB) {
	t.Helper()
	c.check(t, "remove", c.remove(t.Context()))
}

// Inspect returns what the engine says about it.
func (c *Container) Inspect(t testing.TB) container.InspectResponse {
	t.Helper()
	answer, err := c.engine.Client.ContainerInspect(t.Context(), c.ID)
	c.check(t, "inspect", err)
	return answer
}

// Port returns the host port that its port ("8080/tcp") is published on now, on IPv4.
func (c *Container) Port(t testing.TB, port string) uint16 {
	t.Helper()
	number, err := c.port(t.Context(), port)
	c.check(t, "inspect", err)
	return number
}

func (c *Container) port(ctx context.Context, port string) (uint16, error) {
	answer, err := c.engine.Client.ContainerInspect(ctx, c.ID)
	if err != nil {
		return 0, err
	}
	for _, binding := range answer.NetworkSettings.Ports[nat.Port(port)] {
		if strings.Contains(binding.HostIP, ":") {
			continue
		}
		number, err := strconv.ParseUint(binding.HostPort, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("host port of %s: %w", port, err)
		}
		return uint16(number), nil
	}
	return 0, fmt.Errorf("port %s is not published: %v", port, answer.NetworkSettings.Ports)
}

// Identity is how a web server answers (see test/web).
type Identity struct {
	Service string `json:"service"`
	Name    string `json:"name"`
	Host    string `json:"host"` // the container's short id
	Run     string `json:"run"`  // another one with every start
}

// Ask waits until the web server answers on its published port and returns what it says.
func (c *Container) Ask(t testing.TB) Identity {
	t.Helper()
	var identity Identity
	Eventually(t, Patience, "an answer of container "+c.Name, func() error {
		port, err := c.port(t.Context(), "8080/tcp")
		if err != nil {
			return err
		}
		identity, err = AskAt(t.Context(), fmt.Sprintf("http://127.0.0.1:%d/", port))
		return err
	})
	return identity
}

// PutHealth makes the web server answer /healthz ("healthz", what a load balancer asks) or /livez ("livez", what
// Docker's HEALTHCHECK asks) with that status from now on.
func (c *Container) PutHealth(t testing.TB, path string, status int) {
	t.Helper()
	c.Ask(t) // it listens
	url := fmt.Sprintf("http://127.0.0.1:%d/%s", c.Port(t, "8080/tcp"), path)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(strconv.Itoa(status)))
	c.check(t, "set the health of", err)
	request.Close = true
	response, err := httpClient.Do(request)
	c.check(t, "set the health of", err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		t.Fatalf("set the health of container %s: %s", c.Name, response.Status)
	}
}

var httpClient = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// AskAt asks a web server, directly or through a load balancer, who it is, on a connection of its own.
func AskAt(ctx context.Context, url string) (Identity, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Identity{}, fmt.Errorf("ask %s: %w", url, err)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return Identity{}, err // it names method and URL already
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return Identity{}, fmt.Errorf("ask %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return Identity{}, fmt.Errorf("ask %s: %s: %.200s", url, response.Status, body)
	}
	var identity Identity
	if err := json.Unmarshal(body, &identity); err != nil {
		return Identity{}, fmt.Errorf("ask %s: %w", url, err)
	}
	return identity, nil
}
