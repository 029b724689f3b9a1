package elb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// errNoReply says that a success was answered with something that is none of the service's answers.
var errNoReply = errors.New("the reply is not XML")

// xmlReplies has a success without XML fail: the SDK takes an empty reply for an empty answer, a group without targets.
// The service never sends one; a proxy may.
type xmlReplies struct {
	of elasticloadbalancingv2.HTTPClient
}

// Do is elasticloadbalancingv2.HTTPClient's.
func (c xmlReplies) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.of.Do(r)
	if err != nil || resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp, err
	}
	body := bufio.NewReaderSize(resp.Body, 512)
	for {
		b, err := body.ReadByte()
		switch {
		case err == nil && (b == ' ' || b == '\t' || b == '\r' || b == '\n'):
			continue
		case err == nil && b == '<':
			err = body.UnreadByte()
		case err == nil || errors.Is(err, io.EOF):
			err = fmt.Errorf("HTTP %d from %s: %w", resp.StatusCode, r.URL.Host, errNoReply)
		}
		if err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{body, resp.Body}
		return resp, nil
	}
}
