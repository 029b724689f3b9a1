package elb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"
	"time"
)

// A proxy that refuses the connection has passed nothing on: the call was not sent, and nothing needs to be doubted for
// half a minute.
func TestClassify_proxyThatIsDown(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for name, err := range map[string]error{
		"service": refused,
		"proxy":   &net.OpError{Op: "proxyconnect", Net: "tcp", Err: refused},
	} {
		if ce := classify(OpRegister, "web", fmt.Errorf("send: %w", err)); ce.Unknown {
			t.Errorf("%s: the call may have taken effect (%+v); want that it was not sent", name, ce)
		}
	}
}

// Whatever keeps a call from having a connection has kept it from being sent. From then on its outcome is not known.
func TestClient_do_notSent(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer refusing.Close()
	dropping := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer dropping.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word of TLS
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	through := func(proxy string) *http.Transport {
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Transport{Proxy: http.ProxyURL(u)}
	}
	for name, c := range map[string]struct {
		by      *http.Transport
		to      string
		unknown bool
	}{
		"nobody listens":         {&http.Transport{}, dead.URL, false},
		"no such name":           {&http.Transport{DialContext: noSuchName}, "http://aws.invalid", false},
		"the proxy is down":      {through(dead.URL), "http://aws.invalid", false},
		"the proxy is down, TLS": {through(dead.URL), "https://aws.invalid", false},
		"the proxy refuses":      {through(refusing.URL), "https://aws.invalid", false},
		"TLS hangs":              {&http.Transport{}, "https://" + mute.Addr().String(), false},
		"the reply is lost":      {&http.Transport{}, dropping.URL, true},
	} {
		t.Run(name, func(t *testing.T) {
			defer c.by.CloseIdleConnections()
			client := New(nil, Options{WriteTimeout: 200 * time.Millisecond})
			ce := client.do(t.Context(), OpRegister, "web", func(ctx context.Context) error {
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.to, http.NoBody)
				if err != nil {
					return err
				}
				resp, err := c.by.RoundTrip(r)
				if err == nil {
					return errors.Join(resp.Body.Close(), errors.New("an answer"))
				}
				return err
			})
			if ce == nil || ce.Fault != FaultTransient || ce.Unknown != c.unknown {
				t.Errorf("got %+v; want a transient fault, unknown: %v", ce, c.unknown)
			}
		})
	}
}

func noSuchName(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "aws.invalid", IsNotFound: true}}
}
