package registrar

import (
	"strings"
	"testing"
	"time"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/pacer"
)

// TestAdvice: whatever needs a person says what to change, and where.
func TestAdvice(t *testing.T) {
	ref := elb.Reference{Name: "web-prod", Key: "web", Source: "/etc/berth/berth.yaml:12"}
	facts := elb.Facts{ARN: "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web-prod/0123456789abcdef"}
	for fault, b := range behaviours {
		got := elb.Advice(&elb.CallError{Operation: elb.OpRegister, Fault: fault}, ref, facts)
		if (got != "") != b.person {
			t.Errorf("advice for %s is %q; a person must act: %v", fault, got, b.person)
		}
	}
	for _, fault := range []elb.Fault{elb.FaultDenied, elb.FaultGone, elb.FaultFull, elb.FaultInvalid, elb.FaultMisconfigured} {
		if got := elb.Advice(&elb.CallError{Operation: elb.OpRegister, Fault: fault}, ref, facts); !strings.Contains(got, ref.Source) {
			t.Errorf("advice for %s is %q; it does not name the line of the configuration", fault, got)
		}
	}
	denied := elb.Advice(&elb.CallError{Operation: elb.OpRegister, Fault: elb.FaultDenied}, ref, facts)
	for _, part := range []string{"elasticloadbalancing:RegisterTargets", facts.ARN, "statement RegisterInTaggedTargetGroups of deploy/iam/policy.json"} {
		if !strings.Contains(denied, part) {
			t.Errorf("advice %q does not name %q", denied, part)
		}
	}
	if got := (elb.Reference{Name: "web-prod", Key: "web-prod", Source: "--target-group"}).String(); got != `the name "web-prod" in --target-group` {
		t.Errorf("a group of the command line is called %s; it has no key", got)
	}
	if got := elb.Advice(&elb.CallError{Operation: elb.OpDescribeHealth, Fault: elb.FaultDenied}, ref, facts); !strings.Contains(got, "DescribeTargetHealth on *") {
		t.Errorf("advice %q: a describe can only be allowed on *", got)
	}
	if got := elb.Advice(&elb.CallError{Operation: elb.OpDescribeGroups, Fault: elb.FaultGone}, ref, elb.Facts{}); !strings.Contains(got, `"web-prod" of target_groups.web in /etc/berth/berth.yaml:12`) {
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
		refused := behaviourOf(&elb.CallError{Fault: fault, Code: "Refused"})
		if refused.shared != b.person {
			t.Errorf("%s, refused by AWS, grows with the peers: %v; want %v", fault, refused.shared, b.person)
		}
		if want := b.person && fault != elb.FaultCredentials; b.shared != want {
			t.Errorf("%s grows with the peers: %v; want %v", fault, b.shared, want)
		}
	}
}

// Whatever a call may fail with has a consequence for its group.
func TestBehaviours_complete(t *testing.T) {
	for _, fault := range []elb.Fault{elb.FaultThrottled, elb.FaultTransient, elb.FaultCredentials, elb.FaultDenied, elb.FaultGone, elb.FaultFull, elb.FaultInvalid, elb.FaultMisconfigured} {
		if b, ok := behaviours[fault]; !ok || b.state == "" {
			t.Errorf("no behaviour for fault %q", fault)
		}
	}
}

// What the pacer is told of a call: that an account's limit refused it, that nobody answered, that none was made.
func TestOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		ce   *elb.CallError
		want pacer.Outcome
	}{
		"success":               {nil, pacer.Accepted},
		"throttled":             {&elb.CallError{Fault: elb.FaultThrottled, Code: "Throttling"}, pacer.Throttled},
		"denied":                {&elb.CallError{Fault: elb.FaultDenied, Code: "AccessDenied"}, pacer.Accepted},
		"gone":                  {&elb.CallError{Fault: elb.FaultGone, Code: "TargetGroupNotFound"}, pacer.Accepted},
		"full":                  {&elb.CallError{Fault: elb.FaultFull, Code: "TooManyTargets"}, pacer.Accepted},
		"invalid":               {&elb.CallError{Fault: elb.FaultInvalid, Code: "InvalidTarget"}, pacer.Accepted},
		"a bad arn":             {&elb.CallError{Fault: elb.FaultMisconfigured, Code: "ValidationError"}, pacer.Accepted},
		"server fault":          {&elb.CallError{Fault: elb.FaultTransient, Code: "InternalFailure", Unknown: true}, pacer.Failed},
		"server fault, refused": {&elb.CallError{Fault: elb.FaultTransient, Code: "ServiceUnavailable"}, pacer.Failed},
		"a page, not XML":       {&elb.CallError{Fault: elb.FaultTransient, Code: "ServerError", Unknown: true}, pacer.Failed},
		"cut-off success":       {&elb.CallError{Fault: elb.FaultTransient, Code: "BadReply", Unknown: true}, pacer.Failed},
		"expired":               {&elb.CallError{Fault: elb.FaultCredentials, Code: "ExpiredToken"}, pacer.Accepted},
		"no credentials":        {&elb.CallError{Fault: elb.FaultCredentials, Code: elb.CodeCredentials}, pacer.Aborted},
		"timeout":               {&elb.CallError{Fault: elb.FaultTransient, Code: elb.CodeTimeout, Unknown: true}, pacer.Unanswered},
		"cancelled":             {&elb.CallError{Fault: elb.FaultTransient, Code: elb.CodeCanceled, Unknown: true}, pacer.Unanswered},
		"cancelled before":      {&elb.CallError{Fault: elb.FaultTransient, Code: elb.CodeCanceled}, pacer.Unanswered},
		"connection refused":    {&elb.CallError{Fault: elb.FaultTransient, Code: elb.CodeConnection}, pacer.Unanswered},
		"connection reset":      {&elb.CallError{Fault: elb.FaultTransient, Code: elb.CodeConnection, Unknown: true}, pacer.Unanswered},
	} {
		if got := outcome(c.ce); got != c.want {
			t.Errorf("%s: outcome = %v; want %v", name, got, c.want)
		}
	}
}
