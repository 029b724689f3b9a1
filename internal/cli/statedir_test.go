package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/internal/statedir"
	"berth/test/agenttest"
)

// Whoever starts the agent with a state directory that is not theirs is told what to change, by every command that uses it.
func TestStateDirectory_wrongOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a command as somebody else")
	}
	agenttest.Account(t, "web")
	dir := agenttest.ShortDir(t)
	program := strangersProgram(t, dir)
	for name, tt := range map[string]struct {
		prepare func(state string) error
		run     string // what `berth run` says
		read    string // what `berth ledger` says; empty: it can be read
	}{
		"another user's": {
			func(state string) error {
				return errors.Join(os.Mkdir(state, 0o750), os.WriteFile(filepath.Join(state, "ledger.json"), nil, 0o600))
			},
			"it belongs to user root and this runs as nobody: run it as root, or give it away (chown -R nobody ",
			"it belongs to user root and this runs as nobody: run it as root",
		},
		"another user's file": {
			func(state string) error {
				return errors.Join(os.Mkdir(state, 0o750), os.WriteFile(filepath.Join(state, "lock"), nil, 0o600), os.Chown(state, 65534, 65534))
			},
			"all in it must be files that user nobody owns and may write: chown -R nobody ", "",
		},
		"not to be made": {
			func(string) error { return nil }, "user nobody may not make the directory: make it (install -d -o nobody ", "",
		},
		"a file": {
			func(state string) error { return os.WriteFile(state, nil, 0o644) },
			"not a directory; name a directory: --state-dir", "not a directory; name a directory: --state-dir",
		},
	} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := tt.prepare(state); err != nil {
				t.Fatal(err)
			}
			for command, says := range map[string]string{
				"run --target-group web": tt.run, "ledger": tt.read,
			} {
				code, said := runAsNobody(t, program, []string{"BERTH_STATE_DIR=" + state, "BERTH_LISTEN=127.0.0.1:0"}, strings.Fields(command)...)
				if says == "" {
					if code != 0 {
						t.Errorf("berth %s: %d %s; want it to work", command, code, said)
					}
					continue
				}
				if code != exitFailure || !strings.Contains(said, says) {
					t.Errorf("berth %s: %d %s; want %d and %q", command, code, said, exitFailure, says)
				}
			}
		})
	}
	if err := statedir.Advise(dir, errors.New("something else")); err.Error() != "something else" {
		t.Errorf("got %v; want what is no matter of owners as it was", err)
	}
	if statedir.Advise(dir, nil) != nil {
		t.Error("nil has become an error")
	}
}

// strangersProgram puts the test binary into a directory that every user may enter.
func strangersProgram(t testing.TB, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "berth")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, data, 0o755)); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	return program
}

// runAsNobody runs a berth command in a process of its own that has no rights.
func runAsNobody(t testing.TB, program string, env []string, args ...string) (code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(append(os.Environ(), asBerth+"=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
