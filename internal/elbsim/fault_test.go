package elbsim

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"berth/pkg/target"
)

func describeHealth(ctx context.Context, c *elb.Client, arn string) error {
	_, err := c.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: aws.String(arn)})
	return err
}

func addFault(t *testing.T, s *Sim, f Fault) string {
	t.Helper()
	id, err := s.AddFault(f)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Each kind of fault happens, with the effect that it should have, and other actions, groups and targets see nothing.
func TestFaults_kinds(t *testing.T) {
	tests := map[string]struct {
		fault   Fault
		check   func(err error) bool
		took    time.Duration
		effect  bool          // took effect by the time of the reply
		later   time.Duration // when it takes effect after all
		outcome string
	}{
		"error": {
			fault: Fault{Kind: FaultError, Code: "ServiceUnavailable", Message: "Try later"},
			check: func(err error) bool {
				var e smithy.APIError
				return errors.As(err, &e) && e.ErrorCode() == "ServiceUnavailable" && e.ErrorMessage() == "Try later" && e.ErrorFault() != smithy.FaultClient
			},
			outcome: "ServiceUnavailable",
		},
		"latency":       {fault: Fault{Kind: FaultLatency, Delay: Duration(time.Second)}, check: func(err error) bool { return err == nil }, took: time.Second, effect: true, outcome: "ok"},
		"reset":         {fault: Fault{Kind: FaultReset}, check: isReset, outcome: "reset"},
		"hang":          {fault: Fault{Kind: FaultHang}, check: isDeadline, took: 3 * time.Second, outcome: "hang"},
		"lost":          {fault: Fault{Kind: FaultLost}, check: isDeadline, took: 3 * time.Second, effect: true, outcome: "lost"},
		"lost by reset": {fault: Fault{Kind: FaultLost, Reset: true}, check: isReset, effect: true, outcome: "lost"},
		"late":          {fault: Fault{Kind: FaultLate, Delay: Duration(10 * time.Second)}, check: isDeadline, took: 3 * time.Second, later: 10 * time.Second, outcome: "late"},
		"truncate": {fault: Fault{Kind: FaultTruncate}, check: func(err error) bool {
			var e *smithy.DeserializationError
			return errors.As(err, &e)
		}, effect: true, outcome: "truncated"},
		"empty": {fault: Fault{Kind: FaultEmpty}, check: func(err error) bool { return err == nil }, outcome: "empty"}, // so the SDK takes it
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{})
				c := clientOf(s)
				web, api := addGroup(t, s, Group{Name: "web"}), addGroup(t, s, Group{Name: "api"})
				test.fault.Action, test.fault.TargetGroup = "RegisterTargets", "web"
				addFault(t, s, test.fault)

				call := func() (time.Duration, error) {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					start := time.Now()
					err := tryRegister(ctx, c, web, on(1)...)
					return time.Since(start), err
				}
				arrived := time.Now()
				took, err := call()
				if !test.check(err) || took != test.took {
					t.Errorf("got %v after %v; want that after %v", err, took, test.took)
				}
				if got := len(s.Registered(web)) == 1; got != test.effect {
					t.Errorf("effect at the reply: got %v; want %v", got, test.effect)
				}
				if test.later > 0 {
					time.Sleep(time.Until(arrived.Add(test.later - 1)))
					if len(s.Registered(web)) != 0 {
						t.Error("the late effect came early")
					}
					time.Sleep(time.Nanosecond)
					if len(s.Registered(web)) != 1 {
						t.Error("the late effect did not come")
					}
				}
				if got := s.Calls()[0]; got.Outcome != test.outcome || got.Fault != "f-1" && test.fault.Kind != FaultLatency || got.EffectAt.IsZero() == (test.effect || test.later > 0) {
					t.Errorf("record: got %+v; want outcome %s", got, test.outcome)
				}

				// Only where asked.
				start := time.Now()
				register(t, c, api, on(1)...)
				deregister(t, c, web, on(9)...)
				described(t, c, web)
				if took := time.Since(start); took != 0 {
					t.Errorf("other calls took %v", took)
				}
				s.ClearFaults()
				register(t, c, web, on(2)...)
			})
		})
	}
}

func isDeadline(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
func isReset(err error) bool    { return errors.Is(err, syscall.ECONNRESET) }

// The race that a client must survive: a registration times out, the target is deregistered, and only then the
// registration is carried out.
func TestFaults_lateRegisterAfterDeregister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		addFault(t, s, Fault{Kind: FaultLate, Action: "RegisterTargets", Delay: Duration(20 * time.Second), Times: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := tryRegister(ctx, c, arn, on(1)...); !isDeadline(err) {
			t.Fatalf("got %v; want a deadline", err)
		}
		deregister(t, c, arn, on(1)...)
		if got := described(t, c, arn); len(got) != 0 {
			t.Fatalf("got %v; want nothing registered", got)
		}
		time.Sleep(18 * time.Second)
		if got := described(t, c, arn)[on(1)[0]]; got != "initial/Elb.RegistrationInProgress" {
			t.Errorf("got %q; want the registration that nobody expects", got)
		}
	})
}

// A late call that meets an error when it is carried out leaves that in the record.
func TestFaults_lateFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		addFault(t, s, Fault{Kind: FaultLate, Delay: Duration(10 * time.Second), Times: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = tryRegister(ctx, c, arn, on(1)...)
		if err := s.SetInstanceState(testInstance, "stopped"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := s.Calls()[0]; got.EffectError != "InvalidTarget" || !got.EffectAt.IsZero() {
			t.Errorf("got %+v; want a failed effect", got)
		}
	})
}

func TestFaults_conditions(t *testing.T) {
	s := New(Config{Seed: 7})
	c := clientOf(s)
	arn := addGroup(t, s, Group{Name: "web"})
	other := target.Target{ID: otherInstance, Port: 1}
	if err := s.AddInstance(Instance{ID: otherInstance}); err != nil {
		t.Fatal(err)
	}
	struck := func(n int, call func() error) int {
		hits := 0
		for range n {
			if err := call(); err != nil {
				wantCode(t, err, "InternalFailure")
				hits++
			}
		}
		return hits
	}
	mine := func() error { return tryRegister(t.Context(), c, arn, on(1)...) }
	tests := []struct {
		name  string
		fault Fault
		call  func() error
		low   int
		high  int
	}{
		{"all", Fault{}, mine, 100, 100},
		{"a quarter", Fault{Share: 0.25}, mine, 10, 40},
		{"the first three", Fault{Times: 3}, mine, 3, 3},
		{"all but the first ten", Fault{Skip: 10}, mine, 90, 90},
		{"two after the first ten", Fault{Skip: 10, Times: 2}, mine, 2, 2},
		{"another group by ARN", Fault{TargetGroup: arn + "0"}, mine, 0, 0},
		{"the group by ARN", Fault{TargetGroup: arn}, mine, 100, 100},
		{"the group by name", Fault{TargetGroup: "web"}, mine, 100, 100},
		{"calls by name", Fault{TargetGroup: arn, Action: "Describe*"}, func() error {
			_, err := c.DescribeTargetGroups(t.Context(), &elb.DescribeTargetGroupsInput{Names: []string{"web"}})
			return err
		}, 100, 100},
		{"another action", Fault{Action: "Describe*"}, mine, 0, 0},
		{"this instance", Fault{Instance: testInstance}, mine, 100, 100},
		{"another instance", Fault{Instance: testInstance}, func() error { return tryRegister(t.Context(), c, arn, other) }, 0, 0},
		{"IMDS", Fault{Action: "IMDS"}, mine, 0, 0},
	}
	for _, test := range tests {
		test.fault.Kind = FaultError
		id := addFault(t, s, test.fault)
		if got := struck(100, test.call); got < test.low || got > test.high {
			t.Errorf("%s: struck %d of 100; want %d to %d", test.name, got, test.low, test.high)
		} else if s.Faults()[0].Struck != got {
			t.Errorf("%s: Struck is %d; want %d", test.name, s.Faults()[0].Struck, got)
		}
		if !s.RemoveFault(id) || s.RemoveFault(id) {
			t.Errorf("%s: removing it", test.name)
		}
	}
}

func TestFaults_together(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Latency: time.Second})
		c := clientOf(s)
		arn := addGroup(t, s, Group{Name: "web"})
		addFault(t, s, Fault{Kind: FaultLatency, Delay: Duration(time.Second)})
		addFault(t, s, Fault{Kind: FaultError, Code: "Throttling", Times: 1})
		addFault(t, s, Fault{Kind: FaultError, Code: "AccessDenied"})
		addFault(t, s, Fault{Kind: FaultLatency, Delay: Duration(time.Second)})
		start := time.Now()
		wantCode(t, tryRegister(t.Context(), c, arn, on(1)...), "Throttling")
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v; want the three latencies together", took)
		}
		wantCode(t, tryRegister(t.Context(), c, arn, on(1)...), "AccessDenied")
	})
}

func TestFaults_refused(t *testing.T) {
	s := New(Config{})
	for name, f := range map[string]Fault{
		"kind": {Kind: "explode"}, "no kind": {}, "share": {Kind: FaultHang, Share: 1.5}, "negative": {Kind: FaultHang, Times: -1},
		"no delay": {Kind: FaultLate}, "latency without delay": {Kind: FaultLatency}, "pattern": {Kind: FaultHang, Action: "["},
		"path of the API": {Kind: FaultHang, Path: "/latest/*"}, "lost IMDS": {Kind: FaultLost, Action: "IMDS"}, "status": {Kind: FaultError, Status: 200},
	} {
		if id, err := s.AddFault(f); err == nil {
			t.Errorf("%s: added as %s", name, id)
		}
	}
	if len(s.Faults()) != 0 {
		t.Errorf("refused faults are there: %v", s.Faults())
	}
}

func TestDuration_json(t *testing.T) {
	for text, want := range map[string]time.Duration{`"1.5s"`: 1500 * time.Millisecond, `2`: 2 * time.Second, `"0.25"`: 250 * time.Millisecond} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err != nil || time.Duration(d) != want {
			t.Errorf("%s: got %v, %v; want %v", text, time.Duration(d), err, want)
		}
	}
	var d Duration
	if err := json.Unmarshal([]byte(`"soon"`), &d); err == nil || !strings.Contains(err.Error(), "soon") {
		t.Errorf("got %v; want an error that shows the value", err)
	}
	if b, err := json.Marshal(Fault{Kind: FaultHang, Delay: Duration(time.Second)}); err != nil || !strings.Contains(string(b), `"delay":"1s"`) {
		t.Errorf("got %s, %v", b, err)
	}
}

// Over sockets the same faults look the same to the SDK.
func TestFaults_sockets(t *testing.T) {
	s := New(Config{})
	srv := serve(t, s)
	tr := newTransport(t)
	c := clientWith(tr, srv.URL())
	arn := addGroup(t, s, Group{Name: "web"})
	for _, test := range []struct {
		fault  Fault
		check  func(error) bool
		effect bool
	}{
		{Fault{Kind: FaultReset}, isReset, false},
		{Fault{Kind: FaultHang}, isDeadline, false},
		{Fault{Kind: FaultLost, Reset: true}, isReset, true},
		{Fault{Kind: FaultLost}, isDeadline, true},
	} {
		id := addFault(t, s, test.fault)
		patience := 30 * time.Second
		if test.fault.Kind == FaultHang || test.fault.Kind == FaultLost && !test.fault.Reset {
			patience = time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := tryRegister(ctx, c, arn, on(1)...)
		cancel()
		if !test.check(err) {
			t.Errorf("%+v: got %v", test.fault, err)
		}
		eventually(t, "the call to be on record as ended", func() bool { return s.Calls()[len(s.Calls())-1].Outcome != "pending" })
		if got := len(s.Registered(arn)) == 1; got != test.effect {
			t.Errorf("%+v: effect %v; want %v", test.fault, got, test.effect)
		}
		s.RemoveFault(id)
		if err := s.Deregister(arn, on(1)...); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]target.Target(nil), s.Registered(arn)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// Codes come with the status that AWS gives them, and as the SDK's types.
func TestFaults_codes(t *testing.T) {
	s := New(Config{})
	c := clientOf(s)
	arn := addGroup(t, s, Group{Name: "web"})
	for code, status := range map[string]int{
		"Throttling": 400, "ThrottlingException": 400, "RequestLimitExceeded": 400, "ExpiredToken": 403, "AccessDenied": 403,
		"SignatureDoesNotMatch": 403, "InternalFailure": 500, "HealthUnavailable": 500, "ServiceUnavailable": 503, "": 500,
	} {
		id := addFault(t, s, Fault{Kind: FaultError, Code: code})
		err := describeHealth(t.Context(), c, arn)
		wantCode(t, err, map[bool]string{true: "InternalFailure", false: code}[code == ""])
		var resp *awshttp.ResponseError
		if !errors.As(err, &resp) || resp.HTTPStatusCode() != status {
			t.Errorf("%s: got %v; want status %d", code, err, status)
		}
		var unavailable *types.HealthUnavailableException
		if errors.As(err, &unavailable) != (code == "HealthUnavailable") {
			t.Errorf("%s: got %T", code, err)
		}
		s.RemoveFault(id)
	}
}
