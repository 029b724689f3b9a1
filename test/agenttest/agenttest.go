// Package agenttest starts an agent in the test's own process, on a scripted engine and the account that elbsim plays.
// test/rig starts one as a process of its own, on a real engine.
//
//	agenttest.go  the host: its directory and configuration
//	account.go    AWS: elbsim on loopback, or behind an http.RoundTripper
//	network.go    listeners in memory
//	start.go      an agent between them, until it is stopped
//
// With sockets, as operators run it: Account, then Start with the options of Host. Without any, which works inside synctest
// bubbles: Run or RunCore with the options of Memory or Disconnected.
package agenttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/pkg/config"
)

// Instance is the id of the host.
const Instance = "i-0123456789abcdef0"

// ShortDir is a directory for sockets, whose path may have 107 bytes at most.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's directory: %v", err)
		}
	})
	return dir
}

// YAML is a configuration of groups without further settings, with all that an agent writes below dir. more is appended.
func YAML(dir string, groups []string, more string) string {
	var b strings.Builder
	b.WriteString(Groups(groups, nil))
	fmt.Fprintf(&b, `listen: 127.0.0.1:0
status_listen: 127.0.0.1:0
control_socket: %[1]s/c.sock
state_dir: %[1]s/state
`, dir)
	b.WriteString(more)
	return b.String()
}

// Groups is the part of a configuration that names groups. rules are YAML to stand below a group.
func Groups(names []string, rules map[string]string) string {
	var b strings.Builder
	b.WriteString("target_groups:\n")
	for _, name := range names {
		if rules[name] == "" {
			fmt.Fprintf(&b, "  %s: {}\n", name)
			continue
		}
		fmt.Fprintf(&b, "  %s:\n", name)
		for line := range strings.Lines(strings.TrimSpace(rules[name]) + "\n") {
			b.WriteString("    " + line)
		}
	}
	return b.String()
}

// ConfigFile is where WriteConfig puts the configuration of a host.
func ConfigFile(dir string) string { return filepath.Join(dir, "berth.yaml") }

// WriteConfig writes a configuration and returns how it is read, now and with each reload. The environment has no say.
func WriteConfig(t testing.TB, dir, yaml string) (read func() (*config.Config, error)) {
	t.Helper()
	if err := os.WriteFile(ConfigFile(dir), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return Reader(ConfigFile(dir), func(string) string { return "" })
}

// Reader reads a configuration file, with the variables that getenv returns before it.
func Reader(path string, getenv func(string) string) func() (*config.Config, error) {
	return func() (*config.Config, error) { return config.Load(config.Options{ConfigPath: path, Getenv: getenv}) }
}

// Await waits until something holds, and returns an error that names it if that takes more than a minute.
func Await(what string, holds func() bool) error {
	tick, late := time.NewTicker(5*time.Millisecond), time.NewTimer(time.Minute)
	defer tick.Stop()
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			return fmt.Errorf("not within a minute: %s", what)
		}
	}
	return nil
}

// Eventually waits until something holds, and fails the test if that takes more than a minute.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if err := Await(what, holds); err != nil {
		t.Fatal(err)
	}
}
