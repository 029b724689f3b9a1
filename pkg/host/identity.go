package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"berth/internal/backoff"

	"go.uber.org/zap"
)

const (
	// overrideTries is how often a silent metadata service is asked before a complete override is taken in its stead:
	// some 10 s at most, with the deadline of each.
	overrideTries = 3
	firstBackoff  = 500 * time.Millisecond
	maxBackoff    = 5 * time.Second
)

// Identity returns who the host is. It asks until it gets an answer, and ends without one only with ctx, with a
// *ContradictionError, or with ErrDisabled.
//
// Where instance id and region are both overridden, a metadata service that is disabled or does not answer three
// times is done without: the overrides are the identity, and Run goes on asking, to find a contradiction later.
//
// VPC and IPv6 are asked for once; if that fails the identity comes without them, since instance targets need
// neither, and Run completes it (a newer Snapshot).
func (n *Notices) Identity(ctx context.Context) (Identity, error) {
	if s, _ := n.Snapshot(); s.Identity != nil {
		return *s.Identity, nil
	}
	defer n.identityIMDS.closeIdle()
	if n.disabled {
		if !n.override.complete() {
			return Identity{}, ErrDisabled
		}
		return n.unverified("the instance metadata service is disabled"), nil
	}
	wait := backoff.Backoff{Least: firstBackoff, Most: maxBackoff}
	for try := 1; ; try++ {
		id, err := n.read(ctx)
		switch {
		case err == nil:
			id, _ = n.network(ctx, id)
			n.publishIdentity(id)
			return id, nil
		case errors.Is(err, ErrContradiction):
			return Identity{}, err
		case ctx.Err() != nil:
			return Identity{}, fmt.Errorf("identify the instance: %w (last: %w)", ctx.Err(), err)
		case try >= overrideTries && n.override.complete():
			return n.unverified("the instance metadata service does not answer"), nil
		}
		if !wait.Sleep(ctx) {
			return Identity{}, fmt.Errorf("identify the instance: %w (last: %w)", ctx.Err(), err)
		}
	}
}

// unverified takes the overrides for the identity.
func (n *Notices) unverified(why string) Identity {
	id := Identity{InstanceID: n.override.InstanceID, Region: n.override.Region}
	n.log.Warn("identity taken from overrides alone", zap.String("reason", why),
		zap.String("instance_id", id.InstanceID), zap.String("region", id.Region))
	n.publishIdentity(id)
	return id
}

func (n *Notices) publishIdentity(id Identity) {
	n.change(func(s *Snapshot) { s.Identity = &id })
}

// read asks for the identity document once, and holds it against the overrides.
func (n *Notices) read(ctx context.Context) (Identity, error) {
	id, err := n.document(ctx)
	if ctx.Err() == nil {
		n.outcome("identity", err)
	}
	if err != nil {
		return Identity{}, err
	}
	for _, c := range []ContradictionError{
		{"instance_id", n.override.InstanceID, id.InstanceID},
		{"region", n.override.Region, id.Region},
	} {
		if c.Override != "" && c.Override != c.Actual {
			return Identity{}, &c
		}
	}
	return id, nil
}

func (n *Notices) document(ctx context.Context) (Identity, error) {
	doc, err := n.identityIMDS.document(ctx)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{
		InstanceID: doc.InstanceID, Region: doc.Region, AvailabilityZone: doc.AvailabilityZone,
		AccountID: doc.AccountID, Verified: true,
	}
	if id.InstanceID == "" || id.Region == "" {
		return Identity{}, fmt.Errorf("read instance identity document: no instance id or region in it (%q, %q)", doc.InstanceID, doc.Region)
	}
	if doc.PrivateIP != "" {
		if id.PrivateIP, err = netip.ParseAddr(doc.PrivateIP); err != nil {
			return Identity{}, fmt.Errorf("read instance identity document: %w", err)
		}
	}
	return id, nil
}

// network completes the identity with what only the primary interface knows. What is not there is fine: ok is false
// only if a question was not answered.
func (n *Notices) network(ctx context.Context, id Identity) (_ Identity, ok bool) {
	err := func() error {
		mac, found, err := n.identityIMDS.get(ctx, "mac")
		if err != nil || !found {
			return err
		}
		base := "network/interfaces/macs/" + strings.Trim(mac, "/") + "/"
		vpc, _, err := n.identityIMDS.get(ctx, base+"vpc-id")
		if err != nil {
			return err
		}
		v6, found, err := n.identityIMDS.get(ctx, base+"ipv6s")
		if err != nil {
			return err
		}
		if found && v6 != "" {
			if id.IPv6, err = netip.ParseAddr(strings.Fields(v6)[0]); err != nil {
				return fmt.Errorf("read instance metadata %sipv6s: %w", base, err)
			}
		}
		id.MAC, id.VPC = mac, vpc
		return nil
	}()
	if ctx.Err() == nil {
		n.outcome("network", err)
	}
	return id, err == nil
}

// completeIdentity asks on, once there is an identity that lacks something, until nothing is missing. It returns a
// *ContradictionError, or nil.
func (n *Notices) completeIdentity(ctx context.Context) error {
	var id Identity
	for {
		s, next := n.Snapshot()
		if s.Identity != nil {
			id = *s.Identity
			break
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
	wait := backoff.Backoff{Least: firstBackoff, Most: time.Minute}
	for {
		if !id.Verified {
			read, err := n.read(ctx)
			if errors.Is(err, ErrContradiction) {
				return err
			}
			if err == nil {
				id = read
				n.log.Info("identity confirmed", zap.String("instance_id", id.InstanceID), zap.String("region", id.Region))
				n.publishIdentity(id)
			}
		}
		if id.Verified {
			complete, ok := n.network(ctx, id)
			if ok {
				if complete != id {
					n.publishIdentity(complete)
				}
				return nil
			}
		}
		if !wait.Sleep(ctx) {
			return nil
		}
	}
}
