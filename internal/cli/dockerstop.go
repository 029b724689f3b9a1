package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"berth/pkg/status"
)

// stopper stops containers, with the rights of whoever runs the command. It is three lines of HTTP and no part of
// pkg/discovery: the agent only ever reads Docker, and what it is built from cannot do anything else.
type stopper struct {
	socket string
	client *http.Client
}

func newStopper(socket string) *stopper {
	return &stopper{socket: socket, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "unix", socket)
		},
	}}}
}

func (s *stopper) close() { s.client.CloseIdleConnections() }

// check reports whether the caller may use the engine at all, before anything is taken out for it.
func (s *stopper) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := s.do(ctx, http.MethodGet, "/_ping", nil)
	return err
}

// stop does what docker stop does: the container's stop signal, and after its stop timeout (or the given one, where it
// is not negative) SIGKILL. It returns when the container has stopped; one that does not run is no error.
func (s *stopper) stop(ctx context.Context, id string, timeout int) error {
	q := url.Values{}
	if timeout >= 0 {
		q.Set("t", strconv.Itoa(timeout))
	}
	status, err := s.do(ctx, http.MethodPost, "/containers/"+url.PathEscape(id)+"/stop", q)
	if status == http.StatusNotFound {
		return nil // it is gone: it does not run
	}
	return err
}

// do sends a request and returns the status of the answer; one that is no success is an error, too.
func (s *stopper) do(ctx context.Context, method, path string, q url.Values) (int, error) {
	u := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("ask docker: %w", err)
	}
	resp, err := s.client.Do(req)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return 0, fmt.Errorf("permission denied on Docker's socket %s: the container is stopped with your rights, not the agent's: run this as root, or as a member of group docker", s.socket)
	case err != nil:
		var op *net.OpError
		if errors.As(err, &op) {
			err = op
		}
		return 0, fmt.Errorf("ask docker: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < http.StatusBadRequest {
		return resp.StatusCode, nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what can be read of it will do
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = resp.Status
	}
	return resp.StatusCode, fmt.Errorf("docker answered: %s", status.Plain(said.Message))
}
