package elb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Fault is the class of a failed call. The class, and nothing else, decides what happens next.
type Fault string

// The faults.
const (
	FaultNone          Fault = ""
	FaultThrottled     Fault = "throttled"     // a rate limit of the account: the host's pacer slows down
	FaultTransient     Fault = "transient"     // a server fault, a timeout, the network: the group backs off
	FaultCredentials   Fault = "credentials"   // none, or expired: every call of the host fails alike
	FaultDenied        Fault = "denied"        // IAM says no: a person must act
	FaultGone          Fault = "gone"          // there is no such target group
	FaultFull          Fault = "full"          // a quota on targets
	FaultInvalid       Fault = "invalid"       // the load balancer does not take this target (now)
	FaultMisconfigured Fault = "misconfigured" // the call as such is wrong: a bad ARN, a group of another kind
)

// faultOfCode is the one table from AWS's error codes to faults. A code that is not in it is judged by its HTTP
// status: 5xx is transient, 4xx misconfigured.
// Source: the API references of RegisterTargets, DeregisterTargets, DescribeTargetHealth and DescribeTargetGroups,
// and the common errors of the Query API.
var faultOfCode = map[string]Fault{
	"Throttling":               FaultThrottled,
	"ThrottlingException":      FaultThrottled,
	"ThrottledException":       FaultThrottled,
	"RequestLimitExceeded":     FaultThrottled,
	"RequestThrottled":         FaultThrottled,
	"TooManyRequestsException": FaultThrottled,

	"TargetGroupNotFound": FaultGone,

	"TooManyTargets":                           FaultFull,
	"TooManyRegistrationsForTargetId":          FaultFull,
	"TooManyUniqueTargetGroupsPerLoadBalancer": FaultFull,

	"InvalidTarget": FaultInvalid,

	"AccessDenied":          FaultDenied,
	"AccessDeniedException": FaultDenied,
	"UnauthorizedOperation": FaultDenied,
	"OperationNotPermitted": FaultDenied,
	"OptInRequired":         FaultDenied,
	"NotAuthorized":         FaultDenied,

	"ExpiredToken":                FaultCredentials,
	"ExpiredTokenException":       FaultCredentials,
	"InvalidClientTokenId":        FaultCredentials,
	"UnrecognizedClientException": FaultCredentials,
	"MissingAuthenticationToken":  FaultCredentials,
	"IncompleteSignature":         FaultCredentials,
	"SignatureDoesNotMatch":       FaultCredentials, // a wrong secret; with a clock that is far off it is transient
	"InvalidSignatureException":   FaultCredentials,
	"RequestExpired":              FaultTransient, // a clock that is off

	"ServiceUnavailable": FaultTransient,
	"InternalFailure":    FaultTransient,
	"InternalError":      FaultTransient,
	"HealthUnavailable":  FaultTransient,
	"RequestTimeout":     FaultTransient,

	"ValidationError": FaultMisconfigured,
}

// CredentialsError says that no credentials could be had, so that no call was made.
type CredentialsError struct{ Err error }

func (e *CredentialsError) Error() string { return "get AWS credentials: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *CredentialsError) Unwrap() error { return e.Err }

// The codes of calls that were not answered, in place of AWS's.
const (
	CodeTimeout    = "Timeout"
	CodeConnection = "Connection"
	CodeCanceled   = "Canceled"
	codeBadReply   = "BadReply"
	// CodeCredentials: there were none to sign a call with, so that none was made.
	CodeCredentials = "Credentials"
)

// signatureCodes are AWS's for a call that was not signed with the secret of its access key; or by a clock that is far off.
var signatureCodes = map[string]bool{"SignatureDoesNotMatch": true, "InvalidSignatureException": true}

// CallError is the failure of one call: what was asked, what it was answered, and whether it may have taken effect
// all the same.
type CallError struct {
	Operation string // the API's name, "RegisterTargets"
	Group     string // the group's name or ARN
	Fault     Fault
	Code      string // AWS's error code; "Timeout", "Connection" or "Credentials" where there is none
	Message   string
	// Unknown reports whether the call may have taken effect, or may yet.
	Unknown bool
	Err     error
}

func (e *CallError) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("%s of %s: %s: %s", e.Operation, e.Group, e.Code, e.Message)
	}
	return fmt.Sprintf("%s of %s: %s: %v", e.Operation, e.Group, e.Code, e.Err)
}

// Unwrap returns the SDK's error.
func (e *CallError) Unwrap() error { return e.Err }

// classify turns the SDK's error into a CallError; nil stays nil. It looks at types and codes, never at texts.
func classify(operation, group string, err error) *CallError {
	if err == nil {
		return nil
	}
	ce := &CallError{Operation: operation, Group: group, Err: err}
	var noCreds *CredentialsError
	if errors.As(err, &noCreds) {
		if errors.Is(err, context.Canceled) { // while they were fetched
			ce.Fault, ce.Code, ce.Message = FaultTransient, CodeCanceled, "given up"
			return ce
		}
		ce.Fault, ce.Code, ce.Message = FaultCredentials, CodeCredentials, noCreds.Err.Error()
		return ce
	}
	status := 0
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		status = response.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) && status >= http.StatusBadRequest {
		ce.Code, ce.Message = api.ErrorCode(), api.ErrorMessage()
		ce.Fault = faultOfStatus(api.ErrorCode(), status)
		// A server fault may come after the effect; an answer below 500 is a refusal.
		ce.Unknown = status >= http.StatusInternalServerError && ce.Fault != FaultThrottled
		return ce
	}
	ce.Fault, ce.Unknown = FaultTransient, true
	var op *net.OpError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		ce.Code, ce.Unknown = CodeConnection, false // nothing was sent: a proxy is asked for a way before it is sent anything
		ce.Message = op.Error()
	case errors.Is(err, errNoReply):
		ce.Code, ce.Message = codeBadReply, "a success, but "+errNoReply.Error()+": is there a proxy that answers in its place?"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		ce.Code, ce.Message = CodeTimeout, "no answer in time"
	case errors.Is(err, context.Canceled):
		ce.Code, ce.Message = CodeCanceled, "given up"
	case status >= http.StatusInternalServerError:
		ce.Code, ce.Message = "ServerError", fmt.Sprintf("HTTP %d", status)
	case status != 0: // a success that could not be read: it took effect, most likely
		ce.Code, ce.Message = codeBadReply, fmt.Sprintf("HTTP %d, but the reply cannot be read", status)
	case op != nil:
		ce.Code, ce.Message = CodeConnection, op.Error()
	default:
		ce.Code = CodeConnection
	}
	return ce
}

func faultOfStatus(code string, status int) Fault {
	if f, ok := faultOfCode[code]; ok {
		return f
	}
	switch {
	case status == http.StatusTooManyRequests:
		return FaultThrottled
	case status >= http.StatusInternalServerError:
		return FaultTransient
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return FaultDenied
	}
	return FaultMisconfigured
}

// policyFile is where the policy is that a role needs, as documentation and packages have it.
const policyFile = "deploy/iam/policy.json"

// Advice says in one sentence what a person can change about a fault, and in which line of which file; empty where
// waiting is all there is.
func Advice(e *CallError, g Reference, f Facts) string {
	what := g.String()
	switch e.Fault {
	case FaultCredentials:
		if signatureCodes[e.Code] {
			return "correct the secret access key in the agent's environment or credentials file, and restart the agent"
		}
		return "attach an instance profile with the policy of " + policyFile + " to this instance (or set credentials in the agent's environment); the next attempt follows by itself"
	case FaultDenied:
		if f.ARN == "" || e.Operation == OpDescribeGroups || e.Operation == OpDescribeHealth {
			return fmt.Sprintf("allow elasticloadbalancing:%s on * in the policy of this instance's role (statement FindTargetGroups of %s)", e.Operation, policyFile)
		}
		return fmt.Sprintf("allow elasticloadbalancing:%s on %s in the policy of this instance's role (statement RegisterInTaggedTargetGroups of %s, which asks for the tag berth=true on the target group), or correct %s",
			e.Operation, f.ARN, policyFile, what)
	case FaultGone:
		return fmt.Sprintf("create the target group, or correct %s", what)
	case FaultFull:
		return fmt.Sprintf("raise the quota on targets of this target group or load balancer, or spread the service over more groups: name another in place of %s", what)
	case FaultInvalid:
		return fmt.Sprintf("the instance must be running and in the target group's VPC; if it is, correct %s", what)
	case FaultMisconfigured:
		return fmt.Sprintf("correct %s", what)
	}
	return ""
}
