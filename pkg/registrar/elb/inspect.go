package elb

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// Inspector asks what `berth check` wants to know beyond the four calls of the agent. Its calls are those of a Client.
type Inspector struct {
	*Client
	sdk *sdkClient
}

// NewInspector returns an inspector that calls as cfg says.
func NewInspector(cfg aws.Config, o Options) *Inspector {
	sdk := newSDKClient(cfg)
	return &Inspector{Client: New(sdk, o), sdk: sdk}
}

// HealthCheck is how a target group's targets are checked.
type HealthCheck struct {
	Port     string // "traffic-port", or a number
	Protocol string // HTTP, HTTPS, TCP
}

// Describe returns the facts of one group and its health check.
func (i *Inspector) Describe(ctx context.Context, ref Reference) (Facts, HealthCheck, *CallError) {
	g, ce := i.group(ctx, ref)
	if ce != nil {
		return Facts{}, HealthCheck{}, ce
	}
	return factsOf(*g), HealthCheck{Port: aws.ToString(g.HealthCheckPort), Protocol: string(g.HealthCheckProtocol)}, nil
}

// DeregistrationDelay returns for how long the group lets requests of a target end that was deregistered; zero where the
// group has no such attribute. The policy that the agent needs does not allow the call.
func (i *Inspector) DeregistrationDelay(ctx context.Context, groupARN string) (time.Duration, *CallError) {
	var delay time.Duration
	ce := i.do(ctx, OpDescribeAttributes, groupARN, func(ctx context.Context) error {
		out, err := i.sdk.DescribeTargetGroupAttributes(ctx, &elasticloadbalancingv2.DescribeTargetGroupAttributesInput{TargetGroupArn: &groupARN})
		if err != nil {
			return err
		}
		for _, a := range out.Attributes {
			seconds, err := strconv.Atoi(aws.ToString(a.Value))
			if aws.ToString(a.Key) == "deregistration_delay.timeout_seconds" && err == nil {
				delay = time.Duration(seconds) * time.Second
			}
		}
		return nil
	})
	return delay, ce
}
