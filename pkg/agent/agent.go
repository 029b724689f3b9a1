package agent

import (
	"context"
	"errors"
	"time"

	"berth/pkg/host"
	"berth/pkg/server"
	"berth/pkg/status"
)

// Agent is the daemon: a Core, what it shows over HTTP and the control socket, the host's lifecycle hooks, and what the
// service manager is told.
type Agent struct {
	*Core
	server *server.Server
}

// New makes an agent and opens its sockets. The caller must call Run or Close. Its errors are those of NewCore, or say why
// the control socket cannot be opened.
func New(ctx context.Context, o Options) (*Agent, error) {
	core, err := NewCore(ctx, o)
	if err != nil {
		return nil, err
	}
	a := &Agent{Core: core}
	if a.server, err = a.listen(ctx); err != nil {
		return nil, errors.Join(err, core.Close())
	}
	return a, nil
}

// Run runs the agent until ctx ends, as Core's does.
func (a *Agent) Run(ctx context.Context) error {
	return together(ctx, append(a.parts(), a.server.Run, a.notify, a.newHooks().run))
}

// Close closes what New has opened. It is called after Run, if at all.
func (a *Agent) Close() error {
	a.server.Close()
	return a.Core.Close()
}

// Readiness returns what /readyz answers now.
func (a *Agent) Readiness() status.Readiness { return a.server.Readiness() }

// Status returns what GET /v1/status answers now.
func (a *Agent) Status() status.V1 { return a.server.Status() }

func (a *Agent) listen(ctx context.Context) (*server.Server, error) {
	return server.Listen(ctx, server.Config{
		Listen: a.cfg.Listen, StatusListen: a.cfg.StatusListen, Socket: a.cfg.ControlSocket, SocketGroup: "berth",
		Listener:  a.o.Listeners,
		Build:     a.o.Build,
		Registry:  a.registry,
		Discovery: a.seen.Get,
		Stream:    a.Stream,
		Registrar: a.registrar.Snapshot,
		Follow:    a.registrar.Follow,
		Host:      a.Core.Host,
		ReloadErr: a.refusedReload, LogDropped: a.o.LogDropped,
		Checks:  a.checks,
		Control: a.controlHandler(),
		Loops:   []server.Loop{{Name: "watcher", Beat: a.watcher.Turned}, {Name: "registrar", Beat: a.registrar.Turned}},
		Log:     a.log,
	})
}

// checks are the lines of /readyz that nobody else has.
func (a *Core) checks() []status.Check {
	ledger := status.Check{Name: "ledger", OK: true, Detail: "on disk"}
	if err := a.ledger.Err(); err != nil {
		ledger = status.Check{
			Name: "ledger", Detail: err.Error(), Change: "make room on the disk of " + a.cfg.StateDir + ", and let user berth write there",
		}
	}
	checks := []status.Check{ledger}
	if err := a.watcher.DrainsErr(); err != nil {
		checks = append(checks, status.Check{
			Name: "drains", Detail: err.Error(), Change: "see that user berth can read and write what is in " + a.cfg.StateDir + ", on a disk that works",
		})
	}
	if s, _ := a.notices.Snapshot(); silent(s) {
		checks = append(checks, status.Check{Name: "metadata", Detail: s.Waiting + status.Lasting(s.Since), Change: s.Change})
	}
	if refused := a.refusedReload(); refused != nil {
		checks = append(checks, status.Check{
			Name: "configuration", Detail: "the last reload was refused, the configuration before it is in force: " + refused.Error(),
			Change: "correct the configuration and reload",
		})
	}
	return checks
}

// refusedReload is why the last reload was refused; nil: it was not.
func (a *Core) refusedReload() error {
	if err := a.reloadErr.Load(); err != nil {
		return *err
	}
	return nil
}

// silenceShown is how long the metadata service may leave a question unanswered before the status shows it: a read that
// fails now and then is nobody's concern.
const silenceShown = 10 * time.Second

// silent reports whether the metadata service leaves questions unanswered. As long as the identity is not known that is
// what blocks, and says the same.
func silent(s *host.Snapshot) bool {
	return s.Identity != nil && s.Waiting != "" && time.Since(s.Since) >= silenceShown
}
