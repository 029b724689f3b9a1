package elb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// NewAPI returns a client of Elastic Load Balancing whose calls are made exactly once: there is one retry policy, the
// registrar's, so that AWS_RETRY_MODE and AWS_MAX_ATTEMPTS change nothing. Where no credentials can be had its calls
// fail with a *CredentialsError.
func NewAPI(cfg aws.Config) API { return newSDKClient(cfg) }

func newSDKClient(cfg aws.Config) *sdkClient {
	creds := &credentials{of: cfg.Credentials}
	dates := &dates{}
	return &sdkClient{
		Client: elasticloadbalancingv2.NewFromConfig(cfg, func(o *elasticloadbalancingv2.Options) {
			o.Retryer = aws.NopRetryer{}
			o.RetryMaxAttempts = 1
			o.Credentials = creds
			o.HTTPClient = xmlReplies{dated{oneWrite{o.HTTPClient}, dates}}
		}),
		creds: creds, dates: dates,
	}
}

// oneWrite has each request leave in one piece. net/http sends the header by itself unless it knows that the body is in
// memory, which the SDK hides from it: a packet more, and one more time to wake up whoever reads.
type oneWrite struct {
	of elasticloadbalancingv2.HTTPClient
}

// Do is elasticloadbalancingv2.HTTPClient's.
func (c oneWrite) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return c.of.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the request's body: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return c.of.Do(r)
}

// unsigned reports whether this host's clock, and not its secret, is why a signature was refused.
func (c *sdkClient) unsigned() bool { return c.dates.unsigned() }

type sdkClient struct {
	*elasticloadbalancingv2.Client
	creds *credentials
	dates *dates
}

// refresh has the next call get new credentials: the service said that these have expired.
func (c *sdkClient) refresh() {
	if cache, ok := c.creds.of.(*aws.CredentialsCache); ok {
		cache.Invalidate()
	}
}

// credentials marks the errors of a provider, so that they are told from those of the service by their type.
type credentials struct{ of aws.CredentialsProvider }

func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c.of == nil {
		return aws.Credentials{}, &CredentialsError{Err: errNoProvider}
	}
	v, err := c.of.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, &CredentialsError{Err: err}
	}
	return v, nil
}
