package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"berth/test/harness"
)

// runFloor is the floor's process. Its arguments are the load balancer's address, the ARN of a target group, the instance,
// the label of its containers, and since when it hears of them.
func runFloor(ctx context.Context, args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("floor takes 5 arguments, not %d", len(args))
	}
	docker, err := harness.Connect(ctx, harness.DockerSocket)
	if err != nil {
		return err
	}
	defer docker.Close()
	err = floor(ctx, docker.Client, args[0], args[1], args[2], args[3], args[4])
	if ctx.Err() != nil {
		return nil // it was told to end
	}
	return err
}

// startFloor runs the floor in a process of its own, as any agent is: the process of the load balancer and of the clock
// is awake when an event comes, and a call from inside it wakes nobody.
func (b *bench) startFloor(ctx context.Context, since time.Time) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "floor", b.elb.URL(), b.sides[0].arn, instance, floorLabel,
		fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the floor: %w", err)
	}
	b.floor = make(chan error, 1)
	go func() {
		defer close(b.floor)
		b.floor <- cmd.Wait()
	}()
	return nil
}

// floor is the least that an agent can do: it hears of a container's start, inspects it, and sends a plain form; it
// hears of a stop signal, and sends another. It keeps nothing, signs nothing, paces nothing and survives nothing.
func floor(ctx context.Context, docker *client.Client, api, group, instance, label, since string) error {
	ports := map[string]string{}
	heard, errs := docker.Events(ctx, events.ListOptions{Since: since, Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("event", "start"), filters.Arg("event", "kill"), filters.Arg("label", label),
	)})
	for {
		select {
		case e := <-heard:
			action := "DeregisterTargets"
			if e.Action == events.ActionStart {
				action = "RegisterTargets"
				c, err := docker.ContainerInspect(ctx, e.Actor.ID)
				if err != nil {
					return fmt.Errorf("inspect: %w", err)
				}
				ports[e.Actor.ID] = c.NetworkSettings.Ports["8080/tcp"][0].HostPort
			}
			form := url.Values{
				"Action": {action}, "Version": {"2015-12-01"}, "TargetGroupArn": {group},
				"Targets.member.1.Id": {instance}, "Targets.member.1.Port": {ports[e.Actor.ID]},
			}
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, api, strings.NewReader(form.Encode()))
			if err != nil {
				return err
			}
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			response, err := floorClient.Do(request)
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, response.Body) // so that the connection is used again
			_ = response.Body.Close()
		case err := <-errs:
			return err
		}
	}
}

var floorClient = &http.Client{}
