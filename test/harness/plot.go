package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

// empty removes every container and network of the engine. It is for private engines alone.
func (e *PrivateEngine) empty(ctx context.Context) error {
	containers, err := e.Client.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var errs []error
	for _, c := range containers {
		errs = append(errs, (&Container{ID: c.ID, engine: &e.Engine}).remove(ctx))
	}
	networks, err := e.Client.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list networks: %w", err))...)
	}
	for _, n := range networks {
		if n.Name != "bridge" && n.Name != "host" && n.Name != "none" {
			errs = append(errs, e.Client.NetworkRemove(ctx, n.ID))
		}
	}
	return errors.Join(errs...)
}

// sweepEngines clears the plots of processes that ended without doing so. What cannot be cleared is left to the next. One
// process sweeps at a time: two at once would each find half of what the other is about to remove.
func sweepEngines() {
	lock, err := os.OpenFile(filepath.Join(enginesDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return // there never was one
	}
	defer lock.Close()
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return
	}
	entries, err := os.ReadDir(enginesDir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		p := plotOf(number)
		info, err := entry.Info()
		if err != nil {
			continue
		}
		owner, err := os.ReadFile(p.path("owner"))
		if err != nil && time.Since(info.ModTime()) < time.Minute {
			continue // being claimed just now
		}
		if ownerGone(string(owner), info.ModTime()) {
			_ = p.clear()
		}
	}
}

// clear ends the processes of the plot, with their containers, and removes what they mounted, made and wrote.
func (p plot) clear() error {
	containers, _ := filepath.Glob(p.path("data/containers/*")) // the pattern is good
	if err := p.endProcesses(); err != nil {
		return err
	}
	mounts, err := p.mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, mount := range mounts {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", mount, err))
		}
	}
	for _, dir := range containers {
		// A container whose shim was killed leaves its empty control groups.
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/docker/" + filepath.Base(dir))
		for _, group := range append(groups, "/sys/fs/cgroup/docker/"+filepath.Base(dir)) {
			_ = syscall.Rmdir(group)
		}
	}
	for _, bridge := range p.interfaces() {
		errs = append(errs, ip(context.Background(), "link", "delete", bridge))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the directory stays: it is how the next process knows what to clear
	}
	return os.RemoveAll(p.dir)
}

// endProcesses ends the engine, its containerd, the shims and the containers: SIGTERM to the engine, once (the third
// would make it drop everything), which ends the others; after that SIGKILL to whatever is left.
func (p plot) endProcesses() error {
	if err := p.signal(syscall.SIGTERM, "dockerd"); err != nil {
		return err
	}
	patient := time.Now().Add(20 * time.Second)
	deadline := patient.Add(Patience)
	for {
		engines, err := p.processes("dockerd")
		if err != nil {
			return err
		}
		if len(engines) == 0 || time.Now().After(patient) {
			if err := p.signal(syscall.SIGKILL, everything...); err != nil {
				return err
			}
			left, err := p.processes(everything...)
			if err != nil || len(left) == 0 {
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("end the processes of %s: %v still run", p.dir, left)
			}
		}
		<-time.After(20 * time.Millisecond)
	}
}

// everything are the programs of an engine.
var everything = []string{"dockerd", "containerd", shim, "containerd-shim"}

// shim is the program between containerd and a container; its children are the containers' own processes.
const shim = "containerd-shim-runc-v2"

// signal sends a signal to the plot's processes of these programs.
func (p plot) signal(s syscall.Signal, programs ...string) error {
	pids, err := p.processes(programs...)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d of %s: %w", pid, p.dir, err)
		}
	}
	return nil
}

// processes returns the pids of the plot's processes of these programs. With the shims go the containers.
func (p plot) processes(programs ...string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find the processes of %s: %w", p.dir, err)
	}
	var pids []int
	parents := map[int]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		command, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || len(command) == 0 {
			continue // ended, or a zombie
		}
		parents[pid] = parent(pid)
		program, _, _ := bytes.Cut(command, []byte{0})
		if bytes.Contains(command, []byte(p.dir+"/")) && slices.Contains(programs, filepath.Base(string(program))) {
			pids = append(pids, pid)
		}
	}
	if slices.Contains(programs, shim) {
		for pid, ppid := range parents {
			if slices.Contains(pids, ppid) && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// parent returns the pid of a process's parent, or 0.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	var state string
	var ppid int
	_, _ = fmt.Sscan(rest, &state, &ppid) // 0 where it cannot be read
	return ppid
}

// interfaces returns the network interfaces of the plot: the engine's bridge, and those of its networks.
func (p plot) interfaces() []string {
	var names []string
	for _, pattern := range []string{p.bridge, p.bridge + "n*"} {
		found, _ := filepath.Glob("/sys/class/net/" + pattern) // the pattern is good
		for _, path := range found {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

// mounts returns what is mounted inside the plot, innermost first.
func (p plot) mounts() ([]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the mounts of %s: %w", p.dir, err)
	}
	var mounts []string
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], p.dir+"/") {
			mounts = append(mounts, fields[4])
		}
	}
	slices.Reverse(mounts)
	return mounts, nil
}
