package elb

import (
	"fmt"
	"net"
	"syscall"
	"testing"

	"berth/test/knownfault"
)

// A proxy that refuses the connection has passed nothing on: the call was not sent, and nothing needs to be doubted for
// half a minute.
func TestClassify_proxyThatIsDown(t *testing.T) {
	knownfault.Skip(t, "11", "a call that a dead proxy refused is taken for one that may have taken effect")
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for name, err := range map[string]error{
		"service": refused,
		"proxy":   &net.OpError{Op: "proxyconnect", Net: "tcp", Err: refused},
	} {
		if ce := classify(OpRegister, "web", fmt.Errorf("send: %w", err)); ce.Unknown {
			t.Errorf("%s: the call may have taken effect (%+v); want that it was not sent", name, ce)
		}
	}
}
