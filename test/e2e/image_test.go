package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"berth/internal/elbsim"
	"berth/internal/elbsim/iam"
	"berth/pkg/target"
	"berth/test/harness"
)

// TestImage runs the agent from its image, as the README's docker run line does, against elbsim, with the policy of
// deploy/iam/policy.json in force: what is not allowed there it cannot do.
func TestImage(t *testing.T) {
	t.Parallel()
	require(t)
	engine := harness.RequireDocker(t)
	tag := "berth-test/" + harness.Unique("agent")
	said := sh(t, []string{"IMAGE=" + tag, "LABEL=" + harness.LabelImage + "=agent", "VERSION=0.0.1", "REVISION=e2e", "DATE=2026-01-01T00:00:00Z"}, "scripts/image.sh")
	t.Log(said)
	t.Cleanup(func() { removeImage(t, engine, tag) })

	policy, err := iam.Load(root(t) + "/deploy/iam/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	sim := elbsim.New(elbsim.Config{Instance: elbsim.Instance{ID: instance}, Probe: elbsim.NetProbe, Policy: policy})
	group, foreign := harness.Unique("e2e"), harness.Unique("e2e-untagged")
	check := elbsim.HealthCheck{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Healthy: 2, Path: "/healthz"}
	for name, tags := range map[string]map[string]string{group: {"berth": "true"}, foreign: nil} {
		if _, err := sim.AddGroup(elbsim.Group{Name: name, Tags: tags, HealthCheck: check}); err != nil {
			t.Fatal(err)
		}
	}
	server, err := elbsim.Start(sim, elbsim.Listen{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("end elbsim: %v", err)
		}
	})

	web := engine.Run(t, harness.Spec{Labels: map[string]string{"berth.targets": group + "," + foreign}})
	agent := engine.Create(t, harness.Spec{
		Name: "berth", Image: tag, Publish: []string{}, Network: "host",
		Env: append(server.Env(), "BERTH_TARGET_GROUP="+group+","+foreign, "BERTH_LISTEN="+harness.FreeAddress(t), "BERTH_STATUS_LISTEN="+harness.FreeAddress(t)),
		Modify: func(_ *container.Config, host *container.HostConfig) {
			host.Binds = []string{engine.Socket + ":/var/run/docker.sock"}
			host.GroupAdd = []string{sh(t, nil, "stat", "-c", "%g", engine.Socket)}
			host.ReadonlyRootfs = true
			host.Tmpfs = map[string]string{"/run/berth": "uid=65532"}
			host.CapDrop = []string{"ALL"}
			host.SecurityOpt = []string{"no-new-privileges"}
		},
	})
	agent.Start(t)
	want := target.Target{ID: instance, Port: web.Port(t, "8080/tcp")}
	sh(t, nil, "docker", "exec", agent.ID, "/usr/bin/berth", "wait", web.Name, "--group", group, "--for", "healthy", "--timeout", "1m")
	if got := sim.Registered(group); !slices.Equal(got, []target.Target{want}) {
		t.Errorf("registered: %v; want %v", got, want)
	}

	// The group without the tag is out of the policy's reach, and the agent says what to allow.
	harness.Eventually(t, harness.Patience, "the other group is denied", func() error {
		status := sh(t, nil, "docker", "exec", agent.ID, "/usr/bin/berth", "status")
		if !regexp.MustCompile(`(?s)` + foreign + `.*denied`).MatchString(status) {
			return fmt.Errorf("status:\n%s", status)
		}
		return nil
	})
	for _, c := range sim.Calls() {
		expected := c.Action == "RegisterTargets" && strings.Contains(strings.Join(c.Groups, " "), foreign)
		if c.Outcome == "AccessDenied" && !expected {
			t.Errorf("%s of %v was denied: the policy lacks it", c.Action, c.Groups)
		}
	}
	if got := sim.Registered(foreign); len(got) > 0 {
		t.Errorf("registered without permission: %v", got)
	}

	if user := agent.Inspect(t).Config.User; user != "65532:65532" {
		t.Errorf("the image runs as %q; want a user that is not root", user)
	}
	web.Stop(t)
	harness.Eventually(t, harness.Patience, "the stopped container is out", func() error {
		if got := sim.Registered(group); len(got) > 0 {
			return fmt.Errorf("registered: %v", got)
		}
		return nil
	})
	agent.Stop(t)
	if code := agent.Inspect(t).State.ExitCode; code != 0 {
		t.Errorf("the agent ended with %d at SIGTERM; want 0", code)
	}
}

func removeImage(t *testing.T, engine *harness.Engine, tag string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience) // the test's own is over
	defer cancel()
	if _, err := engine.Client.ImageRemove(ctx, tag, image.RemoveOptions{Force: true}); err != nil {
		t.Errorf("remove image %s: %v", tag, err)
	}
}
