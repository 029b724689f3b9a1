package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
)

// floor is the least that an agent can do: it hears of a container's start, inspects it, and sends a plain form; it
// hears of a stop signal, and sends another. It keeps nothing, signs nothing, paces nothing and survives nothing.
func floor(ctx context.Context, docker *client.Client, api, group, instance, label string) error {
	ports := map[string]string{}
	heard, errs := docker.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
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
