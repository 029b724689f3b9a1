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
			ce := classify(opRegister, "web", c.err)
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
		refused := behaviourOf(&CallError{Fault: fault, Code: "Refused"})
		if refused.shared != b.person {
			t.Errorf("%s, refused by AWS, grows with the peers: %v; want %v", fault, refused.shared, b.person)
		}
		if want := b.person && fault != FaultCredentials; b.shared != want {
			t.Errorf("%s grows with the peers: %v; want %v", fault, b.shared, want)
		}
	}
}

// Whatever a call may fail with has a consequence for its group.
func TestBehaviours_complete(t *testing.T) {
	for _, fault := range []Fault{FaultThrottled, FaultTransient, FaultCredentials, FaultDenied, FaultGone, FaultFull, FaultInvalid, FaultMisconfigured} {
		if b, ok := behaviours[fault]; !ok || b.state == "" {
			t.Errorf("no behaviour for fault %q", fault)
		}
	}
}

// What the pacer is told of a call: that an account's limit refused it, that nobody answered, that none was made.
func TestOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		ce   *CallError
		want Outcome
	}{
		"success":               {nil, Accepted},
		"throttled":             {&CallError{Fault: FaultThrottled, Code: "Throttling"}, Throttled},
		"denied":                {&CallError{Fault: FaultDenied, Code: "AccessDenied"}, Accepted},
		"gone":                  {&CallError{Fault: FaultGone, Code: "TargetGroupNotFound"}, Accepted},
		"full":                  {&CallError{Fault: FaultFull, Code: "TooManyTargets"}, Accepted},
		"invalid":               {&CallError{Fault: FaultInvalid, Code: "InvalidTarget"}, Accepted},
		"a bad arn":             {&CallError{Fault: FaultMisconfigured, Code: "ValidationError"}, Accepted},
		"server fault":          {&CallError{Fault: FaultTransient, Code: "InternalFailure", Unknown: true}, Failed},
		"server fault, refused": {&CallError{Fault: FaultTransient, Code: "ServiceUnavailable"}, Failed},
		"a page, not XML":       {&CallError{Fault: FaultTransient, Code: "ServerError", Unknown: true}, Failed},
		"cut-off success":       {&CallError{Fault: FaultTransient, Code: "BadReply", Unknown: true}, Failed},
		"expired":               {&CallError{Fault: FaultCredentials, Code: "ExpiredToken"}, Accepted},
		"no credentials":        {&CallError{Fault: FaultCredentials, Code: codeCredentials}, Aborted},
		"timeout":               {&CallError{Fault: FaultTransient, Code: codeTimeout, Unknown: true}, Unanswered},
		"cancelled":             {&CallError{Fault: FaultTransient, Code: codeCanceled, Unknown: true}, Unanswered},
		"cancelled before":      {&CallError{Fault: FaultTransient, Code: codeCanceled}, Unanswered},
		"connection refused":    {&CallError{Fault: FaultTransient, Code: codeConnection}, Unanswered},
		"connection reset":      {&CallError{Fault: FaultTransient, Code: codeConnection, Unknown: true}, Unanswered},
	} {
		if got := outcome(c.ce); got != c.want {
			t.Errorf("%s: outcome = %v; want %v", name, got, c.want)
		}
	}
}
