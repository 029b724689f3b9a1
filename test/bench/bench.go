package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"berth/internal/elbsim"
	"berth/test/harness"
)

const (
	instance = "i-0123456789abcdef0"
	// label marks the containers of this program, floorLabel the floor's.
	label      = "berth-bench"
	floorLabel = "berth-bench.floor"
	// between is the time from one start to the next: longer than the second after which a host registers again, so
	// that what is measured is never the pacing.
	between = 1100 * time.Millisecond
)

// bench is one run.
type bench struct {
	options
	clock  clock
	sim    *elbsim.Sim
	elb    *elbsim.Server
	dir    string             // of all that is written
	floor  chan error         // how it ended; closed then
	stop   context.CancelFunc // of the floor
	sides  []*side            // the floor, and one for each program
	agents []*agent
	disk   *disk
}

// prepare starts the load balancer, the floor and the programs, and makes a container for each.
func (b *bench) prepare(ctx context.Context) error {
	begun := time.Now()
	docker, err := harness.Connect(ctx, harness.DockerSocket)
	if err != nil {
		return fmt.Errorf("%w (make bench starts an engine where it can)", err)
	}
	b.clock = clock{docker: docker, calls: make(chan elbsim.Call, 1024)}
	if err := docker.Sweep(ctx); err != nil {
		return err
	}
	image, err := docker.BuildWeb(ctx, harness.Image{})
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "berth-bench-"); err != nil {
		return err
	}
	if b.disk, err = newDisk(filepath.Join(b.dir, "disk")); err != nil {
		return err
	}
	b.sim = elbsim.New(elbsim.Config{Instance: elbsim.Instance{ID: instance}, OnCall: b.heard})
	if b.elb, err = elbsim.Start(b.sim, elbsim.Listen{}); err != nil {
		return err
	}
	b.clock.listen(ctx, label)
	for _, name := range append([]string{"floor"}, b.berths...) {
		if err := b.addSide(ctx, name, image); err != nil {
			return err
		}
	}
	floorCtx, stop := context.WithCancel(ctx)
	b.stop = stop
	if err := b.startFloor(floorCtx, begun); err != nil {
		return err
	}
	for _, s := range b.sides[1:] {
		a, err := startAgent(ctx, s, b.dir, b.elb.Env())
		if a != nil {
			b.agents = append(b.agents, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addSide makes a target group and a container for the floor, or for a program.
func (b *bench) addSide(ctx context.Context, name, image string) error {
	s := &side{name: name, group: harness.Unique("bench")}
	var err error
	// Targets that are gone soon, as on a host that does not replace its containers every second.
	if s.arn, err = b.sim.AddGroup(elbsim.Group{Name: s.group, DeregistrationDelay: time.Second}); err != nil {
		return err
	}
	labels := map[string]string{label: "", harness.LabelOwner: harness.Owner(), "berth.targets": s.group}
	if len(b.sides) == 0 {
		delete(labels, "berth.targets")
		labels[floorLabel] = ""
	}
	made, err := b.clock.docker.Client.ContainerCreate(ctx, &container.Config{Image: image, Cmd: []string{"--stop=die"}, Labels: labels},
		&container.HostConfig{PublishAllPorts: true}, nil, nil, s.group)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	s.container = made.ID
	b.sides = append(b.sides, s)
	return nil
}

// heard passes on the calls that change a group.
func (b *bench) heard(c elbsim.Call) {
	if c.Action == "RegisterTargets" || c.Action == "DeregisterTargets" {
		b.clock.calls <- c
	}
}

// measure lets the sides take turns, each time another one first.
func (b *bench) measure(ctx context.Context) (*result, error) {
	r := &result{Machine: machineNow(ctx, b.clock.docker)}
	next := time.Now()
	for i := range b.warm + b.n {
		select {
		case <-time.After(time.Until(next)):
		case err := <-b.floor:
			return nil, errors.Join(errors.New("the floor has ended"), err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		next = time.Now().Add(between)
		for turn := range b.sides {
			s := b.sides[(i+turn)%len(b.sides)]
			start, kill, err := s.cycle(ctx, &b.clock)
			if err != nil {
				return nil, fmt.Errorf("turn %d: %w", i+1, err)
			}
			if i >= b.warm {
				s.start, s.kill = append(s.start, start), append(s.kill, kill)
			}
		}
		if err := b.disk.measure(); err != nil {
			return nil, err
		}
	}
	r.Disk = b.disk.took.quantiles()
	r.Machine.LoadAfter = load()
	for i, a := range b.agents {
		s := b.sides[i+1]
		m := measured{Program: s.name, Start: compare(b.sides[0].start, s.start), Kill: compare(b.sides[0].kill, s.kill)}
		text, err := a.scrape(ctx)
		if err == nil {
			m.LedgerSync, err = ledgerSync(text)
		}
		if err != nil {
			return nil, err
		}
		r.Berths = append(r.Berths, m)
	}
	r.judge()
	return r, nil
}

func machineNow(ctx context.Context, docker *harness.Engine) machine {
	m := machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), LoadBefore: load()}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if v, err := docker.Client.ServerVersion(ctx); err == nil {
		m.Engine = v.Version
	}
	return m
}

// load returns the machine's load average of the last minute.
func load() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	v, _ := strconv.ParseFloat(first, 64) // 0: not known
	return v
}

// cleanUp ends and removes all that this run made. If it failed, the programs' last words come first.
func (b *bench) cleanUp(ctx context.Context, failed bool) error {
	var errs []error
	if b.floor != nil {
		b.stop()
		for range b.floor { // until it has ended, which it was told to
		}
	}
	for _, a := range b.agents {
		errs = append(errs, a.end(ctx))
		if failed {
			a.lastWords()
		}
	}
	for _, s := range b.sides {
		errs = append(errs, b.clock.docker.Client.ContainerRemove(ctx, s.container, container.RemoveOptions{Force: true}))
	}
	if b.elb != nil {
		errs = append(errs, b.elb.Close())
	}
	if b.clock.docker != nil {
		b.clock.docker.Close()
	}
	if b.disk != nil {
		errs = append(errs, b.disk.file.Close())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}
