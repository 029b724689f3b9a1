// Package scripts tests the scripts that make a machine ready for tests and demo.
package scripts

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/harness"
)

// bare runs a bash script on what looks like a machine of its own without a Docker engine: its own processes, mounts and
// network, with /run and Docker's data empty. It returns all that the script printed.
func bare(t *testing.T, script string) string {
	t.Helper()
	harness.RequireDocker(t) // its programs are there, and it may be used
	if os.Getuid() != 0 {
		t.Skip("needs root, for namespaces of its own")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	prepare := `set -eu
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/docker
mount -t tmpfs tmpfs /var/lib/docker
ip link set lo up
engines() { local n=0 c; for c in /proc/[0-9]*/comm; do if [ "$(cat "$c" 2>/dev/null)" = dockerd ]; then n=$((n + 1)); fi; done; echo "engines: $n"; }
engine=scripts/engine.sh
`
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", prepare+script)
	cmd.Dir = root
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
	return string(output)
}

// inOrder fails the test unless the parts stand in the text in that order.
func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		i := strings.Index(rest, part)
		if i < 0 {
			t.Fatalf("there is no %q where it should be in:\n%s", part, text)
		}
		rest = rest[i+len(part):]
	}
}

func TestEngine_withEndsWhatItStarted(t *testing.T) {
	output := bare(t, `
$engine status || echo "status: $?"
$engine with -- bash -c 'docker version --format "server {{.Server.APIVersion}}"; exit 7' || echo "exit: $?"
engines
`)
	inOrder(t, output, "no Docker engine answers", "status: 1", "starting dockerd", "server 1.", "ending dockerd", "exit: 7", "engines: 0")
}

func TestEngine_withLeavesWhatWasThere(t *testing.T) {
	output := bare(t, `
$engine start
$engine status
$engine with -- docker ps -q
engines
$engine stop
engines
dockerd >/dev/null 2>&1 &
until $engine status; do sleep 0.2; done
$engine with -- echo used
$engine stop
engines
`)
	inOrder(t, output, "starting dockerd", "started here", "engines: 1", "ending dockerd", "engines: 0", "answers on", "used", "engines: 1")
	if strings.Count(output, "ending dockerd") != 1 {
		t.Errorf("it ended an engine that it had not started:\n%s", output)
	}
}

func TestEngine_lastUserEndsIt(t *testing.T) {
	output := bare(t, `
mkfifo /run/gate
$engine with -- bash -c 'read -r _ < /run/gate; docker version --format "second {{.Server.APIVersion}}"' &
until $engine status >/dev/null 2>&1; do sleep 0.2; done
$engine with -- echo "first done"
engines
echo go > /run/gate
wait
engines
`)
	inOrder(t, output, "first done", "engines: 1", "second 1.", "ending dockerd", "engines: 0")
}

func TestEngine_signalReachesTheCommandFirst(t *testing.T) {
	output := bare(t, `
$engine with -- bash -c 'trap "docker version --format \"cleaned up with {{.Server.APIVersion}}\"; exit 9" TERM; touch /run/begun; while :; do sleep 0.1; done' &
until [ -e /run/begun ]; do sleep 0.1; done
kill -TERM $!
wait $! || echo "exit: $?"
engines
`)
	inOrder(t, output, "cleaned up with 1.", "ending dockerd", "exit: 9", "engines: 0")
}

func TestNeed(t *testing.T) {
	output := bare(t, `
scripts/need.sh bash ip && echo "all there"
PATH=/nowhere /bin/bash scripts/need.sh no-such-program 2>&1 || echo "exit: $?"
`)
	inOrder(t, output, "all there", "no-such-program", "exit: 1")
}
