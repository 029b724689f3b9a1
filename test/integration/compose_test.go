package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/harness"
	"berth/test/rig"
)

// composeShim lets a recipe for `docker compose` run with Debian's docker-compose, and leaves out pulling: there is no
// registry here.
const composeShim = `set -euo pipefail
docker() {
  if [ "$1" != compose ]; then command docker "$@"; return; fi
  shift
  if [ "$1" = pull ]; then return; fi
  docker-compose --ansi never "$@"
}
`

// The recipe of docs/rolling-deploys.md for compose, as it is: two containers that die at once at SIGTERM are replaced by
// two of a new version, and no request is lost.
func TestRollingDeploy_compose(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("docker-compose"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: scripts/need.sh docker-compose", err)
		}
		t.Skipf("%v: scripts/need.sh docker-compose installs it", err)
	}
	doc, err := os.ReadFile("../../docs/rolling-deploys.md")
	if err != nil {
		t.Fatal(err)
	}
	_, recipe, _ := strings.Cut(string(doc), "## docker compose")
	_, recipe, _ = strings.Cut(recipe, "```\n")
	recipe, _, ok := strings.Cut(recipe, "```")
	if !ok {
		t.Fatal("docs/rolling-deploys.md has no recipe for compose")
	}

	r := rig.New(t, rig.Options{})
	r.StartReady(t)
	dir := t.TempDir()
	image := r.Engine.WebImage(t, harness.Image{})
	version := func(name string) {
		yaml := fmt.Sprintf(`version: "2.4"
services:
  web:
    image: %s
    command: ["--stop=die"]
    environment: {WEB_NAME: %s}
    ports: ["8080"]
    labels: {%s: %s, %s: %s}
networks:
  default:
    labels: {%[5]s: %[6]s}
`, image, name, rig.Label, r.Group("web"), harness.LabelOwner, harness.Owner())
		if err := os.WriteFile(filepath.Join(dir, "docker-compose.yml"), []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"COMPOSE_PROJECT_NAME=" + harness.Unique("compose")}
	run := func(script string) string {
		t.Helper()
		code, out := r.Script(t, "bash", env, "-c", "cd "+dir+"\n"+composeShim+script)
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		return out
	}
	version("old")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience) // the test's own is over
		defer cancel()
		down := exec.CommandContext(ctx, "docker-compose", "down", "--timeout", "0")
		down.Dir, down.Env = dir, append(append(os.Environ(), env...), "DOCKER_HOST="+r.Engine.Host())
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("docker-compose down: %v %s", err, out)
		}
	})
	run("docker compose up -d --scale web=2 web; berth wait --for healthy $(docker compose ps -q web)")
	before := r.Sim.Registered(r.Group("web"))

	stop, done := make(chan struct{}), make(chan *load, 1)
	go func() { done <- drive(t.Context(), r.URL("web"), 500, stop) }()
	version("new")
	t.Log(run(recipe))
	close(stop)
	seen := <-done

	after := r.Sim.Registered(r.Group("web"))
	if len(before) != 2 || len(after) != 2 {
		t.Errorf("%d targets before, %d after; want 2 each time", len(before), len(after))
	}
	for _, x := range after {
		for _, old := range before {
			if x == old {
				t.Errorf("%v is still registered", old)
			}
		}
	}
	if n := len(strings.Fields(run("docker compose ps -q web"))); n != 2 {
		t.Errorf("%d containers; want 2", n)
	}
	if seen.answers["old"] == 0 || seen.answers["new"] == 0 {
		t.Errorf("answered by %v; want the old and the new ones", seen.answers)
	}
	if len(seen.errors) > 0 {
		t.Errorf("of %d requests failed: %v", seen.sent, seen.errors)
	}
}
