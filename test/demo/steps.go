package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"berth/test/harness"
)

// service is one target group with the containers that serve it.
type service struct {
	name  string
	count int
}

// Their names are the demo's own: a container of somebody else's that asks for "web" is none of its business.
var services = []service{{"demo-web", 3}, {"demo-api", 2}}

// elbsim is the running stand-in.
type elbsim struct {
	*process
	listeners map[string]string // addresses by target group
	env       []string          // with which a program talks to it
}

func (e *elbsim) listener(group string) string { return e.listeners[group] }

// startLoadBalancers starts elbsim with a target group and a load balancer for each service.
func (d *demo) startLoadBalancers(ctx context.Context) error {
	d.out.step("Load balancers: elbsim plays Elastic Load Balancing and an instance's metadata")
	args := []string{
		"--listen", "127.0.0.1:0", "--imds", "127.0.0.1:0", "--json",
		"--health-interval", "500ms", "--deregistration-delay", "5s",
	}
	for _, s := range services {
		args = append(args, "--target-group", s.name+":HTTP:80", "--forward", s.name+"=127.0.0.1:0")
	}
	d.out.command("elbsim " + strings.Join(args, " "))
	p, err := begin(d.options.elbsim, args, os.Environ())
	if err != nil {
		return err
	}
	d.elbsim = &elbsim{process: p, listeners: map[string]string{}}
	var ready struct {
		API       string `json:"api"`
		Listeners []struct {
			LoadBalancer string `json:"load_balancer"`
			Address      string `json:"address"`
		} `json:"listeners"`
		Env []string `json:"env"`
	}
	line, err := p.firstLine(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		return fmt.Errorf("read what elbsim serves: %w: %s", err, line)
	}
	if len(ready.Listeners) != len(services) {
		return fmt.Errorf("elbsim serves %d listeners; want %d: %s", len(ready.Listeners), len(services), line)
	}
	for i, s := range services {
		d.elbsim.listeners[s.name] = ready.Listeners[i].Address
		d.out.say("load balancer for target group %s on http://%s/, no targets yet", s.name, ready.Listeners[i].Address)
	}
	d.elbsim.env = ready.Env
	return nil
}

func (d *demo) socket() string { return filepath.Join(d.dir, "berth.sock") }

// startAgent starts berth and waits until it is ready.
func (d *demo) startAgent(ctx context.Context) error {
	d.out.step("The agent")
	config := filepath.Join(d.dir, "berth.yaml")
	yaml := "target_groups:\n"
	for _, s := range services {
		yaml += fmt.Sprintf("  %s: {}\n", s.name)
	}
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	d.out.quote("berth.yaml", yaml)
	// A free port, for the page's address to be known.
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	status := l.Addr().String()
	if err := l.Close(); err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	d.out.command("berth run --config berth.yaml")
	d.berth, err = begin(d.options.berth, []string{
		"run", "--config", config, "--state-dir", filepath.Join(d.dir, "state"), "--control-socket", d.socket(),
		"--listen", "127.0.0.1:0", "--status-listen", status, "--log-format", "console",
	}, append(os.Environ(), d.elbsim.env...))
	if err != nil {
		return err
	}
	d.berth.status = status
	if err := d.poll(ctx, 30*time.Second, func() error {
		_, err := get(ctx, "http://"+status+"/readyz")
		return err
	}); err != nil {
		return fmt.Errorf("wait for berth: %w", err)
	}
	d.out.good("berth is ready: it watches Docker and has found both target groups")
	return nil
}

// startContainers starts all containers and waits until the load balancers find them healthy.
func (d *demo) startContainers(ctx context.Context) error {
	d.out.step("Five containers on ports that Docker picks")
	var names []string
	for _, s := range services {
		for i := range s.count {
			name := fmt.Sprintf("%s-%d", s.name, i+1)
			if err := d.startContainer(ctx, s.name, name); err != nil {
				return err
			}
			names = append(names, name)
		}
	}
	if err := d.waitHealthy(ctx, names...); err != nil {
		return err
	}
	return d.showStatus(ctx)
}

func (d *demo) startContainer(ctx context.Context, group, name string) error {
	d.out.command(fmt.Sprintf("docker run -d -P --name %s -l berth.targets=%s %s --stop=die", name, group, d.image))
	_, err := d.command(
		ctx, "docker", "-H", d.docker.Host(), "run", "-d", "-P", "--name", name, "-l", "berth.targets="+group,
		"-l", harness.LabelOwner+"="+harness.Owner(), "-e", "WEB_NAME="+name, d.image, "--stop=die",
	)
	return err
}

// waitHealthy waits until the load balancer finds all of these containers healthy.
func (d *demo) waitHealthy(ctx context.Context, names ...string) error {
	begin := time.Now()
	d.out.command("berth wait --for healthy " + strings.Join(names, " "))
	if _, err := d.ask(ctx, append([]string{"wait", "--for", "healthy", "--timeout", "60s"}, names...)...); err != nil {
		return err
	}
	d.out.good("healthy after %.1f s", time.Since(begin).Seconds())
	return nil
}

// showStatus prints what the agent says.
func (d *demo) showStatus(ctx context.Context) error {
	d.out.command("berth status")
	table, err := d.ask(ctx, "status")
	if err != nil {
		return err
	}
	d.out.quote("", table)
	return nil
}

// sendRequests sends requests through both load balancers and shows who answered.
func (d *demo) sendRequests(ctx context.Context) error {
	d.out.step(fmt.Sprintf("%d requests through the load balancers", d.options.requests))
	l := newLoad(d.elbsim.listeners)
	l.send(ctx, d.options.requests)
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.report(l)
}

// report shows who answered, and fails if any request did.
func (d *demo) report(l *load) error {
	for _, line := range l.summary() {
		d.out.say("%s", line)
	}
	if l.failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the last with: %w", l.failed, l.sent, l.err)
	}
	d.out.good("%d requests, 0 failed", l.sent)
	return nil
}

// settle is how long a listener of elbsim goes on sending to a target that it reports as gone (2 s), and a second.
const settle = "3s"

// replace replaces all containers of a service by new ones while requests go on, with nothing but berth's commands.
func (d *demo) replace(ctx context.Context) error {
	s := services[0]
	d.out.step("All containers of a service replaced, while requests go on")
	d.out.say("they die at once on SIGTERM, and a load balancer goes on sending for 2 s after it has let go: only the order saves them")
	l := newLoad(d.elbsim.listeners)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.keep(loading)
		l.send(ctx, max(0, d.options.requests-l.count())) // no fewer than were asked for
	}()
	err := d.roll(ctx, s)
	stop()
	<-ended
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	if err := d.report(l); err != nil {
		return err
	}
	return d.showStatus(ctx)
}

// roll starts the new ones, waits until they are healthy, and stops the old ones: in this order nothing is lost.
func (d *demo) roll(ctx context.Context, s service) error {
	var before, after []string
	for i := range s.count {
		before = append(before, fmt.Sprintf("%s-%d", s.name, i+1))
		after = append(after, fmt.Sprintf("%s-%d", s.name, s.count+i+1))
	}
	for _, name := range after {
		if err := d.startContainer(ctx, s.name, name); err != nil {
			return err
		}
	}
	if err := d.waitHealthy(ctx, after...); err != nil {
		return err
	}
	args := append([]string{"stop", "--settle", settle}, before...)
	d.out.command("berth " + strings.Join(args, " "))
	said, err := d.ask(ctx, args...)
	if err != nil {
		return err
	}
	d.out.quote("", said)
	return nil
}

// removeContainers removes every container of this demo.
func (d *demo) removeContainers(ctx context.Context) error {
	containers, err := d.docker.Client.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", harness.LabelOwner+"="+harness.Owner())),
	})
	if err != nil {
		return fmt.Errorf("list the demo's containers: %w", err)
	}
	var errs []error
	for _, c := range containers {
		if err := d.docker.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			errs = append(errs, fmt.Errorf("remove container %s: %w", strings.Join(c.Names, " "), err))
		}
	}
	return errors.Join(errs...)
}

// ask runs a command of berth against the demo's agent.
func (d *demo) ask(ctx context.Context, args ...string) (string, error) {
	return d.command(ctx, d.options.berth, append(args, "--control-socket", d.socket())...)
}

// command runs a program and returns what it wrote.
func (d *demo) command(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	// Ctrl-C on the terminal reaches everybody; this one ends by the context alone.
	c.SysProcAttr = ownGroup()
	output, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, output)
	}
	return string(output), nil
}

// poll calls f until it returns nil, for at most so long, or until the agent has ended.
func (d *demo) poll(ctx context.Context, patience time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-d.berth.ended:
			return errors.New("berth has ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
