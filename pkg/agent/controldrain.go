package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
		d.Since = time.Now() // on the clock that nobody sets, too: whoever keeps it may have to date it anew
		seq, err = c.agent.watcher.Drain(r.Context(), d)
		if errors.Is(err, discovery.ErrNotSaved) {
			warning, err = status.Joined(warning, err.Error()+": if the agent is restarted before it is, the drain ends"), nil
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
	if s, _ := c.agent.seen.Get(); d.Name != "" && d.Container == "" && s != nil {
		for i := range s.Drains {
			if s.Drains[i].ID == d.ID {
				d.Container = s.Drains[i].Container // a client that knows no names takes none for the host
			}
		}
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
		if errors.Is(err, errNameAlone) && d.Hold == discovery.HoldKeep {
			run, err = target.Run{Name: nameIn(req.Container)}, nil // said again
		}
		if err != nil {
			return d, run, "", err
		}
		d.Container = run.ID
	}
	// Drains of different holds stand beside each other: what ends with a run or a connection must not end what somebody
	// wants kept.
	d.ID = discovery.DrainID(d.Cause, d.Container)
	if d.Hold == discovery.HoldKeep && byName(req.Container, run) {
		// Who drains by name means what bears it, also when that is replaced meanwhile.
		d.Name = run.Name
		d.ID = discovery.NameDrainID(d.Cause, d.Name)
	}
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

// byName reports whether ref is the name of the run that it was found for, and not its id or the beginning of that.
func byName(ref string, run target.Run) bool {
	return run.Name != "" && nameIn(ref) == run.Name && ref != run.ID
}

// nameIn is the name that ref may be, as Docker takes it: with a slash before it or without.
func nameIn(ref string) string { return strings.TrimPrefix(ref, "/") }

// errNameAlone says that what somebody names is a name that is drained, and that no container bears.
var errNameAlone = errors.New("its name is drained")

// look finds the container that somebody names. Docker's word is best; without it the agent's memory will do. Both take a
// name that nobody bears for the beginning of an id: one that is drained means no other container than its bearer, and the
// error then wraps errNameAlone.
func (c *control) look(ctx context.Context, ref string) (target.Run, string, error) {
	if len(ref) > maxReference || !reference.MatchString(ref) {
		return target.Run{}, "", refuse(http.StatusBadRequest, "%.60q is no container's name or id", ref)
	}
	run, _, err := c.agent.watcher.Look(ctx, ref)
	remembered := errors.Is(err, discovery.ErrNotAnswered) && run.ID != ""
	known := err == nil || remembered
	missing := !known && (errors.Is(err, discovery.ErrAmbiguous) || errors.Is(err, discovery.ErrNotFound) && !errors.Is(err, discovery.ErrNotAnswered))
	other := known && run.ID != ref && run.Name != nameIn(ref)
	if s, _ := c.agent.seen.Get(); (missing || other) && holdsName(s, nameIn(ref)) {
		return target.Run{}, "", refuse(http.StatusNotFound, "there is no such container, and %w: berth undrain %s", errNameAlone, nameIn(ref))
	}
	switch {
	case !known:
		return run, "", lookError(ref, err)
	case remembered:
		return run, "Docker does not answer; what the agent remembers of " + run.String() + " is used", nil
	}
	return run, "", nil
}

// holdsName reports whether a name is drained.
func holdsName(s *discovery.Snapshot, name string) bool {
	return s != nil && slices.ContainsFunc(s.Drains, func(d discovery.Drain) bool { return d.Name != "" && d.Name == name })
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

// undrain ends the operator's drains of a container, of a name, or of the host, or the one of an id.
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

// undrained ends what is asked to end. What nobody has drained needs no ending, and is no error: whoever lets something back
// in may say so twice.
func (c *control) undrained(r *http.Request) (status.UndrainedV1, error) {
	v := status.UndrainedV1{Ended: []status.DrainV1{}}
	q := r.URL.Query()
	id, ref := q.Get("id"), q.Get("container")
	if given := []bool{id != "", q.Get("host") == "true", ref != ""}; len(slices.DeleteFunc(given, func(b bool) bool { return !b })) != 1 {
		return v, refuse(http.StatusBadRequest, "one of container=NAME, host=true and id=ID has to be given")
	}
	s, _ := c.agent.seen.Get()
	if s == nil {
		return v, refuse(http.StatusServiceUnavailable, "the agent has only just started; try again")
	}
	concerns := func(d *discovery.Drain) bool { return d.Host() }
	asked := discovery.Undrained{ID: id, Host: id == "" && ref == ""}
	switch {
	case id != "":
		concerns = func(d *discovery.Drain) bool { return d.ID == id }
	case ref != "":
		run, warning, err := c.released(r.Context(), s, ref)
		if err != nil {
			return v, err
		}
		if run.ID != "" {
			v.Run = run
		}
		v.Warning = warning
		asked.Container, asked.Name = run.ID, nameIn(ref)
		concerns = func(d *discovery.Drain) bool { return d.About(run) || d.Name != "" && d.Name == nameIn(ref) }
	}
	unread, err := c.agent.watcher.UndrainUnread(r.Context(), asked)
	if err != nil {
		return v, err
	}
	s, _ = c.agent.seen.Get() // what was read just before that is in it
	named := ""
	for i := range s.Drains {
		d := &s.Drains[i]
		if ref != "" && d.Host() { // it keeps the container out as well, and ends as the host's alone
			v.Left = append(v.Left, status.NewDrainV1(*d))
			continue
		}
		if !concerns(d) {
			continue
		}
		if ref != "" && d.Name != "" && d.Name != nameIn(ref) { // it is the name's, and ends with that alone
			named = d.Name
			v.Left = append(v.Left, status.NewDrainV1(*d))
			continue
		}
		if err := c.end(r.Context(), d, &v); err != nil {
			return v, err
		}
	}
	if err := c.agent.watcher.DrainsErr(); unread && err != nil {
		v.Warning = status.Joined(v.Warning, err.Error()+": what they hold of it ends when they are read, unless the agent is restarted before that")
	}
	switch {
	case len(v.Ended) > 0, unread && id != "" && len(v.Left) == 0:
	case named != "":
		return v, refuse(http.StatusConflict, "the name %s is drained, which keeps it out: berth undrain %s", named, named)
	case id != "":
		what := fmt.Sprintf("there is no drain %.80q that can be ended", id)
		for _, d := range v.Left {
			what += "; " + d.Cause + " holds it, and ends by itself"
		}
		return v, refuse(http.StatusNotFound, "%s", what)
	}
	return v, nil
}

// released is the run that ref means, or for a name that no container bears a run that has the name alone.
func (c *control) released(ctx context.Context, s *discovery.Snapshot, ref string) (target.Run, string, error) {
	run, warning, err := c.look(ctx, ref)
	name := nameIn(ref)
	var refused *requestError
	switch {
	case err == nil:
		return run, warning, nil
	case holdsName(s, name):
		return target.Run{Name: name}, "", nil // that is known without a container, and without Docker
	case errors.As(err, &refused) && refused.status == http.StatusNotFound:
		return target.Run{Name: name}, "there is no such container; see: docker ps -a", nil
	}
	return run, "", err
}

// end ends a drain, if it is one that ends by being asked to.
func (c *control) end(ctx context.Context, d *discovery.Drain, v *status.UndrainedV1) error {
	if !d.EndsWhenAsked() {
		v.Left = append(v.Left, status.NewDrainV1(*d))
		return nil
	}
	seq, err := c.agent.watcher.Undrain(ctx, d.ID)
	switch {
	case errors.Is(err, discovery.ErrNotFound):
		return nil // it has just ended
	case errors.Is(err, discovery.ErrNotSaved):
		v.Warning = status.Joined(v.Warning, err.Error()+": if the agent is restarted before that is, the drain is back")
	case err != nil:
		return err
	}
	v.Seq = seq
	v.Ended = append(v.Ended, status.NewDrainV1(*d))
	return nil
}
