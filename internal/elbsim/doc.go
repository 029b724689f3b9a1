// Package elbsim is a local stand-in for the parts of AWS that an ELBv2 client on an EC2 host talks to: Elastic Load
// Balancing v2 on the wire (awsQuery), the instance metadata service (IMDSv2), and load balancers that really forward.
//
// A target is identified by its id *and* its port, as in AWS: one instance may be registered many times.
//
// A Sim holds the whole account. It is reached three ways: as http.Handlers (Sim itself is the API, Sim.IMDS the
// metadata service), through Listen, which serves both and the load balancers on sockets, or through Sim.HTTPClient,
// which needs no socket. Time comes from package time alone, so that inside a synctest bubble, over HTTPClient, the
// whole of AWS runs in fake time. Create the Sim inside the bubble.
//
// Where lives what: sim.go the account and its settings; seed.go the Go API that fills and reads it; state.go target
// groups and the life of a target; health.go and netprobe.go health checks; api.go the way of one call; targets.go,
// groups.go, groupspec.go and attributes.go the calls; the package wire forms, XML and errors; transport.go handlers and
// the client without sockets; fault.go and record.go, and the packages limits and iam, what may come between; imds.go the metadata
// service; balancer.go and route.go load balancers, forward.go, flow.go and udp.go their traffic; admin.go the /_elbsim/
// pages; file.go and fileschema.go the configuration file; server.go the sockets.
package elbsim
