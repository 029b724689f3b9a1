package registrar

import (
	"time"

	"berth/pkg/target"
)

// Entry is what the ledger keeps of one target: that this host registered it, or may have, for whom, and enough about
// its group to clean up after the group has left the configuration.
type Entry struct {
	Group  Group
	Facts  GroupFacts
	Target target.Target
	Run    target.Run
	Phase  Phase // Intended, Registered or Removing; an Absent target has no entry
	// Intended is when a registration was decided, Confirmed when the load balancer accepted it or a look showed it,
	// Removed when a deregistration was accepted.
	Intended, Confirmed, Removed time.Time
	// BootID is of the boot in which the entry was written: ports of an earlier boot belong to nobody.
	BootID string
}
