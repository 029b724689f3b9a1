package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// requestTimeout is the deadline of one question, its token included. The service is on the host's own hypervisor and
// answers in a millisecond; under load it was seen to take some hundred.
const requestTimeout = 2 * time.Second

// maxAnswer bounds an answer: the longest that we read is an identity document of half a KiB.
const maxAnswer = 64 << 10

// metadata asks the instance metadata service, one question at a time.
type metadata struct {
	client    *imds.Client
	transport http.RoundTripper
	disabled  bool
}

func newMetadata(cfg aws.Config, transport http.RoundTripper) *metadata {
	m := &metadata{transport: transport}
	m.client = imds.NewFromConfig(cfg, func(o *imds.Options) {
		// Version 1 gives credentials to whoever can make a container fetch a URL; hosts that forbid it must work, and
		// a token that cannot be had is an error, not a reason to do without.
		o.EnableFallback = aws.FalseTernary
		// The waiting is ours: it ends with a context, and says what it waits for.
		o.Retryer = aws.NopRetryer{}
		o.HTTPClient = &http.Client{
			Transport:     limited{transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		// The SDK looks at the variable only after these options: look here as it does, to know before asking.
		m.disabled = o.ClientEnableState == imds.ClientDisabled ||
			o.ClientEnableState == imds.ClientDefaultEnableState && strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true")
	})
	return m
}

// directTransport never uses a proxy.
func directTransport() *http.Transport {
	return &http.Transport{
		Proxy:               nil,
		DialContext:         (&net.Dialer{Timeout: requestTimeout}).DialContext,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 3,
		IdleConnTimeout:     30 * time.Second,
	}
}

func (m *metadata) closeIdle() {
	if t, ok := m.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// document returns the instance identity document.
func (m *metadata) document(ctx context.Context) (imds.InstanceIdentityDocument, error) {
	var doc imds.InstanceIdentityDocument
	err := m.ask(ctx, func(ctx context.Context) error {
		out, err := m.client.GetInstanceIdentityDocument(ctx, nil)
		if err == nil {
			doc = out.InstanceIdentityDocument
		}
		return err
	})
	if err != nil {
		return doc, fmt.Errorf("read instance identity document: %w", err)
	}
	return doc, nil
}

// get returns a metadata item without surrounding space. A 404 is an answer: there is no such item. Whatever else goes
// wrong is an error, and says nothing about the item.
func (m *metadata) get(ctx context.Context, path string) (content string, found bool, err error) {
	err = m.ask(ctx, func(ctx context.Context) error {
		out, err := m.client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
		if err != nil {
			return err
		}
		b, err := io.ReadAll(out.Content)
		content = strings.TrimSpace(string(b))
		return err
	})
	switch {
	case err == nil:
		return content, true, nil
	case status(err) == http.StatusNotFound:
		return "", false, nil
	}
	return "", false, fmt.Errorf("read instance metadata %s: %w", path, err)
}

// ask puts one question under a deadline. A 401 means that the token is no longer known (the service forgets them when
// the instance is moved): the SDK has dropped it, and one more attempt gets a new one.
func (m *metadata) ask(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	seen := &exchange{}
	ctx = context.WithValue(ctx, exchangeKey{}, seen)
	err := question(ctx)
	// The SDK's error for a 401 hides the status, and is the only one here that calls itself retryable.
	var unauthorized interface{ RetryableError() bool }
	if errors.As(err, &unauthorized) && unauthorized.RetryableError() {
		err = question(ctx)
	}
	if err != nil {
		return &unansweredError{exchange: *seen, err: err}
	}
	return nil
}

// status returns the HTTP status of the answer to the question itself, not of the one to its token; 0: no answer.
func status(err error) int {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// limited cuts answers that are longer than any real one: what answers there may be something else. It notes in the
// context's exchange what was answered.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	seen, _ := r.Context().Value(exchangeKey{}).(*exchange)
	if seen == nil {
		seen = &exchange{}
	}
	*seen = exchange{token: r.Method == http.MethodPut, err: err}
	if err == nil {
		seen.status = resp.StatusCode
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}
