package elbsim

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

func scalingClient(s *Sim) *autoscaling.Client {
	return autoscaling.New(autoscaling.Options{
		Region: defaultRegion, HTTPClient: s.HTTPClient(), BaseEndpoint: aws.String("http://autoscaling.test"), Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDELBSIM", SecretAccessKey: "secret"}, nil
		}),
	})
}

func TestAutoScaling(t *testing.T) {
	s := New(Config{})
	c := scalingClient(s)
	instances := func() []string {
		t.Helper()
		out, err := c.DescribeAutoScalingInstances(t.Context(), &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: []string{testInstance}})
		if err != nil {
			t.Fatal(err)
		}
		var groups []string
		for _, i := range out.AutoScalingInstances {
			groups = append(groups, *i.InstanceId+" "+*i.AutoScalingGroupName)
		}
		return groups
	}
	if got := instances(); len(got) != 0 {
		t.Errorf("in no group: %v", got)
	}
	s.SetAutoScaling(AutoScaling{Group: "asg", Hooks: []LifecycleHook{{"out", "autoscaling:EC2_INSTANCE_TERMINATING"}}})
	if got := instances(); len(got) != 1 || got[0] != testInstance+" asg" {
		t.Errorf("in a group: %v", got)
	}
	hooks, err := c.DescribeLifecycleHooks(t.Context(), &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String("asg")})
	if err != nil || len(hooks.LifecycleHooks) != 1 || *hooks.LifecycleHooks[0].LifecycleHookName != "out" ||
		*hooks.LifecycleHooks[0].LifecycleTransition != "autoscaling:EC2_INSTANCE_TERMINATING" {
		t.Errorf("hooks: %+v, %v", hooks, err)
	}
	_, err = c.DescribeLifecycleHooks(t.Context(), &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String("other")})
	wantCode(t, err, "ValidationError")
}

// The date of replies is of AWS's clock, on either transport, compressed or not.
func TestSim_SetClock(t *testing.T) {
	s := New(Config{})
	for i := range 100 {
		addGroup(t, s, Group{Name: "group-" + string(rune('a'+i/10)) + string(rune('a'+i%10))})
	}
	s.SetClock(-time.Hour)
	server, err := Start(s, Listen{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for name, client := range map[string]*http.Client{"sockets": newTransport(t), "none": s.HTTPClient()} {
		var date string
		c := clientWith(&http.Client{Transport: seen{client.Transport, &date}}, server.URL())
		for range 2 {
			if _, err := c.DescribeTargetGroups(t.Context(), &elb.DescribeTargetGroupsInput{}); err != nil {
				t.Fatal(err)
			}
			at, err := http.ParseTime(date)
			if off := time.Until(at) + time.Hour; err != nil || off.Abs() > time.Minute {
				t.Errorf("%s: the date is %q, %v from an hour ago", name, date, off)
			}
		}
	}
}

// seen keeps the date of the last reply.
type seen struct {
	http.RoundTripper
	date *string
}

func (s seen) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.RoundTripper.RoundTrip(r)
	if err == nil {
		*s.date = resp.Header.Get("Date")
	}
	return resp, err
}

// Each region is in its partition, and so is all that is in it.
func TestPartition(t *testing.T) {
	for region, want := range map[string]string{
		"us-east-1": "aws", "cn-north-1": "aws-cn", "us-gov-west-1": "aws-us-gov", "us-isob-east-1": "aws-iso-b", "eusc-de-east-1": "aws-eusc",
	} {
		s := New(Config{Region: region})
		if got := addGroup(t, s, Group{Name: "web"}); len(got) < len(want)+5 || got[:len(want)+5] != "arn:"+want+":" {
			t.Errorf("%s: %s; want partition %s", region, got, want)
		}
	}
}
