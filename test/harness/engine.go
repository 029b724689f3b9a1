package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/client"
)

// DockerSocket is where the host's own engine listens.
const DockerSocket = "/var/run/docker.sock"

// Engine is a Docker engine to run containers on.
type Engine struct {
	// Client is the engine's API, at the version that both speak.
	Client *client.Client
	// Socket is the path of its unix socket.
	Socket string

	// bridges is how the network interfaces of a private engine begin. Such an engine ends with the test, and
	// everything on it too. Empty: the host's own engine.
	bridges string
}

// Host returns the engine's address as DOCKER_HOST has it.
func (e *Engine) Host() string { return "unix://" + e.Socket }

// RequireDocker returns the host's own engine. Other tests, and other people, use it too: a test may touch only what
// it made, and may not stop it (StartEngine gives one that may be stopped). Where there is none, or with -short, the
// test is skipped; with CI set, a missing engine fails it.
func RequireDocker(t testing.TB) *Engine {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker engine: not with -short")
	}
	if _, err := os.Stat(DockerSocket); errors.Is(err, fs.ErrNotExist) {
		unavailable(t, "needs a Docker engine: %v (scripts/engine.sh start)", err)
	}
	engine, err := Connect(t.Context(), DockerSocket)
	if err != nil {
		unavailable(t, "needs a Docker engine: %v (scripts/engine.sh start)", err)
	}
	t.Cleanup(engine.Close)
	sweepHost(engine)
	return engine
}

// Connect returns the engine that listens on a unix socket. The caller closes it.
func Connect(ctx context.Context, socket string) (*Engine, error) {
	api, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("make a Docker client for %s: %w", socket, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := api.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("ask Docker on %s: %w", socket, err), api.Close())
	}
	return &Engine{Client: api, Socket: socket}, nil
}

// Close ends the connections of the client. The engine and its containers stay.
func (e *Engine) Close() { _ = e.Client.Close() }

// sweepHost removes, once in a process, what killed test processes left on the host's engine and beside it.
var sweepHost = func() func(*Engine) {
	var once sync.Once
	return func(e *Engine) {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = e.Sweep(ctx) // the next process tries again; tests do not depend on it
			sweepEngines()
		})
	}
}()
