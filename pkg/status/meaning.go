package status

import (
	"fmt"
)

// meaning is what the load balancer's words usually mean, and what a person can do about it.
type meaning struct {
	why, change string
	unknown     bool // the reason is none that we know
}

// meanings explains the reason codes of DescribeTargetHealth.
// Source: https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html
var meanings = map[string]meaning{
	"Elb.RegistrationInProgress": {why: "the load balancer is registering it"},
	"Elb.InitialHealthChecking":  {why: "the load balancer is running its first health checks"},
	"Elb.InternalError":          {why: "the load balancer cannot check it because of an error of its own"},
	"Target.ResponseCodeMismatch": {
		why:    "its health checks get another status code than the target group expects",
		change: "compare the health check's path and success codes in the target group with what the application answers there",
	},
	"Target.Timeout": {
		why: "its health checks get no answer in time",
		change: "let the load balancer's security group (or subnets) reach this instance on the ephemeral port range, " +
			"and check that the application answers within the health check's timeout",
	},
	"Target.FailedHealthChecks": {
		why: "its health checks fail: the connection is refused, cut, or the answer is malformed",
		change: "check that the application listens on the container port on all addresses, speaks the health check's " +
			"protocol, and that the security group lets the load balancer reach the ephemeral port range",
	},
	"Target.NotRegistered": {why: "the load balancer does not have it"},
	"Target.NotInUse": {
		why: "no load balancer sends it requests: the target group has no listener, or this availability zone is not enabled",
		change: "point a listener rule at the target group, and enable this instance's availability zone for the " +
			"load balancer",
	},
	"Target.InvalidState": {
		why:    "the load balancer sees the instance as stopped or terminated",
		change: "check the instance's state in EC2",
	},
	"Target.IpUnusable": {
		why:    "its address is in use by a load balancer and cannot be a target",
		change: "register the host under another address",
	},
	"Target.DeregistrationInProgress": {why: "it is deregistered, and the load balancer lets its open requests end"},
	"Target.HealthCheckDisabled":      {why: "health checks are turned off for the target group"},
}

// meaningOf explains a target's health and reason. It always says something.
func meaningOf(health, reason string) meaning {
	if m, ok := meanings[reason]; ok {
		return m
	}
	switch {
	case reason != "":
		return meaning{why: fmt.Sprintf("the load balancer says %s (%s)", health, reason), unknown: true}
	case health == string(Healthy):
		return meaning{why: "it passes its health checks"}
	case health == "":
		return meaning{why: "it is registered; its health has not been looked at yet", unknown: true}
	default:
		return meaning{why: fmt.Sprintf("the load balancer says %s and gives no reason", health), unknown: true}
	}
}
