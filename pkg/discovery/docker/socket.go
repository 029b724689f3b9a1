package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"berth/pkg/discovery"
)

// DefaultHost is where Docker listens unless it was told otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// defaultUnits is where systemd (236 and later) keeps one entry, "invocation:NAME", for each unit that is neither
// inactive nor failed. Everybody may look there, also from a hardened unit, and looking wakes nobody.
// Source: unit_export_invocation_id and unit_unlink_state_files in systemd's src/core/unit.c.
const defaultUnits = "/run/systemd/units"

// socket is the unix socket of an engine.
type socket struct {
	host  string // as the user wrote it
	path  string
	units string // systemd's directory of running units
}

// parseHost takes unix sockets alone: what Berth reads decides what a load balancer sends to whom, and a TCP port of
// Docker's is root's shell for whoever reaches it.
func parseHost(host string) (socket, error) {
	if host == "" {
		host = DefaultHost
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return socket{}, fmt.Errorf("docker host %q: only unix sockets are supported: use unix:///path/to/docker.sock", host)
	}
	if !filepath.IsAbs(path) {
		return socket{}, fmt.Errorf("docker host %q: the path has to be absolute: unix:///path/to/docker.sock", host)
	}
	return socket{host: host, path: filepath.Clean(path), units: defaultUnits}, nil
}

// dial connects, unless that would start an engine that somebody stopped.
func (s socket) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if s.wouldWake() {
		return nil, &discovery.EngineError{
			Host: s.host, Why: "docker.service is stopped, and connecting to its socket would start it",
			Change: "start it when it is wanted: systemctl start docker", Err: discovery.ErrEngineStopped,
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.path)
	if err != nil {
		return nil, s.explain(err)
	}
	return conn, nil
}

// wouldWake reports whether systemd holds the socket (docker.socket is active) while the engine does not run
// (docker.service is not). A connection would have systemd start the engine. Where systemd cannot be seen, as in a
// container, or is older than 236, it reports false.
//
// An engine that is on its way down still counts as running: that it cannot be told from here is why the watcher asks
// nothing while a stream brings its last events.
func (s socket) wouldWake() bool {
	unit, ok := strings.CutSuffix(filepath.Base(s.path), ".sock")
	if !ok || unit != "docker" {
		return false // podman.service, for one, is stopped whenever it is idle, and meant to be woken
	}
	return s.active(unit+".socket") && !s.active(unit+".service")
}

func (s socket) active(unit string) bool {
	_, err := os.Lstat(filepath.Join(s.units, "invocation:"+unit))
	return err == nil
}

// explain turns the errors that a person can do something about into sentences.
func (s socket) explain(err error) error {
	e := &discovery.EngineError{Host: s.host, Err: err}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Why = "this user may not open the socket"
		e.Change = "add it to the socket's group (usermod -aG docker USER, or SupplementaryGroups=docker in the unit) and restart berth"
	case errors.Is(err, fs.ErrNotExist):
		e.Why = "there is no such socket"
		e.Change = "install and start Docker (systemctl start docker), or name the socket it listens on"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Why = "the socket is there, but nobody listens"
		e.Change = "start Docker: systemctl start docker"
	case errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EPROTOTYPE):
		e.Why = "the path is no stream socket"
		e.Change = "name the socket that Docker listens on"
	default:
		return fmt.Errorf("reach docker at %s: %w", s.host, err)
	}
	return e
}

// plain returns the sentence out of an error that the client library has wrapped in others of its own.
func plain(err error) error {
	var e *discovery.EngineError
	if errors.As(err, &e) {
		return e
	}
	return err
}
