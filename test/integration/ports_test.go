package integration

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

// portRow is one form of publishing a port.
type portRow struct {
	name  string
	group string // "web" where empty
	ports string // after the group's name in the label: ":8080/tcp"; GROUP is that name once more
	spec  harness.Spec
	host  uint16 // the host port, where Docker has no say in it
	port  string // else the container's; "8080/tcp" where empty
	why   string // instead of a target: part of what berth says
}

// bridge returns the address of a network's bridge: an address of this host that is not loopback's. The default network
// does not say it; a network made for the test does.
func bridge(t *testing.T, engine *harness.Engine) string {
	t.Helper()
	name := engine.CreateNetwork(t)
	answer, err := engine.Client.NetworkInspect(t.Context(), name, network.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.IPAM.Config) == 0 || answer.IPAM.Config[0].Gateway == "" {
		t.Fatalf("network %s has no gateway: %+v", name, answer.IPAM)
	}
	return answer.IPAM.Config[0].Gateway
}

// portRows are the forms that one engine can have at once. Host ports that differ between IPv4 and IPv6, and empty ones,
// need other engines: they are in pkg/discovery's tests.
func portRows(t *testing.T, engine *harness.Engine, own, other string) []portRow {
	exposing := func(ports ...nat.Port) func(*container.Config, *container.HostConfig) {
		return func(c *container.Config, _ *container.HostConfig) {
			c.ExposedPorts = nat.PortSet{} // besides the image's own
			for _, port := range ports {
				c.ExposedPorts[port] = struct{}{}
			}
		}
	}
	two, both := exposing("9090/tcp"), exposing("7000/tcp", "7000/udp")
	image, err := engine.Client.ImageInspect(t.Context(), engine.WebImage(t, harness.Image{}))
	if err != nil {
		t.Fatal(err)
	}
	fixed, equal, listens := harness.FreePort(t), harness.FreePort(t), harness.FreePort(t)
	twice := fmt.Sprint(equal)
	huge := func(c *container.Config, _ *container.HostConfig) {
		c.Labels["com.example.huge"] = strings.Repeat("x", 64<<10)
	}
	return []portRow{
		{name: "-P"},
		{name: "-P of two, one named", ports: ":9090", port: "9090/tcp", spec: harness.Spec{Modify: two}},
		{name: "-P of two, none named", spec: harness.Spec{Modify: two}, why: "which of them is meant"},
		{name: "-p 8080", spec: harness.Spec{Publish: []string{"8080"}}},
		{name: "-p fixed:8080", host: fixed, spec: harness.Spec{Publish: []string{fmt.Sprintf("%d:8080", fixed)}}},
		{name: "-p 0.0.0.0::8080", spec: harness.Spec{Publish: []string{"0.0.0.0::8080"}}},
		{name: "-p from-to:8080", spec: harness.Spec{Publish: []string{"21000-21999:8080"}}},
		{name: "-p 8080-8082, one named", ports: ":8080", spec: harness.Spec{Publish: []string{"8080-8082"}}},
		{name: "-p primary address::8080", spec: harness.Spec{Publish: []string{own + "::8080"}}},
		{name: "-p other address::8080", spec: harness.Spec{Publish: []string{other + "::8080"}}, why: other},
		{name: "-p 127.0.0.1::8080", spec: harness.Spec{Publish: []string{"127.0.0.1::8080"}}, why: "loopback"},
		{name: "nothing published", spec: harness.Spec{Publish: []string{}}, why: "publishes no port"},
		{name: "another port published", ports: ":8080", spec: harness.Spec{Publish: []string{"9090"}}, why: "8080/tcp is not published"},
		{name: "tcp of tcp and udp", ports: ":7000/tcp", port: "7000/tcp", spec: harness.Spec{Modify: both}},
		{name: "udp of tcp and udp", group: "dns", ports: ":7000/udp", port: "7000/udp", spec: harness.Spec{Modify: both}},
		{name: "udp in a tcp group", ports: ":7000/udp", spec: harness.Spec{Modify: both}, why: "cannot reach a udp port"},
		{name: "tcp and udp, equal", group: "either", ports: ":7000/tcp,GROUP:7000/udp", host: equal, spec: harness.Spec{Publish: []string{twice + ":7000/tcp", twice + ":7000/udp"}}},
		{name: "host's network, named", ports: fmt.Sprintf(":%d", listens), host: listens, spec: harness.Spec{
			Network: "host", Publish: []string{}, Args: []string{fmt.Sprintf("--listen=127.0.0.1:%d", listens)},
		}},
		{name: "host's network, not named", why: "has to be said", spec: harness.Spec{
			Network: "host", Publish: []string{}, Args: []string{fmt.Sprintf("--listen=127.0.0.1:%d", harness.FreePort(t))},
		}},
		{name: "no network", spec: harness.Spec{Network: "none", Publish: []string{}}, why: "it has no network"},
		{name: "another network", spec: harness.Spec{Network: engine.CreateNetwork(t)}},
		{name: "label of 64 KiB beside", spec: harness.Spec{Modify: huge}},
		{name: "image by its id", spec: harness.Spec{Image: image.ID}},
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	engine := harness.RequireDocker(t)
	own, other := bridge(t, engine), bridge(t, engine)
	tcp := elbsim.HealthCheck{Protocol: "TCP"}
	r := rig.New(t, rig.Options{
		Engine: engine,
		Groups: []elbsim.Group{{Name: "web"}, {Name: "dns", Protocol: "UDP", HealthCheck: tcp}, {Name: "either", Protocol: "TCP_UDP", HealthCheck: tcp}},
		Sim:    elbsim.Config{Instance: elbsim.Instance{PrivateIP: own}},
	})
	agent := r.StartReady(t)
	rows := portRows(t, engine, own, other)
	specs := make([]harness.Spec, len(rows))
	for i := range rows {
		rows[i].group = cmp.Or(rows[i].group, "web")
		specs[i] = rows[i].spec
		specs[i].Labels = map[string]string{rig.Label: strings.ReplaceAll("GROUP"+rows[i].ports, "GROUP", r.Group(rows[i].group))}
	}
	made := r.Engine.RunAll(t, specs...)
	guest := r.Engine.Run(t, harness.Spec{ // its ports sit on the first one
		Network: "container:" + made[0].ID, Publish: []string{}, Labels: r.In("web"), Args: []string{"--listen=:8081"},
	})
	want := map[string][]target.Target{}
	for i, row := range rows {
		if row.why != "" {
			refused(t, agent, row.name, made[i], row.why)
			continue
		}
		host := row.host
		if host == 0 {
			host = made[i].Port(t, cmp.Or(row.port, "8080/tcp"))
		}
		want[row.group] = append(want[row.group], target.Target{ID: rig.Instance, Port: host})
	}
	refused(t, agent, "container: networking", guest, made[0].ID[:12])
	for key, targets := range want {
		r.WaitExact(t, key, targets...)
		if got := targetsIn(r.Calls(key, register)); !slices.Equal(got, sorted(targets)) {
			t.Errorf("%s: registered %v; want %v, each once", key, got, targets)
		}
		if got := targetsIn(r.Calls(key, deregister)); len(got) > 0 {
			t.Errorf("%s: deregistered %v; want none", key, got)
		}
	}
}

func sorted(targets []target.Target) []target.Target {
	return slices.SortedFunc(slices.Values(targets), target.Target.Compare)
}

// refused waits until the agent says of a container that it is not wanted, and why, and what to change.
func refused(t *testing.T, agent *rig.Agent, name string, c *harness.Container, why string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, name+" refused", func() error {
		for _, row := range agent.Status(t).Rows {
			if row.Run.ID != c.ID {
				continue
			}
			if !strings.Contains(row.Why, why) {
				return fmt.Errorf("it says %q; want %q in it", row.Why, why)
			}
			if row.Change == "" {
				return fmt.Errorf("it says %q, and not what to change", row.Why)
			}
			return nil
		}
		return errors.New("it says nothing")
	})
}
