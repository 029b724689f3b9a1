package server

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/status"
)

// collector turns the snapshots into metrics at each scrape. It keeps nothing between scrapes, so the series of a
// group vanish with the group.
type collector struct {
	state      func() (status.Host, *discovery.Snapshot, *registrar.Snapshot)
	readiness  func() status.Readiness
	reloadErr  func() error  // may be nil
	logDropped func() uint64 // may be nil
	listening  func() map[string]bool

	desired, registered, healthy, refused, unclaimed *prometheus.Desc
	groupOK, groupVerified                           *prometheus.Desc
	ready, generation, reloaded, listener, dropped   *prometheus.Desc
}

// registerMetrics adds what the server exports to a registry: the state of targets and groups, what was built, and
// the process.
func registerMetrics(reg prometheus.Registerer, b status.Build, state func() (status.Host, *discovery.Snapshot, *registrar.Snapshot), readiness func() status.Readiness, reloadErr func() error, logDropped func() uint64, listening func() map[string]bool) error {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "berth_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.GoVersion},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		build,
		newCollector(state, readiness, reloadErr, logDropped, listening),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func newCollector(state func() (status.Host, *discovery.Snapshot, *registrar.Snapshot), readiness func() status.Readiness, reloadErr func() error, logDropped func() uint64, listening func() map[string]bool) *collector {
	group := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"target_group"}, nil)
	}
	host := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &collector{
		state: state, readiness: readiness, reloadErr: reloadErr, logDropped: logDropped, listening: listening,
		desired: group("berth_targets_desired",
			"Targets of this host that should be registered in the target group."),
		registered: group("berth_targets_registered",
			"Targets of this host that are registered in the target group, wanted or not; draining and unclaimed ones are not counted."),
		healthy: group("berth_targets_healthy",
			"Wanted targets of this host that passed their health checks when the load balancer was last asked."),
		refused: group("berth_targets_refused",
			"Ports that ask to be in the target group and cannot be until somebody changes something."),
		unclaimed: group("berth_unclaimed_targets",
			"Targets registered for this host that the agent did not register and does not touch."),
		groupOK: group("berth_target_group_ok",
			"1 if calls for the target group succeed, 0 if it is not tried yet, denied, gone, full, misconfigured or throttled."),
		groupVerified: group("berth_target_group_verified_timestamp_seconds",
			"When the load balancer's own list of the target group was last compared with what should be there."),
		ready:      host("berth_ready", "1 if /readyz answers 200."),
		generation: host("berth_config_generation", "The number of the configuration in force, one more with each reload that took effect."),
		reloaded:   host("berth_config_last_reload_successful", "0 if the last reload was refused, and the configuration before it is in force."),
		dropped:    host("berth_log_dropped_total", "Lines of the log that were dropped because standard error did not take them."),
		listener: prometheus.NewDesc("berth_listener_up",
			"1 if clients are answered there, 0 while the address cannot be had or does not accept and is tried again.", []string{"listener"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.desired, c.registered, c.healthy, c.refused, c.unclaimed, c.groupOK, c.groupVerified,
		c.ready, c.generation, c.reloaded, c.listener, c.dropped,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	_, d, r := c.state()
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.ready, boolValue(c.readiness().Ready))
	gauge(c.reloaded, boolValue(c.reloadErr == nil || c.reloadErr() == nil))
	if c.logDropped != nil {
		ch <- prometheus.MustNewConstMetric(c.dropped, prometheus.CounterValue, float64(c.logDropped()))
	}
	for name, up := range c.listening() {
		gauge(c.listener, boolValue(up), name)
	}
	if d != nil {
		gauge(c.generation, float64(d.Generation))
	}

	counts := status.CountRows(status.Join(d, r))
	// Only groups that are configured or being cleaned up have series: a label may name anything.
	groups := map[string]status.Counts{}
	status := map[string]*registrar.GroupStatus{}
	if d != nil {
		for key := range d.Wants {
			groups[key] = counts[key]
		}
	}
	if r != nil {
		for i := range r.Groups {
			g := &r.Groups[i]
			for _, label := range labelsOf(g) {
				groups[label] = counts[label]
				if _, ok := status[label]; !ok {
					status[label] = g
				}
			}
		}
	}
	for name, n := range groups {
		label := strings.ToValidUTF8(name, "?")
		gauge(c.desired, float64(n.Desired), label)
		gauge(c.registered, float64(n.Registered), label)
		gauge(c.healthy, float64(n.Healthy), label)
		gauge(c.refused, float64(n.Refused), label)
		gauge(c.unclaimed, float64(n.Unclaimed), label)
		g := status[name]
		gauge(c.groupOK, boolValue(g != nil && g.State == registrar.StateOK), label)
		if g != nil && !g.VerifiedAt.IsZero() {
			gauge(c.groupVerified, float64(g.VerifiedAt.UnixMilli())/1000, label)
		}
	}
}

// labelsOf returns every name under which a group's series run: its keys, or its name after it left the configuration.
func labelsOf(g *registrar.GroupStatus) []string {
	if len(g.Keys) > 0 {
		return g.Keys
	}
	return []string{status.GroupLabel(g)}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
