package integration

import (
	"fmt"
	"strings"
	"testing"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/harness"
	"berth/test/rig"
)

func TestLabels_severalPortsAndGroups(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Groups: []elbsim.Group{{Name: "web"}, {Name: "admin"}, {Name: "dns", Protocol: "UDP", HealthCheck: elbsim.HealthCheck{Protocol: "TCP"}}}})
	r.StartReady(t)
	image := r.Engine.WebImage(t, harness.Image{Expose: []string{"8080/tcp", "9090/tcp", "7000/udp"}})
	label := fmt.Sprintf("%s:8080,%s:9090/tcp,%s:7000/udp", r.Group("web"), r.Group("admin"), r.Group("dns"))
	c := r.Engine.Run(t, harness.Spec{
		Image: image, Args: []string{"--listen=:8080,:9090", "--echo-udp=:7000"}, Labels: map[string]string{rig.Label: label},
	})
	for key, port := range map[string]string{"web": "8080/tcp", "admin": "9090/tcp", "dns": "7000/udp"} {
		r.WaitExact(t, key, target.Target{ID: rig.Instance, Port: c.Port(t, port)})
	}
}

func TestLabels_imageLabelRuleAndOptOut(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Rules: map[string]string{"web": "containers: {name: \"shop-*\"}"}})
	r.StartReady(t)
	labelled := r.Engine.WebImage(t, harness.Image{Labels: r.In("web")})
	made := r.Engine.RunAll(
		t,
		harness.Spec{Name: "shop-ruled"},
		harness.Spec{Name: "image-labelled", Image: labelled},
		harness.Spec{Name: "shop-opted-out", Labels: map[string]string{rig.Label: ""}},
		harness.Spec{Name: "stranger"},
	)
	r.WaitHealthy(t, "web", rig.TargetsOf(t, made[:2]...)...)
	wantTargets(t, r, register, rig.TargetsOf(t, made[:2]...)...)
}

func TestLabels_whatCannotBeIsExplained(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	agent := r.StartReady(t)
	two := r.Engine.WebImage(t, harness.Image{Expose: []string{"8080/tcp", "9090/tcp"}})
	made := r.Engine.RunAll(
		t,
		harness.Spec{Name: "unknown-group", Labels: map[string]string{rig.Label: "no-such-group"}},
		harness.Spec{Name: "ambiguous", Image: two, Labels: r.In("web")},
		harness.Spec{Name: "loopback", Publish: []string{"127.0.0.1::8080"}, Labels: r.In("web")},
		harness.Spec{Name: "unpublished", Publish: []string{}, Labels: r.In("web")},
		harness.Spec{Name: "malformed", Labels: map[string]string{rig.Label: "web:eighty"}},
	)
	good := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, good)...)
	for _, c := range made {
		harness.Eventually(t, harness.Patience, "a word on "+c.Name, func() error {
			for _, row := range agent.Status(t).Rows {
				if row.Run.ID == c.ID && row.Why != "" && row.Change != "" {
					return nil
				}
			}
			return fmt.Errorf("nothing says why, and what to change")
		})
	}
	wantTargets(t, r, register, rig.TargetsOf(t, good)...)
	if log := agent.Log(); strings.Contains(log, `"level":"error"`) {
		t.Errorf("the agent reports errors for what is a matter of labels:\n%s", log)
	}
}

func TestRegisterWhenHealthy(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Rules: map[string]string{"web": "register_when: healthy"}})
	r.StartReady(t)
	image := r.Engine.WebImage(t, harness.Image{Healthcheck: 200_000_000})
	sick := r.Engine.Run(t, harness.Spec{Name: "sick", Image: image, Args: []string{"--unhealthy"}, Labels: r.In("web")})
	well := r.Engine.Run(t, harness.Spec{Name: "well", Image: image, Labels: r.In("web")})
	r.Engine.Run(t, harness.Spec{Name: "unchecked", Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, well)...)
	wantTargets(t, r, register, rig.TargetsOf(t, well)...)

	sick.PutHealth(t, "livez", 200)
	sick.PutHealth(t, "healthz", 200)
	r.WaitHealthy(t, "web", rig.TargetsOf(t, sick, well)...)
	// Once registered, health does not take it out: the load balancer judges.
	well.PutHealth(t, "livez", 500)
	harness.Eventually(t, harness.Patience, "an unhealthy container", func() error {
		if health := well.Inspect(t).State.Health.Status; health != "unhealthy" {
			return fmt.Errorf("it is %s", health)
		}
		return nil
	})
	later := r.Engine.Run(t, harness.Spec{Name: "later", Image: image, Labels: r.In("web")})
	r.WaitExact(t, "web", rig.TargetsOf(t, sick, well, later)...)
	wantTargets(t, r, deregister)
}
