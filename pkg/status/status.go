package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/host"
	"berth/pkg/registrar"
)

// APIVersion is the version of the JSON that this package serves under /v1. Within it fields are added, never
// renamed or removed, and no field changes its meaning; states, reasons and checks may be added.
const APIVersion = "v1"

// Build says what runs.
type Build struct {
	Version   string `json:"version"`
	Revision  string `json:"revision,omitempty"`
	GoVersion string `json:"go_version,omitempty"`
}

// Host is what the agent knows of the instance it runs on.
type Host struct {
	InstanceID       string `json:"instance_id,omitempty"`
	Region           string `json:"region,omitempty"`
	AvailabilityZone string `json:"availability_zone,omitempty"`
	Account          string `json:"account,omitempty"`
	Address          string `json:"address,omitempty"` // the primary private address
	// IdentityErr says why the identity is not known yet.
	IdentityErr string `json:"identity_error,omitempty"`
	// IdentityChange says what to change about it.
	IdentityChange string `json:"identity_change,omitempty"`
	// CredentialsErr says why no call to AWS can be made, CredentialsChange what to change.
	CredentialsErr    string `json:"credentials_error,omitempty"`
	CredentialsChange string `json:"credentials_change,omitempty"`
	// Notices are what is about to happen to the instance: spot, lifecycle, rebalance, maintenance.
	Notices []host.Notice `json:"notices,omitempty"`
}

// V1 is what GET /v1/status answers: everything that the agent knows, at one moment.
type V1 struct {
	API string    `json:"api"` // "v1"
	At  time.Time `json:"at"`
	// Revision names this state; it changes with every change of what follows. Give it as ?after= to wait for the
	// next. It is opaque.
	Revision string `json:"revision"`
	// Seq counts what discovery has published; 0: nothing yet. A group whose own seq is at least this has acted on it. Within
	// a boot it goes on growing when the agent is restarted.
	Seq uint64 `json:"seq"`
	// Generation is the configuration's, +1 for each reload that took effect.
	Generation uint64 `json:"generation"`
	// Connected reports whether calls to AWS can be made and the groups have their first wants. Before that it is not
	// known what is registered: that no row shows a target says nothing.
	Connected bool      `json:"connected"`
	Agent     AgentV1   `json:"agent"`
	Readiness Readiness `json:"readiness"`
	Host      Host      `json:"host"`
	// Docker is the connection to the engine.
	Docker discovery.Stream `json:"docker"`
	// Drains are in force now; one without a container and a name is the whole host's.
	Drains []DrainV1 `json:"drains"`
	// Groups are all of the configuration, whether or not the registrar has taken them up, and those that left it.
	Groups []GroupV1 `json:"target_groups"`
	Rows   []Row     `json:"rows"`
}

// AgentV1 is the running process.
type AgentV1 struct {
	Build
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
}

// DrainV1 is a drain in force.
type DrainV1 struct {
	ID        string    `json:"id"`
	Container string    `json:"container_id,omitempty"` // empty: the whole host
	Name      string    `json:"name,omitempty"`         // held whichever container bears it; container_id is held as well
	Cause     string    `json:"cause"`                  // operator, stop_signal, spot, lifecycle, rebalance, shutdown
	By        string    `json:"by,omitempty"`
	Reason    string    `json:"reason,omitempty"` // as whoever asked gave it
	Since     time.Time `json:"since"`
	// Hold is how long it lasts: keep (until undrained), run (until this run of the container ends) or connection (while
	// the client that asked stays).
	Hold string `json:"hold"`
}

// GroupV1 is one target group.
type GroupV1 struct {
	Keys []string `json:"keys"` // in the configuration; empty: it left it, and is being cleaned up unless it is held
	// Held are keys that name another group by now, whose targets stay here until that one has accepted them.
	Held     []registrar.Held `json:"held,omitempty"`
	Name     string           `json:"name,omitempty"`
	ARN      string           `json:"arn,omitempty"`
	Type     string           `json:"target_type,omitempty"`
	Protocol string           `json:"protocol,omitempty"`
	// State is ok, waiting, throttled, denied, gone, full or misconfigured.
	State  string `json:"state"`
	Err    string `json:"error,omitempty"`
	Change string `json:"change,omitempty"` // what a person can change about it
	// Seq is that of the newest wants on which a completed plan has acted.
	Seq        uint64    `json:"seq"`
	Tried      bool      `json:"tried"`
	VerifiedAt time.Time `json:"verified_at,omitzero"` // of the last look at the load balancer's own list
	RetryAt    time.Time `json:"retry_at,omitzero"`
	Counts     Counts    `json:"counts"`
}

// Counts counts targets of one group.
type Counts struct {
	Desired    int `json:"desired"`    // should be registered
	Registered int `json:"registered"` // are registered, wanted or not
	Healthy    int `json:"healthy"`    // pass their health checks
	Refused    int `json:"refused"`    // cannot be registered until somebody changes something
	Unclaimed  int `json:"unclaimed"`  // are registered for this host by somebody else
}

// Label names the group as its users do: by its key, after it has left the configuration by its name or ARN.
func (g GroupV1) Label() string {
	return groupLabel(g.Keys, len(g.Held) > 0, g.Name, g.ARN)
}

// Untried reports whether nothing is known of the group yet, good or bad: its first attempt is still to come.
func (g GroupV1) Untried() bool { return len(g.Keys) > 0 && !g.Tried && g.Err == "" }

// Summary says in one line how the host does: "12 targets in 3 groups, 1 not ready: web-2 in web: its health checks get
// no answer in time".
func (s *V1) Summary() string {
	desired, healthy, configured := 0, 0, 0
	for i := range s.Groups {
		if len(s.Groups[i].Keys) > 0 {
			configured++
		}
		desired += s.Groups[i].Counts.Desired
		healthy += s.Groups[i].Counts.Healthy
	}
	line := count(desired, "target") + " in " + count(configured, "group")
	if waiting := s.Readiness.Waiting(); waiting != "" {
		return line + ", waiting for " + waiting
	}
	if desired == healthy {
		return line
	}
	line += fmt.Sprintf(", %d not ready", desired-healthy)
	for i := range s.Rows {
		if r := &s.Rows[i]; r.State.Wanted() && r.State != Healthy {
			return fmt.Sprintf("%s: %s in %s: %s", line, r.Run, r.Group, r.Why)
		}
	}
	return line
}

// Of builds the answer from the snapshots, either of which may be nil.
func Of(now time.Time, agent AgentV1, h Host, d *discovery.Snapshot, r *registrar.Snapshot) V1 {
	s := V1{
		API: APIVersion, At: now.UTC(), Revision: Revision(d, r), Agent: agent, Host: h,
		Drains: []DrainV1{}, Groups: []GroupV1{}, Rows: Join(d, r),
	}
	if d != nil {
		s.Seq, s.Generation, s.Docker = d.Seq, d.Generation, d.Stream
		for _, drain := range d.Drains {
			s.Drains = append(s.Drains, drainV1(drain))
		}
	}
	if s.Rows == nil {
		s.Rows = []Row{}
	}
	s.Readiness = ReadinessOf(h, s.Docker, d, r)
	if r != nil {
		s.Connected = r.Connected && r.Seq > 0
		if s.Host.InstanceID == "" {
			s.Host.InstanceID, s.Host.Region, s.Host.Account = r.Self.InstanceID, r.Self.Region, r.Self.Account
		}
		first := map[string]string{} // a target that two keys of one group want is one target
		for i := range r.Groups {
			for _, key := range r.Groups[i].Keys {
				first[key] = GroupLabel(&r.Groups[i])
			}
		}
		counts := countRows(s.Rows, func(group string) string { return cmp.Or(first[group], group) })
		for i := range r.Groups {
			s.Groups = append(s.Groups, groupV1(&r.Groups[i], counts[GroupLabel(&r.Groups[i])]))
		}
	}
	s.addUntaken(d)
	return s
}

// addUntaken adds the groups of the configuration that the registrar has not taken up: all of them until it can make
// calls. Without them nobody could tell a host that has nothing registered from one that does not know yet.
func (s *V1) addUntaken(d *discovery.Snapshot) {
	if d == nil {
		return
	}
	counts := CountRows(s.Rows)
	for _, key := range SortedKeys(d.Wants) {
		if !slices.ContainsFunc(s.Groups, func(g GroupV1) bool { return slices.Contains(g.Keys, key) }) {
			s.Groups = append(s.Groups, GroupV1{Keys: []string{key}, State: registrar.StateWaiting, Counts: counts[key]})
		}
	}
	slices.SortStableFunc(s.Groups, func(a, b GroupV1) int {
		return cmp.Or(compareBool(len(a.Keys) == 0, len(b.Keys) == 0), cmp.Compare(a.Label(), b.Label()))
	})
}

// Host reports whether the drain is the whole host's.
func (d *DrainV1) Host() bool { return d.Container == "" && d.Name == "" }

func drainV1(d discovery.Drain) DrainV1 {
	v := DrainV1{ID: d.ID, Container: d.Container, Name: d.Name, Cause: d.Cause, By: d.By, Reason: d.Reason, Since: d.Since}
	switch d.Hold {
	case discovery.HoldRun:
		v.Hold = "run"
	case discovery.HoldConnection:
		v.Hold = "connection"
	case discovery.HoldKeep:
		v.Hold = "keep"
	}
	return v
}

func groupV1(g *registrar.GroupStatus, counts Counts) GroupV1 {
	v := GroupV1{
		Keys: slices.Clone(g.Keys), Held: g.Held, Name: cmp.Or(g.Name, g.Facts.Name), ARN: cmp.Or(g.ARN, g.Facts.ARN),
		Type: g.Facts.TargetType, Protocol: g.Facts.Protocol, State: g.State, Err: g.Err, Change: g.Change, Seq: g.Seq,
		Tried: g.Tried, VerifiedAt: g.VerifiedAt, RetryAt: g.RetryAt, Counts: counts,
	}
	if v.Keys == nil {
		v.Keys = []string{}
	}
	return v
}

// CountRows counts the targets of each group, by the rows' Group. A target that serves several ports (the TCP and the
// UDP half of a TCP_UDP group) is one.
func CountRows(rows []Row) map[string]Counts {
	return countRows(rows, func(group string) string { return group })
}

func countRows(rows []Row, label func(group string) string) map[string]Counts {
	type one struct{ group, what string }
	seen := map[one]bool{}
	counts := map[string]Counts{}
	for i := range rows {
		row := &rows[i]
		if row.Group == "" {
			continue
		}
		group := label(row.Group)
		what := row.Target.String()
		if row.Target.ID == "" {
			what = row.Run.ID + ":" + strconv.Itoa(int(row.HostPort)) + "/" + row.ContainerPort.String()
		}
		if key := (one{group, what}); seen[key] {
			continue
		} else if row.counted() {
			seen[key] = true
		}
		c := counts[group]
		if row.State.Wanted() {
			c.Desired++
		}
		if row.State.AtLoadBalancer() || (row.State == Leaving && row.Target.ID != "") {
			c.Registered++
		}
		switch row.State {
		case Healthy:
			c.Healthy++
		case Refused:
			c.Refused++
		case Unclaimed:
			c.Unclaimed++
		default:
		}
		counts[group] = c
	}
	return counts
}

// counted reports whether the row stands for a target, so that no other row for the same one may count.
func (r *Row) counted() bool {
	return r.State.Wanted() || r.State == Refused || r.State == Unclaimed || (r.State == Leaving && r.Target.ID != "")
}

// Revision names a pair of snapshots.
func Revision(d *discovery.Snapshot, r *registrar.Snapshot) string {
	var seq uint64
	var at int64
	if d != nil {
		seq = d.Seq
	}
	if r != nil {
		at = r.At.UnixNano()
	}
	return fmt.Sprintf("%x-%x", seq, uint64(at))
}

// SortedKeys returns the keys of a map, in order.
func SortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// count writes "1 target", "2 targets".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
