package host

import (
	"errors"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/smithy-go/logging"
	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
)

// addressed notes where requests would have gone. None does.
type addressed []string

var errNotSent = errors.New("not sent")

func (a *addressed) note(r *http.Request) error {
	*a = append(*a, r.URL.Scheme+"://"+r.URL.Host)
	return errNotSent
}

// Do is the SDK's HTTPClient.
func (a *addressed) Do(r *http.Request) (*http.Response, error) { return nil, a.note(r) }

// RoundTrip is http.RoundTripper's.
func (a *addressed) RoundTrip(r *http.Request) (*http.Response, error) { return nil, a.note(r) }

// unset takes away what the machine's own environment may say.
func unset(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2", "AWS_ENDPOINT_URL_AUTO_SCALING", "AWS_USE_FIPS_ENDPOINT",
		"AWS_USE_DUALSTACK_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_EC2_METADATA_SERVICE_ENDPOINT",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "AWS_EC2_METADATA_DISABLED",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
}

// The endpoints are those of the instance's region, in whatever partition, and of the SDK's own variables; the SDK's
// variables for retries change nothing: a call that fails was made once.
func TestLoadAWS_endpoints(t *testing.T) {
	const fips, dual = "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"
	for _, tt := range []struct {
		region       string
		variables    []string
		elb, scaling string
	}{
		{"eu-central-1", nil, "https://elasticloadbalancing.eu-central-1.amazonaws.com", "https://autoscaling.eu-central-1.amazonaws.com"},
		{"us-east-1", []string{fips}, "https://elasticloadbalancing-fips.us-east-1.amazonaws.com", "https://autoscaling-fips.us-east-1.amazonaws.com"},
		{"us-east-1", []string{dual}, "https://elasticloadbalancing.us-east-1.api.aws", "https://autoscaling.us-east-1.api.aws"},
		{"us-east-1", []string{fips, dual}, "https://elasticloadbalancing-fips.us-east-1.api.aws", "https://autoscaling-fips.us-east-1.api.aws"},
		{"cn-north-1", nil, "https://elasticloadbalancing.cn-north-1.amazonaws.com.cn", "https://autoscaling.cn-north-1.amazonaws.com.cn"},
		{"cn-north-1", []string{dual}, "https://elasticloadbalancing.cn-north-1.api.amazonwebservices.com.cn", "https://autoscaling.cn-north-1.api.amazonwebservices.com.cn"},
		{"us-gov-west-1", nil, "https://elasticloadbalancing.us-gov-west-1.amazonaws.com", "https://autoscaling.us-gov-west-1.amazonaws.com"},
		{"us-gov-west-1", []string{fips}, "https://elasticloadbalancing.us-gov-west-1.amazonaws.com", "https://autoscaling.us-gov-west-1.amazonaws.com"},
		{"eusc-de-east-1", nil, "https://elasticloadbalancing.eusc-de-east-1.amazonaws.eu", "https://autoscaling.eusc-de-east-1.amazonaws.eu"},
	} {
		unset(t)
		t.Setenv("AWS_MAX_ATTEMPTS", "7")
		t.Setenv("AWS_RETRY_MODE", "adaptive")
		for _, v := range tt.variables {
			t.Setenv(v, "true")
		}
		cfg, err := AWSConfig(t.Context(), tt.region)
		if err != nil {
			t.Fatal(err)
		}
		var to addressed
		cfg.HTTPClient, cfg.Credentials = &to, awscredentials.NewStaticCredentialsProvider("AKIDTEST", "secret", "")
		_, errELB := elb.NewAPI(cfg).DescribeTargetGroups(t.Context(), &elasticloadbalancingv2.DescribeTargetGroupsInput{})
		_, errScaling := NewHookAPI(cfg).DescribeAutoScalingInstances(t.Context(), &autoscaling.DescribeAutoScalingInstancesInput{})
		if !errors.Is(errELB, errNotSent) || !errors.Is(errScaling, errNotSent) {
			t.Errorf("%s %v: %v, %v", tt.region, tt.variables, errELB, errScaling)
		}
		if want := []string{tt.elb, tt.scaling}; !slices.Equal(to, want) {
			t.Errorf("%s %v: calls would go to %v; want %v, each once", tt.region, tt.variables, to, want)
		}
	}
}

// The metadata service is asked at its address of the family that the SDK's variable names.
func TestMetadataSettings(t *testing.T) {
	for mode, want := range map[string]string{
		"": "http://169.254.169.254", "IPv4": "http://169.254.169.254", "IPv6": "http://[fd00:ec2::254]",
	} {
		unset(t)
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", mode)
		cfg, err := MetadataConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var to addressed
		n := New(zap.NewNop(), Options{AWS: cfg, Transport: &to})
		if _, _, err := n.Item(t.Context(), "mac"); err == nil {
			t.Errorf("mode %q: answered", mode)
		}
		if len(to) == 0 || to[0] != want {
			t.Errorf("mode %q: asked at %v; want %s", mode, to, want)
		}
	}
}

// What the SDK logs goes where the standard library's lines go, and not to standard error past that.
func TestAWSConfig_logger(t *testing.T) {
	unset(t)
	var got strings.Builder
	log.SetOutput(&got)
	defer log.SetOutput(os.Stderr)
	metadata, err := MetadataConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := AWSConfig(t.Context(), "eu-central-1")
	if err != nil {
		t.Fatal(err)
	}
	metadata.Logger.Logf(logging.Warn, "of %s", "metadata")
	cfg.Logger.Logf(logging.Debug, "of %s", "calls")
	if said := got.String(); !strings.Contains(said, "SDK WARN of metadata\n") || !strings.Contains(said, "SDK DEBUG of calls\n") {
		t.Errorf("got %q; want both lines", said)
	}
}
