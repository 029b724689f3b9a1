package server

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of the control socket, as the kernel says it: of the moment in which it
// connected.
type Peer struct {
	PID int32
	UID uint32
	GID uint32
}

// String returns "uid 1000, pid 4711".
func (p Peer) String() string { return fmt.Sprintf("uid %d, pid %d", p.UID, p.PID) }

type peerKey struct{}

// PeerOf returns who sent the request that ctx belongs to; false where it did not come over the control socket.
func PeerOf(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// withPeer is an http.Server's ConnContext that keeps who is at the other end.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if g, ok := conn.(*gatedConn); ok {
		conn = g.Conn
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return ctx // the socket's mode has let it in; only its name is not known
	}
	return context.WithValue(ctx, peerKey{}, Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid})
}
