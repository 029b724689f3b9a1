package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

// Entry is what the ledger keeps of one target: that this host registered it, or may have, for whom, and enough about
// its group to clean up after the group has left the configuration.
type Entry struct {
	// Group is as the key names it for which the target is wanted: should that key name another group by the next start, the
	// target stays until that one has accepted it. Earlier versions have the first key of the group here for all.
	Group  elb.Group
	Facts  elb.Facts
	Target target.Target
	Run    target.Run
	Phase  Phase // Intended, Registered or Removing; an Absent target has no entry
	// Intended is when a registration was decided, Confirmed when the load balancer accepted it or a look showed it,
	// Removed when a deregistration was accepted.
	Intended, Confirmed, Removed time.Time
	// BootID is of the boot in which the entry was written: ports of an earlier boot belong to nobody. Empty: not known.
	BootID string
}

// ARN returns the ARN of the entry's group: what DescribeTargetGroups said, or the configuration's where nothing was
// said yet. Together with Target it is the identity of an entry.
func (e Entry) ARN() string { return cmp.Or(e.Facts.ARN, e.Group.ARN) }

// Compare orders entries by the ARN of their group, then by target.
func (e Entry) Compare(o Entry) int {
	return cmp.Or(cmp.Compare(e.ARN(), o.ARN()), e.Target.Compare(o.Target))
}

// OfBoot reports whether the entry is known to have been written in this boot. One that is not known is nobody's: what it
// registered may have been another boot's, or not.
func (e Entry) OfBoot(bootID string) bool { return bootID != "" && e.BootID == bootID }

// check returns why e cannot be kept: it has to name a target in full.
func (e Entry) check() error {
	switch {
	case e.ARN() == "":
		return errors.New("target group ARN missing")
	case e.Target.ID == "":
		return errors.New("target id missing")
	case e.Target.Port == 0:
		return fmt.Errorf("port 0: %w", target.ErrPort)
	case e.Phase == Absent:
		return errors.New("an absent target has no entry")
	}
	return nil
}

// normal returns e as it would be read back from disk: UTC, no monotonic clock, ARN and phase filled in.
func (e Entry) normal() Entry {
	e.Facts.ARN = e.ARN()
	e.Phase = cmp.Or(e.Phase, Intended)
	for _, t := range []*time.Time{&e.Intended, &e.Confirmed, &e.Removed, &e.Run.StartedAt} {
		*t = onDisk(*t)
	}
	return e
}

// onDisk returns t as RFC 3339 can carry it.
func onDisk(t time.Time) time.Time {
	t = t.UTC().Round(0)
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// Phase is where a target stands between us and the load balancer.
type Phase string

// The phases.
const (
	Intended   Phase = "intended"   // a registration was sent or is about to be; its outcome is not known
	Registered Phase = "registered" // the load balancer has it
	Removing   Phase = "leaving"    // deregistered; it may be draining
	Absent     Phase = "absent"
)
