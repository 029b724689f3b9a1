package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/server"
	"berth/pkg/status"
	"berth/pkg/target"
)

// explain answers what becomes of a container, and why. Docker is asked anew, so that the answer is about now.
func (c *control) explain(w http.ResponseWriter, r *http.Request) {
	server.Extend(w, controlPatrol)
	ctx, cancel := context.WithTimeout(r.Context(), controlPatrol*9/10)
	defer cancel()
	run, warning, err := c.look(ctx, r.URL.Query().Get("container"))
	if err != nil {
		c.asked(r, "explain", err)
		fail(w, err)
		return
	}
	server.WriteJSON(w, http.StatusOK, c.agent.explain(ctx, run, warning))
}

// Explain says of the container that ref names (by name, by id, or by the beginning of one) what becomes of it, and why.
// Docker is asked anew.
func (a *Core) Explain(ctx context.Context, ref string) (status.ExplainedV1, error) {
	run, _, err := a.watcher.Look(ctx, ref)
	warning := ""
	if errors.Is(err, discovery.ErrNotAnswered) && run.ID != "" {
		warning, err = "Docker does not answer", nil
	}
	if err != nil {
		return status.ExplainedV1{}, lookError(ref, err)
	}
	return a.explain(ctx, run, warning), nil
}

// explain says what the agent's parts make of a run that a look has just found.
func (a *Core) explain(ctx context.Context, run target.Run, warning string) status.ExplainedV1 {
	d, _ := a.seen.Get()
	r, _ := a.registrar.Snapshot()
	facts, err := a.engine.Inspect(ctx, run.ID)
	v := explanation{run: run, d: d, r: r, rules: discoveryRules(a.settings.Load().Config)}
	if err == nil {
		v.facts = &facts
	} else {
		warning = cmp.Or(warning, "Docker does not answer: "+err.Error())
	}
	return v.build(warning)
}

// explanation is what one explanation is made from, and as far as it has come.
type explanation struct {
	run   target.Run
	facts *discovery.Facts    // nil: Docker does not answer
	d     *discovery.Snapshot // nil: none yet
	r     *registrar.Snapshot
	rules []discovery.Rule

	steps []status.StepV1
}

func (e *explanation) step(outcome, about, group string, port target.PortProto, why, change string) {
	e.steps = append(e.steps, status.StepV1{Outcome: outcome, About: about, Group: group, ContainerPort: port, Why: why, Change: change})
}

// build goes the way of the data: the container, who asks for it, each port and what stands against it, the target
// group, the load balancer.
func (e *explanation) build(warning string) status.ExplainedV1 {
	v := status.ExplainedV1{Run: e.run, Rows: []status.Row{}}
	e.container(warning)
	e.requests()
	if e.d == nil {
		e.step(status.StepWait, "wanted", "", target.PortProto{}, "the agent has not seen all of Docker's containers yet", "")
		v.Steps = e.steps
		return v
	}
	v.Seq = e.d.Seq
	for _, row := range status.Join(e.d, e.r) {
		if row.Run.ID == e.run.ID {
			v.Rows = append(v.Rows, row)
		}
	}
	for i := range e.d.Decisions {
		if c := &e.d.Decisions[i]; c.Run.ID == e.run.ID {
			e.decision(c, v.Rows)
		}
	}
	v.Steps = e.steps
	return v
}

// container is the first step: what Docker says of it.
func (e *explanation) container(warning string) {
	if warning != "" {
		e.step(status.StepWait, "container", "", target.PortProto{}, warning, "")
	}
	if e.facts == nil {
		return
	}
	f := e.facts
	if f.State != "running" && f.State != "paused" {
		e.step(status.StepStop, "container", "", target.PortProto{}, "it is not running ("+f.State+")", "start it: docker start "+f.Name)
		return
	}
	why := fmt.Sprintf("it is %s since %s, from image %s, on network %s", f.State, f.StartedAt.UTC().Format(time.RFC3339), f.Image, f.NetworkMode)
	if f.Health != discovery.HealthNone {
		why += ", and its HEALTHCHECK says " + string(f.Health)
	}
	e.step(status.StepOK, "container", "", target.PortProto{}, why, "")
}

// requests is the second: which groups ask for it, and why the others do not.
func (e *explanation) requests() {
	if e.facts == nil {
		return
	}
	label, labelled := e.facts.Labels[discovery.TargetsLabel]
	if labelled && strings.TrimSpace(label) != "" {
		e.step(status.StepOK, "request", "", target.PortProto{}, "its label "+discovery.TargetsLabel+" asks for "+status.Plain(label), "")
	}
	for i := range e.rules {
		rule := &e.rules[i]
		mismatch := rule.Mismatch(e.facts)
		switch {
		case mismatch != "":
			if !labelled || rule.NoLabels {
				e.step(status.StepStop, "request", rule.Group, target.PortProto{}, "target group "+rule.Group+" does not take it: "+mismatch, "")
			}
		case labelled && !rule.NoLabels:
			e.step(status.StepStop, "request", rule.Group, target.PortProto{}, "the rule of target group "+rule.Group+" matches it, but its label decides alone", "")
		default:
			e.step(status.StepOK, "request", rule.Group, target.PortProto{}, "the rule of target group "+rule.Group+" matches it", "")
		}
	}
}

// decision is what follows for one port in one group.
func (e *explanation) decision(c *discovery.Decision, rows []status.Row) {
	port := target.PortProto{Port: c.Port, Protocol: c.Protocol}
	if c.Port == 0 {
		port = target.PortProto{}
	}
	if c.Port != 0 && e.facts != nil && c.Verdict != discovery.Refused {
		e.port(c.Group, port)
	}
	switch c.Verdict {
	case discovery.Wanted:
		e.step(status.StepOK, "wanted", c.Group, port, c.Why, "")
		e.group(c.Group, port)
		e.balancer(c.Group, port, rows)
	case discovery.NotYet:
		e.step(status.StepWait, "wanted", c.Group, port, c.Why, c.Change)
	case discovery.Drained, discovery.Leaving:
		e.step(status.StepStop, "drain", c.Group, port, c.Why+e.reasons(), c.Change)
		e.balancer(c.Group, port, rows)
	case discovery.Refused, discovery.Ignored:
		change := c.Change
		if c.Verdict == discovery.Ignored && change == "" && e.facts != nil && (e.facts.State == "running" || e.facts.State == "paused") {
			change = "label it (docker run -l " + discovery.TargetsLabel + "=GROUP ...), or write a rule for a target group"
		}
		e.step(status.StepStop, "wanted", c.Group, port, c.Why, change)
	}
}

// reasons is what those who drained it gave as their reason.
func (e *explanation) reasons() string {
	var reasons []string
	for _, d := range e.d.Drains {
		if d.Reason != "" && (d.Host() || d.About(e.run)) {
			reasons = append(reasons, status.Plain(d.Reason))
		}
	}
	if len(reasons) == 0 {
		return ""
	}
	return " (" + strings.Join(reasons, "; ") + ")"
}

// port says where Docker publishes it.
func (e *explanation) port(group string, port target.PortProto) {
	if e.facts.NetworkMode == "host" {
		e.step(status.StepOK, "port", group, port, fmt.Sprintf("it uses the host's network: port %s is the host's", port), "")
		return
	}
	var hosts []string
	for _, p := range e.facts.Published {
		if p.PortProto == port && p.HostPort != 0 {
			at := fmt.Sprintf("%s:%d", p.HostIP, p.HostPort)
			if !p.HostIP.IsValid() || p.HostIP.IsUnspecified() {
				at = fmt.Sprintf("%d", p.HostPort)
			}
			hosts = append(hosts, at)
		}
	}
	if hosts = slices.Compact(hosts); len(hosts) > 0 {
		e.step(status.StepOK, "port", group, port, fmt.Sprintf("Docker publishes %s on host port %s", port, strings.Join(hosts, " and ")), "")
	}
}

// group says how the target group does.
func (e *explanation) group(key string, port target.PortProto) {
	g := status.GroupOf(e.r, key)
	switch {
	case !e.r.Connected:
		e.step(status.StepWait, "target_group", key, target.PortProto{}, "the agent waits for the instance's identity and AWS credentials", "see berth check")
	case g == nil || g.ARN == "" && g.Err == "":
		e.step(status.StepWait, "target_group", key, target.PortProto{}, "the target group has not been looked up yet", "")
	case g.State == registrar.StateOK:
		why := fmt.Sprintf("target group %s is there: type %s, protocol %s", g.Name, g.Facts.TargetType, g.Facts.Protocol)
		e.step(status.StepOK, "target_group", key, target.PortProto{}, why, "")
	case g.State == registrar.StateWaiting, g.State == registrar.StateThrottled:
		e.step(status.StepWait, "target_group", key, target.PortProto{}, "target group: "+g.State+": "+g.Err, g.Change)
	default:
		e.step(status.StepStop, "target_group", key, target.PortProto{}, "target group: "+g.State+": "+g.Err, g.Change)
	}
}

// balancer says where the port stands at the load balancer.
func (e *explanation) balancer(group string, port target.PortProto, rows []status.Row) {
	for i := range rows {
		r := &rows[i]
		if r.Group != group || r.ContainerPort != port {
			continue
		}
		outcome := status.StepWait
		switch r.State {
		case status.Healthy:
			outcome = status.StepOK
		case status.Refused, status.Blocked, status.Unhealthy, status.Unused:
			outcome = status.StepStop
		case status.Drained, status.NotYet, status.Ignored:
			continue // said already
		default:
		}
		why := string(r.State) + ": " + r.Why
		if r.Reason != "" && !strings.Contains(why, r.Reason) {
			why += " (" + r.Reason + ")"
		}
		if r.Target.ID != "" {
			why = r.Target.String() + " is " + why
		}
		e.step(outcome, "load_balancer", group, port, why, status.Advice(r, host.PortRange()))
	}
}
