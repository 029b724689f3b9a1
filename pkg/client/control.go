package client

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

	"berth/pkg/status"
)

// Reload has the agent read its configuration again. A configuration that is refused is an *APIError of status 422.
func (c *Client) Reload(ctx context.Context) (status.ReloadedV1, error) {
	var v status.ReloadedV1
	return v, c.control(ctx, http.MethodPost, "/v1/reload", nil, nil, &v)
}

// Prune has the agent deregister targets that are unclaimed, and waits until they are.
func (c *Client) Prune(ctx context.Context, p status.PruneV1) (status.PrunedV1, error) {
	var v status.PrunedV1
	return v, c.control(ctx, http.MethodPost, "/v1/prune", nil, p, &v)
}

// Drain takes a container or the host out. A hold of connection is for Hold.
func (c *Client) Drain(ctx context.Context, d status.DrainRequestV1) (status.DrainedV1, error) {
	var v status.DrainedV1
	return v, c.control(ctx, http.MethodPost, "/v1/drains", nil, d, &v)
}

// Undrain ends the operator's drains of a container or its name; of the host where container is empty. That there is none is
// no error.
func (c *Client) Undrain(ctx context.Context, container string) (status.UndrainedV1, error) {
	q := url.Values{"host": {"true"}}
	if container != "" {
		q = url.Values{"container": {container}}
	}
	var v status.UndrainedV1
	return v, c.control(ctx, http.MethodDelete, "/v1/drains", q, nil, &v)
}

// EndDrain ends the operator's drain of that id.
func (c *Client) EndDrain(ctx context.Context, id string) (status.UndrainedV1, error) {
	var v status.UndrainedV1
	return v, c.control(ctx, http.MethodDelete, "/v1/drains", url.Values{"id": {id}}, nil, &v)
}

// Explain says of a container what becomes of it, and why.
func (c *Client) Explain(ctx context.Context, container string) (status.ExplainedV1, error) {
	var v status.ExplainedV1
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
	status.DrainedV1
	// Lost is closed when the connection has ended, and the drain with it: because of Release, or because the agent went
	// away.
	Lost    <-chan struct{}
	release func()
}

// Release ends the drain. It may be called more than once.
func (h *Held) Release() { h.release() }

// Hold drains a container until Release is called, ctx ends, or this process does.
func (c *Client) Hold(ctx context.Context, d status.DrainRequestV1) (*Held, error) {
	d.Hold = status.HoldConnection
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
		var e status.ErrorV1
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
