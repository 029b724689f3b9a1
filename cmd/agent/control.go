package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/server"
	"berth/pkg/target"
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
	agent *agent
	log   *zap.Logger
	holds chan struct{} // one slot for each connection that holds a drain
	next  atomic.Uint64 // numbers those drains
}

func (a *agent) controlHandler() http.Handler {
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
	err := c.agent.reload(ctx)
	c.asked(r, "reload", err)
	if err != nil {
		server.WriteError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	now := c.agent.settings.Load()
	v := server.ReloadedV1{Generation: now.generation, Keys: []string{}}
	for _, g := range now.Groups {
		v.Keys = append(v.Keys, g.Key)
	}
	if s, _ := c.agent.seen.Get(); s != nil {
		v.Seq = s.Seq
	}
	server.WriteJSON(w, http.StatusOK, v)
}

// prune has the named targets deregistered that are unclaimed, and waits for it.
func (c *control) prune(w http.ResponseWriter, r *http.Request) {
	server.Extend(w, 2*controlPatrol)
	var p server.PruneV1
	err := read(r, &p)
	switch {
	case err != nil:
	case len(p.Targets) == 0:
		err = refuse(http.StatusBadRequest, "no target is named")
	case len(p.Targets) > maxPrune:
		err = refuse(http.StatusBadRequest, "%d targets are named; at most %d can be", len(p.Targets), maxPrune)
	case c.agent.dry:
		err = refuse(http.StatusConflict, "the agent runs dry: it changes nothing")
	}
	if err != nil {
		c.asked(r, "prune", err)
		fail(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), controlPatrol)
	defer cancel()
	v := pruneTargets(ctx, c.agent.registrar, p.Targets)
	c.asked(r, "prune", nil, zap.Any("removed", v.Removed), zap.Any("left", v.Left))
	server.WriteJSON(w, http.StatusOK, v)
}

// pruner is the part of the registrar that pruning needs.
type pruner interface {
	Prune(key string, targets []target.Target) bool
	Snapshot() (*registrar.Snapshot, <-chan struct{})
}

// pruneTargets has those of the targets removed that are unclaimed now, and waits until they are or ctx ends.
func pruneTargets(ctx context.Context, r pruner, targets []server.GroupTargetV1) server.PrunedV1 {
	v := server.PrunedV1{Removed: []server.GroupTargetV1{}, Left: []server.LeftV1{}}
	s, _ := r.Snapshot()
	byGroup := map[string][]target.Target{}
	for _, t := range targets {
		g := groupOf(s, t.Group)
		switch {
		case g == nil:
			v.Left = append(v.Left, server.LeftV1{GroupTargetV1: t, Why: "the agent serves no target group of that key"})
		case !slices.Contains(g.Unclaimed, t.Target):
			v.Left = append(v.Left, server.LeftV1{GroupTargetV1: t, Why: "it is not unclaimed (any more)"})
		default:
			byGroup[t.Group] = append(byGroup[t.Group], t.Target)
		}
	}
	for key, unclaimed := range byGroup {
		if !r.Prune(key, unclaimed) {
			for _, t := range unclaimed {
				v.Left = append(v.Left, server.LeftV1{GroupTargetV1: server.GroupTargetV1{Group: key, Target: t}, Why: "the target group has just left the configuration"})
			}
			delete(byGroup, key)
		}
	}
	for {
		s, changed := r.Snapshot()
		for key, waiting := range byGroup {
			waiting = slices.DeleteFunc(waiting, func(t target.Target) bool {
				if !gone(s, key, t) {
					return false
				}
				v.Removed = append(v.Removed, server.GroupTargetV1{Group: key, Target: t})
				return true
			})
			if byGroup[key] = waiting; len(waiting) == 0 {
				delete(byGroup, key)
			}
		}
		if len(byGroup) == 0 {
			return v
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		for key, waiting := range byGroup {
			why := "it is not deregistered yet; the agent goes on trying"
			if g := groupOf(s, key); g != nil && g.Err != "" {
				why += ": " + g.Err
			}
			for _, t := range waiting {
				v.Left = append(v.Left, server.LeftV1{GroupTargetV1: server.GroupTargetV1{Group: key, Target: t}, Why: why})
			}
		}
		return v
	}
}

// gone reports whether the load balancer has let go of a target, or lets its last requests end.
func gone(s *registrar.Snapshot, key string, t target.Target) bool {
	g := groupOf(s, key)
	if g == nil {
		return false
	}
	i := slices.IndexFunc(g.Targets, func(ts registrar.TargetStatus) bool { return ts.Target == t })
	return !slices.Contains(g.Unclaimed, t) && (i < 0 || g.Targets[i].Phase == registrar.Removing || g.Targets[i].Phase == registrar.Absent)
}

func groupOf(s *registrar.Snapshot, key string) *registrar.GroupStatus {
	for i := range s.Groups {
		if slices.Contains(s.Groups[i].Keys, key) {
			return &s.Groups[i]
		}
	}
	return nil
}

// drain takes a container or the host out, as DrainRequestV1 says.
func (c *control) drain(w http.ResponseWriter, r *http.Request) {
	server.Extend(w, controlPatrol)
	var req server.DrainRequestV1
	d, run, warning, err := discovery.Drain{}, target.Run{}, "", read(r, &req)
	if err == nil {
		d, run, warning, err = c.drainOf(r.Context(), &req)
	}
	if err == nil && d.Hold == discovery.HoldConnection {
		select {
		case c.holds <- struct{}{}:
			defer func() { <-c.holds }()
		default:
			err = refuse(http.StatusServiceUnavailable, "%d drains are held by their connections already; try again", maxHolds)
		}
	}
	var seq uint64
	if err == nil {
		d.By, d.Reason = caller(r.Context()), req.Reason
		d.Since = time.Now().Round(0)
		seq, err = c.agent.watcher.Drain(r.Context(), d)
		if errors.Is(err, discovery.ErrNotSaved) {
			warning, err = joined(warning, err.Error()+": the drain ends with the agent"), nil
		}
	}
	fields := []zap.Field{zap.String("container", run.Name), zap.Stringer("hold", d.Hold), zap.String("drain", d.ID), zap.String("reason", req.Reason)}
	c.asked(r, "drain", err, fields...)
	if err != nil {
		fail(w, err)
		return
	}
	v := server.DrainedV1{
		Drain: server.NewDrainV1(d), Run: run, Seq: seq, MaxWait: c.agent.settings.Load().Drain.MaxWait.String(), Warning: warning,
	}
	if d.Cause == discovery.CauseShutdown {
		v.MaxWait = c.agent.settings.Load().Drain.ShutdownMaxWait.String()
	}
	if d.Hold != discovery.HoldConnection {
		server.WriteJSON(w, http.StatusCreated, v)
		return
	}
	server.Extend(w, 0)
	server.WriteJSON(w, http.StatusCreated, v)
	_ = http.NewResponseController(w).Flush() // a client that is gone is seen next
	<-r.Context().Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), controlPatrol)
	defer cancel()
	_, err = c.agent.watcher.Undrain(ctx, d.ID)
	if errors.Is(err, discovery.ErrStopped) {
		return // it ends with the agent
	}
	c.asked(r, "release", err, fields...)
}

// drainOf makes a drain of a request. Its warning says what could not be made sure of.
func (c *control) drainOf(ctx context.Context, req *server.DrainRequestV1) (d discovery.Drain, run target.Run, warning string, err error) {
	d.Cause = discovery.CauseOperator
	if req.Hold != "" {
		if err := d.Hold.UnmarshalText([]byte(req.Hold)); err != nil {
			return d, run, "", refuse(http.StatusBadRequest, "%w", err)
		}
	}
	switch {
	case c.agent.dry:
		return d, run, "", refuse(http.StatusConflict, "the agent runs dry: it changes nothing")
	case req.Host == (req.Container != ""):
		return d, run, "", refuse(http.StatusBadRequest, "either a container or the host is drained: give one of both")
	case utf8.RuneCountInString(req.Reason) > maxReason:
		return d, run, "", refuse(http.StatusBadRequest, "the reason is longer than %d characters", maxReason)
	case req.Cause != "" && req.Cause != discovery.CauseOperator && req.Cause != discovery.CauseShutdown:
		return d, run, "", refuse(http.StatusBadRequest, "cause %q: must be operator or shutdown", req.Cause)
	case req.Cause == discovery.CauseShutdown && !req.Host:
		return d, run, "", refuse(http.StatusBadRequest, "cause shutdown is the host's")
	case req.Host && d.Hold == discovery.HoldRun:
		return d, run, "", refuse(http.StatusBadRequest, "hold run is a container's")
	}
	if s, _ := c.agent.seen.Get(); s != nil && len(s.Drains) >= maxDrains {
		return d, run, "", refuse(http.StatusServiceUnavailable, "%d drains hold already", len(s.Drains))
	}
	if req.Cause != "" {
		d.Cause = req.Cause
	}
	if !req.Host {
		run, warning, err = c.look(ctx, req.Container)
		if err != nil {
			return d, run, "", err
		}
		d.Container = run.ID
	}
	// Drains of different holds stand beside each other: what ends with a run or a connection must not end what somebody
	// wants kept.
	d.ID = discovery.DrainID(d.Cause, d.Container)
	switch d.Hold {
	case discovery.HoldRun:
		d.ID += "/run"
		d.StartedAt = run.StartedAt
	case discovery.HoldConnection:
		d.ID += "/connection-" + strconv.FormatUint(c.next.Add(1), 10)
	case discovery.HoldKeep:
	}
	return d, run, warning, nil
}

// reference is what Docker takes for a container's name, id, or the beginning of one.
var reference = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// look finds the container that somebody names. Docker's word is best; without it the agent's memory will do.
func (c *control) look(ctx context.Context, ref string) (target.Run, string, error) {
	if len(ref) > maxReference || !reference.MatchString(ref) {
		return target.Run{}, "", refuse(http.StatusBadRequest, "%.60q is no container's name or id", ref)
	}
	run, _, err := c.agent.watcher.Look(ctx, ref)
	switch {
	case errors.Is(err, discovery.ErrNotAnswered) && run.ID != "":
		return run, "Docker does not answer; what the agent remembers of " + run.String() + " is used", nil
	case err != nil:
		return run, "", err
	}
	return run, "", nil
}

// undrain ends the operator's drains of a container or of the host, or the one of an id.
func (c *control) undrain(w http.ResponseWriter, r *http.Request) {
	server.Extend(w, controlPatrol)
	v, err := c.undrained(r)
	c.asked(r, "undrain", err, zap.String("container", v.Run.Name), zap.Int("drains", len(v.Ended)))
	if err != nil {
		fail(w, err)
		return
	}
	server.WriteJSON(w, http.StatusOK, v)
}

func (c *control) undrained(r *http.Request) (server.UndrainedV1, error) {
	v := server.UndrainedV1{Ended: []server.DrainV1{}}
	q := r.URL.Query()
	id, host := q.Get("id"), q.Get("host") == "true"
	if given := []bool{id != "", host, q.Get("container") != ""}; len(slices.DeleteFunc(given, func(b bool) bool { return !b })) != 1 {
		return v, refuse(http.StatusBadRequest, "one of container=NAME, host=true and id=ID has to be given")
	}
	if ref := q.Get("container"); ref != "" {
		var err error
		if v.Run, v.Warning, err = c.look(r.Context(), ref); err != nil {
			return v, err
		}
	}
	s, _ := c.agent.seen.Get()
	if s == nil {
		return v, refuse(http.StatusServiceUnavailable, "the agent has only just started; try again")
	}
	for _, d := range s.Drains {
		if id == "" && d.Container != v.Run.ID || id != "" && d.ID != id {
			continue
		}
		// What belongs to a connection, to the host or to a stop signal ends with its reason alone.
		if d.Cause != discovery.CauseOperator && (id == "" || d.Cause != discovery.CauseShutdown) || d.Hold == discovery.HoldConnection {
			v.Left = append(v.Left, server.NewDrainV1(d))
			continue
		}
		seq, err := c.agent.watcher.Undrain(r.Context(), d.ID)
		switch {
		case errors.Is(err, discovery.ErrNotFound):
			continue // it has just ended
		case errors.Is(err, discovery.ErrNotSaved):
			v.Warning = joined(v.Warning, err.Error()+": a restart of the agent brings the drain back")
		case err != nil:
			return v, err
		}
		v.Seq = seq
		v.Ended = append(v.Ended, server.NewDrainV1(d))
	}
	if len(v.Ended) > 0 {
		return v, nil
	}
	what := "nobody has drained " + v.Run.String()
	switch {
	case id != "":
		what = fmt.Sprintf("there is no drain %.80q that can be ended", id)
	case v.Run.ID == "":
		what = "nobody has drained the host"
	}
	for _, d := range v.Left {
		what += "; " + d.Cause + " holds it, and ends by itself"
	}
	return v, refuse(http.StatusNotFound, "%s", what)
}

// joined joins two sentences, either of which may be empty.
func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
