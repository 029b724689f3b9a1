package elbsim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// connectTimeout is how long a load balancer waits for a target to accept a connection: AWS's ten seconds.
const connectTimeout = 10 * time.Second

// exchange is one HTTP request on its way to a target.
type exchange struct {
	flow   *flow
	status int // of the target's reply; 0: none came
}

// traceHeader is how an ALB lets a request be followed.
const traceHeader = "X-Amzn-Trace-Id"

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// newProxy makes the HTTP side of a listener.
func newProxy(idle time.Duration) http.Handler {
	return &httputil.ReverseProxy{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
			ResponseHeaderTimeout: idle,
			MaxIdleConnsPerHost:   512,
			IdleConnTimeout:       idle,
			DisableCompression:    true,
			TLSClientConfig:       &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // an ALB does not validate its targets' certificates
		},
		BufferPool:   &buffers{},
		Rewrite:      rewrite,
		ErrorHandler: unanswered,
		ModifyResponse: func(r *http.Response) error {
			exchangeOf(r.Request.Context()).status = r.StatusCode
			return nil
		},
	}
}

// rewrite addresses the request to its target and adds the headers that an ALB adds.
func rewrite(r *httputil.ProxyRequest) {
	x := exchangeOf(r.In.Context())
	r.Out.URL = &url.URL{Scheme: x.flow.scheme, Host: x.flow.address, Path: r.In.URL.Path, RawPath: r.In.URL.RawPath, RawQuery: r.In.URL.RawQuery}
	r.Out.Host = r.In.Host
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // ours is appended
	r.SetXForwarded()
	r.Out.Header.Del("X-Forwarded-Host") // an ALB sends none
	if r.Out.Header.Get(traceHeader) == "" {
		r.Out.Header.Set(traceHeader, x.flow.trace)
	}
	if local, ok := r.In.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, port, err := net.SplitHostPort(local.String()); err == nil {
			r.Out.Header.Set("X-Forwarded-Port", port)
		}
	}
}

// unanswered answers in the place of a target that did not: 504 where it was too slow, else 502.
func unanswered(w http.ResponseWriter, r *http.Request, err error) {
	exchangeOf(r.Context()).flow.err = err
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(context.Cause(r.Context()), errDrained) {
		balancerError(w, http.StatusGatewayTimeout)
		return
	}
	balancerError(w, http.StatusBadGateway)
}

// balancerError answers as an ALB does.
func balancerError(w http.ResponseWriter, status int) {
	title := strconv.Itoa(status) + " " + map[int]string{502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}[status]
	w.Header().Set("Server", "awselb/2.0")
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n</body>\r\n</html>\r\n", title, title)
}

// ServeHTTP forwards one request as an application load balancer does.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rule := l.rule(r)
	if fixed := rule.fixed; fixed != nil {
		w.Header().Set("Server", "awselb/2.0")
		if fixed.ContentType != "" {
			w.Header().Set("Content-Type", fixed.ContentType)
		}
		w.WriteHeader(fixed.Status)
		_, _ = w.Write([]byte(fixed.Body))
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	f := l.sim.begin(rule, cancel)
	if f == nil {
		balancerError(w, http.StatusServiceUnavailable)
		return
	}
	x := &exchange{flow: f}
	defer func() { l.sim.done(f, x.status) }()
	l.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
}

// buffers lets the proxy use its copy buffers again.
type buffers struct{ pool sync.Pool }

// Get is httputil.BufferPool's.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put is httputil.BufferPool's.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// closeIdle closes the connections to targets that no request uses.
func (s *Sim) closeIdle() {
	s.lock()
	defer s.mu.Unlock()
	for _, b := range s.balancers {
		for _, l := range b.listeners {
			if p, ok := l.proxy.(*httputil.ReverseProxy); ok {
				p.Transport.(*http.Transport).CloseIdleConnections()
			}
		}
	}
}
