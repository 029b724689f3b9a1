package elbsim

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/google/go-cmp/cmp"
)

// awsCLI finds the AWS CLI: Debian's, or what is in the PATH. Without one the test is skipped, except in CI.
func awsCLI(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("the AWS CLI takes its time")
	}
	for _, name := range []string{"/usr/bin/aws", "aws"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no aws command: install Debian's awscli")
	}
	t.Skip("no aws command: install Debian's awscli")
	return ""
}

// TestConformance_awscli is what somebody does who tries elbsim with the tool that they know.
func TestConformance_awscli(t *testing.T) {
	cli := awsCLI(t)
	s := New(Config{Lags: &Lags{}, AutoAttach: true})
	srv := serve(t, s)
	home := t.TempDir()
	run := func(args ...string) (string, error) {
		// The endpoint is an argument: the CLI of Debian 12 does not know the variable.
		cmd := exec.CommandContext(t.Context(), cli, append([]string{"--endpoint-url", srv.URL(), "elbv2"}, args...)...)
		cmd.Env = append(srv.Env(), "HOME="+home, "PATH="+os.Getenv("PATH"), "PYENV_VERSION="+os.Getenv("PYENV_VERSION"), "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return string(exit.Stderr), err
		}
		return string(out), err
	}
	call := func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		if err != nil {
			t.Fatalf("aws elbv2 %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
	health := func(arn string) map[string]string {
		t.Helper()
		var reply struct {
			TargetHealthDescriptions []struct {
				Target       struct{ ID, Port json.RawMessage }
				TargetHealth struct{ State, Reason string }
			}
		}
		if err := json.Unmarshal([]byte(call("describe-target-health", "--target-group-arn", arn, "--output", "json")), &reply); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, d := range reply.TargetHealthDescriptions {
			got[string(d.Target.Port)] = d.TargetHealth.State + " " + d.TargetHealth.Reason
		}
		return got
	}

	arn := call("create-target-group", "--name", "orders", "--protocol", "HTTP", "--port", "80", "--vpc-id", defaultVPC,
		"--health-check-path", "/up", "--query", "TargetGroups[0].TargetGroupArn", "--output", "text")
	if arn != s.GroupARN("orders") {
		t.Errorf("created %s; want %s", arn, s.GroupARN("orders"))
	}
	call("register-targets", "--target-group-arn", arn, "--targets", "Id="+testInstance+",Port=9001", "Id="+testInstance+",Port=9002")
	if diff := cmp.Diff(map[string]string{"9001": "healthy ", "9002": "healthy "}, health(arn)); diff != "" {
		t.Errorf("one instance registered twice (-want +got):\n%s", diff)
	}
	call("deregister-targets", "--target-group-arn", arn, "--targets", "Id="+testInstance+",Port=9001")
	if diff := cmp.Diff(map[string]string{"9001": "draining Target.DeregistrationInProgress", "9002": "healthy "}, health(arn)); diff != "" {
		t.Errorf("one of two deregistered (-want +got):\n%s", diff)
	}
	if out, err := run("register-targets", "--target-group-arn", arn, "--targets", "Id="+otherInstance); err == nil || !strings.Contains(out, "(InvalidTarget)") {
		t.Errorf("an unknown instance: got %v, %s; want InvalidTarget", err, out)
	}
	groups, err := clientOf(s).DescribeTargetGroups(t.Context(), &elb.DescribeTargetGroupsInput{Names: []string{"orders"}})
	if err != nil || aws.ToString(groups.TargetGroups[0].HealthCheckPath) != "/up" {
		t.Errorf("the group that the CLI created: got %+v, %v", groups, err)
	}
	call("delete-target-group", "--target-group-arn", arn)
	if s.GroupARN("orders") != "" {
		t.Error("the group is still there")
	}
}
