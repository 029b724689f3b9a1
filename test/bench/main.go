// Bench measures how long Berth takes from an event of Docker's to its call of the load balancer, beside a floor: the
// least that any agent has to do (floor.go). Each is a process of its own; both run at the same time on one real engine,
// each on a container of its own, one after the other, so that the machine treats them alike. elbsim plays the load
// balancer.
//
// `make bench` builds what it needs and runs it; docs/performance.md has results.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	berths  []string
	n, warm int
	json    bool
	check   bool
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) > 0 && args[0] == "floor" {
		return runFloor(ctx, args[1:])
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Func("berth", "the agent's `program`, bin/berth by default; give it twice to compare two builds", func(path string) error {
		o.berths = append(o.berths, path)
		return nil
	})
	flags.IntVar(&o.n, "n", 300, "how many starts and kills of each to measure")
	flags.IntVar(&o.warm, "warm", 5, "how many to leave out first")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.BoolVar(&o.check, "check", false, "fail where the criteria are not met")
	if err := flags.Parse(args); err != nil {
		return errors.Join(flag.ErrHelp, err)
	}
	if o.n < 1 || o.warm < 0 {
		return errors.New("-n must be at least 1, -warm not negative")
	}
	if len(o.berths) == 0 {
		o.berths = []string{"bin/berth"}
	}
	b := &bench{options: o}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, b.cleanUp(cleaning, err != nil && ctx.Err() == nil))
	}()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	r, err := b.measure(ctx)
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.print(os.Stdout)
	}
	if err == nil && o.check && !r.Met {
		err = errors.New("the criteria are not met")
	}
	return err
}
