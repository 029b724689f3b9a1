package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/target"
)

// This file is the control half of the API: what the control socket alone answers, because it changes something or
// makes the agent ask Docker. Config.Control serves it; Client asks for it. docs/http.md describes it.

// ReloadedV1 is what POST /v1/reload answers.
type ReloadedV1 struct {
	Generation uint64   `json:"generation"` // of the configuration now in force
	Seq        uint64   `json:"seq"`        // from which it counts
	Keys       []string `json:"target_groups"`
}

// PruneV1 is the body of POST /v1/prune: targets that were shown as unclaimed.
type PruneV1 struct {
	Targets []GroupTargetV1 `json:"targets"`
}

// GroupTargetV1 is a target of a group, by the group's key.
type GroupTargetV1 struct {
	Group  string        `json:"target_group"`
	Target target.Target `json:"target"`
}

// PrunedV1 is what POST /v1/prune answers, when each target is gone or will not go.
type PrunedV1 struct {
	Removed []GroupTargetV1 `json:"removed"`
	Left    []LeftV1        `json:"left"`
}

// LeftV1 is a target that was not removed.
type LeftV1 struct {
	GroupTargetV1
	Why string `json:"why"`
}

// DrainRequestV1 is the body of POST /v1/drains. Either Container or Host is given.
type DrainRequestV1 struct {
	// Container is a name, an id, or the beginning of one.
	Container string `json:"container,omitempty"`
	// Host drains the whole host.
	Host bool `json:"host,omitempty"`
	// Hold is keep (until undrained; the default), run (until this run of the container ends) or connection: the answer
	// stays open, and the drain ends with it.
	Hold string `json:"hold,omitempty"`
	// Cause is operator (the default), or shutdown: the host's alone, and forgotten with this boot.
	Cause string `json:"cause,omitempty"`
	// Reason is a sentence for whoever wonders later.
	Reason string `json:"reason,omitempty"`
}

// HoldConnection is the DrainRequestV1.Hold of a drain that ends with its connection.
const HoldConnection = "connection"

// DrainedV1 is what POST /v1/drains answers: the drain holds, and nothing of it is wanted from Seq on.
type DrainedV1 struct {
	Drain DrainV1    `json:"drain"`
	Run   target.Run `json:"container,omitzero"`
	// Seq is discovery's, from which the wants are gone. A group whose own seq is at least that has acted on it.
	Seq uint64 `json:"seq"`
	// MaxWait is the configured longest wait for the targets to be gone and settled: "2m0s".
	MaxWait string `json:"max_wait"`
	// Warning says what is not as it should be although the drain holds.
	Warning string `json:"warning,omitempty"`
}

// Wait returns MaxWait as a duration, and whether it can be read: zero is a wait like others.
func (d DrainedV1) Wait() (time.Duration, bool) {
	w, err := time.ParseDuration(d.MaxWait)
	return w, err == nil
}

// UndrainedV1 is what DELETE /v1/drains answers.
type UndrainedV1 struct {
	Ended []DrainV1  `json:"ended"`
	Run   target.Run `json:"container,omitzero"`
	Seq   uint64     `json:"seq"` // from which they no longer count
	// Left are the drains that still hold what was asked about: the host's own reasons, a stop signal.
	Left    []DrainV1 `json:"left,omitempty"`
	Warning string    `json:"warning,omitempty"`
}

// ExplainedV1 is what GET /v1/explain answers.
type ExplainedV1 struct {
	// Seq is that of the snapshot which holds what Docker said when it was asked for this answer.
	Seq uint64     `json:"seq"`
	Run target.Run `json:"container"`
	// Steps are in the order in which they are decided; those about a port name it and its group.
	Steps []StepV1 `json:"steps"`
	Rows  []Row    `json:"rows"` // of the container
}

// StepV1 is one step of a decision.
type StepV1 struct {
	// Outcome is ok (it leads on), wait (something known has to happen first) or stop (somebody has to change something,
	// or nothing asks for it).
	Outcome string `json:"outcome"`
	About   string `json:"about"` // container, request, port, drain, wanted, target_group, load_balancer
	Group   string `json:"target_group,omitempty"`
	// ContainerPort is zero where the step is about the container or the group as a whole.
	ContainerPort target.PortProto `json:"container_port,omitzero"`
	Why           string           `json:"why"`
	Change        string           `json:"change,omitempty"`
}

// The outcomes of a step.
const (
	StepOK   = "ok"
	StepWait = "wait"
	StepStop = "stop"
)

// NewDrainV1 shows a drain.
func NewDrainV1(d discovery.Drain) DrainV1 { return drainV1(d) }

// WriteJSON answers a request with v.
func WriteJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "the answer cannot be encoded")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
}

// WriteError answers a request with an ErrorV1.
func WriteError(w http.ResponseWriter, code int, message string) { writeError(w, code, message) }

// Extend gives an answer more time than others have: until d from now, 0 for as long as it takes. Reading counts as well:
// net/http ends a request whose connection has passed its read deadline, also when it has been read.
func Extend(w http.ResponseWriter, d time.Duration) {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(until) // where a deadline cannot be set there is no connection to cut
	_ = control.SetReadDeadline(until)
}

// Reload has the agent read its configuration again. A configuration that is refused is an *APIError of status 422.
func (c *Client) Reload(ctx context.Context) (ReloadedV1, error) {
	var v ReloadedV1
	return v, c.control(ctx, http.MethodPost, "/v1/reload", nil, nil, &v)
}

// Prune has the agent deregister targets that are unclaimed, and waits until they are.
func (c *Client) Prune(ctx context.Context, p PruneV1) (PrunedV1, error) {
	var v PrunedV1
	return v, c.control(ctx, http.MethodPost, "/v1/prune", nil, p, &v)
}

// Drain takes a container or the host out. A hold of connection is for Hold.
func (c *Client) Drain(ctx context.Context, d DrainRequestV1) (DrainedV1, error) {
	var v DrainedV1
	return v, c.control(ctx, http.MethodPost, "/v1/drains", nil, d, &v)
}

// Undrain ends the operator's drains of a container; of the host where container is empty.
func (c *Client) Undrain(ctx context.Context, container string) (UndrainedV1, error) {
	q := url.Values{"host": {"true"}}
	if container != "" {
		q = url.Values{"container": {container}}
	}
	var v UndrainedV1
	return v, c.control(ctx, http.MethodDelete, "/v1/drains", q, nil, &v)
}

// EndDrain ends the operator's drain of that id.
func (c *Client) EndDrain(ctx context.Context, id string) (UndrainedV1, error) {
	var v UndrainedV1
	return v, c.control(ctx, http.MethodDelete, "/v1/drains", url.Values{"id": {id}}, nil, &v)
}

// Explain says of a container what becomes of it, and why.
func (c *Client) Explain(ctx context.Context, container string) (ExplainedV1, error) {
	var v ExplainedV1
	return v, c.control(ctx, http.MethodGet, "/v1/explain", url.Values{"container": {container}}, nil, &v)
}

// controlTimeout is how long the agent may take for what changes something: it asks Docker, and waits for its disk and
// for AWS, each with deadlines of its own.
const controlTimeout = time.Minute

func (c *Client) control(ctx context.Context, method, path string, q url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, q, in)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return decodeAnswer(resp, "the control socket", out)
}

// send asks over the control socket alone.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, in any) (*http.Response, error) {
	if c.socket == "" {
		return nil, fmt.Errorf("%w: no control socket is configured, and its status address changes nothing", ErrNotRunning)
	}
	var body io.Reader = http.NoBody
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("ask the agent: %w", err)
		}
		body = bytes.NewReader(data)
	}
	u := url.URL{Scheme: "http", Host: "berth", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.viaSocket.Do(req)
	switch {
	case err == nil:
		return resp, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("ask the agent: %w", err)
	case connectFailed(err):
		return nil, (&Client{socket: c.socket}).explain(err)
	default:
		return nil, fmt.Errorf("ask the agent: %w", rootCause(err))
	}
}

// Held is a drain that lasts as long as its connection.
type Held struct {
	DrainedV1
	// Lost is closed when the connection has ended, and the drain with it: because of Release, or because the agent went
	// away.
	Lost    <-chan struct{}
	release func()
}

// Release ends the drain. It may be called more than once.
func (h *Held) Release() { h.release() }

// Hold drains a container until Release is called, ctx ends, or this process does.
func (c *Client) Hold(ctx context.Context, d DrainRequestV1) (*Held, error) {
	d.Hold = HoldConnection
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(controlTimeout, cancel) // for the first line alone
	resp, err := c.send(ctx, http.MethodPost, "/v1/drains", nil, d)
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		defer cancel()
		defer func() { _ = resp.Body.Close() }()
		return nil, decodeAnswer(resp, "the control socket", nil)
	}
	dec := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	h := &Held{}
	if err := dec.Decode(&h.DrainedV1); err != nil || !timer.Stop() {
		cancel()
		_ = resp.Body.Close()
		return nil, fmt.Errorf("read the agent's answer: %w", errors.Join(err, ctx.Err()))
	}
	lost := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		defer close(lost)
		_, _ = io.Copy(io.Discard, resp.Body) // it ends with the connection: how does not matter
		_ = resp.Body.Close()
	})
	h.Lost = lost
	h.release = func() { cancel(); ended.Wait() }
	return h, nil
}

// decodeAnswer reads an answer into v.
func decodeAnswer(resp *http.Response, host string, v any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("read the agent's answer: more than %d bytes", maxAnswer)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		var e ErrorV1
		if json.Unmarshal(body, &e) != nil || e.Err == "" {
			e.Err = strings.TrimSpace(string(body[:min(len(body), 200)]))
		}
		return &APIError{Status: resp.StatusCode, Message: e.Err}
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read the agent's answer from %s: is it berth that answers there? %w", host, err)
	}
	return nil
}
