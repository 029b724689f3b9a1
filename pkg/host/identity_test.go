package host

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

var wantIdentity = Identity{
	InstanceID: testInstance, Region: "eu-central-1", AvailabilityZone: "eu-central-1a", AccountID: "123456789012",
	PrivateIP: netip.MustParseAddr("10.0.1.2"), IPv6: netip.MustParseAddr("2001:db8::1"), VPC: "vpc-0a",
	MAC: "02:00:00:00:00:01", Verified: true,
}

func diffIdentity(want, got Identity) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

// On the wire: the SDK's own variable names the endpoint, and the environment's proxy is not asked.
func TestNotices_Identity_onTheWire(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f)
	defer server.Close()
	proxied := false
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied = true }))
	defer proxy.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "")
	n := New(zap.NewNop(), Options{})
	got, err := n.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := diffIdentity(wantIdentity, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if proxied || f.v1 != 0 {
		t.Errorf("asked through the proxy: %v; asked without a token: %d", proxied, f.v1)
	}
	if n.identityIMDS.transport.(*http.Transport).Proxy != nil {
		t.Error("the transport has a proxy") // loopback is never proxied, so the wire alone cannot show it
	}
	if again, err := n.Identity(t.Context()); err != nil || diffIdentity(got, again) != "" || f.count(documentPath) != 1 {
		t.Errorf("second call: %v, %v after %d reads; want what is known", again, err, f.count(documentPath))
	}
}

// A redirect is not followed: the service gives none, and what it would lead to is not the service.
func TestNotices_Identity_redirect(t *testing.T) {
	f := newFake()
	elsewhere := httptest.NewServer(f)
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			f.ServeHTTP(w, r)
			return
		}
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
	}))
	defer server.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
	n := New(zap.NewNop(), Options{})
	defer n.identityIMDS.closeIdle()
	if id, err := n.read(t.Context()); err == nil || !strings.Contains(err.Error(), "302") || len(f.asked) != 0 {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestNotices_Identity_neverVersion1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Override{})
		for _, status := range []int{403, 404, 405, 500} {
			r.imds.do(func() { r.imds.fail["/latest/api/token"] = status })
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if id, err := r.Identity(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("token %d: %v, %v; want waiting", status, id, err)
			}
			cancel()
		}
		if r.imds.v1 != 0 || len(r.imds.asked) != 0 {
			t.Errorf("%d questions without a token, %v with one", r.imds.v1, r.imds.asked)
		}
		r.imds.recover()
		if _, err := r.Identity(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestNotices_Identity_waits(t *testing.T) {
	const item = "the instance metadata service does not answer about identity: "
	const silent = "the instance metadata service does not answer: "
	for name, tt := range map[string]struct {
		breakIt, mend func(*fakeIMDS)
		says          string
	}{
		"no connection": {func(f *fakeIMDS) { f.failAll(0) }, (*fakeIMDS).recover, silent + "dial tcp imds.invalid: connection refused"},
		"5xx":           {func(f *fakeIMDS) { f.failAll(503) }, (*fakeIMDS).recover, silent + "HTTP 503 to the request for a session token"},
		"401":           {func(f *fakeIMDS) { f.failAll(401) }, (*fakeIMDS).recover, silent + "HTTP 401 to the request for a session token"},
		"slow":          {func(f *fakeIMDS) { f.slow(time.Hour) }, func(f *fakeIMDS) { f.slow(100 * time.Millisecond) }, silent + "no answer within 2s"},
		"nonsense":      {func(f *fakeIMDS) { f.set(documentPath, "<html>") }, func(f *fakeIMDS) { f.set(documentPath, testDocument) }, item},
		"empty":         {func(f *fakeIMDS) { f.set(documentPath, "{}") }, func(f *fakeIMDS) { f.set(documentPath, testDocument) }, item},
		"bad address":   {func(f *fakeIMDS) { f.set(documentPath, `{"instanceId":"i","region":"r","privateIp":"x"}`) }, func(f *fakeIMDS) { f.set(documentPath, testDocument) }, item},
		"endless":       {func(f *fakeIMDS) { f.set(documentPath, strings.Repeat(" ", maxAnswer)+testDocument) }, func(f *fakeIMDS) { f.set(documentPath, testDocument) }, item},
		"no document":   {func(f *fakeIMDS) { f.remove(documentPath) }, func(f *fakeIMDS) { f.set(documentPath, testDocument) }, item + "HTTP 404"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Override{})
				tt.breakIt(r.imds)
				done := make(chan error, 1)
				var got Identity
				go func() {
					var err error
					got, err = r.Identity(t.Context())
					done <- err
				}()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if s, _ := r.Snapshot(); s.Identity != nil || !strings.HasPrefix(s.Waiting, tt.says) || s.Change == "" || s.Since.IsZero() {
					t.Errorf("while it waits: %+v", s)
				}
				tt.mend(r.imds)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if diff := diffIdentity(wantIdentity, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if s, _ := r.Snapshot(); s.Waiting != "" || s.Identity == nil {
					t.Errorf("afterwards: %+v", s)
				}
				want := map[string]int{"warn waiting for the instance metadata service": 1, "info the instance metadata service answers again": 1}
				if diff := cmp.Diff(want, r.messages()); diff != "" {
					t.Errorf("logs: -want +got:\n%s", diff)
				}
			})
		})
	}
}

// The waits grow to their limit and differ: 10 minutes at 2.5 to 5 s.
func TestNotices_Identity_backoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Override{})
		r.imds.remove(documentPath)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		start := time.Now()
		_, err := r.Identity(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "404") {
			t.Errorf("error %v; want the deadline, and why it waited", err)
		}
		if d := time.Since(start); d != 10*time.Minute {
			t.Errorf("ended after %s; want with its context", d)
		}
		if n := r.imds.count(documentPath); n < 120 || n > 245 {
			t.Errorf("%d questions in 10 minutes", n)
		}
	})
}

func TestNotices_Identity_tokenForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Override{})
		if _, found, err := r.eventIMDS.get(t.Context(), "mac"); err != nil || !found {
			t.Fatal(found, err)
		}
		r.imds.forgetTokens()
		r.imds.do(func() { r.imds.valid = "of another host" })
		if content, found, err := r.eventIMDS.get(t.Context(), "mac"); err != nil || !found || content != "02:00:00:00:00:01" {
			t.Errorf("%q, %v, %v; want a new token and the answer", content, found, err)
		}
	})
}

func TestNotices_Identity_network(t *testing.T) {
	without := func(change func(*Identity)) Identity {
		id := wantIdentity
		change(&id)
		return id
	}
	for name, tt := range map[string]struct {
		change func(*fakeIMDS)
		first  Identity // what Identity returns
		then   Identity // what Run makes of it, a minute after the trouble has ended
	}{
		"no IPv6": {
			func(f *fakeIMDS) { f.remove(macPath + "ipv6s") },
			without(func(id *Identity) { id.IPv6 = netip.Addr{} }), without(func(id *Identity) { id.IPv6 = netip.Addr{} }),
		},
		"no VPC": {
			func(f *fakeIMDS) { f.remove(macPath + "vpc-id") },
			without(func(id *Identity) { id.VPC = "" }), without(func(id *Identity) { id.VPC = "" }),
		},
		"no MAC": {
			func(f *fakeIMDS) { f.remove(itemPath + "mac") },
			without(func(id *Identity) { id.VPC, id.MAC, id.IPv6 = "", "", netip.Addr{} }),
			without(func(id *Identity) { id.VPC, id.MAC, id.IPv6 = "", "", netip.Addr{} }),
		},
		"no private IPv4": {
			func(f *fakeIMDS) { f.set(documentPath, strings.Replace(testDocument, `"10.0.1.2"`, "null", 1)) },
			without(func(id *Identity) { id.PrivateIP = netip.Addr{} }), without(func(id *Identity) { id.PrivateIP = netip.Addr{} }),
		},
		"VPC fails for a while": {
			func(f *fakeIMDS) { f.fail[macPath+"vpc-id"] = 500 },
			without(func(id *Identity) { id.VPC, id.MAC, id.IPv6 = "", "", netip.Addr{} }), wantIdentity,
		},
		"IPv6 is nonsense for a while": {
			func(f *fakeIMDS) { f.set(macPath+"ipv6s", "<html>") },
			without(func(id *Identity) { id.VPC, id.MAC, id.IPv6 = "", "", netip.Addr{} }), wantIdentity,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Override{})
				tt.change(r.imds)
				got, err := r.Identity(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := diffIdentity(tt.first, got); diff != "" {
					t.Errorf("first: -want +got:\n%s", diff)
				}
				r.start(t)
				time.Sleep(time.Minute)
				r.imds.recover()
				if tt.then == wantIdentity {
					r.imds.set(macPath+"ipv6s", "2001:db8::1")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				s, _ := r.Snapshot()
				if diff := diffIdentity(tt.then, *s.Identity); diff != "" {
					t.Errorf("then: -want +got:\n%s", diff)
				}
				if s.Waiting != "" {
					t.Errorf("waiting: %s", s.Waiting)
				}
				before := r.imds.count(itemPath + "mac")
				time.Sleep(10 * time.Minute)
				if n := r.imds.count(itemPath+"mac") - before; n != 0 {
					t.Errorf("asked %d times more once it was complete", n)
				}
				r.stop()
				if err := <-r.err; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestNotices_Identity_override(t *testing.T) {
	other := "i-0fedcba9876543210"
	for name, tt := range map[string]struct {
		override Override
		want     string // the error's text; empty: the identity of the metadata service
	}{
		"agrees":              {Override{testInstance, "eu-central-1"}, ""},
		"id agrees":           {Override{InstanceID: testInstance}, ""},
		"region agrees":       {Override{Region: "eu-central-1"}, ""},
		"id contradicts":      {Override{InstanceID: other}, `instance_id: "i-0fedcba9876543210": the instance metadata service says "i-0123456789abcdef0": remove the override`},
		"region contradicts":  {Override{Region: "us-east-1"}, `region: "us-east-1": the instance metadata service says "eu-central-1": remove the override`},
		"one of both is true": {Override{testInstance, "us-east-1"}, `region: "us-east-1": the instance metadata service says "eu-central-1": remove the override`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tt.override)
				got, err := r.Identity(t.Context())
				if tt.want == "" {
					if err != nil || diffIdentity(wantIdentity, got) != "" {
						t.Errorf("%+v, %v", got, err)
					}
					return
				}
				var ce *ContradictionError
				if err == nil || err.Error() != tt.want || !errors.Is(err, ErrContradiction) || !errors.As(err, &ce) {
					t.Errorf("error %v; want %s", err, tt.want)
				}
			})
		})
	}
}

// A complete override stands in for a silent service, after a bounded time; Run finds the truth out later.
func TestNotices_Identity_overrideWhileSilent(t *testing.T) {
	for name, tt := range map[string]struct {
		id      string
		wantErr bool
	}{"confirmed later": {testInstance, false}, "contradicted later": {"i-0fedcba9876543210", true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Override{tt.id, "eu-central-1"})
				r.imds.slow(time.Hour)
				start := time.Now()
				r.start(t)
				got, err := r.Identity(t.Context())
				if diff := diffIdentity(Identity{InstanceID: tt.id, Region: "eu-central-1"}, got); err != nil || diff != "" {
					t.Fatalf("%v; -want +got:\n%s", err, diff)
				}
				if d := time.Since(start); d > 10*time.Second {
					t.Errorf("waited %s", d)
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if s, _ := r.Snapshot(); s.Identity.Verified || s.Waiting == "" || !s.LifecycleKnown {
					t.Errorf("after 10 minutes of silence: %+v", s)
				}
				r.imds.slow(0)
				if tt.wantErr {
					if err := <-r.err; !errors.Is(err, ErrContradiction) {
						t.Errorf("Run ended with %v; want a contradiction", err)
					}
					return
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				s, _ := r.Snapshot()
				if diff := diffIdentity(wantIdentity, *s.Identity); diff != "" || s.Waiting != "" {
					t.Errorf("%s; -want +got:\n%s", s.Waiting, diff)
				}
				want := map[string]int{
					"warn waiting for the instance metadata service": 1, "info the instance metadata service answers again": 1,
					"warn identity taken from overrides alone": 1, "info identity confirmed": 1,
				}
				if diff := cmp.Diff(want, r.messages()); diff != "" {
					t.Errorf("logs: -want +got:\n%s", diff)
				}
				r.stop()
				if err := <-r.err; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Half an override is no identity.
func TestNotices_Identity_partialOverrideWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Override{InstanceID: testInstance})
		r.imds.failAll(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if id, err := r.Identity(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v, %v; want to wait", id, err)
		}
	})
}

func TestNotices_disabled(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "TRUE")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Override{InstanceID: testInstance})
		if _, err := r.Identity(t.Context()); !errors.Is(err, ErrDisabled) {
			t.Errorf("error %v; want ErrDisabled", err)
		}
		r = newRig(t, Override{testInstance, "eu-central-1"})
		r.start(t)
		start := time.Now()
		id, err := r.Identity(t.Context())
		if err != nil || id != (Identity{InstanceID: testInstance, Region: "eu-central-1"}) || time.Since(start) != 0 {
			t.Errorf("%+v, %v after %s; want the override at once", id, err, time.Since(start))
		}
		synctest.Wait()
		if s, _ := r.Snapshot(); !s.LifecycleKnown {
			t.Error("a lifecycle that can never be known holds registration up")
		}
		r.stop()
		if err := <-r.err; err != nil || r.imds.tokens != 0 {
			t.Errorf("Run: %v; %d tokens fetched", err, r.imds.tokens)
		}
	})
}
