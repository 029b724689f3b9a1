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
	"syscall"
	"time"

	"berth/pkg/client"
)

// agent is a running berth.
type agent struct {
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it has ended
	log     string        // path
	metrics string        // address
}

// startAgent starts berth for a side as its unit does: JSON log at level info, metrics, state on disk. It returns when
// it is ready; should that fail, with what has to be ended.
func startAgent(ctx context.Context, s *side, under string, env []string) (*agent, error) {
	dir := filepath.Join(under, s.group)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &agent{ended: make(chan struct{}), log: filepath.Join(dir, "log"), metrics: l.Addr().String()}
	config, socket := filepath.Join(dir, "berth.yaml"), filepath.Join(dir, "sock")
	if err := errors.Join(l.Close(), os.Mkdir(dir, 0o700), os.WriteFile(config, []byte("target_groups: {"+s.group+": {}}\n"), 0o600)); err != nil {
		return nil, err
	}
	log, err := os.Create(a.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	a.cmd = exec.Command(s.name, "run", "--config", config, "--state-dir", filepath.Join(dir, "state"),
		"--control-socket", socket, "--listen", a.metrics, "--status-listen", "127.0.0.1:0", "--log-format", "json")
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+dir)
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w (make build makes it)", s.name, err)
	}
	go func() {
		_ = a.cmd.Wait() // its log says how it ended
		close(a.ended)
	}()
	return a, a.ready(ctx, socket)
}

// ready waits until the agent is.
func (a *agent) ready(ctx context.Context, socket string) error {
	api := client.New(socket, "")
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		status, err := api.Status(ctx, client.StatusQuery{})
		if err == nil && status.Readiness.Ready {
			return nil
		}
		select {
		case <-a.ended:
			return errors.New("berth has ended")
		case <-ctx.Done():
			return fmt.Errorf("berth is not ready: %w", errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// scrape returns its metrics.
func (a *agent) scrape(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.metrics+"/metrics", http.NoBody)
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

// end ends it as a service manager does.
func (a *agent) end(ctx context.Context) error {
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-a.ended:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("berth does not end"), a.cmd.Process.Kill())
	}
}

// lastWords prints the end of its log.
func (a *agent) lastWords() {
	if log, err := os.ReadFile(a.log); err == nil {
		fmt.Fprintf(os.Stderr, "berth's log ends so:\n%s\n", bytes.TrimSpace(log[max(0, len(log)-4000):]))
	}
}
