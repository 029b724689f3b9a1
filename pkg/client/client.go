// Package client asks the running agent: over its control socket, and for the status over its loopback address where the
// socket refuses the caller.
//
//	client.go   where the agent is, the status, what to do when it does not answer
//	control.go  what changes something: the control socket alone
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"berth/pkg/status"
)

// ErrNotRunning says that no agent answers on this host.
var ErrNotRunning = errors.New("the berth agent does not answer")

// ErrSocketDenied says that the caller may not use the control socket.
var ErrSocketDenied = errors.New("permission denied on the control socket")

// APIError is an answer of the agent that is no success.
type APIError struct {
	Status  int // HTTP's
	Message string
}

func (e *APIError) Error() string {
	return fmt.Sprintf("the agent answered %d %s: %s", e.Status, http.StatusText(e.Status), e.Message)
}

// answerTimeout is how long the agent may take to answer, beside the wait that was asked for. It reads its memory.
const answerTimeout = 15 * time.Second

// maxAnswer bounds what the client takes from whatever answers on the address: 16 MiB is some 30,000 rows.
const maxAnswer = 16 << 20

// Client asks a running agent. It is safe for concurrent use.
type Client struct {
	socket string
	addr   string

	viaSocket *http.Client
	viaTCP    *http.Client
	byTCP     atomic.Bool // the last answer came over the status address
}

// New returns a client of the agent behind the control socket, and for callers whom that refuses behind the address
// of --status-listen. Either may be empty.
func New(socket, statusAddr string) *Client {
	return NewDial((&net.Dialer{Timeout: 5 * time.Second}).DialContext, socket, statusAddr)
}

// NewDial is New where dial connects to network "unix" or "tcp". An error of its that is a *net.OpError with Op "dial"
// makes the client try the other way.
func NewDial(dial func(ctx context.Context, network, address string) (net.Conn, error), socket, statusAddr string) *Client {
	c := &Client{socket: socket, addr: localAddr(statusAddr)}
	c.viaSocket = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "unix", socket) },
	}}
	// No proxy of the environment: the agent is on this host.
	c.viaTCP = &http.Client{Transport: &http.Transport{DialContext: dial}}
	return c
}

// localAddr makes an address to connect to from one to listen on.
func localAddr(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Close ends the client's idle connections.
func (c *Client) Close() {
	c.viaSocket.CloseIdleConnections()
	c.viaTCP.CloseIdleConnections()
}

// Unfollowed reports whether the last answer came over the status address. There a query's Follow has no effect: load
// balancers are looked at on the agent's ordinary schedule, whoever asks.
func (c *Client) Unfollowed() bool { return c.byTCP.Load() }

// StatusQuery says how to ask for the status.
type StatusQuery struct {
	// Follow are keys of groups to look at often while the client asks; "*" is all of them. See Unfollowed.
	Follow []string
	// After is a revision: the agent answers when it has another one, or after Timeout.
	After string
	// Timeout bounds the wait for another revision; 0 and everything above mean MaxWait.
	Timeout time.Duration
}

// Status asks for the agent's status. Its error wraps ErrNotRunning or ErrSocketDenied where that is the trouble, and
// says what to do; an answer that is no success is an *APIError.
func (c *Client) Status(ctx context.Context, q StatusQuery) (status.V1, error) {
	values := url.Values{}
	if len(q.Follow) > 0 {
		values.Set("follow", strings.Join(q.Follow, ","))
	}
	wait := time.Duration(0)
	if q.After != "" {
		wait = status.MaxWait
		if q.Timeout > 0 {
			wait = min(q.Timeout, status.MaxWait)
		}
		values.Set("after", q.After)
		values.Set("timeout", wait.String())
	}
	ctx, cancel := context.WithTimeout(ctx, wait+answerTimeout)
	defer cancel()
	var s status.V1
	if err := c.get(ctx, "/v1/status", values, &s); err != nil {
		return status.V1{}, err
	}
	if s.API != status.APIVersion {
		return status.V1{}, fmt.Errorf("the agent speaks %q, this command %q: use the version that belongs to the agent", s.API, status.APIVersion)
	}
	return s, nil
}

// get asks over the socket, then over TCP, and decodes the answer into v.
func (c *Client) get(ctx context.Context, path string, q url.Values, v any) error {
	socketErr := errors.New("no control socket is configured")
	if c.socket != "" {
		socketErr = c.getVia(ctx, c.viaSocket, "berth", path, q, v)
		if !connectFailed(socketErr) {
			c.byTCP.Store(false)
			return socketErr
		}
	}
	// Any process may listen on the status port while no agent does: who may use the socket believes the socket alone.
	if c.addr != "" && (c.socket == "" || errors.Is(socketErr, fs.ErrPermission)) {
		err := c.getVia(ctx, c.viaTCP, c.addr, path, q, v)
		if !connectFailed(err) {
			c.byTCP.Store(true)
			return err
		}
	}
	return c.explain(socketErr)
}

func (c *Client) getVia(ctx context.Context, client *http.Client, host, path string, q url.Values, v any) error {
	u := url.URL{Scheme: "http", Host: host, Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	return decodeAnswer(resp, host, v)
}

// connectFailed reports whether err is about reaching the agent at all: then another way may work.
func connectFailed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// explain says why no way led to an agent, and what to do. The socket is the way that ought to work.
func (c *Client) explain(err error) error {
	where := strings.Join(slices.DeleteFunc([]string{c.socket, c.addr}, func(s string) bool { return s == "" }), " or ")
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w %s: run this as root, or as a member of group berth (usermod -aG berth USER, then log in again)",
			ErrSocketDenied, c.socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s: %w; is it running? see: systemctl status berth", ErrNotRunning, where, rootCause(err))
	default:
		return fmt.Errorf("%w on %s: %w", ErrNotRunning, where, rootCause(err))
	}
}

// rootCause leaves the URL out of an error that net/http wrapped: it says "http://berth/v1/status", which is nowhere.
func rootCause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
