package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
)

// abandoned is how old the things of a process that cannot be looked up (it ran in another container) must be before
// they count as left behind: longer than any test run.
const abandoned = 2 * time.Hour

// Owner identifies this process for as long as the machine runs: pid namespace, pid, and the time of its start in
// ticks since boot, for pids are used again. It is the value of LabelOwner.
func Owner() string { return owner() }

var owner = sync.OnceValue(func() string {
	return fmt.Sprintf("%s-%d-%s", pidNamespace(), os.Getpid(), startTicks(os.Getpid()))
})

// pidNamespace returns the number of this process's pid namespace.
func pidNamespace() string {
	link, err := os.Readlink("/proc/self/ns/pid") // pid:[4026531836]
	if err != nil {
		return "0"
	}
	return strings.Trim(strings.TrimPrefix(link, "pid:"), "[]")
}

// startTicks returns when a process started, in ticks since boot, or "" if there is no such process.
func startTicks(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the command in parentheses and may hold anything; the 22nd is the start.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// ownerGone reports whether the process that made something has ended, so that it may be removed.
func ownerGone(owner string, made time.Time) bool {
	var namespace, ticks string
	var pid int
	if n, err := fmt.Sscanf(strings.ReplaceAll(owner, "-", " "), "%s %d %s", &namespace, &pid, &ticks); n != 3 || err != nil {
		return true // no owner of ours ever looked like this
	}
	if namespace != pidNamespace() {
		return time.Since(made) > abandoned
	}
	return startTicks(pid) != ticks
}

// Sweep removes the containers and networks of test processes that have ended without doing so.
func (e *Engine) Sweep(ctx context.Context) error {
	labelled := filters.NewArgs(filters.Arg("label", LabelOwner))
	containers, err := e.Client.ContainerList(ctx, container.ListOptions{All: true, Filters: labelled})
	if err != nil {
		return fmt.Errorf("sweep: list containers: %w", err)
	}
	var errs []error
	for _, c := range containers {
		if ownerGone(c.Labels[LabelOwner], time.Unix(c.Created, 0)) {
			left := &Container{ID: c.ID, engine: e}
			if err := left.remove(ctx); err != nil {
				errs = append(errs, fmt.Errorf("sweep: remove container %.12s: %w", c.ID, err))
			}
		}
	}
	networks, err := e.Client.NetworkList(ctx, network.ListOptions{Filters: labelled})
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("sweep: list networks: %w", err))...)
	}
	for _, n := range networks {
		if ownerGone(n.Labels[LabelOwner], n.Created) {
			if err := e.Client.NetworkRemove(ctx, n.ID); err != nil {
				errs = append(errs, fmt.Errorf("sweep: remove network %s: %w", n.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
