package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/elbsim"
	"berth/internal/elbsim/iam"
	"berth/internal/elbsim/limits"
	"berth/pkg/target"
)

// usageError is a mistake of whoever started elbsim: exit status 2.
type usageError struct{ err error }

// Error returns the mistake.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns the mistake.
func (e *usageError) Unwrap() error { return e.err }

// options are the flags.
type options struct {
	listen, config, policy     string
	imds, groups, forwards     []string
	region, account            string
	instances                  []string
	privateIP                  string
	anyInstance, autoAttach    bool
	throttle, rejectedTakes    bool
	latency, healthInterval    time.Duration
	delay                      time.Duration
	registerLag, deregisterLag time.Duration
	describeLag                time.Duration
	json, calls                bool
	changed                    func(flag string) bool
}

func command(out io.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "elbsim",
		Short: "A local Elastic Load Balancing v2 and instance metadata service, with load balancers that really forward",
		Example: `  elbsim --listen 127.0.0.1:4566 --imds 127.0.0.1:1338 --target-group web:HTTP:80 --forward web=127.0.0.1:8080
  elbsim --config account.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown argument %q", args[0])}
			}
			return nil
		},
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			o.changed = c.Flags().Changed
			return o.run(c.Context(), out)
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	f := c.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:4566", "`address` of ELBv2 and of the pages at /_elbsim/; port 0 takes a free one")
	f.StringArrayVar(&o.imds, "imds", []string{"127.0.0.1:1338"}, "`[instance=]address` of the metadata service of an instance, the first one by default; repeatable")
	f.StringVar(&o.config, "config", "", "YAML `file` with load balancers, listeners, rules, target groups and instances")
	f.StringArrayVar(&o.groups, "target-group", nil, "target group as `name:PROTOCOL:port[:type]`; repeatable")
	f.StringArrayVar(&o.forwards, "forward", nil, "listener that forwards to a group, as `group=address`; repeatable")
	f.StringArrayVar(&o.instances, "instance-id", nil, "`id` of an instance; the first one is that of the metadata service; repeatable")
	f.StringVar(&o.privateIP, "private-ip", "", "private `address` of the first instance")
	f.BoolVar(&o.anyInstance, "any-instance", false, "accept every instance id")
	f.BoolVar(&o.autoAttach, "auto-attach", false, "treat groups without a listener as used")
	f.StringVar(&o.region, "region", "", "region of the account")
	f.StringVar(&o.account, "account", "", "id of the account")
	f.StringVar(&o.policy, "policy", "", "JSON `file` with an IAM policy: allow only what it allows")
	f.BoolVar(&o.throttle, "throttle", false, "apply the token buckets of an AWS account")
	f.BoolVar(&o.rejectedTakes, "throttle-rejected-takes", false, "a rejected call takes from the bucket of all actions too")
	f.DurationVar(&o.latency, "latency", 0, "how long each API call takes")
	f.DurationVar(&o.healthInterval, "health-interval", 0, "interval of the health checks of --target-group groups (default: AWS's 30s)")
	f.DurationVar(&o.delay, "deregistration-delay", 300*time.Second, "how long targets of --target-group groups drain")
	lags := elbsim.DefaultLags()
	f.DurationVar(&o.registerLag, "register-lag", lags.Register, "how long a registration takes before its first health check")
	f.DurationVar(&o.deregisterLag, "deregister-lag", lags.Deregister, "how long listeners go on sending to a deregistered target")
	f.DurationVar(&o.describeLag, "describe-lag", lags.Describe, "how old the state is that DescribeTargetHealth shows")
	f.BoolVar(&o.json, "json", false, "print what is served as one line of JSON, then each call with --calls")
	f.BoolVar(&o.calls, "calls", false, "print each API call")
	return c
}

// run serves until ctx ends.
func (o *options) run(ctx context.Context, out io.Writer) error {
	sim, listen, err := o.build(out)
	if err != nil {
		return &usageError{err}
	}
	server, err := elbsim.NewServer(sim, listen)
	if err != nil {
		return err
	}
	if err := o.announce(out, sim, server); err != nil {
		return fmt.Errorf("print what is served: %w", err)
	}
	return server.Run(ctx)
}

// build makes the account that the file and the flags describe. A flag that is given wins over the file.
func (o *options) build(out io.Writer) (*elbsim.Sim, elbsim.Listen, error) {
	var listen elbsim.Listen
	file := &elbsim.File{}
	if o.config != "" {
		if len(o.groups)+len(o.forwards)+len(o.instances) > 0 {
			return nil, listen, errors.New("--config: describes groups, listeners and instances by itself, without --target-group, --forward and --instance-id")
		}
		var err error
		if file, err = elbsim.LoadFile(o.config); err != nil {
			return nil, listen, err
		}
	}
	listen = o.sockets(file.Listen)
	cfg := file.Config
	if err := o.override(&cfg); err != nil {
		return nil, listen, err
	}
	cfg.Probe = elbsim.NetProbe
	if o.calls {
		cfg.OnCall = o.printer(out)
	}
	sim := elbsim.New(cfg)
	if err := file.Populate(sim); err != nil {
		return nil, listen, err
	}
	for _, id := range o.instances[min(1, len(o.instances)):] {
		if err := sim.AddInstance(elbsim.Instance{ID: id}); err != nil {
			return nil, listen, fmt.Errorf("--instance-id: %w", err)
		}
	}
	for instance, address := range listen.IMDS {
		if !sim.HasInstance(instance) {
			return nil, listen, fmt.Errorf("--imds %q: instance %s: %w", instance+"="+address, instance, elbsim.ErrUnknown)
		}
	}
	return sim, listen, o.addGroups(sim)
}

// sockets are the addresses of the file, or the flags where they are given or the file says nothing.
func (o *options) sockets(listen elbsim.Listen) elbsim.Listen {
	if o.changed("listen") || listen.API == "" {
		listen.API = o.listen
	}
	if !o.changed("imds") && listen.IMDS != nil {
		return listen
	}
	listen.IMDS = map[string]string{}
	for _, v := range o.imds {
		instance, address, named := strings.Cut(v, "=")
		if !named {
			instance, address = "", v
		}
		listen.IMDS[instance] = address
	}
	return listen
}

// override puts the flags that were given into the account.
func (o *options) override(cfg *elbsim.Config) error {
	cfg.Region, cfg.Account = cmp.Or(o.region, cfg.Region), cmp.Or(o.account, cfg.Account)
	cfg.Instance.PrivateIP = cmp.Or(o.privateIP, cfg.Instance.PrivateIP)
	cfg.AnyInstance, cfg.AutoAttach = cfg.AnyInstance || o.anyInstance, cfg.AutoAttach || o.autoAttach
	if len(o.instances) > 0 {
		cfg.Instance.ID = o.instances[0]
		if err := elbsim.CheckInstanceID(cfg.Instance.ID); err != nil {
			return fmt.Errorf("--instance-id: %w", err)
		}
	}
	if cfg.Lags == nil {
		lags := elbsim.DefaultLags()
		cfg.Lags = &lags
	}
	for flag, d := range map[string]struct{ to, from *time.Duration }{
		"latency":        {&cfg.Latency, &o.latency},
		"register-lag":   {&cfg.Lags.Register, &o.registerLag},
		"deregister-lag": {&cfg.Lags.Deregister, &o.deregisterLag},
		"describe-lag":   {&cfg.Lags.Describe, &o.describeLag},
	} {
		if !o.changed(flag) {
			continue
		}
		if *d.from < 0 {
			return fmt.Errorf("--%s %v: must not be negative", flag, *d.from)
		}
		*d.to = *d.from
	}
	if o.throttle && cfg.Throttling == nil {
		cfg.Throttling = limits.Default()
	}
	if o.rejectedTakes && cfg.Throttling != nil {
		cfg.Throttling.RejectedTakes = true
	}
	if o.policy != "" {
		policy, err := iam.Load(o.policy)
		if err != nil {
			return fmt.Errorf("--policy: %w", err)
		}
		cfg.Policy = policy
	}
	return nil
}

func (o *options) addGroups(sim *elbsim.Sim) error {
	for _, v := range o.groups {
		g, err := parseGroup(v)
		if err != nil {
			return err
		}
		g.HealthCheck.Interval = o.healthInterval
		g.Detached = true // until --forward gives it a listener
		if g.DeregistrationDelay = o.delay; o.delay == 0 {
			g.DeregistrationDelay = -1 // none, where 0 is the default
		}
		if _, err := sim.AddGroup(g); err != nil {
			return fmt.Errorf("--target-group %s: %w", v, err)
		}
	}
	for i, v := range o.forwards {
		group, address, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("--forward %q: must be group=address", v)
		}
		if err := sim.Forward(fmt.Sprintf("forward-%d", i+1), group, address); err != nil {
			return fmt.Errorf("--forward %s: %w", v, err)
		}
	}
	return nil
}

// parseGroup reads name:PROTOCOL:port[:type].
func parseGroup(v string) (elbsim.Group, error) {
	parts := strings.Split(v, ":")
	if len(parts) < 3 || len(parts) > 4 {
		return elbsim.Group{}, fmt.Errorf("--target-group %q: must be name:PROTOCOL:port[:type]", v)
	}
	port, err := target.ParsePort(parts[2])
	if err != nil {
		return elbsim.Group{}, fmt.Errorf("--target-group %q: %w", v, err)
	}
	g := elbsim.Group{Name: parts[0], Protocol: strings.ToUpper(parts[1]), Port: port}
	if len(parts) == 4 {
		g.Type = parts[3]
	}
	return g, nil
}

// ready is what is served, for scripts.
type ready struct {
	API          string            `json:"api"`
	IMDS         string            `json:"imds,omitempty"`
	TargetGroups map[string]string `json:"target_groups"` // ARNs by name
	Listeners    []elbsim.Address  `json:"listeners"`
	Env          []string          `json:"env"`
}

// announce says what is served. The sockets are open by then: whoever reads it can connect.
func (o *options) announce(out io.Writer, sim *elbsim.Sim, server *elbsim.Server) error {
	r := ready{server.URL(), server.IMDSURL(""), sim.Groups(), server.Listeners(), server.Env()}
	if o.json {
		return json.NewEncoder(out).Encode(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ELBv2 on %s (pages at %s/_elbsim/)\nIMDSv2 on %s\n", r.API, r.API, r.IMDS)
	for _, l := range r.Listeners {
		fmt.Fprintf(&b, "load balancer %s: %s on %s\n", l.LoadBalancer, l.Protocol, l.Address)
	}
	for _, name := range slices.Sorted(maps.Keys(r.TargetGroups)) {
		fmt.Fprintf(&b, "target group %s: %s\n", name, r.TargetGroups[name])
	}
	for _, v := range r.Env {
		fmt.Fprintf(&b, "export %s\n", v)
	}
	b.WriteString("ready\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// printer prints each call, as JSON or for people.
func (o *options) printer(out io.Writer) func(elbsim.Call) {
	lines := make(chan struct{}, 1) // one line at a time
	return func(c elbsim.Call) {
		lines <- struct{}{}
		defer func() { <-lines }()
		if o.json {
			_ = json.NewEncoder(out).Encode(c)
			return
		}
		var targets []string
		for _, t := range c.Targets {
			targets = append(targets, t.ID+":"+strconv.Itoa(int(t.Port)))
		}
		_, _ = fmt.Fprintf(out, "%s %s %s %s %s\n", c.Time.Format("15:04:05.000"), c.Action, strings.Join(c.Groups, ","), strings.Join(targets, ","), c.Outcome)
	}
}
