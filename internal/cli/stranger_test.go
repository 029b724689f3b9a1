package cli

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// No agent runs, and some process without any rights answers on its status port. A command that may use the control socket
// believes the socket alone: it is missing, or nobody answers on it, so there is no agent.
func TestWait_strangerOnTheStatusPort(t *testing.T) {
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		run := target.Run{ID: strings.Repeat("a", 64), Name: "web-2", StartedAt: time.Now()}
		_ = json.NewEncoder(w).Encode(status.V1{
			API: "v1", At: time.Now(), Seq: 1, Connected: true,
			Rows: []status.Row{{Run: run, Group: "web", State: status.Healthy}},
		})
	}))
	defer stranger.Close()
	dir := agenttest.ShortDir(t)
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, socket := range map[string]string{"no socket": filepath.Join(dir, "none.sock"), "a dead socket": dead} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := berth(t, "wait", "web-2", "--for", "healthy", "--control-socket", socket, "--status-listen", stranger.Listener.Addr().String())
			if code != exitNoAgent || strings.Contains(stdout, "healthy") {
				t.Errorf("berth wait = %d, %q, %s; want %d: there is no agent", code, stdout, stderr, exitNoAgent)
			}
		})
	}
}
