package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"

	"berth/internal/elbsim"
	"berth/pkg/server"
	"berth/test/harness"
)

const (
	instance = "i-0123456789abcdef0"
	// label marks the containers of this program, floorLabel the floor's.
	label      = "berth-bench"
	floorLabel = "berth-bench.floor"
	// between is the time from one start to the next: longer than the second after which berth may register again, so
	// that what is measured is never its pacing.
	between = 1100 * time.Millisecond
)

// bench is one run.
type bench struct {
	options
	clock   clock
	sim     *elbsim.Sim
	elb     *elbsim.Server
	dir     string // configuration, state, control socket, log
	agent   *exec.Cmd
	ended   chan struct{} // closed when agent has ended
	metrics string        // address
	floor   chan error
	stop    context.CancelFunc // of the floor
	sides   [2]*side           // the floor and berth
	disk    *disk
}

// prepare starts the load balancer, the floor and berth, and makes a container for each.
func (b *bench) prepare(ctx context.Context) error {
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
	for i, name := range []string{"floor", "berth"} {
		// Targets that are gone soon, as on a host that does not replace its containers every second.
		s := &side{name: name, group: harness.Unique(name)}
		if s.arn, err = b.sim.AddGroup(elbsim.Group{Name: s.group, DeregistrationDelay: time.Second}); err != nil {
			return err
		}
		b.sides[i] = s
	}
	for i, labels := range []map[string]string{{floorLabel: ""}, {"berth.targets": b.sides[1].group}} {
		labels[label], labels[harness.LabelOwner] = "", harness.Owner()
		made, err := docker.Client.ContainerCreate(ctx, &container.Config{Image: image, Cmd: []string{"--stop=die"}, Labels: labels},
			&container.HostConfig{PublishAllPorts: true}, nil, nil, harness.Unique("bench-"+b.sides[i].name))
		if err != nil {
			return fmt.Errorf("create container: %w", err)
		}
		b.sides[i].container = made.ID
	}
	b.clock.listen(ctx, label)
	floorCtx, stop := context.WithCancel(ctx)
	b.floor, b.stop = make(chan error, 1), stop
	go func() {
		b.floor <- floor(floorCtx, docker.Client, b.elb.URL(), b.sides[0].arn, instance, floorLabel)
	}()
	return b.startAgent(ctx, b.sides[1].group)
}

// heard passes on the calls that change a group.
func (b *bench) heard(c elbsim.Call) {
	if c.Action == "RegisterTargets" || c.Action == "DeregisterTargets" {
		b.clock.calls <- c
	}
}

// startAgent starts berth as its unit does: JSON log at level info, metrics, state on disk.
func (b *bench) startAgent(ctx context.Context, group string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.metrics = l.Addr().String()
	config := filepath.Join(b.dir, "berth.yaml")
	err = errors.Join(l.Close(), os.WriteFile(config, []byte("target_groups: {"+group+": {}}\n"), 0o600))
	log, logErr := os.Create(filepath.Join(b.dir, "log"))
	if err := errors.Join(err, logErr); err != nil {
		return err
	}
	defer log.Close()
	socket := filepath.Join(b.dir, "berth.sock")
	b.agent = exec.Command(b.berth, "run", "--config", config, "--state-dir", filepath.Join(b.dir, "state"),
		"--control-socket", socket, "--listen", b.metrics, "--status-listen", "127.0.0.1:0", "--log-format", "json")
	b.agent.Stdout, b.agent.Stderr = log, log
	b.agent.Env = append(b.elb.Env(), "PATH="+os.Getenv("PATH"), "HOME="+b.dir)
	b.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := b.agent.Start(); err != nil {
		b.agent = nil
		return fmt.Errorf("start berth: %w (make build makes it)", err)
	}
	ended := make(chan struct{})
	b.ended = ended
	go func() {
		_ = b.agent.Wait() // its log says how it ended
		close(ended)
	}()
	client := server.NewClient(socket, "")
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		status, err := client.Status(ctx, server.StatusQuery{})
		if err == nil && status.Readiness.Ready {
			return nil
		}
		select {
		case <-ended:
			return errors.New("berth has ended")
		case <-ctx.Done():
			return fmt.Errorf("berth is not ready: %w", errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// measure lets both sides take turns, each time another one first.
func (b *bench) measure(ctx context.Context) (*result, error) {
	r := &result{Machine: machineNow(ctx, b.clock.docker)}
	next := time.Now()
	for i := range b.warm + b.n {
		select {
		case <-time.After(time.Until(next)):
		case err := <-b.floor:
			return nil, fmt.Errorf("the floor has ended: %w", err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		next = time.Now().Add(between)
		for turn := range b.sides {
			s := b.sides[(i+turn)%2]
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
	r.Start, r.Kill = compare(b.sides[0].start, b.sides[1].start), compare(b.sides[0].kill, b.sides[1].kill)
	r.Disk = b.disk.took.quantiles()
	r.Machine.LoadAfter = load()
	r.judge()
	text, err := b.scrape(ctx)
	if err != nil {
		return nil, err
	}
	r.LedgerSync, err = ledgerSync(text)
	return r, err
}

// scrape returns berth's metrics.
func (b *bench) scrape(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.metrics+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := floorClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask berth for its metrics: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
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

// cleanUp ends and removes all that this run made. If it failed, berth's last words come first.
func (b *bench) cleanUp(ctx context.Context, failed bool) error {
	var errs []error
	if b.stop != nil {
		b.stop()
	}
	if b.agent != nil {
		_ = b.agent.Process.Signal(syscall.SIGTERM) // fails if it has ended
		select {
		case <-b.ended:
		case <-ctx.Done():
			errs = append(errs, errors.New("berth does not end"), b.agent.Process.Kill())
		}
		if log, err := os.ReadFile(filepath.Join(b.dir, "log")); failed && err == nil {
			fmt.Fprintf(os.Stderr, "berth's log ends so:\n%s\n", bytes.TrimSpace(log[max(0, len(log)-4000):]))
		}
	}
	for _, s := range b.sides {
		if s != nil && s.container != "" {
			errs = append(errs, b.clock.docker.Client.ContainerRemove(ctx, s.container, container.RemoveOptions{Force: true}))
		}
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
