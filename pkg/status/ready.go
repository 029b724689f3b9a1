package status

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
)

// Check is one thing that readiness looks at.
type Check struct {
	// Name is docker, identity, credentials, "target_group KEY", or what the rest of the agent adds ("ledger").
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Blocks reports whether the agent is not ready because of it. A group's own trouble is named and does not block.
	Blocks bool `json:"blocks,omitempty"`
	// Detail says in one line how it stands.
	Detail string `json:"detail"`
	// Change says what to change, where a person must act.
	Change string `json:"change,omitempty"`
}

// Readiness is what /readyz answers.
type Readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// ReadinessOf says whether the agent is ready: Docker's stream is up, the instance's identity and credentials are
// there, and every group has been tried once. A group in trouble is named, and does not make the agent unready: it
// is the group's matter, and the other groups go on. Either snapshot may be nil. Further checks count as they say. stream is
// the connection to Docker, which is known before there is a snapshot of it.
func ReadinessOf(h Host, stream discovery.Stream, d *discovery.Snapshot, r *registrar.Snapshot, more ...Check) Readiness {
	checks := []Check{dockerCheck(stream, d != nil), identityCheck(h, r), credentialsCheck(h, r)}
	if c, far := clockCheck(r); far {
		checks = append(checks, c)
	}
	checks = append(append(checks, groupChecks(d, r)...), more...)
	out := Readiness{Ready: true, Checks: checks}
	for i := range checks {
		if checks[i].Blocks {
			out.Ready = false
		}
	}
	return out
}

// Waiting returns one line about what the agent waits for, empty when it is ready: for systemd's STATUS.
func (r Readiness) Waiting() string {
	var waits []string
	for _, c := range r.Checks {
		if c.Blocks {
			waits = append(waits, c.Name+": "+c.Detail)
		}
	}
	return strings.Join(waits, "; ")
}

// Text is the readiness for people: one line a check.
func (r Readiness) Text() string {
	var b strings.Builder
	for _, c := range r.Checks {
		mark := "ok  "
		switch {
		case c.Blocks:
			mark = "wait"
		case !c.OK:
			mark = "warn"
		}
		fmt.Fprintf(&b, "[%s] %s: %s", mark, c.Name, c.Detail)
		if c.Change != "" {
			fmt.Fprintf(&b, " (%s)", c.Change)
		}
		b.WriteByte('\n')
	}
	if r.Ready {
		b.WriteString("ready\n")
	} else {
		b.WriteString("not ready\n")
	}
	return b.String()
}

// dockerCheck is about the event stream; listed reports whether discovery has published what there is.
func dockerCheck(s discovery.Stream, listed bool) Check {
	c := Check{Name: "docker"}
	switch {
	case s.Up && listed:
		c.OK, c.Detail = true, "the event stream is up"
		if s.Engine != "" {
			c.Detail += fmt.Sprintf(" (%s, API %s)", s.Engine, s.APIVersion)
		}
		return c
	case s.Up:
		c.Detail = "the event stream is up, and its containers are being listed"
	case s.Err == "":
		c.Detail = "not reached yet"
	case listed:
		c.Detail = "the event stream is down: " + strings.TrimSuffix(s.Err, "; "+s.Change)
	default:
		c.Detail = "not reached yet: " + strings.TrimSuffix(s.Err, "; "+s.Change)
	}
	c.Blocks = true
	if !s.Up {
		c.Change = cmp.Or(s.Change, "check that Docker runs and that user berth is in group docker")
	}
	return c
}

func identityCheck(h Host, r *registrar.Snapshot) Check {
	id := h.InstanceID
	if id == "" && r != nil {
		id = r.Self.InstanceID
	}
	if id == "" {
		c := Check{Name: "identity", Blocks: true, Detail: "the instance's identity is not known yet"}
		if h.IdentityErr != "" {
			c.Detail = h.IdentityErr
		}
		c.Change = cmp.Or(h.IdentityChange, "check that the instance metadata service (IMDSv2) is enabled and reachable")
		return c
	}
	return Check{Name: "identity", OK: true, Detail: id}
}

func credentialsCheck(h Host, r *registrar.Snapshot) Check {
	switch {
	case h.CredentialsErr != "":
		return Check{
			Name: "credentials", Blocks: true, Detail: h.CredentialsErr,
			Change: cmp.Or(h.CredentialsChange, "attach an instance profile with the policy of deploy/iam/policy.json"),
		}
	case r == nil || !r.Connected:
		return Check{Name: "credentials", Blocks: true, Detail: "no call to AWS can be made yet"}
	default:
		return Check{Name: "credentials", OK: true, Detail: "calls to AWS can be made"}
	}
}

// clockCheck reports whether the host's clock is far off. That blocks nothing: signatures make up for it.
func clockCheck(r *registrar.Snapshot) (Check, bool) {
	if r == nil || r.ClockAhead == 0 {
		return Check{}, false
	}
	which := "ahead of"
	if r.ClockAhead < 0 {
		which = "behind"
	}
	return Check{
		Name: "clock", Detail: fmt.Sprintf("this host's clock is %s %s that of AWS", r.ClockAhead.Abs().Round(time.Second), which),
		Change: elb.ClockChange,
	}, true
}

func groupChecks(d *discovery.Snapshot, r *registrar.Snapshot) []Check {
	var checks []Check
	known := map[string]bool{}
	if r != nil {
		for i := range r.Groups {
			g := &r.Groups[i]
			for _, key := range g.Keys {
				known[key] = true
			}
			if c, ok := groupCheck(g); ok {
				checks = append(checks, c)
			}
		}
	}
	if d != nil {
		for _, key := range SortedKeys(d.Wants) {
			if !known[key] {
				checks = append(checks, Check{Name: "target_group " + key, Blocks: true, Detail: "not tried yet"})
			}
		}
	}
	return checks
}

// groupCheck is false for a group that left the configuration and has no trouble: nobody asks about it.
func groupCheck(g *registrar.GroupStatus) (Check, bool) {
	c := Check{Name: "target_group " + GroupLabel(g), OK: g.State == registrar.StateOK, Change: g.Change}
	configured := len(g.Keys) > 0
	switch {
	case !g.Tried && configured:
		c.OK, c.Blocks, c.Detail = false, true, "not tried yet"
		if g.Err != "" {
			c.Detail = g.Err
		}
	case c.OK && !configured:
		return c, false
	case c.OK:
		c.Detail = fmt.Sprintf("ok, %s", count(len(g.Targets), "target"))
	default:
		c.Detail = g.State
		if g.Err != "" {
			c.Detail += ": " + g.Err
		}
		if !g.RetryAt.IsZero() {
			c.Detail += ", next attempt at " + g.RetryAt.UTC().Format(time.RFC3339)
		}
	}
	return c, true
}
