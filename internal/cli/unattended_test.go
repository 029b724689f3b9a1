package cli

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/pkg/client"
	"berth/pkg/discovery/enginetest"
	"berth/test/agenttest"
)

// unread is an output that nobody reads: what is written to it waits until the test ends.
func unread(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	filler := make([]byte, 4096)
	if err := w.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until it is full
		_, err = w.Write(filler)
	}
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// What units run does its work and ends, though nobody reads what it prints.
func TestUnits_outputIsNotRead(t *testing.T) {
	for name, args := range map[string][]string{
		"boot":           {"boot"},
		"shutdown-drain": {"shutdown-drain"},
		"run":            {"run", "--listen", "127.0.0.1:0", "--status-listen", "off"},
	} {
		t.Run(name, func(t *testing.T) {
			sim := agenttest.Account(t, "web")
			dir := agenttest.ShortDir(t)
			registeredBy(t, dir, sim, agenttest.Instance, "before", "web", 32768)
			for key, value := range map[string]string{
				"BERTH_STATE_DIR": dir, "BERTH_TARGET_GROUP": "web", "BERTH_CONTROL_SOCKET": filepath.Join(dir, "b.sock"),
				"BERTH_STATUS_LISTEN": "127.0.0.1:1", "BERTH_LOG_LEVEL": "debug", "BERTH_DRAIN_SHUTDOWN_MAX_WAIT": "2s",
			} {
				t.Setenv(key, value)
			}
			t.Setenv("PATH", dir) // no systemctl: the state of the system is not known
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			env := &environment{stdin: strings.NewReader(""), stdout: unread(t), stderr: unread(t), getenv: os.Getenv, engine: enginetest.New()}
			ended := make(chan int, 1)
			go func() { ended <- execute(ctx, args, env) }()
			agenttest.Eventually(t, "the target gone", func() bool { return len(sim.Registered("web")) == 0 })
			if name == "run" {
				cancel()
			}
			if code := <-ended; code != 0 {
				t.Errorf("berth %s = %d; want 0", name, code)
			}
		})
	}
}

// In systemd's journal everything that a unit's command prints has its level: `journalctl -p err` shows what went wrong, and
// nothing else.
func TestUnits_journal(t *testing.T) {
	agenttest.Account(t, "web")
	for name, c := range map[string]struct {
		args []string
		want map[string]string // priority and message
	}{
		"a wrong configuration": {[]string{"run", "--target-group", "web", "--state-dir", "relative"}, map[string]string{"<3>": "must be an absolute path"}},
		"a wrong flag":          {[]string{"run", "--nonsense"}, map[string]string{"<3>": "see: berth run --help"}},
		"nothing to do":         {[]string{"boot", "--target-group", "web"}, map[string]string{"<6>": "nothing is registered"}},
		"without configuration": {[]string{"boot"}, map[string]string{"<4>": "no target group is configured", "<6>": "nothing is registered"}},
		"a shutdown that fails": {[]string{"shutdown-drain"}, map[string]string{"<4>": "working from the ledger", "<6>": "deregistered 0 targets"}},
		"an agent that cannot start": {
			[]string{"run", "--target-group", "web", "--control-socket", "/dev/null"}, map[string]string{"<3>": "a file that is no socket is in its place"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := agenttest.ShortDir(t)
			journal, err := os.Create(filepath.Join(dir, "journal"))
			if err != nil {
				t.Fatal(err)
			}
			defer journal.Close()
			info, err := journal.Stat()
			if err != nil {
				t.Fatal(err)
			}
			stat := info.Sys().(*syscall.Stat_t)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self, c.args...)
			cmd.Stdout, cmd.Stderr = journal, journal
			cmd.Env = append(os.Environ(), asBerth+"=1", fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino), "PATH="+dir,
				"BERTH_CONFIG=", "BERTH_STATE_DIR="+dir, "BERTH_CONTROL_SOCKET="+filepath.Join(dir, "b.sock"), "BERTH_STATUS_LISTEN=127.0.0.1:1")
			_ = cmd.Run() // its exit code is others' matter
			out, err := os.ReadFile(journal.Name())
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for line := range strings.Lines(string(out)) {
				if len(line) < 4 || line[0] != '<' || line[2] != '>' {
					t.Errorf("without a level: %q", line)
					continue
				}
				got[line[:3]] += line[3:]
			}
			for level, message := range c.want {
				if !strings.Contains(got[level], message) {
					t.Errorf("%s %s is missing in\n%s", level, message, out)
				}
			}
			if c.want["<3>"] == "" && got["<3>"] != "" {
				t.Errorf("errors though there is none:\n%s", out)
			}
		})
	}
}

// An agent whose standard error is closed by its reader lives on.
func TestRun_logReaderGone(t *testing.T) {
	agenttest.Account(t, "web")
	dir := agenttest.ShortDir(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "run", "--target-group", "web", "--state-dir", dir, "--log-level", "debug",
		"--docker-socket", filepath.Join(dir, "d.sock"), "--control-socket", filepath.Join(dir, "b.sock"), "--listen", "off", "--status-listen", "off")
	cmd.Env = append(os.Environ(), asBerth+"=1")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	_ = r.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	api := client.New(filepath.Join(dir, "b.sock"), "")
	defer api.Close()
	agenttest.Eventually(t, "an answer", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ended with %v", err)
		default:
		}
		_, err := api.Status(t.Context(), client.StatusQuery{}) // it has logged that it listens
		return err == nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v before", err)
	}
}

// echo is a standard error of which each line has the standard library say something.
type echo struct {
	mu  sync.Mutex // guards got
	got strings.Builder
}

const echoed = "net/http: it said so"

func (e *echo) Write(p []byte) (int, error) {
	e.mu.Lock()
	n, err := e.got.Write(p)
	e.mu.Unlock()
	if !strings.Contains(string(p), echoed) {
		log.Print(echoed)
	}
	return n, err
}

// said reports whether the log has that, as one of its lines.
func (e *echo) said() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for line := range strings.Lines(e.got.String()) {
		if strings.HasPrefix(line, `{"level":"warn"`) && strings.Contains(line, echoed) {
			return true
		}
	}
	return false
}

// What the standard library logs of itself is in the log, as one of its lines, and waits for nobody either.
func TestUnits_standardLogger(t *testing.T) {
	for name, args := range map[string][]string{
		"boot":           {"boot"},
		"shutdown-drain": {"shutdown-drain"},
		"run":            {"run", "--listen", "127.0.0.1:0", "--status-listen", "off"},
	} {
		t.Run(name, func(t *testing.T) {
			sim := agenttest.Account(t, "web")
			dir := agenttest.ShortDir(t)
			registeredBy(t, dir, sim, agenttest.Instance, "before", "web", 32768)
			for key, value := range map[string]string{
				"BERTH_STATE_DIR": dir, "BERTH_TARGET_GROUP": "web", "BERTH_CONTROL_SOCKET": filepath.Join(dir, "b.sock"),
				"BERTH_STATUS_LISTEN": "127.0.0.1:1", "BERTH_LOG_FORMAT": "json", "BERTH_LOG_LEVEL": "debug", "BERTH_DRAIN_SHUTDOWN_MAX_WAIT": "2s",
			} {
				t.Setenv(key, value)
			}
			t.Setenv("PATH", dir) // no systemctl: the state of the system is not known
			log.SetOutput(io.Discard)
			defer log.SetOutput(os.Stderr)
			stderr := &echo{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			env := &environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr, getenv: os.Getenv, engine: enginetest.New()}
			ended := make(chan int, 1)
			go func() { ended <- execute(ctx, args, env) }()
			agenttest.Eventually(t, "the target gone", func() bool { return len(sim.Registered("web")) == 0 })
			if name == "run" {
				agenttest.Eventually(t, "the standard library's line in the log", stderr.said)
				cancel()
			}
			<-ended
			if !stderr.said() {
				t.Errorf("berth %s: what the standard library logs is not in its log", name)
			}
		})
	}
}
