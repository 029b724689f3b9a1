package registrar_test

import (
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/registrar/elb"
	"berth/test/knownfault"
)

// renamed has the key web mean the group of another name, as a reload does.
func (w *world) renamed(name string) {
	w.groups = []elb.Group{{Key: "web", Name: name, Source: "/etc/berth/berth.yaml:7"}}
}

// The name of a group is mistyped and the configuration reloaded. The key is still configured, so its targets stay in the
// group that serves it, until the group of the new name is found. A want that ends leaves that group at once.
func TestRegistrar_reloadToANameThatDoesNotExist(t *testing.T) {
	knownfault.Skip(t, "2", "a reload to a group that does not exist takes every target out of the old one")
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 1, 2, 3)
		w.renamed("wbe")
		w.want("web", 1, 2, 3)
		w.after(time.Hour)
		w.registered("web", 1, 2, 3)
		w.want("web", 1, 2)
		w.after(5 * time.Second)
		w.registered("web", 1, 2)
	}, web())
}

// It is the same where the agent is restarted with such a configuration.
func TestRegistrar_restartWithANameThatDoesNotExist(t *testing.T) {
	knownfault.Skip(t, "2", "a restart with a group that does not exist takes every target out of the old one")
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.want("web", 1, 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 1, 2, 3)
		w.stop()
		w.renamed("wbe")
		w.start()
		w.want("web", 1, 2, 3)
		w.after(time.Hour)
		w.registered("web", 1, 2, 3)
	}, web())
}

// The new group exists, and AWS refuses the registrations there: the old one serves until it accepts them.
func TestRegistrar_reloadToAGroupThatRefuses(t *testing.T) {
	knownfault.Skip(t, "2", "a reload takes every target out of the old group before the new one has accepted any")
	inWorld(t, func(t *testing.T, w *world) {
		w.addGroup(elbsim.Group{Name: "web2"})
		w.start()
		w.want("web", 1, 2, 3)
		w.after(5 * time.Second)
		w.registered("web", 1, 2, 3)
		id, err := w.sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "AccessDenied", Status: 403})
		if err != nil {
			t.Fatal(err)
		}
		w.renamed("web2")
		w.want("web", 1, 2, 3)
		w.after(time.Hour)
		w.registered("web", 1, 2, 3)
		w.registered("web2")
		w.sim.RemoveFault(id)
		w.after(time.Hour)
		w.registered("web")
		w.registered("web2", 1, 2, 3)
	}, web())
}
