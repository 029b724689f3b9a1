package host

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"
)

// sdkLog has the SDK's own words go the way of the standard library's, wherever that leads: the SDK's logger writes to
// standard error itself, and waits for whoever reads that.
var sdkLog = logging.LoggerFunc(func(level logging.Classification, format string, v ...any) {
	log.Printf("SDK "+string(level)+" "+format, v...)
})

// MetadataConfig is what the SDK's ordinary configuration says of the instance metadata service. The region is of no
// account there; a false one keeps the SDK from asking the very service.
func MetadataConfig(ctx context.Context) (aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion("none"), awsconfig.WithLogger(sdkLog))
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	return cfg, nil
}

// AWSConfig is the SDK's ordinary configuration for a region, but that the instance metadata service is asked for
// credentials in version 2 alone and never through a proxy.
func AWSConfig(ctx context.Context, region string) (aws.Config, error) {
	base, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(region), awsconfig.WithLogger(sdkLog))
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	base.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = nil })
	metadata := imds.NewFromConfig(base, func(o *imds.Options) { o.EnableFallback = aws.FalseTernary })
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(region), awsconfig.WithLogger(sdkLog),
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata }))
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	return cfg, nil
}
