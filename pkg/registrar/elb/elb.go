// Package elb is Elastic Load Balancing v2: what a target group, this host and a target's health are, and the four calls that
// Berth makes. It is the only package that knows the SDK of ELBv2.
//
//	elb.go        the nouns: Group, Facts, Self, Ownership, and the API of the SDK
//	reference.go  how the configuration names a group, and what a group can hold
//	calls.go      Client: each call with its deadline, its metrics, and its failure classified
//	errors.go     from AWS's codes to faults, and what a person can change about each
//	inspect.go    what is asked besides, to check a configuration
//	client.go     the SDK's client, whose calls are made exactly once
//	reply.go      a success that is none
//	passage.go    whether a call had a connection to go out on
//	clock.go      how far this host's clock is from that of AWS
//	metrics.go    what is asked of AWS
package elb

import (
	"context"
	"net/netip"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// API is the part of Elastic Load Balancing v2 that the registrar calls, with the SDK's own signatures.
type API interface {
	RegisterTargets(context.Context, *elasticloadbalancingv2.RegisterTargetsInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.RegisterTargetsOutput, error)
	DeregisterTargets(context.Context, *elasticloadbalancingv2.DeregisterTargetsInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.DeregisterTargetsOutput, error)
	DescribeTargetHealth(context.Context, *elasticloadbalancingv2.DescribeTargetHealthInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.DescribeTargetHealthOutput, error)
	DescribeTargetGroups(context.Context, *elasticloadbalancingv2.DescribeTargetGroupsInput, ...func(*elasticloadbalancingv2.Options)) (*elasticloadbalancingv2.DescribeTargetGroupsOutput, error)
}

// Ownership says which of this host's targets in a group are Berth's to remove.
type Ownership string

// The ownerships.
const (
	OwnLedger   Ownership = "ledger"   // those that the ledger holds, were adopted, or are stale by proof
	OwnInstance Ownership = "instance" // every target with this instance's id
)

// Group is a target group as the configuration names it.
type Group struct {
	Key       string    `json:"key"`            // in the configuration; labels use it
	Name      string    `json:"name,omitempty"` // in AWS, where ARN is empty
	ARN       string    `json:"arn,omitempty"`
	Ownership Ownership `json:"ownership,omitempty"` // empty: OwnLedger
	Source    string    `json:"source,omitempty"`    // file and line that name it, for messages: "/etc/berth/berth.yaml:12"
}

// Facts is what DescribeTargetGroups says about a group, as far as it matters to us.
type Facts struct {
	ARN           string `json:"group_arn"`
	Name          string `json:"name,omitempty"`
	TargetType    string `json:"target_type"`               // instance, ip, lambda, alb
	Protocol      string `json:"protocol"`                  // HTTP, HTTPS, TCP, TLS, UDP, TCP_UDP, GENEVE, QUIC, TCP_QUIC
	IPAddressType string `json:"ip_address_type,omitempty"` // ipv4, ipv6
	VPC           string `json:"vpc_id,omitempty"`
	Port          uint16 `json:"port,omitempty"` // the group's default port
	// LoadBalancers are the ARNs of the load balancers that use the group; none: its targets are unused.
	LoadBalancers []string `json:"load_balancers,omitempty"`
}

// Self is this host, as load balancers know it.
type Self struct {
	InstanceID string     `json:"instance_id"`
	Region     string     `json:"region"`
	Account    string     `json:"account,omitempty"`
	VPC        string     `json:"vpc_id,omitempty"` // empty: not known
	Address4   netip.Addr `json:"address_4,omitzero"`
	Address6   netip.Addr `json:"address_6,omitzero"`
}
