// Package wire is AWS's Query protocol: forms in, XML out, and the errors as AWS words them. It knows no account.
//
//	errors.go  errors, each with AWS's code, message and status
//	query.go   the members of a request
//	xml.go     replies and error replies
package wire

import (
	"fmt"
	"net/http"
	"strings"
)

// Error is an error as AWS sends it. The messages are AWS's own where they were seen in the wild.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Status  int    `json:"status"`
	Field   string // the key of the configuration file that it is about; "" where there is none
}

// Of names the key of the configuration file that the error is about.
func (e *Error) Of(field string) *Error {
	e.Field = field
	return e
}

// Error returns code and message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// NewError returns an error of HTTP status 400.
func NewError(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Status: http.StatusBadRequest}
}

// ErrValidation says that the request breaks a rule of the API.
func ErrValidation(format string, args ...any) *Error {
	return NewError("ValidationError", format, args...)
}

// ErrMissing says that a required member was not sent.
func ErrMissing(name string) *Error {
	return ErrValidation("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", member(name))
}

// ErrRange says that a number lies outside its limits.
func ErrRange(name string, n, low, high int) *Error {
	rule, bound := "greater than or equal to", low
	if n > high {
		rule, bound = "less than or equal to", high
	}
	return ErrValidation("1 validation error detected: Value '%d' at '%s' failed to satisfy constraint: Member must have value %s %d", n, member(name), rule, bound)
}

// ErrEnum says that a value is none of those allowed.
func ErrEnum(name, value string, allowed ...string) *Error {
	return ErrValidation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]", Clip(value), member(name), strings.Join(allowed, ", "))
}

// ErrInvalidAction says that there is no such operation.
func ErrInvalidAction(action, version string) *Error {
	return NewError("InvalidAction", "Could not find operation %s for version %s", Clip(action), Clip(version))
}

// ErrMissingAction says that the request names no operation.
func ErrMissingAction() *Error {
	return NewError("MissingAction", "The request is missing an action or a required parameter")
}

// ErrGroupNotFound says that a target group does not exist.
func ErrGroupNotFound() *Error {
	return NewError("TargetGroupNotFound", "One or more target groups not found")
}

// ErrBalancerNotFound says that a load balancer does not exist.
func ErrBalancerNotFound() *Error {
	return NewError("LoadBalancerNotFound", "One or more load balancers not found")
}

// ErrDuplicateGroup says that a target group of that name exists with other settings.
func ErrDuplicateGroup(name string) *Error {
	return NewError("DuplicateTargetGroupName", "A target group with the same name '%s' exists, but with different settings", name)
}

// ErrTooManyTargetGroups says that the quota on target groups is used up.
func ErrTooManyTargetGroups(limit int) *Error {
	return NewError("TooManyTargetGroups", "The maximum number of target groups (%d) has been reached", limit)
}

// ErrResourceInUse says that a load balancer uses the target group.
func ErrResourceInUse(arn string) *Error {
	return NewError("ResourceInUse", "Target group '%s' is currently in use by a listener or a rule", arn)
}

// ErrTooManyTargets says that the quota on targets of a target group is used up.
func ErrTooManyTargets(arn string, limit int) *Error {
	return NewError("TooManyTargets", "The maximum number of targets (%d) has been reached for target group '%s'", limit, arn)
}

// ErrTooManyBalancerTargets says that the quota on targets of a load balancer is used up.
func ErrTooManyBalancerTargets(arn string, limit int) *Error {
	return NewError("TooManyTargets", "The maximum number of targets (%d) has been reached for load balancer '%s'", limit, arn)
}

// ErrTooManyRegistrations says that a target is registered as often as it may be.
func ErrTooManyRegistrations(id string, limit int) *Error {
	return NewError("TooManyRegistrationsForTargetId", "The maximum number of registrations (%d) has been reached for target '%s'", limit, id)
}

// ErrUnknownInstances says that instances do not exist.
func ErrUnknownInstances(ids []string) *Error {
	return NewError("InvalidTarget", "The following instances do not exist: %s", quoted(ids))
}

// ErrNotRunning says that instances are not running.
func ErrNotRunning(ids []string) *Error {
	return NewError("InvalidTarget", "The following targets are not in a running state and cannot be registered: %s", quoted(ids))
}

// ErrWrongVPC says that targets lie outside the target group's VPC.
func ErrWrongVPC(vpc string, ids []string) *Error {
	return NewError("InvalidTarget", "The following targets are not in the target group VPC '%s': %s", vpc, quoted(ids))
}

// ErrNotAddresses says that targets are no addresses of the target group.
func ErrNotAddresses(ids []string) *Error {
	return NewError("InvalidTarget", "The following targets are not valid IP addresses of the target group: %s", quoted(ids))
}

// ErrDraining says that targets still drain.
func ErrDraining(ids []string) *Error {
	return NewError("InvalidTarget", "The following targets are draining and cannot be registered: %s", quoted(ids))
}

// ErrThrottled says that a rate limit refused the call.
func ErrThrottled(code string) *Error { return NewError(code, "Rate exceeded") }

// ErrAccessDenied says that the policy forbids the call: with an explicit deny, or because no statement allows it.
func ErrAccessDenied(caller, action, resource string, explicit bool) *Error {
	why := fmt.Sprintf("because no identity-based policy allows the %s action", action)
	if explicit {
		why = "with an explicit deny in an identity-based policy"
	}
	e := NewError("AccessDenied", "User: %s is not authorized to perform: %s on resource: %s %s", caller, action, resource, why)
	e.Status = http.StatusForbidden
	return e
}

func quoted(ids []string) string { return "'" + strings.Join(ids, "', '") + "'" }
