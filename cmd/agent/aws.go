package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"berth/pkg/host"
	"berth/pkg/registrar/elb"
)

// connect waits for this host's identity and returns it with a client for its region. Everything about the client is
// the SDK's ordinary configuration (environment, shared files, endpoints, proxies, CA bundle); only its retries are
// off, and the instance metadata service is spoken to in version 2 alone and never through a proxy.
func (a *Core) connect(ctx context.Context) (elb.API, elb.Self, error) {
	id, err := a.notices.Identity(ctx)
	if err != nil {
		return nil, elb.Self{}, err
	}
	if err := a.watcher.Identify(ctx, id.InstanceID); err != nil {
		return nil, elb.Self{}, err
	}
	if err := a.lifecycleActed(ctx); err != nil {
		return nil, elb.Self{}, err
	}
	cfg, err := a.o.AWS.client(ctx, id.Region)
	if err != nil {
		return nil, elb.Self{}, err
	}
	return elb.NewAPI(cfg), selfOf(id), nil
}

// learn hands on what becomes known of this host later: its VPC and its IPv6 address.
func (a *Core) learn(ctx context.Context) error {
	var last elb.Self
	for {
		s, changed := a.notices.Snapshot()
		if s.Identity != nil {
			if self := selfOf(*s.Identity); self != last {
				a.registrar.Identify(self)
				last = self
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func selfOf(id host.Identity) elb.Self {
	return elb.Self{
		InstanceID: id.InstanceID, Region: id.Region, Account: id.AccountID, VPC: id.VPC,
		Address4: id.PrivateIP, Address6: id.IPv6,
	}
}

// metadataSettings is what the SDK's ordinary configuration says of the instance metadata service. The region is of no
// account there; a false one keeps the SDK from asking the very service.
func metadataSettings(ctx context.Context) (aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion("none"))
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	return cfg, nil
}

func loadAWS(ctx context.Context, region string) (aws.Config, error) {
	base, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(region))
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	base.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = nil })
	metadata := imds.NewFromConfig(base, func(o *imds.Options) { o.EnableFallback = aws.FalseTernary })
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(region),
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata }))
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	return cfg, nil
}
