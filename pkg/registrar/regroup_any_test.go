package registrar_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"pgregory.net/rapid"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
)

// movingKeys are two keys that name groups at random, and what is wanted for them: each port is of one key.
type movingKeys struct {
	*world
	mu    sync.Mutex
	names map[string]string // by key; none: it is not configured
	ports map[string]map[int]bool
	blind map[string]bool // keys whose containers nobody has inspected since
	wrong []string
	done  []string
}

// groupsThere are the groups of the account. Others are named, too.
var groupsThere = []string{"a", "b", "c"}

func (m *movingKeys) problem(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf("%s: ", time.Since(epoch))+fmt.Sprintf(format, args...))
}

// keyOf returns the configured key that wants a port; empty: none does.
func (m *movingKeys) keyOf(port int) string {
	for key := range m.names {
		if m.ports[key][port] {
			return key
		}
	}
	return ""
}

// in returns the groups that a port is registered in.
func (m *movingKeys) in(port int) (groups []string) {
	for _, g := range groupsThere {
		for _, x := range m.sim.Registered(g) {
			if x.ID == instance && int(x.Port) == port {
				groups = append(groups, g)
			}
		}
	}
	return groups
}

// watched is an API that checks each removal as it is sent: what is wanted leaves a group only for the one that its key names.
type watched struct {
	elb.API
	m *movingKeys
}

func (a watched) DeregisterTargets(ctx context.Context, in *elbv2.DeregisterTargetsInput, o ...func(*elbv2.Options)) (*elbv2.DeregisterTargetsOutput, error) {
	a.m.mu.Lock()
	for _, x := range in.Targets {
		key := a.m.keyOf(int(*x.Port))
		if key != "" && (elb.NameOf(*in.TargetGroupArn) == a.m.names[key] || !slices.Contains(a.m.in(int(*x.Port)), a.m.names[key])) {
			a.m.problem("%d leaves %s, and is wanted in %s; it is in %v", *x.Port, elb.NameOf(*in.TargetGroupArn), a.m.names[key], a.m.in(int(*x.Port)))
		}
	}
	a.m.mu.Unlock()
	return a.API.DeregisterTargets(ctx, in, o...)
}

// apply makes the present names and ports what the registrar works towards.
func (m *movingKeys) apply() {
	m.groups = nil
	specs := []any{}
	m.mu.Lock()
	for _, key := range slices.Sorted(maps.Keys(m.names)) {
		m.groups = append(m.groups, elb.Group{Key: key, Name: m.names[key]})
		specs = append(specs, key)
		if m.blind[key] {
			continue
		}
		for _, port := range slices.Sorted(maps.Keys(m.ports[key])) {
			specs = append(specs, port)
		}
	}
	m.d.Unknown = nil
	for key := range m.blind {
		for port := range m.ports[key] {
			m.d.Unknown = append(m.d.Unknown, fmt.Sprint("c", port))
		}
	}
	m.mu.Unlock()
	m.want(specs...)
}

// check looks at what is registered: nothing that is not wanted, and all that is wanted and was registered before.
func (m *movingKeys) check(before map[int]bool) (registered map[int]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	registered = map[int]bool{}
	for port := 1; port <= 8; port++ {
		groups := m.in(port)
		key := m.keyOf(port)
		if key == "" && len(groups) > 0 && len(m.blind) == 0 {
			m.problem("%d is in %v, and nobody wants it", port, groups)
		}
		if key != "" && len(groups) == 0 && before[port] {
			m.problem("%d is wanted by %s, which names %s, and is in no group any more", port, key, m.names[key])
		}
		registered[port] = len(groups) > 0
	}
	return registered
}

// Whatever keys come to name, and whatever AWS refuses meanwhile, across restarts: what is wanted and registered stays
// registered somewhere, what is not wanted goes, and in the end each target is in the group that its key names, and nowhere else.
func TestRegistrar_keysMove(t *testing.T) {
	moved := 0
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			what, key, name string
			port            int
			wait            time.Duration
		}
		whats := []string{"name", "name", "name", "want", "want", "end", "remove", "restart", "refuse", "accept", "blind", "seen"}
		waits := []time.Duration{2 * time.Second, 2 * time.Second, time.Minute, 6 * time.Minute}
		settled := 15 * time.Minute
		if rapid.Bool().Draw(rt, "rough") { // calls fail in all ways, and what is to be done takes its time
			whats = append(whats, "replace", "hang", "lost", "late", "throttle", "transient", "invalid")
			waits, settled = []time.Duration{3 * time.Minute, 6 * time.Minute, 20 * time.Minute}, time.Hour
		}
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				what: rapid.SampledFrom(whats).Draw(t, "what"),
				key:  rapid.SampledFrom([]string{"x", "y"}).Draw(t, "key"), name: rapid.SampledFrom([]string{"a", "b", "c", "none", "nothing"}).Draw(t, "name"),
				port: rapid.IntRange(1, 4).Draw(t, "port"),
				wait: rapid.SampledFrom(waits).Draw(t, "wait"),
			}
		}), 1, 12).Draw(rt, "steps")
		var wrong, done []string
		inWorld(t, func(_ *testing.T, w *world) {
			m := &movingKeys{world: w, names: map[string]string{"x": "a", "y": "b"}, blind: map[string]bool{}, ports: map[string]map[int]bool{"x": {1: true, 2: true}, "y": {5: true}}}
			through := func(api elb.API) elb.API { return watched{api, m} }
			w.startWith(registrar.Options{}, through)
			m.apply()
			w.after(time.Minute)
			registered := m.check(nil)
			for _, s := range steps {
				m.done = append(m.done, fmt.Sprintf("%s: %+v", time.Since(epoch), s))
				m.mu.Lock()
				port := s.port
				if s.key == "y" {
					port += 4
				}
				restart := false
				switch s.what {
				case "name":
					m.names[s.key] = s.name
				case "remove":
					delete(m.names, s.key)
					delete(m.blind, s.key) // what a key that is gone had in doubt may go when it comes back
				case "want":
					m.ports[s.key][port] = true
				case "end":
					delete(m.ports[s.key], port)
				case "restart":
					restart = true
				case "refuse":
					w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "AccessDenied", Status: 403, TargetGroup: groupsThere[s.port%3]})
				case "invalid":
					w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "RegisterTargets", Code: "InvalidTarget", Status: 400, TargetGroup: groupsThere[s.port%3]})
				case "hang", "lost", "late":
					w.fault(elbsim.Fault{Kind: elbsim.FaultKind(s.what), Action: "RegisterTargets", TargetGroup: groupsThere[s.port%3], Times: s.port, Delay: elbsim.Duration(20 * time.Second)})
				case "throttle":
					w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "*Targets", Code: "Throttling", Status: 400, Times: 2})
				case "transient":
					w.fault(elbsim.Fault{Kind: elbsim.FaultError, Action: "*", Code: "InternalFailure", Status: 500, Times: 3})
				case "replace": // and moved, in one
					m.names[s.key], m.ports[s.key] = s.name, map[int]bool{port: true}
				case "blind":
					m.blind[s.key], restart = true, true
				case "seen":
					delete(m.blind, s.key)
				case "accept":
					w.sim.ClearFaults()
				}
				for p := range registered { // one that nobody wants for a moment is new after that
					registered[p] = registered[p] && m.keyOf(p) != ""
				}
				m.mu.Unlock()
				if restart {
					w.stop()
					w.startWith(registrar.Options{}, through)
				}
				m.apply()
				w.after(s.wait)
				if registered = m.check(registered); len(m.wrong) > 0 {
					break
				}
			}
			w.sim.ClearFaults()
			clear(m.blind)
			m.names = map[string]string{"x": groupsThere[len(steps)%3], "y": groupsThere[len(steps)%2]}
			m.apply()
			w.after(settled)
			m.mu.Lock()
			for key, ports := range m.ports {
				for port := range ports {
					if in := m.in(port); !slices.Equal(in, []string{m.names[key]}) && len(m.wrong) == 0 {
						m.problem("in the end %d is in %v; want it in %s alone", port, in, m.names[key])
					}
				}
			}
			m.mu.Unlock()
			m.check(nil)
			moved += len(w.calls("DeregisterTargets"))
			wrong, done = m.wrong, append(m.done, w.writes()...)
		}, elbsim.Group{Name: "a"}, elbsim.Group{Name: "b"}, elbsim.Group{Name: "c"})
		if len(wrong) > 0 {
			rt.Fatalf("%s\nafter:\n%s", strings.Join(wrong, "\n"), strings.Join(done, "\n"))
		}
	})
	if moved == 0 {
		t.Error("nothing ever moved")
	}
}
