// Package server shows what the agent does: metrics, health and readiness for machines, status for people and for the
// berth command, over HTTP and a control socket. It reads the immutable snapshots that discovery and the registrar
// publish and touches the state of neither.
package server
