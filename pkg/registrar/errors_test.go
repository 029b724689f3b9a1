package registrar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// answered wraps an error as the SDK does when the service answered with status.
func answered(status int, err error) error {
	return &smithy.OperationError{
		ServiceID: "Elastic Load Balancing v2", OperationName: opRegister,
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
		outcome Outcome
	}{
		"throttled":              {answered(400, generic("Throttling")), FaultThrottled, "Throttling", false, Throttled},
		"throttled with 503":     {answered(503, generic("RequestLimitExceeded")), FaultThrottled, "RequestLimitExceeded", false, Throttled},
		"denied":                 {answered(403, generic("AccessDenied")), FaultDenied, "AccessDenied", false, Accepted},
		"gone":                   {answered(400, &types.TargetGroupNotFoundException{}), FaultGone, "TargetGroupNotFound", false, Accepted},
		"full":                   {answered(400, &types.TooManyTargetsException{}), FaultFull, "TooManyTargets", false, Accepted},
		"full for the id":        {answered(400, &types.TooManyRegistrationsForTargetIdException{}), FaultFull, "TooManyRegistrationsForTargetId", false, Accepted},
		"invalid":                {answered(400, &types.InvalidTargetException{}), FaultInvalid, "InvalidTarget", false, Accepted},
		"a bad arn":              {answered(400, generic("ValidationError")), FaultMisconfigured, "ValidationError", false, Accepted},
		"an unheard-of 4xx":      {answered(418, generic("Teapot")), FaultMisconfigured, "Teapot", false, Accepted},
		"an unheard-of 403":      {answered(403, generic("Nope")), FaultDenied, "Nope", false, Accepted},
		"an unheard-of 5xx":      {answered(599, generic("Oops")), FaultTransient, "Oops", true, Failed},
		"server fault":           {answered(500, generic("InternalFailure")), FaultTransient, "InternalFailure", true, Failed},
		"a page, not XML":        {answered(502, errors.New("deserialize")), FaultTransient, "ServerError", true, Failed},
		"cut-off success":        {answered(200, errors.New("unexpected EOF")), FaultTransient, "BadReply", true, Failed},
		"expired":                {answered(403, generic("ExpiredToken")), FaultCredentials, "ExpiredToken", false, Accepted},
		"no credentials":         {fmt.Errorf("sign: %w", &CredentialsError{Err: errors.New("no role")}), FaultCredentials, "Credentials", false, Aborted},
		"cancelled before":       {fmt.Errorf("sign: %w", &CredentialsError{Err: &aws.RequestCanceledError{Err: context.Canceled}}), FaultTransient, "Canceled", false, Unanswered},
		"no credentials in time": {fmt.Errorf("sign: %w", &CredentialsError{Err: &aws.RequestCanceledError{Err: context.DeadlineExceeded}}), FaultCredentials, "Credentials", false, Aborted},
		"wrong secret":           {answered(403, generic("SignatureDoesNotMatch")), FaultCredentials, "SignatureDoesNotMatch", false, Accepted},
		"empty success":          {&smithyhttp.RequestSendError{Err: fmt.Errorf("HTTP 200: %w", errNoReply)}, FaultTransient, "BadReply", true, Failed},
		"timeout":                {fmt.Errorf("send: %w", context.DeadlineExceeded), FaultTransient, "Timeout", true, Unanswered},
		"cancelled":              {fmt.Errorf("send: %w", context.Canceled), FaultTransient, "Canceled", true, Unanswered},
		"refused":                {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, FaultTransient, "Connection", false, Unanswered},
		"reset":                  {&net.OpError{Op: "read", Err: errors.New("connection reset")}, FaultTransient, "Connection", true, Unanswered},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ce := classify(opRegister, "web", c.err)
			if ce.Fault != c.fault || ce.Code != c.code || ce.Unknown != c.unknown {
				t.Errorf("classify = fault %q, code %q, unknown %v; want %q, %q, %v", ce.Fault, ce.Code, ce.Unknown, c.fault, c.code, c.unknown)
			}
			if got := outcome(ce); got != c.outcome {
				t.Errorf("outcome = %v; want %v", got, c.outcome)
			}
			if !errors.Is(ce, c.err) && !errors.As(c.err, new(*CredentialsError)) {
				t.Errorf("%v does not wrap %v", ce, c.err)
			}
			// What the SDK says of a call that was not answered is a paragraph, most of it about its own layers.
			if unanswered := ce.Fault == FaultTransient && ce.Code != "InternalFailure" && ce.Code != "Oops"; unanswered && ce.Message == "" {
				t.Errorf("%q says it all in the SDK's words", ce)
			}
			if _, ok := behaviours[ce.Fault]; !ok {
				t.Errorf("no behaviour for fault %q", ce.Fault)
			}
		})
	}
	if classify(opRegister, "web", nil) != nil {
		t.Error("no error was classified as one")
	}
}

// TestAdvice: whatever needs a person says what to change, and where.
func TestAdvice(t *testing.T) {
	ref := reference{Name: "web-prod", Key: "web", Source: "/etc/berth/berth.yaml:12"}
	facts := GroupFacts{ARN: "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web-prod/0123456789abcdef"}
	for fault, b := range behaviours {
		got := advice(&CallError{Operation: opRegister, Fault: fault}, ref, facts)
		if (got != "") != b.person {
			t.Errorf("advice for %s is %q; a person must act: %v", fault, got, b.person)
		}
	}
	for _, fault := range []Fault{FaultDenied, FaultGone, FaultFull, FaultInvalid, FaultMisconfigured} {
		if got := advice(&CallError{Operation: opRegister, Fault: fault}, ref, facts); !strings.Contains(got, ref.Source) {
			t.Errorf("advice for %s is %q; it does not name the line of the configuration", fault, got)
		}
	}
	denied := advice(&CallError{Operation: opRegister, Fault: FaultDenied}, ref, facts)
	for _, part := range []string{"elasticloadbalancing:RegisterTargets", facts.ARN, "statement RegisterInTaggedTargetGroups of deploy/iam/policy.json"} {
		if !strings.Contains(denied, part) {
			t.Errorf("advice %q does not name %q", denied, part)
		}
	}
	if got := (reference{Name: "web-prod", Key: "web-prod", Source: "--target-group"}).String(); got != `the name "web-prod" in --target-group` {
		t.Errorf("a group of the command line is called %s; it has no key", got)
	}
	if got := advice(&CallError{Operation: opDescribeHealth, Fault: FaultDenied}, ref, facts); !strings.Contains(got, "DescribeTargetHealth on *") {
		t.Errorf("advice %q: a describe can only be allowed on *", got)
	}
	if got := advice(&CallError{Operation: opDescribeGroups, Fault: FaultGone}, ref, GroupFacts{}); !strings.Contains(got, `"web-prod" of target_groups.web in /etc/berth/berth.yaml:12`) {
		t.Errorf("advice %q does not name the line to correct", got)
	}
}

// TestBehaviour_delay: what fails for all peers alike, for as long as it takes a person to mend it, comes to less than
// an attempt a second of all of them together; and no hold is more than
// about twice as long as the trouble has lasted.
func TestBehaviour_delay(t *testing.T) {
	for fault, b := range behaviours {
		for peers, longest := range map[int]time.Duration{0: 5 * time.Minute, 50: 5 * time.Minute, 1000: 50 * time.Minute, 100_000: 6 * time.Hour} {
			if !b.shared {
				longest = b.max
			}
			lasted := b.first
			for attempts := 1; attempts < 100; attempts++ {
				got := b.delay(attempts, time.Hour, peers)
				if got > longest || got > 2*lasted+b.first {
					t.Fatalf("%s, %d peers: attempt %d waits %v after %v; want at most %v", fault, peers, attempts, got, lasted, longest)
				}
				if attempts > 20 && got < longest/2 {
					t.Fatalf("%s, %d peers: attempt %d waits %v; want at least half of %v", fault, peers, attempts, got, longest)
				}
				lasted += got
			}
		}
		refused := (&CallError{Fault: fault, Code: "Refused"}).behaviour()
		if refused.shared != b.person {
			t.Errorf("%s, refused by AWS, grows with the peers: %v; want %v", fault, refused.shared, b.person)
		}
		if want := b.person && fault != FaultCredentials; b.shared != want {
			t.Errorf("%s grows with the peers: %v; want %v", fault, b.shared, want)
		}
	}
}
