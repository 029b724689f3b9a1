// Package server shows what the agent does: metrics, health and readiness for machines, status for people and for the
// berth command, over HTTP and a control socket. It reads the immutable snapshots that discovery and the registrar
// publish and touches the state of neither.
//
//	server.go    Server: its configuration, its listeners, how it runs and ends
//	listener.go  one listener: opened, served, and opened again
//	listen.go    opening sockets, and turning away who is too many, or foreign
//	handlers.go  /metrics, /healthz, /readyz and /v1/status
//	control.go   what handlers of the control socket answer with
//	page.go      the status page
//	metrics.go   the metrics made from the snapshots
//	follow.go    who waits for news of which group
//	loop.go      whether the agent's loops turn
//	peer.go      who asks on the control socket
package server
