package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/user"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"berth/pkg/discovery"
	"berth/pkg/server"
	"berth/pkg/status"
)

// The bounds of what clients of the control socket can ask.
const (
	maxHolds      = 64               // drains that last as long as their connection
	maxDrains     = 10_000           // in all: they are in memory, on disk, and in every answer of the status
	maxPrune      = 1000             // targets in one request
	maxReason     = 200              // characters
	maxReference  = 256              // bytes of a container's name or id
	controlPatrol = 30 * time.Second // what a request may take that changes something
)

// control answers what is asked over the control socket: what changes something, or makes the agent ask Docker. Every
// request is logged with who asked.
type control struct {
	agent *Core
	log   *zap.Logger
	holds chan struct{} // one slot for each connection that holds a drain
	next  atomic.Uint64 // numbers those drains
}

func (a *Core) controlHandler() http.Handler {
	c := &control{agent: a, log: a.log.Named("control"), holds: make(chan struct{}, maxHolds)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/reload", c.reload)
	mux.HandleFunc("POST /v1/prune", c.prune)
	mux.HandleFunc("POST /v1/drains", c.drain)
	mux.HandleFunc("DELETE /v1/drains", c.undrain)
	mux.HandleFunc("GET /v1/explain", c.explain)
	return mux
}

// caller names who asks, as the kernel says it.
func caller(ctx context.Context) string {
	p, ok := server.PeerOf(ctx)
	if !ok {
		return "unknown"
	}
	uid := strconv.FormatUint(uint64(p.UID), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}

// asked logs a request, with who sent it and what came of it.
func (c *control) asked(r *http.Request, what string, err error, fields ...zap.Field) {
	p, _ := server.PeerOf(r.Context())
	fields = append(fields, zap.Uint32("uid", p.UID), zap.Int32("pid", p.PID), zap.String("operation", what))
	if err != nil {
		c.log.Warn("request refused", append(fields, zap.Error(err))...)
		return
	}
	c.log.Info("request carried out", fields...)
}

// requestError is an answer that is no success.
type requestError struct {
	status int
	err    error
}

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

func refuse(status int, format string, args ...any) error {
	return &requestError{status, fmt.Errorf(format, args...)}
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	var e *requestError
	switch {
	case errors.As(err, &e):
		server.WriteError(w, e.status, err.Error())
	case errors.Is(err, discovery.ErrNotFound):
		server.WriteError(w, http.StatusNotFound, err.Error())
	case errors.Is(err, discovery.ErrStopped), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		server.WriteError(w, http.StatusServiceUnavailable, err.Error())
	default:
		server.WriteError(w, http.StatusConflict, err.Error())
	}
}

// read decodes a request's body, strictly: a field that is not understood may have been meant to hold something back.
func read(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return refuse(http.StatusBadRequest, "the request cannot be read: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "the request cannot be read: there is something after its JSON")
	}
	return nil
}

func (c *control) reload(w http.ResponseWriter, r *http.Request) {
	server.Extend(w, controlPatrol)
	ctx, cancel := context.WithTimeout(r.Context(), controlPatrol/2)
	defer cancel()
	emptied, err := c.agent.reload(ctx)
	c.asked(r, "reload", err)
	if err != nil {
		server.WriteError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	now := c.agent.settings.Load()
	v := status.ReloadedV1{Generation: now.generation, Keys: []string{}, Emptied: emptied}
	for _, g := range now.Groups {
		v.Keys = append(v.Keys, g.Key)
	}
	if s, _ := c.agent.seen.Get(); s != nil {
		v.Seq = s.Seq
	}
	server.WriteJSON(w, http.StatusOK, v)
}
