package aws

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/test/harness"
	"berth/test/rig"
)

// insideVariable tells the test binary that it runs in a network of its own.
const insideVariable = "BERTH_TEST_OWN_NETWORK"

// The addresses of the instance metadata service.
const (
	imds4 = "169.254.169.254:80"
	imds6 = "[fd00:ec2::254]:80"
)

// The way to AWS, as the environment says it: the metadata service at its real addresses, of either family, never through
// the proxy; everything else through it, to the endpoint that region, FIPS and dual stack make, trusted by a CA bundle, with
// the credentials of the instance profile. All of it happens in a network namespace that has nothing but a loopback
// interface: no packet leaves it.
func TestWay(t *testing.T) {
	harness.RequireDocker(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network of its own")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestWay_inside$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestWay_inside") {
		t.Errorf("inside: %v\n%s", err, out)
	}
}

// TestWay_inside is TestWay's other half.
func TestWay_inside(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Skip("TestWay runs it in a network of its own")
	}
	for _, args := range []string{"link set lo up", "address add 169.254.169.254/32 dev lo", "-6 address add fd00:ec2::254/128 dev lo nodad"} {
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
	for name, tt := range map[string]struct {
		region   string
		env      []string
		imds     string
		endpoint string
	}{
		"plain":               {"us-east-1", nil, imds4, "elasticloadbalancing.us-east-1.amazonaws.com"},
		"FIPS, IPv6":          {"us-east-1", []string{"AWS_USE_FIPS_ENDPOINT=true", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6"}, imds6, "elasticloadbalancing-fips.us-east-1.amazonaws.com"},
		"China, dual stack":   {"cn-north-1", []string{"AWS_USE_DUALSTACK_ENDPOINT=true"}, imds4, "elasticloadbalancing.cn-north-1.api.amazonwebservices.com.cn"},
		"GovCloud, both":      {"us-gov-west-1", []string{"AWS_USE_FIPS_ENDPOINT=true", "AWS_USE_DUALSTACK_ENDPOINT=true"}, imds4, "elasticloadbalancing-fips.us-gov-west-1.api.aws"},
		"European Sovereign":  {"eusc-de-east-1", nil, imds4, "elasticloadbalancing.eusc-de-east-1.amazonaws.eu"},
		"IPv6, named address": {"eu-central-1", []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + strings.TrimSuffix(imds6, ":80")}, imds6, "elasticloadbalancing.eu-central-1.amazonaws.com"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &way{sim: make(chan http.Handler, 1)}
			endpoint, bundle := w.serveTLS(t, tt.endpoint)
			proxy := w.serveProxy(t, endpoint)
			r := rig.New(t, rig.Options{
				Sim: elbsim.Config{Region: tt.region},
				Env: append([]string{
					// Only the environment of a real host is left.
					"AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2=", "AWS_ENDPOINT_URL_AUTO_SCALING=", "AWS_EC2_METADATA_SERVICE_ENDPOINT=",
					"AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=",
					"HTTPS_PROXY=" + proxy, "HTTP_PROXY=" + proxy, "NO_PROXY=", "AWS_CA_BUNDLE=" + bundle,
				}, tt.env...),
			})
			w.sim <- r.Sim
			w.serveIMDS(t, r.Sim)
			r.StartReady(t)
			c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			r.WaitExact(t, "web", rig.TargetsOf(t, c)...)
			w.mu.Lock()
			defer w.mu.Unlock()
			if want := []string{"CONNECT " + tt.endpoint + ":443"}; !slices.Equal(w.proxied, want) {
				t.Errorf("the proxy was asked for %q; want %q", w.proxied, want)
			}
			if want := []string{tt.imds}; !slices.Equal(w.metadata, want) {
				t.Errorf("the metadata service was asked at %q; want %q", w.metadata, want)
			}
		})
	}
}

// way is what there is between an agent and AWS.
type way struct {
	sim chan http.Handler // what answers at the endpoint, once it is there

	mu       sync.Mutex // guards all below
	proxied  []string   // what the proxy was asked for, each once
	metadata []string   // the addresses at which the metadata service was asked, each once
}

func (w *way) note(list *[]string, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(*list, what) {
		*list = append(*list, what)
	}
}

// serveTLS serves what is behind the endpoint's name, with a certificate of an authority of its own, and returns the
// address and the file with the authority's certificate.
func (w *way) serveTLS(t *testing.T, name string) (address, bundle string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of the test's own"}, IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	bundle = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	behind := sync.OnceValue(func() http.Handler { return <-w.sim })
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { behind().ServeHTTP(rw, r) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), bundle
}

// serveProxy is a proxy that leads every tunnel to one address and refuses all else, and returns its URL.
func (w *way) serveProxy(t *testing.T, to string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.note(&w.proxied, r.Method+" "+r.Host)
		if r.Method != http.MethodConnect {
			http.Error(rw, "not through me", http.StatusBadGateway)
			return
		}
		there, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n") // whoever has gone reads nothing
		tunnel(here, buffered.Reader, there)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// tunnel copies both ways until one side ends.
func tunnel(here net.Conn, from *bufio.Reader, there net.Conn) {
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(there, from)
		_ = there.Close()
	})
	_, _ = io.Copy(here, there)
	_ = here.Close()
	both.Wait()
}

// serveIMDS serves the metadata service at both of its addresses.
func (w *way) serveIMDS(t *testing.T, sim *elbsim.Sim) {
	t.Helper()
	for _, address := range []string{imds4, imds6} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(fmt.Errorf("be the metadata service: %w", err))
		}
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.note(&w.metadata, address)
			sim.IMDS().ServeHTTP(rw, r)
		})}
		done := make(chan struct{})
		go func() {
			_ = server.Serve(l) // until it is closed
			close(done)
		}()
		t.Cleanup(func() {
			_ = server.Close()
			<-done
		})
	}
}
