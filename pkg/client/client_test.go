package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClient_Status_notRunning(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := closed.Addr().String()
	_ = closed.Close()
	for _, socket := range []string{stale, filepath.Join(dir, "missing.sock")} {
		c := New(socket, addr)
		_, err := c.Status(t.Context(), StatusQuery{})
		c.Close()
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: got %v; want ErrNotRunning", socket, err)
			continue
		}
		for _, want := range []string{socket, addr, "systemctl status berth"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q; want it to contain %q", socket, err, want)
			}
		}
		if strings.Contains(err.Error(), "http://") {
			t.Errorf("got %q; want no URL that leads nowhere", err)
		}
	}
	if _, err := New("", "").Status(t.Context(), StatusQuery{}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nowhere to ask: got %v; want ErrNotRunning", err)
	}
}

func TestClient_explain_denied(t *testing.T) {
	c := New("/run/berth/berth.sock", "127.0.0.1:9798")
	err := c.explain(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", os.ErrPermission)})
	if !errors.Is(err, ErrSocketDenied) {
		t.Fatalf("got %v; want ErrSocketDenied", err)
	}
	for _, want := range []string{"/run/berth/berth.sock", "group berth", "root"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q; want it to contain %q", err, want)
		}
	}
}

func TestClient_Status_strangeAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		code int
		body string
		want string
	}{
		"an error of ours":  {503, `{"error":"too many clients are connected; try again"}`, "the agent answered 503 Service Unavailable: too many clients"},
		"a stranger":        {404, "<html>nginx</html>", "404 Not Found: <html>nginx</html>"},
		"a stranger's page": {200, "<html>nginx</html>", "is it berth that answers there?"},
		"another version":   {200, `{"api":"v2"}`, `the agent speaks "v2", this command "v1"`},
		"too much":          {200, strings.Repeat(" ", maxAnswer+1), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.code)
				_, _ = w.Write([]byte(tt.body))
			})
			srv := httptest.NewServer(h)
			defer srv.Close()
			c := New("", srv.Listener.Addr().String())
			defer c.Close()
			_, err := c.Status(t.Context(), StatusQuery{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want it to contain %q", err, tt.want)
			}
			if errors.Is(err, ErrNotRunning) {
				t.Errorf("got %v; want no word of an agent that does not run", err)
			}
			var api *APIError
			if errors.As(err, &api) != (tt.code != 200) {
				t.Errorf("got %T; want an APIError for %d", err, tt.code)
			}
		})
	}
}

// Whoever asks knows which way it was answered.
func TestClient_Unfollowed(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"api":"v1"}`)) }))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for _, denied := range []bool{false, true, false} {
		dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
			if network == "unix" && denied {
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", os.ErrPermission)}
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
		c := NewDial(dial, "/run/berth.sock", addr)
		if _, err := c.Status(t.Context(), StatusQuery{Follow: []string{"*"}}); err != nil || c.Unfollowed() != denied {
			t.Errorf("socket denied %v: got %v, unfollowed %v", denied, err, c.Unfollowed())
		}
		c.Close()
	}
}

func TestLocalAddr(t *testing.T) {
	for listen, want := range map[string]string{
		":9798": "127.0.0.1:9798", "0.0.0.0:9798": "127.0.0.1:9798", "[::]:9798": "127.0.0.1:9798",
		"10.0.0.7:9798": "10.0.0.7:9798", "localhost:9798": "localhost:9798", "": "",
	} {
		if got := localAddr(listen); got != want {
			t.Errorf("%q: got %q; want %q", listen, got, want)
		}
	}
}
