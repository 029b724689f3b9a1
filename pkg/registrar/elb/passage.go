package elb

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// passage is how far one call came: a call that never had a connection to go out on was not sent, whatever its error says. The
// name may not have been found, nobody may have listened, TLS may have failed, or a proxy may have refused to pass it on.
type passage struct{ sought, had atomic.Bool }

// trace returns a context whose calls through net/http tell p. Other transports tell nothing.
func (p *passage) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { p.sought.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { p.had.Store(true) },
	})
}

// none reports that a connection was sought and none was had.
func (p *passage) none() bool { return p.sought.Load() && !p.had.Load() }
