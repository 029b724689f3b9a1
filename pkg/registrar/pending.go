package registrar

import (
	"fmt"
	"reflect"

	"go.uber.org/zap"
)

// say logs what a dry run would do, when that changes.
func (r *reconciler) say() {
	pending := r.pending()
	if reflect.DeepEqual(pending, r.would) {
		return
	}
	r.would = pending
	if len(pending) == 0 {
		r.log.Info("would change nothing")
	}
	for _, p := range pending {
		r.log.Info("would "+p.Operation, zap.Stringer("target", p.Target), zap.Stringer("container", p.Run), zap.String("why", p.Why))
	}
}

// pending returns what is outstanding, and why.
func (r *reconciler) pending() []Pending {
	remove, add := Outstanding(r.want, r.have, r.cond)
	out := make([]Pending, 0, len(remove)+len(add))
	for _, t := range remove {
		s := r.have[t]
		why := "no container wants it any more"
		holder, taken := r.holder(t)
		switch {
		case taken && holder.Run.ID != s.Run.ID:
			why = fmt.Sprintf("it is stale: Docker has given port %d to %s, which is not served here", t.Port, holder.Run)
		case !r.in.serves():
			why = "its target group has left the configuration"
		case s.Run.ID != "":
			why = s.Run.String() + " is not to be served here any more"
		}
		out = append(out, Pending{Operation: PendingDeregister, Target: t, Run: s.Run, Why: why})
	}
	for _, t := range add {
		w := r.want[t]
		out = append(out, Pending{
			Operation: PendingRegister, Target: t, Run: claimant(w),
			Why: fmt.Sprintf("port %s of %s is published there", w[0].PortProto(), claimant(w)),
		})
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
