package elbsim

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"berth/pkg/target"
)

const testInstance = defaultInstance

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clientOf is the real SDK client on a Sim without sockets.
func clientOf(s *Sim) *elb.Client { return clientWith(s.HTTPClient(), "http://elb.test") }

func clientWith(c *http.Client, url string) *elb.Client {
	return elb.New(elb.Options{
		Region: defaultRegion, HTTPClient: c, BaseEndpoint: aws.String(url), Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDELBSIM", SecretAccessKey: "secret"}, nil
		}),
	})
}

// addGroup adds a group and returns its ARN.
func addGroup(t *testing.T, s *Sim, g Group) string {
	t.Helper()
	arn, err := s.AddGroup(g)
	if err != nil {
		t.Fatal(err)
	}
	return arn
}

func on(ports ...uint16) []target.Target {
	out := make([]target.Target, len(ports))
	for i, p := range ports {
		out[i] = target.Target{ID: testInstance, Port: p}
	}
	return out
}

// sdkTargets is a call's Targets; port 0 leaves the port out.
func sdkTargets(targets ...target.Target) []types.TargetDescription {
	out := make([]types.TargetDescription, len(targets))
	for i, t := range targets {
		out[i].Id = aws.String(t.ID)
		if t.Port != 0 {
			out[i].Port = aws.Int32(int32(t.Port))
		}
	}
	return out
}

func register(t *testing.T, c *elb.Client, arn string, targets ...target.Target) {
	t.Helper()
	if err := tryRegister(t.Context(), c, arn, targets...); err != nil {
		t.Fatal(err)
	}
}

func tryRegister(ctx context.Context, c *elb.Client, arn string, targets ...target.Target) error {
	_, err := c.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: aws.String(arn), Targets: sdkTargets(targets...)})
	return err
}

func deregister(t *testing.T, c *elb.Client, arn string, targets ...target.Target) {
	t.Helper()
	_, err := c.DeregisterTargets(t.Context(), &elb.DeregisterTargetsInput{TargetGroupArn: aws.String(arn), Targets: sdkTargets(targets...)})
	if err != nil {
		t.Fatal(err)
	}
}

// described is what DescribeTargetHealth says of one target: "healthy", or "draining/Target.DeregistrationInProgress".
func described(t *testing.T, c *elb.Client, arn string, targets ...target.Target) map[target.Target]string {
	t.Helper()
	in := &elb.DescribeTargetHealthInput{TargetGroupArn: aws.String(arn)}
	if len(targets) > 0 {
		in.Targets = sdkTargets(targets...)
	}
	out, err := c.DescribeTargetHealth(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	got := map[target.Target]string{}
	for _, d := range out.TargetHealthDescriptions {
		text := string(d.TargetHealth.State)
		if d.TargetHealth.Reason != "" {
			text += "/" + string(d.TargetHealth.Reason)
		}
		got[target.Target{ID: aws.ToString(d.Target.Id), Port: uint16(aws.ToInt32(d.Target.Port))}] = text
	}
	return got
}

// wantCode checks that an error carries an AWS error code.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var apiErr smithy.APIError
	if !errors.As(err, &apiErr) {
		t.Fatalf("got error %v; want code %s", err, code)
	}
	if apiErr.ErrorCode() != code {
		t.Errorf("got code %s (%s); want %s", apiErr.ErrorCode(), apiErr.ErrorMessage(), code)
	}
}

// eventually waits until ok, for what happens on sockets in its own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func statesOf(s *Sim, group string) []State {
	var out []State
	for _, t := range s.Targets(group) {
		out = append(out, t.State)
	}
	return slices.Clip(out)
}

// newTransport is an HTTP client on sockets whose connections end with the test.
func newTransport(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func deleteInput(arn string) *elb.DeleteTargetGroupInput {
	return &elb.DeleteTargetGroupInput{TargetGroupArn: aws.String(arn)}
}
