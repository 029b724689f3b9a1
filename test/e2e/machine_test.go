package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"berth/test/harness"
)

// root returns the directory of the module.
func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// sh runs a program of this host in the module's directory and returns what it printed.
func sh(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String())
}

// debian returns the tag of an image of a Debian with systemd, on this engine.
func debian(t testing.TB, engine *harness.Engine) string {
	t.Helper()
	path := sh(t, nil, "scripts/e2e-root.sh")
	tag := "berth-test/" + strings.TrimSuffix(filepath.Base(path), ".tar")
	switch _, err := engine.Client.ImageInspect(t.Context(), tag); {
	case err == nil:
		return tag
	case !errdefs.IsNotFound(err):
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	answer, err := engine.Client.ImageImport(t.Context(), image.ImportSource{Source: file, SourceName: "-"}, tag,
		image.ImportOptions{Changes: []string{"LABEL " + harness.LabelImage + "=e2e"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Close() }()
	if said, err := io.ReadAll(answer); err != nil || bytes.Contains(said, []byte(`"error"`)) {
		t.Fatalf("import %s: %v: %s", path, err, said)
	}
	return tag
}

// machine is a Debian with systemd as its init, in a container on the host's network.
type machine struct {
	*harness.Container
}

// newMachine makes a machine that has the engine's socket where Docker's is, and does not boot it.
//
// It is not --privileged: on the host's network that would let its boot change this host's sysctls. These are the least
// rights with which systemd 252 gets to `running`, also where cgroups are of version 1.
func newMachine(t testing.TB, engine *harness.Engine) *machine {
	t.Helper()
	c := engine.Create(t, harness.Spec{
		Name: "machine", Image: debian(t, engine), Args: []string{"/sbin/init"}, Publish: []string{}, Network: "host",
		Env: []string{"container=docker"}, StopSignal: "SIGRTMIN+3",
		Modify: func(config *container.Config, host *container.HostConfig) {
			config.Tty = true
			host.CapAdd = []string{"SYS_ADMIN", "NET_ADMIN"}
			host.SecurityOpt = []string{"seccomp=unconfined", "apparmor=unconfined"}
			host.CgroupnsMode = "host"
			host.Tmpfs = map[string]string{"/run": "", "/run/lock": "", "/tmp": ""}
			host.Binds = []string{"/sys/fs/cgroup:/sys/fs/cgroup", engine.Socket + ":/run/docker.sock"}
		},
	})
	return &machine{c}
}

// boot starts the machine and waits until systemd has started everything.
func (m *machine) boot(t testing.TB) {
	t.Helper()
	m.Start(t)
	harness.Eventually(t, harness.Patience, "the machine has booted", func() error {
		state, err := m.try(t, "systemctl is-system-running")
		if state == "running" {
			return nil
		}
		if state == "degraded" {
			t.Fatalf("units have failed: %s", m.run(t, "systemctl --failed --no-legend --plain"))
		}
		return fmt.Errorf("it is %q: %w", state, err)
	})
}

// try runs a shell command line in the machine, as root, and returns what it printed, standard error included.
func (m *machine) try(t testing.TB, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "exec", m.ID, "sh", "-c", command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try for what must succeed.
func (m *machine) run(t testing.TB, command string) string {
	t.Helper()
	out, err := m.try(t, command)
	if err != nil {
		t.Fatalf("in the machine: %s: %v\n%s", command, err, out)
	}
	return out
}

// fails is run for what must not succeed.
func (m *machine) fails(t testing.TB, command string) string {
	t.Helper()
	out, err := m.try(t, command)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("in the machine: %s: %v; want it to fail\n%s", command, err, out)
	}
	return out
}

// property returns what systemd says of a unit.
func (m *machine) property(t testing.TB, unit, name string) string {
	t.Helper()
	return m.run(t, "systemctl show --value -p "+name+" "+unit)
}

// write puts a file into the machine, running or not.
func (m *machine) write(t testing.TB, path, content string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // as files in /etc are
		t.Fatal(err)
	}
	sh(t, nil, "docker", "cp", file, m.ID+":"+path)
}

// fetch copies a file or directory out of the machine, running or not, with its owners.
func (m *machine) fetch(t testing.TB, path string) string {
	t.Helper()
	to := t.TempDir()
	sh(t, nil, "sh", "-c", `docker cp "$1" - | tar -xp -C "$2"`, "sh", m.ID+":"+path, to)
	return filepath.Join(to, filepath.Base(path))
}

// cutPower ends the machine without a word to anybody in it.
func (m *machine) cutPower(t testing.TB) {
	t.Helper()
	m.Signal(t, "SIGKILL")
	m.awaitEnd(t)
}

// shutDown has systemd shut the machine down, and waits until it is off.
func (m *machine) shutDown(t testing.TB) {
	t.Helper()
	m.Signal(t, "SIGRTMIN+3")
	m.awaitEnd(t)
}

func (m *machine) awaitEnd(t testing.TB) {
	t.Helper()
	harness.Eventually(t, 2*harness.Patience, "the machine is off", func() error {
		if m.Inspect(t).State.Running {
			return errors.New("it runs")
		}
		return nil
	})
}

// stamp returns the time that a unit of the machine has written into a file.
func (m *machine) stamp(t testing.TB, path string) time.Time {
	t.Helper()
	content, err := os.ReadFile(m.fetch(t, path))
	if err != nil {
		t.Fatal(err)
	}
	var seconds, nanos int64
	if _, err := fmt.Sscanf(strings.TrimSpace(string(content)), "%d.%d", &seconds, &nanos); err != nil {
		t.Fatalf("time in %s: %v", path, err)
	}
	return time.Unix(seconds, nanos)
}
