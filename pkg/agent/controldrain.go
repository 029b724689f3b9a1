package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"berth/pkg/discovery"
	"berth/pkg/server"
	"berth/pkg/status"
	"berth/pkg/target"
)

// drain takes a container or the host out, as DrainRequestV1 says.
func (c *control) drain(w http.ResponseWriter, r *http.Request) {
	server.Extend(w, controlPatrol)
	var req status.DrainRequestV1
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
			warning, err = status.Joined(warning, err.Error()+": the drain ends with the agent"), nil
		}
		if d.Hold == discovery.HoldConnection {
			// Also where err says that the client went away: the drain may have been made by then.
			defer c.release(r, d)
		}
	}
	fields := []zap.Field{zap.String("container", run.Name), zap.Stringer("hold", d.Hold), zap.String("drain", d.ID), zap.String("reason", req.Reason)}
	c.asked(r, "drain", err, fields...)
	if err != nil {
		fail(w, err)
		return
	}
	v := status.DrainedV1{
		Drain: status.NewDrainV1(d), Run: run, Seq: seq, MaxWait: c.agent.settings.Load().Drain.MaxWait.String(), Warning: warning,
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
}

// release ends the drain of a connection that has ended.
func (c *control) release(r *http.Request, d discovery.Drain) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), controlPatrol)
	defer cancel()
	_, err := c.agent.watcher.Undrain(ctx, d.ID)
	if errors.Is(err, discovery.ErrStopped) || errors.Is(err, discovery.ErrNotFound) {
		return // it has ended: with the agent, or it was never made
	}
	c.asked(r, "release", err, zap.String("drain", d.ID))
}

// drainOf makes a drain of a request. Its warning says what could not be made sure of.
func (c *control) drainOf(ctx context.Context, req *status.DrainRequestV1) (d discovery.Drain, run target.Run, warning string, err error) {
	d.Cause = discovery.CauseOperator
	if req.Hold != "" {
		if err := d.Hold.UnmarshalText([]byte(req.Hold)); err != nil {
			return d, run, "", refuse(http.StatusBadRequest, "%w", err)
		}
	}
	switch {
	case c.agent.o.DryRun:
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
		return run, "", lookError(ref, err)
	}
	return run, "", nil
}

// lookError says what is wrong with a container's name.
func lookError(ref string, err error) error {
	switch {
	case errors.Is(err, discovery.ErrAmbiguous):
		return refuse(http.StatusConflict, "several containers' ids begin with %.60q; write more of it", ref)
	case errors.Is(err, discovery.ErrNotFound) && !errors.Is(err, discovery.ErrNotAnswered):
		return refuse(http.StatusNotFound, "there is no such container; see: docker ps -a")
	default:
		return err
	}
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

func (c *control) undrained(r *http.Request) (status.UndrainedV1, error) {
	v := status.UndrainedV1{Ended: []status.DrainV1{}}
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
		// What belongs to a connection, to the host or to a stop signal ends with its reason alone. A shutdown does not where
		// it restarts all but the kernel: the boot goes on, and the drain with it.
		if d.Cause != discovery.CauseOperator && d.Cause != discovery.CauseShutdown || d.Hold == discovery.HoldConnection {
			v.Left = append(v.Left, status.NewDrainV1(d))
			continue
		}
		seq, err := c.agent.watcher.Undrain(r.Context(), d.ID)
		switch {
		case errors.Is(err, discovery.ErrNotFound):
			continue // it has just ended
		case errors.Is(err, discovery.ErrNotSaved):
			v.Warning = status.Joined(v.Warning, err.Error()+": a restart of the agent brings the drain back")
		case err != nil:
			return v, err
		}
		v.Seq = seq
		v.Ended = append(v.Ended, status.NewDrainV1(d))
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
