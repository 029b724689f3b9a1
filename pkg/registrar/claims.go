package registrar

import (
	"maps"
	"slices"
	"time"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// take makes the newest input the present one, and settles whose the targets are: which are wanted, whose claims
// have passed to another run, which unclaimed ones have turned out to be stale, and which somebody wants removed. Calls
// that failed for their credentials are held up no longer once these are good again.
func (r *reconciler) take() {
	in := r.slot.Load()
	if in == nil {
		return
	}
	if in != r.in {
		r.adjust(in)
	}
	if next := r.env.mended.next(); next != r.mended {
		r.mended = next
		for c, ce := range r.trouble {
			if ce != nil && ce.Fault == elb.FaultCredentials {
				r.cond.Hold[c] = time.Time{}
			}
		}
	}
	if prune := r.pruning.Swap(nil); prune != nil {
		for _, t := range *prune {
			if seen, ok := r.unclaimed[t]; ok {
				delete(r.unclaimed, t)
				r.adopt(t, seen, target.Run{}, time.Now())
			}
		}
	}
}

// adjust makes in the present input.
func (r *reconciler) adjust(in *input) {
	if before := r.label(); r.in != nil {
		defer func() {
			if r.label() != before {
				r.env.metrics.forget(before)
			}
		}()
	}
	r.in = in
	r.want, r.refusals = Bind(in.self, in.facts, in.wants)
	r.cond.AwaitGone = in.facts.TargetType == "ip"
	r.own()
	maps.DeleteFunc(r.vain, func(t target.Target, _ bool) bool {
		_, kept := r.have[t]
		return !kept || len(r.want[t]) > 0
	})
	r.rename()
}

// rename has the ledger know the key of each target that is wanted, so that the next agent knows whose it is should the key
// name another group by then: the keys may have been renamed, or a container's own. It writes only what differs.
func (r *reconciler) rename() {
	var claims []ledger.Entry
	for _, h := range r.env.ledger.Holdings(r.arn, r.want.Sorted()) {
		e, entered := h.Entry()
		if group := r.groupOf(h.Target()); entered && e.Group.Key != group.Key && (e.BootID != "" || r.env.bootID == "") {
			e.Group = group
			claims = append(claims, e)
		}
	}
	r.env.ledger.Record(claims)
}

// groupOf is the group as the key names it for which a target is wanted; as any does for one that is not.
func (r *reconciler) groupOf(t target.Target) elb.Group {
	if wants := r.want[t]; len(wants) > 0 {
		if g, ok := r.in.groups[youngest(wants).Group]; ok {
			return g
		}
	}
	return r.in.group
}

// own settles whose the targets are, by the present input.
func (r *reconciler) own() {
	var passed []target.Target
	for _, t := range r.want.Sorted() {
		s, ours := r.have[t]
		run := claimant(r.want[t])
		if ours && !s.Run.Same(run) && (s.Phase == ledger.Registered || s.Phase == ledger.Intended) {
			// Same target, new run: no call; the ledger learns whose it is now.
			s.Run = run
			r.have[t] = s
			passed = append(passed, t)
		}
	}
	r.tell(passed...)
	for t, seen := range r.unclaimed {
		if _, wanted := r.want[t]; !wanted && r.ours(t) {
			delete(r.unclaimed, t)
			r.adopt(t, seen, target.Run{}, time.Now())
		}
	}
	r.cond.Keep = r.keep()
}

// claimant is the run that a target is registered for: the youngest, should there be more than one.
func claimant(wants []target.Want) target.Run { return youngest(wants).Run }

func youngest(wants []target.Want) target.Want {
	return slices.MaxFunc(wants, func(a, b target.Want) int { return a.Run.StartedAt.Compare(b.Run.StartedAt) })
}

// keep returns the targets whose container is there, but has not been inspected yet, unless Docker has given their
// port to somebody else meanwhile; and those that are wanted by all but the address, which this host does not know yet.
func (r *reconciler) keep() map[target.Target]bool {
	keep := map[target.Target]bool{}
	if addressOpen(r.in.self, r.in.facts) && r.in.serves() {
		wanted := map[uint16]bool{}
		for _, w := range r.in.wants {
			if r.in.facts.Takes(w.Protocol) {
				wanted[r.in.facts.HostPort(w)] = true
			}
		}
		for t := range r.have {
			if wanted[t.Port] {
				keep[t] = true
			}
		}
	}
	if len(r.in.unknown) == 0 {
		return keep
	}
	for t, s := range r.have {
		if !r.in.unknown[s.Run.ID] {
			continue
		}
		if holder, taken := r.holder(t); !taken || holder.Run.ID == s.Run.ID {
			keep[t] = true
		}
	}
	return keep
}

// addressOpen reports whether the group's targets have an address of this host for their id that may become known yet: the
// metadata service has not told the account, with the IPv4 address, or the VPC, with the IPv6 address.
func addressOpen(self elb.Self, f elb.Facts) bool {
	told := self.Account
	if f.IPAddressType == "ipv6" {
		told = self.VPC
	}
	return ownID(self, f) == "" && told == ""
}

// holder returns who has the target's port, in a protocol and address family that the group speaks.
func (r *reconciler) holder(t target.Target) (target.Allotment, bool) {
	for _, p := range []target.Protocol{target.TCP, target.UDP} {
		a, ok := r.in.allotted[allotment{t.Port, p, r.in.facts.IPAddressType == "ipv6"}]
		if ok && r.in.facts.Takes(p) {
			return a, true
		}
	}
	return target.Allotment{}, false
}

// ours reports whether a registration of this host that nothing wants is ours to remove: because all of the
// instance's are (but not while a container is there that nobody has looked at: it may be the one that is served), or
// because Docker gave its port to a container that should not be served here.
func (r *reconciler) ours(t target.Target) bool {
	holder, taken := r.holder(t)
	if r.in.unknown[holder.Run.ID] {
		return false // it may be the one that is served
	}
	if r.in.owner == elb.OwnInstance {
		return taken || len(r.in.unknown) == 0
	}
	return taken && holder.Proof
}

// mine reports whether a target is this host's at all. Nothing else is ever considered.
func (r *reconciler) mine(t target.Target) bool {
	return t.ID != "" && t.ID == ownID(r.in.self, r.in.facts)
}

// ownID is the id of this host's targets in a group; empty where it can have none.
func ownID(self elb.Self, f elb.Facts) string {
	if f.TargetType != "ip" {
		return self.InstanceID
	}
	address := self.Address4
	if f.IPAddressType == "ipv6" {
		address = self.Address6
	}
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// adopt makes a registration that was found ours.
func (r *reconciler) adopt(t target.Target, seen elb.Sighting, run target.Run, now time.Time) {
	r.learn(t, State{
		Phase: ledger.Registered, Health: seen.Health, Reason: seen.Reason, Description: seen.Description, Since: now, Run: run,
	})
}
