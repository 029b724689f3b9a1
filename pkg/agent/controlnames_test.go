package agent_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"berth/pkg/client"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// row is the one row of a name, but for what still drains at the load balancer; false: there is none, or there are several.
func (c *controlled) row(name string) (status.Row, bool) {
	s := c.Status()
	rows := slices.DeleteFunc(s.Rows, func(r status.Row) bool { return r.Run.Name != name || r.State == status.Draining })
	if len(rows) != 1 {
		return status.Row{}, false
	}
	return rows[0], true
}

// wanted reports whether the container is wanted in web.
func (c *controlled) wanted(id string) bool {
	return slices.ContainsFunc(c.Seen().Wants["web"], func(w target.Want) bool { return w.Run.ID == id })
}

// What a deploy tool does that reboots a container: drain, rm, run, undrain. The new one stays out until the tool says so,
// and letting in what is in is no failure.
func TestControl_drainedByNameAndReplaced(t *testing.T) {
	c := newControlled(t)
	old := c.web(t, "web-1")
	if _, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: "web-1"}); err != nil {
		t.Fatal(err)
	}
	for id, d := range c.drains() {
		if !strings.Contains(d.Since.String(), " m=") {
			t.Errorf("%s since %s; want a time that can be dated anew when the clock is set", id, d.Since)
		}
	}
	c.engine.Remove(old)
	agenttest.Eventually(t, "the held name alone in the status", func() bool {
		row, ok := c.row("web-1")
		return ok && row.Run.ID == "" && row.State == status.Drained && row.Change == "berth undrain web-1"
	})
	if drains := c.Status().Drains; len(drains) != 1 || drains[0].Name != "web-1" || drains[0].Container == "" || drains[0].Host() {
		t.Errorf("drains in the status: %+v; want one of the name, that no client takes for the host's", drains)
	}
	id := c.engine.Run(enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	agenttest.Eventually(t, "the new one known", func() bool {
		row, ok := c.row("web-1")
		return ok && row.Run.ID == id
	})
	if row, _ := c.row("web-1"); row.State != status.Drained || c.wanted(id) {
		t.Fatalf("the new one: %+v; want it drained", row)
	}
	v, err := c.Client.Undrain(t.Context(), "web-1")
	if err != nil || len(v.Ended) != 1 || v.Run.ID != id {
		t.Fatalf("undrain: %+v, %v; want the drain ended", v, err)
	}
	agenttest.Eventually(t, "the new one wanted", func() bool { return c.wanted(id) })
	if v, err := c.Client.Undrain(t.Context(), "web-1"); err != nil || len(v.Ended) != 0 {
		t.Errorf("undrain again: %+v, %v; want nothing ended, and no error", v, err)
	}
}

// A name ends with itself, an id with the container; what is asked of the one is not done to the other.
func TestControl_namesAndIDs(t *testing.T) {
	c := newControlled(t)
	id := c.web(t, "web-1")
	drain := func(ref string) string {
		t.Helper()
		v, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: ref})
		if err != nil {
			t.Fatal(err)
		}
		return v.Drain.ID
	}
	undrain := func(ref string) (status.UndrainedV1, error) { return c.Client.Undrain(t.Context(), ref) }
	name := discovery.NameDrainID(discovery.CauseOperator, "web-1")
	if got := drain("web-1"); got != name {
		t.Errorf("by its name: %s; want %s", got, name)
	}
	if got := drain(id); got != discovery.DrainID(discovery.CauseOperator, id) {
		t.Errorf("by its id: %s; want the container's own", got)
	}
	// By its id: its own drain ends, and that of its name is left and said.
	if v, err := undrain(id); err != nil || len(v.Ended) != 1 || v.Ended[0].Name != "" || len(v.Left) != 1 || v.Left[0].Name != "web-1" {
		t.Errorf("undrain by id: %+v, %v; want its own ended, and the name's left", v, err)
	}
	var refused *client.APIError
	if _, err := undrain(id); !errors.As(err, &refused) || refused.Status != http.StatusConflict || !strings.Contains(refused.Message, "berth undrain web-1") {
		t.Errorf("undrain by id again: %v; want 409, and how the name's ends", err)
	}
	// By its name: both, so that whoever drained by id can let it in by name.
	drain(id)
	if v, err := undrain("web-1"); err != nil || len(v.Ended) != 2 || len(c.drains()) != 0 {
		t.Errorf("undrain by name: %+v, %v, left %v; want both ended", v, err, c.drains())
	}
	// A name that nobody bears is ended by that, also while Docker does not answer; one that nobody has drained is no error.
	drain("web-1")
	c.engine.Remove(id)
	agenttest.Eventually(t, "web-1 gone", func() bool { row, ok := c.row("web-1"); return ok && row.Run.ID == "" })
	if code, body := c.do(t, "GET", "/v1/explain?container=web-1", ""); code != http.StatusNotFound || !strings.Contains(body, "berth undrain web-1") {
		t.Errorf("explain of a held name: %d %s; want 404, and that it is held", code, body)
	}
	c.engine.Down()
	if v, err := undrain("web-1"); err != nil || len(v.Ended) != 1 || len(c.drains()) != 0 {
		t.Errorf("undrain of a name that nobody bears: %+v, %v; want it ended", v, err)
	}
	c.engine.Up()
	agenttest.Eventually(t, "docker back", func() bool { return c.Stream().Up })
	if v, err := undrain("nobody"); err != nil || len(v.Ended) != 0 || !strings.Contains(v.Warning, "no such container") {
		t.Errorf("undrain of nobody: %+v, %v; want no error, and that there is none", v, err)
	}
	if _, err := c.Client.Undrain(t.Context(), ""); err != nil {
		t.Errorf("undrain of a host that nobody has drained: %v", err)
	}
}

// A held name that nobody bears is that name alone, also where it is the beginning of other containers' ids: neither drain nor
// undrain, stop nor explain does anything to those.
func TestControl_heldNameBeginsAnID(t *testing.T) {
	for _, docker := range []string{"answers", "is away", "several"} {
		t.Run(docker, func(t *testing.T) {
			c := newControlled(t)
			const name = "0000" // the ids begin so
			db := c.web(t, name)
			if _, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: name}); err != nil {
				t.Fatal(err)
			}
			c.engine.Remove(db)
			agenttest.Eventually(t, "the held name alone", func() bool { row, ok := c.row(name); return ok && row.Run.ID == "" })
			other := c.web(t, "web-1")
			if docker == "several" {
				c.web(t, "web-2")
			}
			if docker == "is away" {
				c.engine.Down()
				agenttest.Eventually(t, "docker away", func() bool { return !c.Stream().Up })
			}
			own := discovery.DrainID(discovery.CauseOperator, other)
			again, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: name, Reason: "again"})
			if err != nil || again.Run != (target.Run{Name: name}) || again.Drain.Name != name || again.Drain.Container != db {
				t.Errorf("drain again: %+v, %v; want the name held, and no container", again, err)
			}
			if drains := c.drains(); len(drains) != 1 || drains[again.Drain.ID].Reason != "again" || !c.wanted(other) {
				t.Errorf("drains: %+v; want the name's alone", drains)
			}
			var refused *client.APIError
			_, err = c.Client.Drain(t.Context(), status.DrainRequestV1{Container: name, Hold: "run"})
			if !errors.As(err, &refused) || refused.Status != http.StatusNotFound || !strings.Contains(refused.Message, "berth undrain "+name) {
				t.Errorf("a run of it: %v; want 404, and that the name is drained", err)
			}
			if code, body := c.do(t, "GET", "/v1/explain?container="+name, ""); code != http.StatusNotFound {
				t.Errorf("explain: %d %s; want 404", code, body)
			}
			if _, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: other}); err != nil {
				t.Fatal(err)
			}
			v, err := c.Client.Undrain(t.Context(), name)
			if err != nil || len(v.Ended) != 1 || v.Ended[0].Name != name || v.Run.ID != "" {
				t.Errorf("undrain: %+v, %v; want the name's ended, and no container", v, err)
			}
			if drains := c.drains(); len(drains) != 1 || drains[own].Container != other {
				t.Errorf("drains: %+v; want the other's own", drains)
			}
		})
	}
}

// A held name that is drained again without a bearer is still handed to the one that bears it next.
func TestControl_heldNameDrainedAgain(t *testing.T) {
	c := newControlled(t)
	old := c.web(t, "web-1")
	drain := func() string {
		t.Helper()
		v, err := c.Client.Drain(t.Context(), status.DrainRequestV1{Container: "web-1"})
		if err != nil {
			t.Fatal(err)
		}
		return v.Drain.ID
	}
	id := drain()
	c.engine.Remove(old)
	agenttest.Eventually(t, "the held name alone", func() bool { row, ok := c.row("web-1"); return ok && row.Run.ID == "" })
	if again := drain(); again != id {
		t.Errorf("drained again: %s; want %s", again, id)
	}
	next := c.engine.Run(enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
	agenttest.Eventually(t, "the next one held by its id", func() bool { return c.drains()[id].Container == next })
	if c.wanted(next) {
		t.Error("the next one is wanted; want it held")
	}
}
