package elbsim

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/internal/elbsim/wire"
)

// ending is how the exchange of one request ends.
type ending uint8

const (
	endReply ending = iota
	endHang         // no reply: the client gives up at some time
	endReset        // the connection is reset
)

// outcome is what a client gets, on whatever transport.
type outcome struct {
	end         ending
	status      int
	contentType string
	requestID   string
	header      http.Header
	body        []byte
}

// errReset is what a client sees of a reset on the transport without sockets.
var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

func (o outcome) setHeader(h http.Header) {
	for k, v := range o.header {
		h[k] = v
	}
	if o.contentType != "" {
		h.Set("Content-Type", o.contentType)
	}
	if o.requestID != "" {
		h.Set("X-Amzn-Requestid", o.requestID)
	}
}

// write answers a request of net/http.
func (o outcome) write(w http.ResponseWriter) {
	if o.end == endReply {
		o.setHeader(w.Header())
		w.Header().Set("Content-Length", strconv.Itoa(len(o.body)))
		w.WriteHeader(o.status)
		_, _ = w.Write(o.body) // the client may have gone
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		// Not HTTP/1 on a socket: saying so is the best that can be done.
		http.Error(w, "elbsim: the connection breaks here", http.StatusInternalServerError)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok && o.end == endReset {
		_ = tcp.SetLinger(0) // makes Close send a reset
	}
	_ = conn.Close()
}

// response answers a request of the transport without sockets.
func (o outcome) response(r *http.Request) (*http.Response, error) {
	switch o.end {
	case endReset:
		return nil, errReset
	case endHang:
		return nil, r.Context().Err()
	}
	header := http.Header{}
	o.setHeader(header)
	return &http.Response{
		Status: fmt.Sprintf("%d %s", o.status, http.StatusText(o.status)), StatusCode: o.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header,
		Body: io.NopCloser(bytes.NewReader(o.body)), ContentLength: int64(len(o.body)), Request: r,
	}, nil
}

// HTTPClient returns a client that reaches the Sim without sockets, whatever the host of the URL: IMDS at /latest/, the
// pages of elbsim at /_elbsim/, the API at all other paths. It works inside synctest bubbles. It has no timeout; calls
// that hang end with their request's context.
func (s *Sim) HTTPClient() *http.Client { return s.HTTPClientFor(s.cfg.Instance.ID) }

// HTTPClientFor is HTTPClient on another instance: IMDS is that instance's.
func (s *Sim) HTTPClientFor(instance string) *http.Client {
	return &http.Client{Transport: s.TransportFor(instance)}
}

// TransportFor is the RoundTripper of HTTPClientFor.
func (s *Sim) TransportFor(instance string) http.RoundTripper { return &transport{s, instance} }

type transport struct {
	sim      *Sim
	instance string
}

// RoundTrip is http.RoundTripper's.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := readBody(r)
	if err != nil && !errors.Is(err, errTooLarge) {
		return nil, err
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/latest/"):
		return t.sim.metadata(r.Context(), r.Method, r.URL.Path, r.Header, t.instance).response(r)
	case strings.HasPrefix(r.URL.Path, adminPrefix):
		rec := &recorder{header: http.Header{}, status: http.StatusOK}
		inner := r.Clone(r.Context())
		inner.Body = io.NopCloser(strings.NewReader(body))
		t.sim.admin().ServeHTTP(rec, inner)
		return outcome{status: rec.status, header: rec.header, body: rec.body.Bytes()}.response(r)
	}
	return t.sim.call(r.Context(), body, t.instance).response(r)
}

// recorder is the http.ResponseWriter of pages that are asked for without sockets.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header is http.ResponseWriter's.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader is http.ResponseWriter's.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write is http.ResponseWriter's.
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

var errTooLarge = errors.New("request body too large")

// readBody reads a request's body, one byte more than allowed at most, and closes it. A GET's query stands for a body.
func readBody(r *http.Request) (string, error) {
	if r.Body == nil {
		return r.URL.RawQuery, nil
	}
	defer r.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(r.Body, wire.MaxBody+1))
	if err != nil {
		return "", fmt.Errorf("read request body: %w", err)
	}
	if len(raw) == 0 {
		return r.URL.RawQuery, nil
	}
	if len(raw) > wire.MaxBody {
		// A client that is still sending would not see the reply.
		_, _ = io.CopyN(io.Discard, r.Body, 64<<20)
		return string(raw), errTooLarge
	}
	return string(raw), nil
}

// ServeHTTP serves the API, and the pages of elbsim at /_elbsim/.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, adminPrefix) {
		s.admin().ServeHTTP(w, r)
		return
	}
	body, err := readBody(r)
	if err != nil && !errors.Is(err, errTooLarge) {
		return // the client broke off
	}
	if errors.Is(err, errTooLarge) {
		w.Header().Set("Connection", "close") // the rest is not read
	}
	out := s.call(r.Context(), body, r.UserAgent())
	if len(out.body) > oneRead {
		out = out.compressed(r)
	}
	if len(out.body) > oneRead {
		sleep(r.Context(), breath)
	}
	out.write(w)
}

// Go's SDK closes its request's body when the reply begins, and net/http drops a connection whose request ends like
// that before it looked for its end, in the middle of the reply if that is more than it reads at once. AWS is never
// fast enough for it to matter; over loopback it happens. So replies are made to fit into one read if they can, and
// the others wait until the client's writer has had its turn.
const (
	oneRead = 3 << 10
	breath  = 10 * time.Millisecond
)

// compressed is the outcome with its body compressed, if the client takes that.
func (o outcome) compressed(r *http.Request) outcome {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		return o
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(o.body) // a bytes.Buffer never fails
	_ = z.Close()
	o.body = b.Bytes()
	o.header = o.header.Clone()
	if o.header == nil {
		o.header = http.Header{}
	}
	o.header.Set("Content-Encoding", "gzip")
	return o
}

// IMDS returns the handler of the metadata service of the first instance.
func (s *Sim) IMDS() http.Handler { return s.IMDSFor(s.cfg.Instance.ID) }

// IMDSFor returns the handler of another instance's metadata service.
func (s *Sim) IMDSFor(instance string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.metadata(r.Context(), r.Method, r.URL.Path, r.Header, instance).write(w)
	})
}
