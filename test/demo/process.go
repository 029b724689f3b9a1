package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that runs beside the demo until it is ended.
type process struct {
	name   string
	cmd    *exec.Cmd
	status string        // berth's: address of its status page
	ended  chan struct{} // closed when it has ended
	first  chan string   // the first line it wrote to standard output

	mu    sync.Mutex // guards lines: both streams add to them
	lines []string   // the last that it wrote
}

// ownGroup keeps a program out of the terminal's Ctrl-C: the demo ends it in its turn. If the demo is killed, so is it.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// begin starts a program.
func begin(path string, args, env []string) (*process, error) {
	p := &process{name: filepath.Base(path), cmd: exec.Command(path, args...), ended: make(chan struct{}), first: make(chan string, 1)}
	p.cmd.Env = env
	p.cmd.SysProcAttr = ownGroup()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w (make build makes it)", p.name, err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.read(stdout, true) })
	readers.Go(func() { p.read(stderr, false) })
	go func() {
		readers.Wait()
		_ = p.cmd.Wait() // how it ended is in its log
		close(p.ended)
	}()
	return p, nil
}

func (p *process) read(r io.Reader, stdout bool) {
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		line := scanner.Text()
		if stdout {
			select {
			case p.first <- line:
			default:
			}
		}
		p.mu.Lock()
		p.lines = append(p.lines, line)
		p.lines = p.lines[max(0, len(p.lines)-30):]
		p.mu.Unlock()
	}
}

// firstLine waits for the first line on standard output.
func (p *process) firstLine(ctx context.Context) (string, error) {
	select {
	case line := <-p.first:
		return line, nil
	case <-p.ended:
		return "", fmt.Errorf("%s has ended:\n%s", p.name, p.tail())
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// tail returns the last lines that it wrote.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n") + "\n"
}

// end ends it politely, and by force if that takes longer than ten seconds.
func (p *process) end(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended, which is seen next
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
	}
	err := p.cmd.Process.Kill()
	<-p.ended
	return errors.Join(fmt.Errorf("end %s: it did not end by itself", p.name), err)
}
