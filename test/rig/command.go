package rig

import (
	"bytes"
	"errors"
	"os/exec"
	"testing"

	"berth/test/harness"
)

// Berth runs another berth command on this rig, with its configuration, state and Docker engine where the command has
// flags for them, and returns its exit code and what it wrote.
func (r *Rig) Berth(t testing.TB, command string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := within(t, harness.Patience)
	defer cancel()
	var flags []string
	switch command {
	case "plan", "boot":
		flags = []string{"--config", r.config, "--state-dir", r.StateDir(), "--docker-socket", r.Engine.Socket}
	default:
		flags = []string{"--control-socket", r.Socket()}
	}
	cmd := exec.CommandContext(ctx, path, append(append([]string{command}, flags...), args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = r.Env()
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run berth %s: %v", command, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
