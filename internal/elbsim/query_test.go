package elbsim

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"berth/internal/elbsim/wire"
)

// post sends a raw body to the API and returns status and reply.
func post(t *testing.T, c *http.Client, target, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(r)
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

type errorReply struct {
	XMLName xml.Name `xml:"http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/ ErrorResponse"`
	Error   struct{ Type, Code, Message string }
	ID      string `xml:"RequestId"`
}

// Whatever is sent, the answer is an error of AWS's shape.
func TestQuery_badInput(t *testing.T) {
	const v = "&Version=2015-12-01"
	const arn = "&TargetGroupArn=arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/0123456789abcdef"
	tests := map[string]struct{ body, code, message string }{
		"unknown action":         {"Action=Explode" + v, "InvalidAction", "Could not find operation Explode for version 2015-12-01"},
		"action of no version":   {"Action=RegisterTargets", "InvalidAction", "for version"},
		"wrong version":          {"Action=RegisterTargets&Version=2012-06-01", "InvalidAction", "2012-06-01"},
		"classic action":         {"Action=RegisterInstancesWithLoadBalancer" + v, "InvalidAction", ""},
		"nothing":                {"", "MissingAction", ""},
		"no form":                {`{"Action": "RegisterTargets"}`, "MissingAction", ""},
		"bad escape":             {"Action=RegisterTargets%zz" + v, "ValidationError", "well-formed"},
		"semicolon":              {"Action=RegisterTargets;Version=2015-12-01", "ValidationError", "well-formed"},
		"no ARN":                 {"Action=RegisterTargets" + v, "ValidationError", "Value null at 'targetGroupArn'"},
		"no targets":             {"Action=RegisterTargets" + v + arn, "ValidationError", "Value null at 'targets'"},
		"no id":                  {"Action=RegisterTargets&Targets.member.1.Port=80" + v + arn, "ValidationError", "Value null at 'id'"},
		"port in words":          {"Action=RegisterTargets&Targets.member.1.Id=i-1&Targets.member.1.Port=http" + v + arn, "ValidationError", "'http' at 'port'"},
		"huge port":              {"Action=RegisterTargets&Targets.member.1.Id=i-1&Targets.member.1.Port=99999999999999999999" + v + arn, "ValidationError", "at 'port'"},
		"negative port":          {"Action=RegisterTargets&Targets.member.1.Id=i-1&Targets.member.1.Port=-1" + v + arn, "ValidationError", "at 'port'"},
		"member 0":               {"Action=RegisterTargets&Targets.member.0.Id=i-1" + v + arn, "ValidationError", "is not a member of a list"},
		"member in words":        {"Action=RegisterTargets&Targets.member.one.Id=i-1" + v + arn, "ValidationError", "is not a member of a list"},
		"huge member":            {"Action=RegisterTargets&Targets.member.99999999999999999999.Id=i-1" + v + arn, "ValidationError", "is not a member of a list"},
		"too large":              {"Action=RegisterTargets" + v + arn + "&X=" + strings.Repeat("x", wire.MaxBody), "ValidationError", "too large"},
		"much too large":         {"Action=RegisterTargets" + v + arn + "&X=" + strings.Repeat("x", 16*wire.MaxBody), "ValidationError", "too large"},
		"text in XML":            {"Action=" + url.QueryEscape("<&>\x00\"") + v, "InvalidAction", "<&>"},
		"attribute without key":  {"Action=ModifyTargetGroupAttributes&Attributes.member.1.Value=1" + v + arn, "ValidationError", "Value null at 'key'"},
		"no attributes":          {"Action=ModifyTargetGroupAttributes" + v + arn, "ValidationError", "Value null at 'attributes'"},
		"tag without key":        {"Action=CreateTargetGroup&Name=a&Protocol=HTTP&Port=80&VpcId=vpc-1&Tags.member.1.Value=1" + v, "ValidationError", "Value null at 'key'"},
		"boolean in words":       {"Action=CreateTargetGroup&Name=a&Protocol=HTTP&Port=80&VpcId=vpc-1&HealthCheckEnabled=perhaps" + v, "ValidationError", "must be a boolean"},
		"list of names in words": {"Action=DescribeTargetGroups&Names.member.x=web" + v, "ValidationError", "is not a member of a list"},
	}
	s := New(Config{})
	srv := serve(t, s)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, transport := range []struct {
				client *http.Client
				url    string
			}{{s.HTTPClient(), "http://elb.test/"}, {newTransport(t), srv.URL()}} {
				status, body := post(t, transport.client, transport.url, test.body)
				var got errorReply
				if err := xml.Unmarshal([]byte(body), &got); err != nil {
					t.Fatalf("got %s: %v", body, err)
				}
				if status != 400 || got.Error.Code != test.code || got.Error.Type != "Sender" || got.ID == "" || !strings.Contains(got.Error.Message, test.message) {
					t.Errorf("got %d %+v; want 400 %s with %q", status, got, test.code, test.message)
				}
			}
		})
	}
	// An unknown action must not make the counts grow.
	for i := range 10 {
		post(t, s.HTTPClient(), "http://elb.test/", fmt.Sprintf("Action=Explode%d", i)+v)
	}
	for _, c := range s.Counts() {
		if strings.HasPrefix(c.Action, "Explode") {
			t.Errorf("counts keep %s", c.Action)
		}
	}
}

// A GET with a query is a call too, as AWS has it: what curl does without -d.
func TestQuery_get(t *testing.T) {
	s := New(Config{})
	addGroup(t, s, Group{Name: "web"})
	srv := serve(t, s)
	resp, err := newTransport(t).Get(srv.URL() + "/?Action=DescribeTargetGroups&Version=2015-12-01")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/xml" || !strings.Contains(string(b), "<TargetGroupName>web</TargetGroupName>") {
		t.Errorf("got %d %s %s, %v", resp.StatusCode, resp.Header, b, err)
	}
}

// FuzzQuery sends any body: there is always a reply, never a panic, and what was registered is what was asked for.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=%s&Targets.member.1.Id=i-0123456789abcdef0&Targets.member.1.Port=80",
		"Action=DeregisterTargets&Version=2015-12-01&TargetGroupArn=%s&Targets.member.1.Id=i-0123456789abcdef0",
		"Action=DescribeTargetHealth&Version=2015-12-01&TargetGroupArn=%s&Targets.member.7.Id=x",
		"Action=DescribeTargetGroups&Version=2015-12-01&Names.member.1=web&PageSize=1&Marker=d2Vi",
		"Action=CreateTargetGroup&Version=2015-12-01&Name=n&Protocol=TCP&Port=1&VpcId=vpc-1&Matcher.HttpCode=200-201,204&Tags.member.1.Key=k",
		"Action=ModifyTargetGroup&Version=2015-12-01&TargetGroupArn=%s&HealthCheckIntervalSeconds=5&HealthCheckPath=/",
		"Action=ModifyTargetGroupAttributes&Version=2015-12-01&TargetGroupArn=%s&Attributes.member.1.Key=deregistration_delay.timeout_seconds&Attributes.member.1.Value=1",
		"Action=DeleteTargetGroup&Version=2015-12-01&TargetGroupArn=%s", "Action=DescribeTargetGroupAttributes&Version=2015-12-01&TargetGroupArn=%s",
		"Action=CompleteLifecycleAction&Version=2011-01-01&AutoScalingGroupName=a&LifecycleHookName=b&LifecycleActionResult=CONTINUE&InstanceId=i-1",
		"Action=%%", "Action&&=&%00", "Targets.member.1.Id=1&Targets.member.01.Id=2&Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=%s",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s := New(Config{})
		arn := addGroup(t, s, Group{Name: "web"})
		out := s.call(t.Context(), strings.ReplaceAll(body, "%s", arn), "fuzz")
		decoder := xml.NewDecoder(strings.NewReader(string(out.body)))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("reply to %q is no XML: %v\n%s", body, err, out.body)
			}
		}
		if out.status != 200 && !strings.Contains(string(out.body), "<ErrorResponse") {
			t.Errorf("status %d without an error: %s", out.status, out.body)
		}
		for _, one := range s.Targets(arn) {
			if one.ID != testInstance || one.Port == 0 {
				t.Errorf("%q registered %v", body, one)
			}
		}
		if calls := s.Calls(); len(calls) != 1 || calls[0].Outcome == "pending" {
			t.Errorf("record: got %+v; want the call, ended", calls)
		}
	})
}
