package elbsim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"berth/pkg/target"
)

const otherInstance = "i-0fedcba9876543210"

// onBoth runs a test with the real SDK client over both transports.
func onBoth(t *testing.T, cfg Config, f func(t *testing.T, s *Sim, c *elb.Client)) {
	t.Run("memory", func(t *testing.T) {
		s := New(cfg)
		f(t, s, clientOf(s))
	})
	t.Run("socket", func(t *testing.T) {
		s := New(cfg)
		srv := serve(t, s)
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		f(t, s, clientWith(&http.Client{Transport: tr}, srv.URL()))
	})
}

func serve(t *testing.T, s *Sim) *Server {
	t.Helper()
	srv, err := Start(s, Listen{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
	})
	return srv
}

func createInput(name string) *elb.CreateTargetGroupInput {
	return &elb.CreateTargetGroupInput{
		Name: aws.String(name), Protocol: types.ProtocolEnumHttp, Port: aws.Int32(80), VpcId: aws.String(defaultVPC),
	}
}

func create(t *testing.T, c *elb.Client, in *elb.CreateTargetGroupInput) types.TargetGroup {
	t.Helper()
	out, err := c.CreateTargetGroup(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out.TargetGroups[0]
}

var ignoreResult = cmpopts.IgnoreUnexported(types.TargetGroup{}, types.Matcher{}, types.TargetGroupAttribute{})

func TestConformance_createAndDescribe(t *testing.T) {
	onBoth(t, Config{}, func(t *testing.T, s *Sim, c *elb.Client) {
		got := create(t, c, createInput("web"))
		want := types.TargetGroup{
			TargetGroupArn: aws.String(s.GroupARN("web")), TargetGroupName: aws.String("web"),
			Protocol: types.ProtocolEnumHttp, ProtocolVersion: aws.String("HTTP1"), Port: aws.Int32(80), VpcId: aws.String(defaultVPC),
			TargetType: types.TargetTypeEnumInstance, IpAddressType: types.TargetGroupIpAddressTypeEnumIpv4,
			HealthCheckProtocol: types.ProtocolEnumHttp, HealthCheckPort: aws.String("traffic-port"), HealthCheckEnabled: aws.Bool(true),
			HealthCheckIntervalSeconds: aws.Int32(30), HealthCheckTimeoutSeconds: aws.Int32(5), HealthyThresholdCount: aws.Int32(5),
			UnhealthyThresholdCount: aws.Int32(2), HealthCheckPath: aws.String("/"), Matcher: &types.Matcher{HttpCode: aws.String("200")},
			LoadBalancerArns: []string{},
		}
		if diff := cmp.Diff(want, got, ignoreResult); diff != "" {
			t.Errorf("an HTTP group's defaults (-want +got):\n%s", diff)
		}
		if !strings.HasPrefix(*got.TargetGroupArn, "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/") {
			t.Errorf("got ARN %s", *got.TargetGroupArn)
		}
		again := create(t, c, createInput("web"))
		if *again.TargetGroupArn != *got.TargetGroupArn {
			t.Errorf("creating it again: got ARN %s; want %s", *again.TargetGroupArn, *got.TargetGroupArn)
		}
		for _, in := range []*elb.DescribeTargetGroupsInput{
			{Names: []string{"web"}}, {TargetGroupArns: []string{*got.TargetGroupArn}}, {},
		} {
			out, err := c.DescribeTargetGroups(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]types.TargetGroup{want}, out.TargetGroups, ignoreResult); diff != "" {
				t.Errorf("describe %+v (-want +got):\n%s", in, diff)
			}
		}
	})
}

func TestConformance_tcpGroup(t *testing.T) {
	s := New(Config{})
	c := clientOf(s)
	in := createInput("tcp")
	in.Protocol, in.Port, in.TargetType = types.ProtocolEnumTcp, aws.Int32(5432), types.TargetTypeEnumIp
	in.Tags = []types.Tag{{Key: aws.String("team"), Value: aws.String("data & <more>")}}
	got := create(t, c, in)
	if got.ProtocolVersion != nil || got.HealthCheckProtocol != types.ProtocolEnumTcp || *got.HealthCheckTimeoutSeconds != 10 || got.Matcher != nil || got.HealthCheckPath != nil {
		t.Errorf("got %+v; want a group checked by TCP in 10 s", got)
	}
	modified, err := c.ModifyTargetGroup(t.Context(), &elb.ModifyTargetGroupInput{
		TargetGroupArn: got.TargetGroupArn, HealthCheckProtocol: types.ProtocolEnumHttp, HealthCheckPath: aws.String("/up"),
		HealthCheckPort: aws.String("8081"), HealthyThresholdCount: aws.Int32(2), HealthCheckIntervalSeconds: aws.Int32(10),
	})
	if err != nil {
		t.Fatal(err)
	}
	g := modified.TargetGroups[0]
	if g.HealthCheckProtocol != types.ProtocolEnumHttp || *g.HealthCheckPath != "/up" || *g.HealthCheckPort != "8081" ||
		*g.HealthyThresholdCount != 2 || *g.UnhealthyThresholdCount != 2 || *g.HealthCheckIntervalSeconds != 10 || *g.Matcher.HttpCode != "200-399" {
		t.Errorf("after modification: got %+v", g)
	}
}

func TestConformance_attributes(t *testing.T) {
	onBoth(t, Config{}, func(t *testing.T, _ *Sim, c *elb.Client) {
		arn := create(t, c, createInput("web")).TargetGroupArn
		value := func(key string) string {
			out, err := c.DescribeTargetGroupAttributes(t.Context(), &elb.DescribeTargetGroupAttributesInput{TargetGroupArn: arn})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range out.Attributes {
				if *a.Key == key {
					return *a.Value
				}
			}
			return "missing"
		}
		if got := value(attrDelay); got != "300" {
			t.Errorf("default delay: got %s; want 300", got)
		}
		if got := value(attrTerminate); got != "missing" {
			t.Errorf("got %s=%s in an application load balancer's group", attrTerminate, got)
		}
		modify := func(key, value string) error {
			_, err := c.ModifyTargetGroupAttributes(t.Context(), &elb.ModifyTargetGroupAttributesInput{
				TargetGroupArn: arn, Attributes: []types.TargetGroupAttribute{{Key: aws.String(key), Value: aws.String(value)}},
			})
			return err
		}
		if err := modify(attrDelay, "15"); err != nil {
			t.Fatal(err)
		}
		if err := modify("load_balancing.algorithm.type", "least_outstanding_requests"); err != nil {
			t.Fatal(err)
		}
		if got := value(attrDelay) + value("load_balancing.algorithm.type"); got != "15least_outstanding_requests" {
			t.Errorf("after modification: got %s", got)
		}
		for key, bad := range map[string]string{attrDelay: "3601", "stickiness.enabled": "yes", "no.such.attribute": "1"} {
			wantCode(t, modify(key, bad), "ValidationError")
		}
	})
}

func TestConformance_pages(t *testing.T) {
	onBoth(t, Config{}, func(t *testing.T, s *Sim, c *elb.Client) {
		var want []string
		for i := range 25 {
			name := fmt.Sprintf("g-%02d", i)
			addGroup(t, s, Group{Name: name})
			want = append(want, name)
		}
		var got []string
		pages := 0
		p := elb.NewDescribeTargetGroupsPaginator(c, &elb.DescribeTargetGroupsInput{PageSize: aws.Int32(10)})
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, g := range out.TargetGroups {
				got = append(got, *g.TargetGroupName)
			}
			if pages == 1 { // a group that goes meanwhile must not shift the next page
				if _, err := c.DeleteTargetGroup(t.Context(), &elb.DeleteTargetGroupInput{TargetGroupArn: aws.String(s.GroupARN("g-09"))}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || pages != 3 {
			t.Errorf("%d pages (-want +got):\n%s", pages, diff)
		}
	})
}

// Every error that the API documents, from the condition that is documented for it.
func TestConformance_errors(t *testing.T) {
	var s *Sim
	cfg := Config{Quotas: Quotas{TargetsPerGroup: 3, TargetsPerLoadBalancer: 4, RegistrationsPerTarget: 2, GroupsPerRegion: 12, TargetsPerCall: 5}}
	arn := func(name string) *string { return aws.String(s.GroupARN(name)) }
	reg := func(group string, targets ...target.Target) func(context.Context, *elb.Client) error {
		return func(ctx context.Context, c *elb.Client) error { return tryRegister(ctx, c, *arn(group), targets...) }
	}
	creating := func(change func(*elb.CreateTargetGroupInput)) func(context.Context, *elb.Client) error {
		return func(ctx context.Context, c *elb.Client) error {
			in := createInput("new")
			change(in)
			_, err := c.CreateTargetGroup(ctx, in)
			return err
		}
	}
	modifying := func(in elb.ModifyTargetGroupInput) func(context.Context, *elb.Client) error {
		return func(ctx context.Context, c *elb.Client) error {
			if in.TargetGroupArn == nil {
				in.TargetGroupArn = arn("web")
			}
			_, err := c.ModifyTargetGroup(ctx, &in)
			return err
		}
	}
	describing := func(in elb.DescribeTargetGroupsInput) func(context.Context, *elb.Client) error {
		return func(ctx context.Context, c *elb.Client) error {
			_, err := c.DescribeTargetGroups(ctx, &in)
			return err
		}
	}
	const strange = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/gone/0123456789abcdef"
	health := func(arn string) func(context.Context, *elb.Client) error {
		return func(ctx context.Context, c *elb.Client) error {
			_, err := c.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: aws.String(arn)})
			return err
		}
	}
	tests := map[string]struct {
		call func(context.Context, *elb.Client) error
		code string
	}{
		"group not found, register": {func(ctx context.Context, c *elb.Client) error { return tryRegister(ctx, c, strange, on(1)...) }, "TargetGroupNotFound"},
		"group not found, deregister": {func(ctx context.Context, c *elb.Client) error {
			_, err := c.DeregisterTargets(ctx, &elb.DeregisterTargetsInput{TargetGroupArn: aws.String(strange), Targets: sdkTargets(on(1)...)})
			return err
		}, "TargetGroupNotFound"},
		"group not found, health":       {health(strange), "TargetGroupNotFound"},
		"group not found, by ARN":       {describing(elb.DescribeTargetGroupsInput{TargetGroupArns: []string{strange}}), "TargetGroupNotFound"},
		"one of two names not found":    {describing(elb.DescribeTargetGroupsInput{Names: []string{"web", "nowhere"}}), "TargetGroupNotFound"},
		"group not found, modify":       {modifying(elb.ModifyTargetGroupInput{TargetGroupArn: aws.String(strange)}), "TargetGroupNotFound"},
		"load balancer not found":       {describing(elb.DescribeTargetGroupsInput{LoadBalancerArn: aws.String("arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/x/0123456789abcdef")}), "LoadBalancerNotFound"},
		"no load balancer's ARN":        {describing(elb.DescribeTargetGroupsInput{LoadBalancerArn: aws.String("x")}), "ValidationError"},
		"names and ARNs":                {describing(elb.DescribeTargetGroupsInput{Names: []string{"web"}, TargetGroupArns: []string{strange}}), "ValidationError"},
		"bad marker":                    {describing(elb.DescribeTargetGroupsInput{Marker: aws.String("%%")}), "ValidationError"},
		"bad page size":                 {describing(elb.DescribeTargetGroupsInput{PageSize: aws.Int32(401)}), "ValidationError"},
		"no ARN":                        {health("web"), "ValidationError"},
		"ARN of another service":        {health("arn:aws:s3:::bucket"), "ValidationError"},
		"unknown instance":              {reg("web", target.Target{ID: "i-00000000000000000", Port: 1}), "InvalidTarget"},
		"stopped instance":              {reg("web", target.Target{ID: "i-0000000000000000a", Port: 1}), "InvalidTarget"},
		"instance of another VPC":       {reg("web", target.Target{ID: "i-0000000000000000b", Port: 1}), "InvalidTarget"},
		"malformed instance id":         {reg("web", target.Target{ID: "10.0.0.10", Port: 1}), "ValidationError"},
		"instance id in an ip group":    {reg("ip", on(1)...), "InvalidTarget"},
		"IPv6 address in an IPv4 group": {reg("ip", target.Target{ID: "fd00::1", Port: 1}), "InvalidTarget"},
		"group full":                    {reg("web", on(1, 2, 3, 4)...), "TooManyTargets"},
		"load balancer full":            {reg("front", target.Target{ID: otherInstance, Port: 1}, target.Target{ID: otherInstance, Port: 2}), "TooManyTargets"},
		"target too often":              {reg("web", on(1, 2, 3)...), "TooManyRegistrationsForTargetId"},
		"too many in one call":          {reg("web", on(1, 2, 3, 4, 5, 6)...), "ValidationError"},
		"port 0": {func(ctx context.Context, c *elb.Client) error {
			_, err := c.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: arn("web"), Targets: []types.TargetDescription{{Id: aws.String(testInstance), Port: aws.Int32(0)}}})
			return err
		}, "ValidationError"},
		"port 65536": {func(ctx context.Context, c *elb.Client) error {
			_, err := c.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: arn("web"), Targets: []types.TargetDescription{{Id: aws.String(testInstance), Port: aws.Int32(65536)}}})
			return err
		}, "ValidationError"},
		"no targets":                  {reg("web"), "ValidationError"},
		"duplicate name":              {creating(func(in *elb.CreateTargetGroupInput) { in.Name, in.Port = aws.String("web"), aws.Int32(81) }), "DuplicateTargetGroupName"},
		"name of 33":                  {creating(func(in *elb.CreateTargetGroupInput) { in.Name = aws.String(strings.Repeat("a", 33)) }), "ValidationError"},
		"name with a leading hyphen":  {creating(func(in *elb.CreateTargetGroupInput) { in.Name = aws.String("-web") }), "ValidationError"},
		"name with a trailing hyphen": {creating(func(in *elb.CreateTargetGroupInput) { in.Name = aws.String("web-") }), "ValidationError"},
		"name with a dot":             {creating(func(in *elb.CreateTargetGroupInput) { in.Name = aws.String("we.b") }), "ValidationError"},
		"no protocol":                 {creating(func(in *elb.CreateTargetGroupInput) { in.Protocol = "" }), "ValidationError"},
		"unknown protocol":            {creating(func(in *elb.CreateTargetGroupInput) { in.Protocol = "SMTP" }), "ValidationError"},
		"no such VPC":                 {creating(func(in *elb.CreateTargetGroupInput) { in.VpcId = aws.String("nowhere") }), "ValidationError"},
		"health checks off":           {creating(func(in *elb.CreateTargetGroupInput) { in.HealthCheckEnabled = aws.Bool(false) }), "InvalidConfigurationRequest"},
		"interval of 4 s":             {creating(func(in *elb.CreateTargetGroupInput) { in.HealthCheckIntervalSeconds = aws.Int32(4) }), "ValidationError"},
		"timeout above interval": {creating(func(in *elb.CreateTargetGroupInput) {
			in.HealthCheckIntervalSeconds, in.HealthCheckTimeoutSeconds = aws.Int32(5), aws.Int32(6)
		}), "ValidationError"},
		"threshold of 1":                  {creating(func(in *elb.CreateTargetGroupInput) { in.HealthyThresholdCount = aws.Int32(1) }), "ValidationError"},
		"matcher of 500 in an HTTP group": {creating(func(in *elb.CreateTargetGroupInput) { in.Matcher = &types.Matcher{HttpCode: aws.String("200-500")} }), "ValidationError"},
		"TCP check of an HTTP group":      {creating(func(in *elb.CreateTargetGroupInput) { in.HealthCheckProtocol = types.ProtocolEnumTcp }), "ValidationError"},
		"relative check path":             {creating(func(in *elb.CreateTargetGroupInput) { in.HealthCheckPath = aws.String("up") }), "ValidationError"},
		"bad check port":                  {creating(func(in *elb.CreateTargetGroupInput) { in.HealthCheckPort = aws.String("http") }), "ValidationError"},
		"tags of one key": {creating(func(in *elb.CreateTargetGroupInput) {
			in.Tags = []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("a"), Value: aws.String("2")}}
		}), "DuplicateTagKeys"},
		"51 tags": {creating(func(in *elb.CreateTargetGroupInput) {
			for i := range 51 {
				in.Tags = append(in.Tags, types.Tag{Key: aws.String(fmt.Sprint(i))})
			}
		}), "TooManyTags"},
		"lambda group": {creating(func(in *elb.CreateTargetGroupInput) { in.TargetType = types.TargetTypeEnumLambda }), "ValidationError"},
		"deleting a group in use": {func(ctx context.Context, c *elb.Client) error {
			_, err := c.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: arn("front")})
			return err
		}, "ResourceInUse"},
		"action of another API": {func(ctx context.Context, c *elb.Client) error {
			_, err := c.DescribeRules(ctx, &elb.DescribeRulesInput{})
			return err
		}, "InvalidAction"},
	}
	onBoth(t, cfg, func(t *testing.T, sim *Sim, c *elb.Client) {
		s = sim
		for _, g := range []Group{{Name: "web"}, {Name: "ip", Type: "ip"}, {Name: "front", Detached: true}, {Name: "back", Detached: true}} {
			addGroup(t, s, g)
		}
		for _, i := range []Instance{{ID: otherInstance}, {ID: "i-0000000000000000a", State: "stopped"}, {ID: "i-0000000000000000b", VPC: "vpc-b"}} {
			if err := s.AddInstance(i); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s.AddLoadBalancer(LoadBalancer{Name: "lb", Listeners: []Listener{{Address: "127.0.0.1:0", Default: ForwardTo("front"), Rules: []Rule{
			{Priority: 1, Conditions: Conditions{PathPattern: []string{"/b"}}, Action: ForwardTo("back")},
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		register(t, c, *arn("back"), target.Target{ID: otherInstance, Port: 7}, target.Target{ID: otherInstance, Port: 8})
		register(t, c, *arn("front"), on(9)...)
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				err := test.call(t.Context(), c)
				wantCode(t, err, test.code)
				var resp *awshttp.ResponseError
				if !errors.As(err, &resp) || resp.HTTPStatusCode() != http.StatusBadRequest || resp.RequestID == "" {
					t.Errorf("got status and request id of %v; want 400 and an id", resp)
				}
			})
		}
		for i := range 12 - len(s.Groups()) {
			create(t, c, createInput(fmt.Sprintf("fill-%d", i)))
		}
		wantCode(t, creating(func(*elb.CreateTargetGroupInput) {})(t.Context(), c), "TooManyTargetGroups")
		if got := len(s.Registered("web")); got != 0 {
			t.Errorf("refused calls registered %d targets", got)
		}
	})
}

// The typed errors of the SDK come out of what elbsim sends.
func TestConformance_typedErrors(t *testing.T) {
	s := New(Config{})
	c := clientOf(s)
	arn := addGroup(t, s, Group{Name: "web"})
	err := tryRegister(t.Context(), c, arn, target.Target{ID: otherInstance, Port: 1})
	var invalid *types.InvalidTargetException
	if !errors.As(err, &invalid) || !strings.Contains(invalid.ErrorMessage(), "'"+otherInstance+"'") {
		t.Errorf("got %v; want InvalidTargetException that names the instance", err)
	}
	_, err = c.DescribeTargetGroups(t.Context(), &elb.DescribeTargetGroupsInput{Names: []string{"nowhere"}})
	var missing *types.TargetGroupNotFoundException
	if !errors.As(err, &missing) {
		t.Errorf("got %v; want TargetGroupNotFoundException", err)
	}
}

func TestConformance_delete(t *testing.T) {
	onBoth(t, Config{}, func(t *testing.T, _ *Sim, c *elb.Client) {
		first := create(t, c, createInput("web")).TargetGroupArn
		for range 2 { // the second time it is gone already
			if _, err := c.DeleteTargetGroup(t.Context(), &elb.DeleteTargetGroupInput{TargetGroupArn: first}); err != nil {
				t.Fatal(err)
			}
		}
		second := create(t, c, createInput("web")).TargetGroupArn
		if *first == *second {
			t.Errorf("a group created anew has the old ARN %s", *first)
		}
		wantCode(t, tryRegister(t.Context(), c, *first, on(1)...), "TargetGroupNotFound")
	})
}

func TestConformance_lifecycleActions(t *testing.T) {
	s := New(Config{})
	c := autoscaling.New(autoscaling.Options{
		Region: defaultRegion, HTTPClient: s.HTTPClient(), BaseEndpoint: aws.String("http://autoscaling.test"), Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDELBSIM", SecretAccessKey: "secret"}, nil
		}),
	})
	_, err := c.RecordLifecycleActionHeartbeat(t.Context(), &autoscaling.RecordLifecycleActionHeartbeatInput{
		AutoScalingGroupName: aws.String("asg"), LifecycleHookName: aws.String("hook"), InstanceId: aws.String(testInstance),
	})
	if err != nil {
		t.Fatal(err)
	}
	complete := &autoscaling.CompleteLifecycleActionInput{
		AutoScalingGroupName: aws.String("asg"), LifecycleHookName: aws.String("hook"), InstanceId: aws.String(testInstance),
		LifecycleActionResult: aws.String("CONTINUE"),
	}
	if _, err := c.CompleteLifecycleAction(t.Context(), complete); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, call := range s.Calls() {
		got = append(got, call.Service+":"+call.Action+" "+call.Outcome+" "+call.Detail["InstanceId"]+" "+call.Detail["LifecycleActionResult"])
	}
	want := []string{
		"autoscaling:RecordLifecycleActionHeartbeat ok " + testInstance + " ",
		"autoscaling:CompleteLifecycleAction ok " + testInstance + " CONTINUE",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	complete.LifecycleActionResult = aws.String("MAYBE")
	_, err = c.CompleteLifecycleAction(t.Context(), complete)
	wantCode(t, err, "ValidationError")
	complete.LifecycleActionResult, complete.InstanceId = aws.String("ABANDON"), nil
	_, err = c.CompleteLifecycleAction(t.Context(), complete)
	wantCode(t, err, "ValidationError")
}
