package host

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testInstance = "i-0123456789abcdef0"
	testDocument = `{"instanceId": "i-0123456789abcdef0", "region": "eu-central-1", "availabilityZone": "eu-central-1a",
		"accountId": "123456789012", "privateIp": "10.0.1.2", "pendingTime": "2026-01-02T03:04:05Z"}`
	documentPath = "/latest/dynamic/instance-identity/document"
	itemPath     = "/latest/meta-data/"
	macPath      = itemPath + "network/interfaces/macs/02:00:00:00:00:01/"
)

// fakeIMDS is the metadata service, version 2 alone. It serves over a listener, or as the RoundTripper of a client
// inside synctest.
type fakeIMDS struct {
	mu     sync.Mutex // guards all below
	items  map[string]string
	fail   map[string]int // status by path; "" is every path, 0 no connection
	delay  time.Duration  // of every answer
	tokens int            // issued
	valid  string         // the token that is accepted
	asked  map[string]int // questions with a valid token, by path
	v1     int            // questions without any token
}

func newFake() *fakeIMDS {
	return &fakeIMDS{
		items: map[string]string{
			documentPath: testDocument, itemPath + "mac": "02:00:00:00:00:01\n",
			macPath + "vpc-id": "vpc-0a", macPath + "ipv6s": "2001:db8::1\n2001:db8::2",
		},
		fail: map[string]int{}, asked: map[string]int{},
	}
}

func (f *fakeIMDS) set(path, content string) { f.do(func() { f.items[path] = content }) }
func (f *fakeIMDS) remove(path string)       { f.do(func() { delete(f.items, path) }) }
func (f *fakeIMDS) failAll(status int)       { f.do(func() { f.fail[""] = status }) }
func (f *fakeIMDS) slow(d time.Duration)     { f.do(func() { f.delay = d }) }
func (f *fakeIMDS) recover()                 { f.do(func() { clear(f.fail) }) }

func (f *fakeIMDS) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeIMDS) count(path string) (n int) {
	f.do(func() { n = f.asked[path] })
	return n
}

func (f *fakeIMDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	status, failing := f.fail[""]
	if !failing {
		status, failing = f.fail[r.URL.Path]
	}
	switch {
	case failing:
		http.Error(w, "trouble", status)
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		if r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" {
			http.Error(w, "no ttl", http.StatusBadRequest)
			return
		}
		// A token lives on beside newer ones, as long as the service is not told to forget it.
		f.tokens++
		if f.valid == "" {
			f.valid = fmt.Sprintf("token-%d", f.tokens)
		}
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
		_, _ = io.WriteString(w, f.valid)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") == "":
		f.v1++
		http.Error(w, "token needed", http.StatusUnauthorized)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != f.valid:
		http.Error(w, "token unknown", http.StatusUnauthorized)
	default:
		f.asked[r.URL.Path]++
		content, ok := f.items[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, content)
	}
}

// forgetTokens makes every token unknown, as a move to another host does.
func (f *fakeIMDS) forgetTokens() { f.do(func() { f.valid = "" }) }

// RoundTrip answers without a network. It waits in fake time.
func (f *fakeIMDS) RoundTrip(r *http.Request) (*http.Response, error) {
	var delay time.Duration
	f.do(func() { delay = f.delay })
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	var refused bool
	f.do(func() { status, failing := f.fail[""]; refused = failing && status == 0 })
	if refused {
		return nil, fmt.Errorf("dial tcp %s: connection refused", r.URL.Host)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Result(), nil
}

// rig is a Notices in front of a fake, for use inside synctest.
type rig struct {
	*Notices
	imds *fakeIMDS
	logs *observer.ObservedLogs
	err  chan error
	stop context.CancelFunc
}

func newRig(t *testing.T, o Override) *rig {
	t.Helper()
	// Whatever the fake does not see must not leave this machine.
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://imds.invalid")
	core, logs := observer.New(zapcore.InfoLevel)
	f := newFake()
	return &rig{
		Notices: New(zap.New(core), Options{Override: o, Transport: f}), imds: f, logs: logs,
		err: make(chan error, 1), stop: func() {},
	}
}

// start runs the notices until the test ends.
func (r *rig) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() { r.err <- r.Run(ctx) }()
}

// kinds returns the notices in force, in short.
func (r *rig) kinds() string {
	s, _ := r.Snapshot()
	var out []string
	for _, n := range s.Notices {
		out = append(out, string(n.Kind)+"="+n.Action)
	}
	return strings.Join(out, " ")
}

// messages returns what was logged, by message.
func (r *rig) messages() map[string]int {
	out := map[string]int{}
	for _, e := range r.logs.All() {
		out[e.Level.String()+" "+e.Message]++
	}
	return maps.Clone(out)
}
