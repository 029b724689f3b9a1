package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"berth/internal/elbsim"
	"berth/test/harness"
)

// side is one of those that are compared: a container that only it serves, the target group that it serves it in,
// and what it took.
type side struct {
	name        string
	group       string // by its name in AWS
	arn         string
	container   string // id
	start, kill series
}

// clock hears when Docker says that something happened, and when the load balancer was told.
type clock struct {
	docker *harness.Engine
	events <-chan events.Message
	errs   <-chan error
	calls  chan elbsim.Call
}

const patience = 30 * time.Second

// listen begins to hear of the containers with this label.
func (c *clock) listen(ctx context.Context, label string) {
	c.events, c.errs = c.docker.Client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("label", label),
		filters.Arg("event", "start"), filters.Arg("event", "kill"), filters.Arg("event", "die"),
	)})
}

// happened waits for a container's event and returns when that was, by Docker's clock.
func (c *clock) happened(ctx context.Context, id string, action events.Action) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case e := <-c.events:
			if e.Actor.ID == id && e.Action == action {
				return time.Unix(0, e.TimeNano), nil
			}
		case err := <-c.errs:
			return time.Time{}, fmt.Errorf("listen to Docker: %w", err)
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("no event %s of container %.12s: %w", action, id, ctx.Err())
		}
	}
}

// called waits for a call of that action for a group.
func (c *clock) called(ctx context.Context, arn, action string) (elbsim.Call, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case call := <-c.calls:
			if call.Action != action || !slices.Contains(call.Groups, arn) {
				continue
			}
			if call.Outcome != "ok" {
				return call, fmt.Errorf("%s was answered %s", action, call.Outcome)
			}
			return call, nil
		case <-ctx.Done():
			return elbsim.Call{}, fmt.Errorf("no %s: %w", action, ctx.Err())
		}
	}
}

// cycle starts and stops the side's container and returns how long each took to reach the load balancer.
func (s *side) cycle(ctx context.Context, c *clock) (start, kill time.Duration, err error) {
	docker := c.docker.Client
	if err = docker.ContainerStart(ctx, s.container, container.StartOptions{}); err != nil {
		return 0, 0, err
	}
	start, call, err := c.between(ctx, s, events.ActionStart, "RegisterTargets")
	if err != nil {
		return 0, 0, err
	}
	// The first process of a container is deaf to SIGTERM until it listens to it.
	if err = answers(ctx, call.Targets[0].Port); err != nil {
		return 0, 0, err
	}
	if err = docker.ContainerKill(ctx, s.container, "TERM"); err != nil {
		return 0, 0, err
	}
	if kill, _, err = c.between(ctx, s, events.ActionKill, "DeregisterTargets"); err != nil {
		return 0, 0, err
	}
	_, err = c.happened(ctx, s.container, events.ActionDie)
	return start, kill, err
}

// answers waits until a container serves on a host port.
func answers(ctx context.Context, port uint16) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := harness.AskAt(ctx, fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// between returns the time from the container's event to the arrival of the call that it causes.
func (c *clock) between(ctx context.Context, s *side, event events.Action, action string) (time.Duration, elbsim.Call, error) {
	from, err := c.happened(ctx, s.container, event)
	call, callErr := c.called(ctx, s.arn, action)
	if err := errors.Join(err, callErr); err != nil {
		return 0, call, fmt.Errorf("%s: %w", s.name, err)
	}
	return call.Time.Sub(from), call, nil
}
