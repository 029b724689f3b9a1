package cli

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/pkg/discovery/enginetest"
	"berth/pkg/host"
	"berth/test/agenttest"
)

// Any process may have taken a port. The agent works without: only the control socket, which nobody else can hold, may keep
// it from starting. Here a container has gone while no agent ran, and its target has to go.
func TestRun_portThatIsTaken(t *testing.T) {
	for _, flag := range []string{"--listen", "--status-listen"} {
		t.Run(flag, func(t *testing.T) {
			sim := agenttest.Account(t, "web")
			dir := agenttest.ShortDir(t)
			registeredBy(t, dir, sim, agenttest.Instance, host.BootID(), "web", 32768)
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			addr := map[string]string{"--listen": "127.0.0.1:0", "--status-listen": "127.0.0.1:0"}
			addr[flag] = taken.Addr().String()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out, errs strings.Builder
			env := &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: os.Getenv, engine: enginetest.New()}
			ended := make(chan int, 1)
			go func() {
				ended <- execute(ctx, []string{
					"run", "--target-group", "web", "--state-dir", dir, "--control-socket", filepath.Join(dir, "b.sock"),
					"--listen", addr["--listen"], "--status-listen", addr["--status-listen"],
				}, env)
			}()
			for len(sim.Registered("web")) > 0 {
				select {
				case code := <-ended:
					t.Fatalf("berth run = %d with %v still registered; want it to go on:\n%s", code, sim.Registered("web"), errs.String())
				case <-time.After(10 * time.Millisecond):
				}
			}
			cancel()
			if code := <-ended; code != 0 {
				t.Errorf("berth run = %d; want 0:\n%s", code, errs.String())
			}
		})
	}
}
