// Package harness gives tests a real Docker engine: the host's own, or one that a test may stop and restart at will;
// containers of a small web server on it; and ways to wait for what should become true.
//
// Everything it makes carries a label with the process that made it. It is removed when the test ends, whatever the
// outcome; what a killed test process left behind is removed by the next one (see sweep.go).
//
//	engine.go     RequireDocker: an engine and its client
//	private.go    StartEngine: a second engine, of the test's own
//	ports.go      host ports of that engine's own
//	image.go      the web server's image, built FROM scratch
//	container.go  containers: run, stop, signal, ask
//	sweep.go      what earlier, killed test processes left
package harness

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The labels of all that the harness makes.
const (
	// LabelOwner holds the owner (see Owner) of a container or network.
	LabelOwner = "berth-test.owner"
	// LabelTest holds the name of the test that made it.
	LabelTest = "berth-test.test"
	// LabelImage marks the images of test/web.
	LabelImage = "berth-test.image"
)

// Patience is how long a test waits for what should happen soon before it gives up. It is a guard, not a
// measurement: long enough for a machine of two busy cores.
const Patience = 60 * time.Second

// Suffix returns a few random lower-case letters and digits, for names that must differ between tests that share an
// engine or a load balancer.
func Suffix() string { return strings.ToLower(rand.Text()[:6]) }

// Unique returns the name with a random suffix ("web" → "web-k3j2xq").
func Unique(name string) string { return name + "-" + Suffix() }

// unavailable ends a test that needs what is not there: it skips, except where CI is set, where everything must be
// there.
func unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Eventually calls cond until it returns nil. After timeout, or at the end of the test's own deadline, it fails the
// test with what was waited for and the last error.
func Eventually(t testing.TB, timeout time.Duration, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	pause := 5 * time.Millisecond
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, timeout, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: the test ended first: %v", what, err)
		case <-time.After(pause):
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// FreePort returns a TCP port of the loopback address that nothing listened on a moment ago. Programs that can listen
// on port 0 and say where should do that instead.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// FreeAddress returns 127.0.0.1 with a FreePort.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(t))
}

// moduleRoot returns the directory of go.mod, whatever directory the test runs in.
var moduleRoot = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module's root: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == os.DevNull {
		return "", errors.New("find the module's root: not inside a module")
	}
	return filepath.Dir(file), nil
})

// Build compiles a package of this module ("./test/web") and returns the executable's bytes.
func Build(pkg string, args, env []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "berth-build-")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", pkg, err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "out")
	if err := BuildTo(out, pkg, args, env); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", pkg, err)
	}
	return binary, nil
}

// BuildTo compiles a package of this module into a file, with further arguments of go build and variables.
func BuildTo(out, pkg string, args, env []string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	build := exec.Command("go", slices.Concat([]string{"build", "-buildvcs=false", "-o", out}, args, []string{pkg})...)
	build.Dir = root
	build.Env = append(os.Environ(), env...)
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return nil
}
