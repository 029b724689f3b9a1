// Package e2e tests Berth as what it is on a host: a package under systemd. A Debian made by debootstrap boots in a
// container; the .deb is installed in it with dpkg; Docker is this host's engine, and AWS is elbsim, in this process.
//
// It runs with BERTH_E2E=1 alone (make e2e sets it), as root, and takes some minutes.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines left running: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

func require(t *testing.T) {
	t.Helper()
	if os.Getenv("BERTH_E2E") == "" {
		t.Skip("run by make e2e")
	}
}
