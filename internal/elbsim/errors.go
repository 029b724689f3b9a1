package elbsim

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// APIError is an error as AWS sends it. The messages are AWS's own where they were seen in the wild.
type APIError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Status  int    `json:"status"`
	field   string // the key of the configuration file that it is about; "" where there is none
}

// of names the key of the configuration file that the error is about.
func (e *APIError) of(field string) *APIError {
	e.field = field
	return e
}

// fieldError is an error about one key of what was given: "listeners[0].rules[2].forward".
type fieldError struct {
	field string
	err   error
}

// Error returns the key and what is wrong with it.
func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }

// Unwrap returns what is wrong with it.
func (e *fieldError) Unwrap() error { return e.err }

// at says that an error is about a key. Keys of nested errors are joined.
func at(field string, err error) error {
	if err == nil {
		return nil
	}
	var inner *fieldError
	if errors.As(err, &inner) {
		return &fieldError{field + "." + inner.field, inner.err}
	}
	return &fieldError{field, err}
}

// Error returns code and message.
func (e *APIError) Error() string { return e.Code + ": " + e.Message }

func apiError(code, format string, args ...any) *APIError {
	return &APIError{Code: code, Message: fmt.Sprintf(format, args...), Status: http.StatusBadRequest}
}

func errValidation(format string, args ...any) *APIError {
	return apiError("ValidationError", format, args...)
}

func errMissing(name string) *APIError {
	return errValidation("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", member(name))
}

func errRange(name string, n, low, high int) *APIError {
	rule, bound := "greater than or equal to", low
	if n > high {
		rule, bound = "less than or equal to", high
	}
	return errValidation("1 validation error detected: Value '%d' at '%s' failed to satisfy constraint: Member must have value %s %d", n, member(name), rule, bound)
}

func errEnum(name, value string, allowed ...string) *APIError {
	return errValidation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]", clip(value), member(name), strings.Join(allowed, ", "))
}

func errInvalidAction(action, version string) *APIError {
	return apiError("InvalidAction", "Could not find operation %s for version %s", clip(action), clip(version))
}

func errMissingAction() *APIError {
	return apiError("MissingAction", "The request is missing an action or a required parameter")
}

func errGroupNotFound() *APIError {
	return apiError("TargetGroupNotFound", "One or more target groups not found")
}

func errBalancerNotFound() *APIError {
	return apiError("LoadBalancerNotFound", "One or more load balancers not found")
}

func errDuplicateGroup(name string) *APIError {
	return apiError("DuplicateTargetGroupName", "A target group with the same name '%s' exists, but with different settings", name)
}

func errTooManyTargetGroups(limit int) *APIError {
	return apiError("TooManyTargetGroups", "The maximum number of target groups (%d) has been reached", limit)
}

func errResourceInUse(arn string) *APIError {
	return apiError("ResourceInUse", "Target group '%s' is currently in use by a listener or a rule", arn)
}

func errTooManyTargets(arn string, limit int) *APIError {
	return apiError("TooManyTargets", "The maximum number of targets (%d) has been reached for target group '%s'", limit, arn)
}

func errTooManyBalancerTargets(arn string, limit int) *APIError {
	return apiError("TooManyTargets", "The maximum number of targets (%d) has been reached for load balancer '%s'", limit, arn)
}

func errTooManyRegistrations(id string, limit int) *APIError {
	return apiError("TooManyRegistrationsForTargetId", "The maximum number of registrations (%d) has been reached for target '%s'", limit, id)
}

func errUnknownInstances(ids []string) *APIError {
	return apiError("InvalidTarget", "The following instances do not exist: %s", quoted(ids))
}

func errNotRunning(ids []string) *APIError {
	return apiError("InvalidTarget", "The following targets are not in a running state and cannot be registered: %s", quoted(ids))
}

func errWrongVPC(vpc string, ids []string) *APIError {
	return apiError("InvalidTarget", "The following targets are not in the target group VPC '%s': %s", vpc, quoted(ids))
}

func errNotAddresses(ids []string) *APIError {
	return apiError("InvalidTarget", "The following targets are not valid IP addresses of the target group: %s", quoted(ids))
}

func errDraining(ids []string) *APIError {
	return apiError("InvalidTarget", "The following targets are draining and cannot be registered: %s", quoted(ids))
}

func errThrottled(code string) *APIError { return apiError(code, "Rate exceeded") }

func errAccessDenied(caller, action, resource string, explicit bool) *APIError {
	why := fmt.Sprintf("because no identity-based policy allows the %s action", action)
	if explicit {
		why = "with an explicit deny in an identity-based policy"
	}
	e := apiError("AccessDenied", "User: %s is not authorized to perform: %s on resource: %s %s", caller, action, resource, why)
	e.Status = http.StatusForbidden
	return e
}

func quoted(ids []string) string { return "'" + strings.Join(ids, "', '") + "'" }
