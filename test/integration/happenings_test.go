package integration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"berth/test/harness"
	"berth/test/rig"
)

// failToStart starts a container whose program does not exist: create, connect, disconnect, and neither start nor die.
func failToStart(l *life) {
	broken := l.rig.Engine.Create(l, harness.Spec{Labels: l.rig.In("web"), Modify: func(c *container.Config, _ *container.HostConfig) {
		c.Entrypoint = []string{"/no-such-program"}
	}})
	if err := l.rig.Engine.Client.ContainerStart(l.Context(), broken.ID, container.StartOptions{}); err == nil {
		l.Error("a container without a program has started")
	}
}

// stopInBackoff stops it while its restart policy waits: there is a stop then, and nothing else.
func stopInBackoff(l *life) {
	waiting := func() bool { // the engine's wait doubles with each death, from 100 ms
		l.exit(3)
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
			switch state := l.c.Inspect(l).State; {
			case state.Restarting:
				return true
			case state.Running && state.ExitCode == 0 && l.answers():
				return false
			}
		}
		return false
	}
	harness.Eventually(l, harness.Patience, "a backoff", func() error {
		if !waiting() {
			return errors.New("it is back already")
		}
		return nil
	})
	l.c.Stop(l)
	l.goes()
}

// answers reports whether it serves.
func (l *life) answers() bool {
	for port, bindings := range l.c.Inspect(l).NetworkSettings.Ports {
		if port == "8080/tcp" && len(bindings) > 0 {
			_, err := harness.AskAt(l.Context(), "http://127.0.0.1:"+bindings[0].HostPort+"/")
			return err == nil
		}
	}
	return false
}

// commit pauses it for a moment.
func commit(l *life) {
	made, err := l.rig.Engine.Client.ContainerCommit(l.Context(), l.c.ID, container.CommitOptions{Pause: true})
	if err != nil {
		l.Fatal(err)
	}
	if _, err := l.rig.Engine.Client.ImageRemove(l.Context(), made.ID, image.RemoveOptions{}); err != nil {
		l.Errorf("remove the image: %v", err)
	}
}

func update(l *life) {
	_, err := l.rig.Engine.Client.ContainerUpdate(l.Context(), l.c.ID, container.UpdateConfig{
		RestartPolicy: container.RestartPolicy{Name: "on-failure"}, Resources: container.Resources{CPUShares: 512},
	})
	if err != nil {
		l.Fatal(err)
	}
}

func execute(l *life) {
	l.c.Ask(l)
	for range 3 {
		made, err := l.rig.Engine.Client.ContainerExecCreate(l.Context(), l.c.ID, container.ExecOptions{Cmd: []string{"/web", "healthcheck"}})
		if err != nil {
			l.Fatal(err)
		}
		if err := l.rig.Engine.Client.ContainerExecStart(l.Context(), made.ID, container.ExecStartOptions{}); err != nil {
			l.Fatal(err)
		}
	}
}

// reconnect takes its only network away, and gives it back: its port is another one then, and there is no start.
func reconnect(l *life) {
	docker := l.rig.Engine.Client
	if err := docker.NetworkDisconnect(l.Context(), "bridge", l.c.ID, false); err != nil {
		l.Fatal(err)
	}
	l.goes()
	l.alive()
	if err := docker.NetworkConnect(l.Context(), "bridge", l.c.ID, nil); err != nil {
		l.Fatal(err)
	}
	l.comes()
}

// secondNetwork gives it another network. The published port stays where it is, until its network goes: then the other
// network takes the port over, or nothing does. In the end it has none.
func secondNetwork(l *life) {
	docker := l.rig.Engine.Client
	name := l.rig.Engine.CreateNetwork(l)
	if err := docker.NetworkConnect(l.Context(), name, l.c.ID, nil); err != nil {
		l.Fatal(err)
	}
	l.moves()
	for _, left := range []string{"bridge", name} {
		if err := docker.NetworkDisconnect(l.Context(), left, l.c.ID, false); err != nil {
			l.Fatal(err)
		}
		l.moves()
	}
	if port := l.published(); port != 0 {
		l.Errorf("without a network it is published on %d", port)
	}
	l.alive()
}

// moves waits until the target follows the published port, where that is another one now, or gone.
func (l *life) moves() {
	l.Helper()
	now, registered := l.published(), len(l.in) > len(l.out)
	if registered && now == l.target.Port {
		return
	}
	if registered {
		l.goes()
	}
	if now != 0 {
		l.comes()
	}
}

// published returns the host port of now; 0: there is none.
func (l *life) published() uint16 {
	for port, bindings := range l.c.Inspect(l).NetworkSettings.Ports {
		if port == "8080/tcp" && len(bindings) > 0 {
			return l.c.Port(l, "8080/tcp")
		}
	}
	return 0
}

func drainAndUndrain(l *life) {
	berth := func(command string) {
		if code, stdout, stderr := l.rig.Berth(l, command, l.c.Name); code != 0 {
			l.Fatalf("berth %s: exit code %d\n%s%s", command, code, stdout, stderr)
		}
	}
	berth("drain")
	l.goes()
	berth("undrain")
	l.comes()
}

// phantom pauses it for a moment. Docker calls it unhealthy then, until the next probe, though none has failed and no
// event has said so: whoever inspects it after the unpause must not believe that.
func phantom(l *life) {
	health := func() string { return l.c.Inspect(l).State.Health.Status }
	healthy := func() {
		l.Helper()
		harness.Eventually(l, harness.Patience, "a probe that passes", func() error {
			if h := health(); h != container.Healthy {
				return fmt.Errorf("it is %s", h)
			}
			return nil
		})
	}
	for range 5 { // the next probe may come at once
		healthy()
		l.c.Pause(l)
		l.c.Unpause(l)
		if health() == container.Unhealthy {
			healthy()
			if calls := l.rig.Calls(l.key, deregister); slices.Contains(targetsIn(calls), l.target) {
				l.Errorf("%v was deregistered for a phantom", l.target)
			}
			return
		}
	}
	l.Error("Docker has not called it unhealthy: this shows nothing")
}

// What leaves a container as it is costs no inspection: the events of a HEALTHCHECK's probes are not even heard.
func TestHealthcheck_probesCostNothing(t *testing.T) {
	t.Parallel()
	engine := harness.StartEngine(t, harness.EngineOptions{})
	r := rig.New(t, rig.Options{Engine: &engine.Engine, Rules: map[string]string{"web": "register_when: healthy"}})
	agent := r.StartReady(t)
	c := engine.Run(t, harness.Spec{Image: engine.WebImage(t, harness.Image{Healthcheck: 200 * time.Millisecond}), Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
	probes := func(n int) {
		seen := map[time.Time]bool{}
		harness.Eventually(t, harness.Patience, "probes", func() error {
			for _, result := range c.Inspect(t).State.Health.Log {
				seen[result.Start] = true
			}
			if len(seen) < n {
				return fmt.Errorf("%d of %d", len(seen), n)
			}
			return nil
		})
	}
	probes(2) // berth has asked all that it had to ask
	before := counted(t, agent, "berth_docker_inspections_total", "berth_docker_events_total", "berth_discovery_publications_total")
	probes(12)
	if after := counted(t, agent, "berth_docker_inspections_total", "berth_docker_events_total", "berth_discovery_publications_total"); after != before {
		t.Errorf("ten probes later:\n%s; want\n%s", after, before)
	}
}

// counted returns the lines of the agent's metrics that begin with one of the names.
func counted(t *testing.T, agent *rig.Agent, names ...string) string {
	t.Helper()
	var found []string
	for line := range strings.Lines(agent.Metrics(t)) {
		for _, name := range names {
			if strings.HasPrefix(line, name) {
				found = append(found, line)
			}
		}
	}
	if len(found) < len(names) {
		t.Fatalf("the metrics have only %q of %q", found, names)
	}
	return strings.Join(found, "")
}
