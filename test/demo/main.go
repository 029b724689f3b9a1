// Demo shows Berth at work on this machine: load balancers played by elbsim, the berth agent, and containers on a real
// Docker engine. It takes half a minute, says at each step what to see, and removes what it made, also on Ctrl-C.
//
// `make demo` builds what it needs, finds or starts a Docker engine, and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"berth/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case interrupted:
		fmt.Println("interrupted; everything is cleaned up")
		os.Exit(130)
	case err != nil:
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// demo is one run of it.
type demo struct {
	out     *screen
	options options
	docker  *harness.Engine
	image   string
	dir     string // configuration, state, control socket, logs
	elbsim  *elbsim
	berth   *process
}

type options struct {
	berth, elbsim string // programs
	requests      int
	hold          bool
}

func run(ctx context.Context, args []string) (err error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&o.berth, "berth", "bin/berth", "the agent's `program`")
	flags.StringVar(&o.elbsim, "elbsim", "bin/elbsim", "the load balancers' `program`")
	flags.IntVar(&o.requests, "requests", 2000, "how many requests to send before containers are replaced")
	flags.BoolVar(&o.hold, "hold", false, "before the end, leave everything running until Ctrl-C")
	if err := flags.Parse(args); err != nil {
		return errors.Join(flag.ErrHelp, err)
	}
	d := &demo{out: newScreen(os.Stdout), options: o}
	begin := time.Now()
	defer func() {
		d.out.step("Cleaning up")
		// Ctrl-C ends the demo, not its cleaning up.
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, d.cleanUp(cleaning, err != nil && ctx.Err() == nil))
		if err == nil {
			d.out.good("done in %.0f s", time.Since(begin).Seconds())
		}
	}()
	for _, step := range []func(context.Context) error{
		d.prepare, d.startLoadBalancers, d.startAgent, d.startContainers, d.sendRequests, d.replace, d.holdOn,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// prepare finds the engine and builds the containers' image.
func (d *demo) prepare(ctx context.Context) error {
	d.out.step("A Docker engine and an image")
	var err error
	if d.docker, err = harness.Connect(ctx, harness.DockerSocket); err != nil {
		return fmt.Errorf("%w (make demo starts an engine where it can)", err)
	}
	version, err := d.docker.Client.ServerVersion(ctx)
	if err != nil {
		return fmt.Errorf("ask Docker for its version: %w", err)
	}
	d.out.say("Docker %s answers on %s", version.Version, harness.DockerSocket)
	// What an earlier demo left, if it was killed.
	if err := d.docker.Sweep(ctx); err != nil {
		return err
	}
	if d.image, err = d.docker.BuildWeb(ctx, harness.Image{}); err != nil {
		return err
	}
	d.out.say("image %s: a web server that says which container answers", d.image)
	if d.dir, err = os.MkdirTemp("", "berth-demo-"); err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	return nil
}

// cleanUp ends and removes all that the demo made. If it failed, the programs' last words come first.
func (d *demo) cleanUp(ctx context.Context, failed bool) error {
	var errs []error
	if d.berth != nil {
		errs = append(errs, d.berth.end(ctx))
		if failed {
			d.out.quote("berth's log", d.berth.tail())
		}
	}
	if d.docker != nil {
		errs = append(errs, d.removeContainers(ctx))
		d.docker.Close()
	}
	if d.elbsim != nil {
		errs = append(errs, d.elbsim.end(ctx))
		if failed {
			d.out.quote("elbsim's log", d.elbsim.tail())
		}
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	d.out.say("agent, load balancers, containers and their state are gone; the image stays for the next time (make clean removes it)")
	return errors.Join(errs...)
}

// holdOn waits for Ctrl-C, if that was asked for.
func (d *demo) holdOn(ctx context.Context) error {
	if !d.options.hold {
		return nil
	}
	d.out.step("Everything is running: try it, and press Ctrl-C to end")
	d.out.say("status page     http://%s/", d.berth.status)
	for _, service := range services {
		d.out.say("%-15s http://%s/", service.name, d.elbsim.listener(service.name))
	}
	d.out.command("bin/berth status --control-socket " + d.socket())
	<-ctx.Done()
	return nil
}
