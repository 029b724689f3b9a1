package elbsim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"berth/internal/elbsim/iam"
)

const testPolicy = `{
  "Version": "2012-10-17",
  "Statement": [
    {"Sid": "Look", "Effect": "Allow", "Action": "elasticloadbalancing:Describe*", "Resource": "*"},
    {"Effect": "Allow", "Action": ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:deregistertargets"],
     "Resource": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/*"},
    {"Effect": "Allow", "Action": "elasticloadbalancing:*Targets", "Resource": "*",
     "Condition": {"StringEquals": {"aws:ResourceTag/berth": ["yes", "true"]}}},
    {"Effect": "Deny", "NotAction": "elasticloadbalancing:Describe*", "Resource": "*",
     "Condition": {"StringLike": {"elasticloadbalancing:ResourceTag/locked": "*"}}}
  ]
}`

func TestPolicy(t *testing.T) {
	p, err := iam.Parse([]byte(testPolicy))
	if err != nil {
		t.Fatal(err)
	}
	onBoth(t, Config{Policy: p}, func(t *testing.T, s *Sim, c *elb.Client) {
		for _, g := range []Group{
			{Name: "web"},
			{Name: "api"},
			{Name: "tagged", Tags: map[string]string{"berth": "yes"}},
			{Name: "no", Tags: map[string]string{"berth": "no"}},
			{Name: "locked", Tags: map[string]string{"berth": "true", "locked": ""}},
		} {
			addGroup(t, s, g)
		}
		for group, words := range map[string]string{
			"web": "", "tagged": "",
			"api":    "because no identity-based policy allows the elasticloadbalancing:RegisterTargets action",
			"no":     "because no identity-based policy allows the elasticloadbalancing:RegisterTargets action",
			"locked": "with an explicit deny in an identity-based policy",
		} {
			arn := s.GroupARN(group)
			if err := describeHealth(t.Context(), c, arn); err != nil {
				t.Errorf("describe %s: %v", group, err)
			}
			err := tryRegister(t.Context(), c, arn, on(1)...)
			if words == "" {
				if err != nil {
					t.Errorf("register in %s: %v", group, err)
				}
				deregister(t, c, arn, on(1)...)
				continue
			}
			wantCode(t, err, "AccessDenied")
			var resp *awshttp.ResponseError
			want := "User: arn:aws:sts::123456789012:assumed-role/elbsim/" + testInstance + " is not authorized to perform: elasticloadbalancing:RegisterTargets on resource: " + arn + " " + words
			if !errors.As(err, &resp) || resp.HTTPStatusCode() != 403 || !strings.Contains(err.Error(), want) {
				t.Errorf("register in %s: got %v; want 403 and %q", group, err, want)
			}
			if len(s.Registered(group)) != 0 {
				t.Errorf("%s: registered all the same", group)
			}
		}
		_, err := c.CreateTargetGroup(t.Context(), createInput("new"))
		wantCode(t, err, "AccessDenied")
	})
}

// Describe calls know no resources: a policy that names some does not allow them.
func TestPolicy_describeNeedsStar(t *testing.T) {
	p, err := iam.Parse([]byte(`{"Statement": {"Effect": "Allow", "Action": "elasticloadbalancing:*", "Resource": "arn:aws:elasticloadbalancing:*:*:targetgroup/*"}}`))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{})
	c := clientOf(s)
	arn := addGroup(t, s, Group{Name: "web"})
	s.SetPolicy(p)
	err = describeHealth(t.Context(), c, arn)
	wantCode(t, err, "AccessDenied")
	if !strings.Contains(err.Error(), "on resource: * because") {
		t.Errorf("got %v; want the resource *", err)
	}
	if _, err := c.CreateTargetGroup(t.Context(), createInput("new")); err != nil {
		t.Errorf("creating a group whose ARN the policy allows: %v", err)
	}
	register(t, c, arn, on(1)...)
	s.SetPolicy(nil)
	if err := describeHealth(t.Context(), c, arn); err != nil {
		t.Errorf("without a policy: %v", err)
	}
}

func TestPolicy_refused(t *testing.T) {
	for name, document := range map[string]string{
		"no JSON":            `Effect: Allow`,
		"no statement":       `{"Version": "2012-10-17"}`,
		"unknown key":        `{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}]}`,
		"effect":             `{"Statement": [{"Effect": "allow", "Action": "*", "Resource": "*"}]}`,
		"no action":          `{"Statement": [{"Effect": "Allow", "Resource": "*"}]}`,
		"two kinds":          `{"Statement": [{"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}]}`,
		"no resource":        `{"Statement": [{"Effect": "Allow", "Action": "*"}]}`,
		"variable":           `{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::${aws:username}"}]}`,
		"unknown operator":   `{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}]}`,
		"unknown condition":  `{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"StringEquals": {"aws:username": "x"}}}]}`,
		"number as resource": `{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": 1}]}`,
	} {
		if _, err := iam.Parse([]byte(document)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLoadPolicy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.json")
	if _, err := iam.Load(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
	if err := os.WriteFile(file, []byte(`{"Statement": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := iam.Load(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v; want an error that names the file", err)
	}
	if err := os.WriteFile(file, []byte(testPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := iam.Load(file); err != nil {
		t.Error(err)
	}
}
