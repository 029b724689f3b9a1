package harness

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// portRange is where an engine reads from which ports it may choose, once, at its start.
const portRange = "/proc/sys/net/ipv4/ip_local_port_range"

// view is a mount namespace in which portRange says something else than on the host. All of a private engine's
// processes, one after the other, run in it: engines that chose from the same ports would take each other's, and a
// container that an engine starts again by itself would stay down.
type view struct {
	holder *exec.Cmd // keeps the namespace while no engine runs in it
	stdin  io.Closer // its end is the holder's
}

// ports returns the host ports of a plot's containers: two thousand, outside the range from which the host's own engine
// and outgoing connections take theirs.
func (p plot) ports() (first, last int) {
	first = 10000 + (p.number-1)%5*2000
	return first, first + 1999
}

// newView makes the plot's view. It ends with this process, whatever ends that.
func (p plot) newView() (*view, error) {
	first, last := p.ports()
	file := p.path("ports")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d\t%d\n", first, last), 0o600); err != nil {
		return nil, fmt.Errorf("give an engine ports of its own: %w", err)
	}
	holder := exec.Command("unshare", "--mount", "--propagation", "private",
		"sh", "-c", `mount --bind "$0" `+portRange+` && echo ready && exec cat`, file)
	holder.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the tests
	stdin, err := holder.StdinPipe()
	stdout, err2 := holder.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("give an engine ports of its own: %w", err)
	}
	if err := holder.Start(); err != nil {
		return nil, fmt.Errorf("give an engine ports of its own: %w", err)
	}
	v := &view{holder: holder, stdin: stdin}
	if said, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("give an engine ports of its own: the mount failed: %q %w", said, err), v.close())
	}
	return v, nil
}

// command returns a command that runs in the view; it replaces nsenter, so that its pid is the program's.
func (v *view) command(program string, args ...string) *exec.Cmd {
	mount := fmt.Sprintf("--mount=/proc/%d/ns/mnt", v.holder.Process.Pid)
	return exec.Command("nsenter", append([]string{mount, program}, args...)...)
}

// close lets go of the namespace.
func (v *view) close() error {
	return errors.Join(v.stdin.Close(), v.holder.Wait())
}
