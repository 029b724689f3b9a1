package agent

import (
	"context"

	"berth/pkg/host"
	"berth/pkg/registrar/elb"
)

// connect waits for this host's identity and returns it with a client for its region. Everything about the client is
// the SDK's ordinary configuration (environment, shared files, endpoints, proxies, CA bundle); only its retries are
// off, and the instance metadata service is spoken to in version 2 alone and never through a proxy.
func (a *Core) connect(ctx context.Context) (elb.API, elb.Self, error) {
	id, err := a.notices.Identity(ctx)
	if err != nil {
		return nil, elb.Self{}, err
	}
	if err := a.watcher.Identify(ctx, id.InstanceID); err != nil {
		return nil, elb.Self{}, err
	}
	if err := a.lifecycleActed(ctx); err != nil {
		return nil, elb.Self{}, err
	}
	cfg, err := a.o.AWS.client(ctx, id.Region)
	if err != nil {
		return nil, elb.Self{}, err
	}
	return elb.NewAPI(cfg), SelfOf(id), nil
}

// learn hands on what becomes known of this host later: its VPC and its IPv6 address.
func (a *Core) learn(ctx context.Context) error {
	var last elb.Self
	for {
		s, changed := a.notices.Snapshot()
		if s.Identity != nil {
			if self := SelfOf(*s.Identity); self != last {
				a.registrar.Identify(self)
				last = self
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// SelfOf returns this host as load balancers know it.
func SelfOf(id host.Identity) elb.Self {
	return elb.Self{
		InstanceID: id.InstanceID, Region: id.Region, Account: id.AccountID, VPC: id.VPC,
		Address4: id.PrivateIP, Address6: id.IPv6,
	}
}
