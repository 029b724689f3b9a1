package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/docker/docker/api/types/container"

	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// crew is a handful of containers that come and go, each labelled for some of a rig's groups.
type crew struct {
	engine *harness.Engine
	rng    *rand.Rand
	hands  []*hand
}

type hand struct {
	*harness.Container
	groups  []string // by the rig's keys
	running bool
}

// newCrew makes containers and starts all of them: three for web, one for api, and one for both.
func newCrew(t *testing.T, r *rig.Rig, rng *rand.Rand) *crew {
	c := &crew{engine: r.Engine, rng: rng}
	var specs []harness.Spec
	for _, groups := range [][]string{{"web"}, {"web"}, {"web"}, {"api"}, {"web", "api"}} {
		c.hands = append(c.hands, &hand{groups: groups, running: true})
		specs = append(specs, harness.Spec{Labels: r.In(groups...), Args: []string{"--stop=die"}})
	}
	for i, made := range r.Engine.RunAll(t, specs...) {
		c.hands[i].Container = made
	}
	return c
}

// churn does n things to containers, one after the other: starts those that are stopped, and stops, kills or restarts
// those that run.
func (c *crew) churn(ctx context.Context, n int) error {
	at := c.rng.Perm(len(c.hands))[:n] // another one each time: Docker refuses what comes too soon
	for _, i := range at {
		h, api := c.hands[i], c.engine.Client
		what := "start"
		var err error
		switch {
		case !h.running:
			err = api.ContainerStart(ctx, h.ID, container.StartOptions{})
			h.running = true
		case c.rng.IntN(3) == 0:
			what, h.running = "stop", false
			err = api.ContainerStop(ctx, h.ID, container.StopOptions{})
		case c.rng.IntN(2) == 0:
			what, h.running = "kill", false
			if err = api.ContainerKill(ctx, h.ID, "KILL"); err == nil {
				err = c.awaitDeath(ctx, h)
			}
		default:
			what = "restart"
			err = api.ContainerRestart(ctx, h.ID, container.StopOptions{})
		}
		if err != nil {
			return fmt.Errorf("%s container %s: %w", what, h.Name, err)
		}
	}
	return nil
}

func (c *crew) awaitDeath(ctx context.Context, h *hand) error {
	ended, errs := c.engine.Client.ContainerWait(ctx, h.ID, container.WaitConditionNotRunning)
	select {
	case <-ended:
		return nil
	case err := <-errs:
		return err
	}
}

// wanted returns what should be registered in a group: a target for each container of it that runs.
func (c *crew) wanted(t *testing.T, group string) []target.Target {
	t.Helper()
	var members []*harness.Container
	for _, h := range c.hands {
		for _, g := range h.groups {
			if g == group && h.running {
				members = append(members, h.Container)
			}
		}
	}
	return rig.TargetsOf(t, members...)
}
