package elbsim

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
)

func imdsOf(s *Sim, instance string) *imds.Client {
	return imds.New(imds.Options{
		HTTPClient: s.HTTPClientFor(instance), Endpoint: "http://imds.test", EnableFallback: aws.FalseTernary, Retryer: aws.NopRetryer{},
	})
}

func metadataValue(ctx context.Context, c *imds.Client, path string) (string, error) {
	out, err := c.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", err
	}
	defer out.Content.Close()
	b, err := io.ReadAll(out.Content)
	return string(b), err
}

func wantStatus(t *testing.T, err error, status int) {
	t.Helper()
	var resp *smithyhttp.ResponseError
	if !errors.As(err, &resp) || resp.HTTPStatusCode() != status {
		t.Errorf("got %v; want status %d", err, status)
	}
}

func TestIMDS_sdk(t *testing.T) {
	s := New(Config{Region: "eu-west-1", Account: "111122223333", Instance: Instance{Tags: map[string]string{"Name": "web-1"}}})
	if err := s.AddInstance(Instance{ID: otherInstance, PrivateIP: "10.0.0.11", VPC: "vpc-b"}); err != nil {
		t.Fatal(err)
	}
	c := imdsOf(s, testInstance)
	doc, err := c.GetInstanceIdentityDocument(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{doc.InstanceID, doc.Region, doc.AvailabilityZone, doc.AccountID, doc.PrivateIP}
	want := []string{testInstance, "eu-west-1", "eu-west-1a", "111122223333", defaultIP}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity document (-want +got):\n%s", diff)
	}
	if region, err := c.GetRegion(t.Context(), nil); err != nil || region.Region != "eu-west-1" {
		t.Errorf("region: got %v, %v", region, err)
	}
	for path, want := range map[string]string{
		"instance-id": testInstance, "placement/region": "eu-west-1", "tags/instance/Name": "web-1", "tags/instance": "Name",
		"network/interfaces/macs":                           defaultMAC + "/",
		"network/interfaces/macs/" + defaultMAC + "/vpc-id": defaultVPC,
		"services": "domain\npartition",
	} {
		if got, err := metadataValue(t.Context(), c, path); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", path, got, err, want)
		}
	}
	other := imdsOf(s, otherInstance)
	if got, err := metadataValue(t.Context(), other, "local-ipv4"); err != nil || got != "10.0.0.11" {
		t.Errorf("the other instance: got %q, %v", got, err)
	}
}

func TestIMDS_credentials(t *testing.T) {
	s := New(Config{})
	creds, err := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = imdsOf(s, testInstance) }).Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if creds.AccessKeyID == "" || creds.SecretAccessKey == "" || creds.SessionToken == "" || !creds.Expires.After(time.Now()) {
		t.Errorf("got %+v; want keys that last", creds)
	}
}

// What appears, vanishes: 404, a value, 404.
func TestIMDS_notices(t *testing.T) {
	s := New(Config{})
	c := imdsOf(s, testInstance)
	for _, path := range []string{PathSpotAction, PathLifecycleState, PathRebalance, PathMaintenance} {
		short := strings.TrimPrefix(path, metaPrefix)
		_, err := metadataValue(t.Context(), c, short)
		wantStatus(t, err, http.StatusNotFound)
		if err := s.SetMetadata("", path, "now"); err != nil {
			t.Fatal(err)
		}
		if got, err := metadataValue(t.Context(), c, short); err != nil || got != "now" {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
		if err := s.DeleteMetadata("", short); err != nil {
			t.Fatal(err)
		}
		_, err = metadataValue(t.Context(), c, short)
		wantStatus(t, err, http.StatusNotFound)
	}
	if s.SetMetadata(otherInstance, "x", "y") == nil {
		t.Error("set the metadata of an unknown instance")
	}
	counts := map[string]uint64{}
	for _, n := range s.Counts() {
		counts[n.Action+" "+n.Outcome] = n.Calls
	}
	if diff := cmp.Diff(map[string]uint64{"IMDS 200": 5, "IMDS 404": 8}, counts); diff != "" {
		t.Errorf("counts: one token, four values, eight misses (-want +got):\n%s", diff)
	}
}

// rawIMDS is one raw request to IMDS.
func rawIMDS(t *testing.T, s *Sim, method, path string, header map[string]string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://imds.test"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := s.HTTPClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestIMDS_tokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		get := func(token string) int {
			status, _ := rawIMDS(t, s, http.MethodGet, "/latest/meta-data/instance-id", map[string]string{tokenHeader: token})
			return status
		}
		token := func(ttl string) (int, string) {
			return rawIMDS(t, s, http.MethodPut, tokenPath, map[string]string{ttlHeader: ttl})
		}
		if got := get(""); got != 401 {
			t.Errorf("IMDSv1: got %d; want 401", got)
		}
		status, short := token("60")
		if status != 200 || get(short) != 200 {
			t.Errorf("a token: got %d, then %d", status, get(short))
		}
		for _, bad := range []string{"nonsense", short + "x", "x" + short, strings.ToUpper(short), short[:len(short)-2]} {
			if got := get(bad); got != 401 {
				t.Errorf("token %q: got %d; want 401", bad, got)
			}
		}
		for _, ttl := range []string{"", "0", "21601", "long"} {
			if got, _ := token(ttl); got != 400 {
				t.Errorf("TTL %q: got %d; want 400", ttl, got)
			}
		}
		time.Sleep(59 * time.Second)
		if got := get(short); got != 200 {
			t.Errorf("before its end: got %d", got)
		}
		time.Sleep(time.Second)
		if got := get(short); got != 401 {
			t.Errorf("at its end: got %d; want 401", got)
		}
		_, long := token("21600")
		s.RevokeTokens()
		if got := get(long); got != 401 {
			t.Errorf("revoked: got %d; want 401", got)
		}
		if got, _ := rawIMDS(t, s, http.MethodPut, tokenPath, map[string]string{ttlHeader: "60", "X-Forwarded-For": "10.0.0.1"}); got != 403 {
			t.Errorf("through a proxy: got %d; want 403", got)
		}
		if got, _ := rawIMDS(t, s, http.MethodGet, tokenPath, nil); got != 405 {
			t.Errorf("GET token: got %d; want 405", got)
		}
		_, fresh := token("60")
		if got, _ := rawIMDS(t, s, http.MethodPost, "/latest/meta-data/instance-id", map[string]string{tokenHeader: fresh}); got != 405 {
			t.Errorf("POST: got %d; want 405", got)
		}
	})
}

// The SDK gets a new token by itself when the old one is refused.
func TestIMDS_sdkSurvivesRevocation(t *testing.T) {
	s := New(Config{})
	c := imds.New(imds.Options{HTTPClient: s.HTTPClient(), Endpoint: "http://imds.test", EnableFallback: aws.FalseTernary})
	for range 2 {
		if got, err := metadataValue(t.Context(), c, "instance-id"); err != nil || got != testInstance {
			t.Errorf("got %q, %v", got, err)
		}
		s.RevokeTokens()
	}
}

func TestIMDS_faults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := imdsOf(s, testInstance)
		if _, err := metadataValue(t.Context(), c, "instance-id"); err != nil {
			t.Fatal(err)
		}
		addFault(t, s, Fault{Kind: FaultError, Action: "IMDS", Path: "/latest/meta-data/spot/*", Times: 1})
		addFault(t, s, Fault{Kind: FaultError, Action: "IMDS", Path: "/latest/meta-data/spot/*", Status: 503, Times: 1})
		addFault(t, s, Fault{Kind: FaultHang, Action: "IMDS", Path: "/latest/meta-data/autoscaling/*"})
		addFault(t, s, Fault{Kind: FaultReset, Action: "IMDS", Path: "/latest/meta-data/events/*/*"})
		addFault(t, s, Fault{Kind: FaultTruncate, Action: "IMDS", Path: "/latest/meta-data/instance-id"})
		addFault(t, s, Fault{Kind: FaultLatency, Action: "IMDS", Path: "/latest/meta-data/mac", Delay: Duration(time.Second)})
		for _, status := range []int{500, 503, 404} {
			_, err := metadataValue(t.Context(), c, "spot/instance-action")
			wantStatus(t, err, status)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := metadataValue(ctx, c, "autoscaling/target-lifecycle-state"); !isDeadline(err) {
			t.Errorf("hang: got %v", err)
		}
		if _, err := metadataValue(t.Context(), c, "events/recommendations/rebalance"); !isReset(err) {
			t.Errorf("reset: got %v", err)
		}
		if got, err := metadataValue(t.Context(), c, "instance-id"); err != nil || got != testInstance[:len(testInstance)/2] {
			t.Errorf("truncated: got %q, %v", got, err)
		}
		start := time.Now()
		if _, err := metadataValue(t.Context(), c, "mac"); err != nil || time.Since(start) != time.Second {
			t.Errorf("latency: %v after %v", err, time.Since(start))
		}
	})
}
