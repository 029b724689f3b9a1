package elb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// answered wraps an error as the SDK does when the service answered with status.
func answered(status int, err error) error {
	return &smithy.OperationError{
		ServiceID: "Elastic Load Balancing v2", OperationName: OpRegister,
		Err: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err},
	}
}

func generic(code string) error { return &smithy.GenericAPIError{Code: code, Message: "said AWS"} }

func TestClassify(t *testing.T) {
	cases := map[string]struct {
		err     error
		fault   Fault
		code    string
		unknown bool
	}{
		"throttled":              {answered(400, generic("Throttling")), FaultThrottled, "Throttling", false},
		"throttled with 503":     {answered(503, generic("RequestLimitExceeded")), FaultThrottled, "RequestLimitExceeded", false},
		"denied":                 {answered(403, generic("AccessDenied")), FaultDenied, "AccessDenied", false},
		"gone":                   {answered(400, &types.TargetGroupNotFoundException{}), FaultGone, "TargetGroupNotFound", false},
		"full":                   {answered(400, &types.TooManyTargetsException{}), FaultFull, "TooManyTargets", false},
		"full for the id":        {answered(400, &types.TooManyRegistrationsForTargetIdException{}), FaultFull, "TooManyRegistrationsForTargetId", false},
		"invalid":                {answered(400, &types.InvalidTargetException{}), FaultInvalid, "InvalidTarget", false},
		"a bad arn":              {answered(400, generic("ValidationError")), FaultMisconfigured, "ValidationError", false},
		"an unheard-of 4xx":      {answered(418, generic("Teapot")), FaultMisconfigured, "Teapot", false},
		"an unheard-of 403":      {answered(403, generic("Nope")), FaultDenied, "Nope", false},
		"an unheard-of 5xx":      {answered(599, generic("Oops")), FaultTransient, "Oops", true},
		"server fault":           {answered(500, generic("InternalFailure")), FaultTransient, "InternalFailure", true},
		"a page, not XML":        {answered(502, errors.New("deserialize")), FaultTransient, "ServerError", true},
		"cut-off success":        {answered(200, errors.New("unexpected EOF")), FaultTransient, "BadReply", true},
		"expired":                {answered(403, generic("ExpiredToken")), FaultCredentials, "ExpiredToken", false},
		"no credentials":         {fmt.Errorf("sign: %w", &CredentialsError{Err: errors.New("no role")}), FaultCredentials, "Credentials", false},
		"cancelled before":       {fmt.Errorf("sign: %w", &CredentialsError{Err: &aws.RequestCanceledError{Err: context.Canceled}}), FaultTransient, "Canceled", false},
		"no credentials in time": {fmt.Errorf("sign: %w", &CredentialsError{Err: &aws.RequestCanceledError{Err: context.DeadlineExceeded}}), FaultCredentials, "Credentials", false},
		"wrong secret":           {answered(403, generic("SignatureDoesNotMatch")), FaultCredentials, "SignatureDoesNotMatch", false},
		"empty success":          {&smithyhttp.RequestSendError{Err: fmt.Errorf("HTTP 200: %w", errNoReply)}, FaultTransient, "BadReply", true},
		"timeout":                {fmt.Errorf("send: %w", context.DeadlineExceeded), FaultTransient, "Timeout", true},
		"cancelled":              {fmt.Errorf("send: %w", context.Canceled), FaultTransient, "Canceled", true},
		"refused":                {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, FaultTransient, "Connection", false},
		"reset":                  {&net.OpError{Op: "read", Err: errors.New("connection reset")}, FaultTransient, "Connection", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ce := classify(OpRegister, "web", c.err)
			if ce.Fault != c.fault || ce.Code != c.code || ce.Unknown != c.unknown {
				t.Errorf("classify = fault %q, code %q, unknown %v; want %q, %q, %v", ce.Fault, ce.Code, ce.Unknown, c.fault, c.code, c.unknown)
			}
			if !errors.Is(ce, c.err) && !errors.As(c.err, new(*CredentialsError)) {
				t.Errorf("%v does not wrap %v", ce, c.err)
			}
			// What the SDK says of a call that was not answered is a paragraph, most of it about its own layers.
			if unanswered := ce.Fault == FaultTransient && ce.Code != "InternalFailure" && ce.Code != "Oops"; unanswered && ce.Message == "" {
				t.Errorf("%q says it all in the SDK's words", ce)
			}
		})
	}
	if classify(OpRegister, "web", nil) != nil {
		t.Error("no error was classified as one")
	}
}
