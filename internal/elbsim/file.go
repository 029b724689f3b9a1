package elbsim

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"berth/internal/elbsim/iam"
	"berth/internal/elbsim/limits"
	"berth/internal/elbsim/wire"
	"berth/pkg/target"
)

// fieldError is an error about one key of what was given: "listeners[0].rules[2].forward".
type fieldError struct {
	field string
	err   error
}

// Error returns the key and what is wrong with it.
func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }

// Unwrap returns what is wrong with it.
func (e *fieldError) Unwrap() error { return e.err }

// at says that an error is about a key. Keys of nested errors are joined.
func at(field string, err error) error {
	if err == nil {
		return nil
	}
	var inner *fieldError
	if errors.As(err, &inner) {
		return &fieldError{field + "." + inner.field, inner.err}
	}
	return &fieldError{field, err}
}

// File is a configuration file: an account with instances, target groups and load balancers. docs/elbsim.md describes
// its keys.
type File struct {
	// Config is what the file says about the account. It may be changed before New.
	Config Config
	// Listen are the addresses that the file gives; empty where it gives none.
	Listen Listen

	path string
	tree *ast.File
	doc  fileDoc
}

// LoadFile reads a configuration file. Errors name file, line and key: "account.yaml:12: target_groups[0].port: …".
func LoadFile(path string) (*File, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return ParseFile(path, raw)
}

// ParseFile is LoadFile on what was read already; path is for errors and for the files that it names.
func ParseFile(path string, raw []byte) (*File, error) {
	f := &File{path: path}
	var err error
	if f.tree, err = parser.ParseBytes(raw, 0); err != nil {
		return nil, f.yamlError(err)
	}
	if len(bytes.TrimSpace(raw)) > 0 {
		if err := yaml.UnmarshalWithOptions(raw, &f.doc, yaml.Strict()); err != nil {
			return nil, f.yamlError(err)
		}
	}
	if err := f.configure(); err != nil {
		return nil, f.located(err)
	}
	return f, nil
}

// yamlError gives a syntax or type error the shape of all others.
func (f *File) yamlError(err error) error {
	var located yaml.Error
	if errors.As(err, &located) && located.GetToken() != nil {
		return fmt.Errorf("%s:%d: %s", f.path, located.GetToken().Position.Line, located.GetMessage())
	}
	return fmt.Errorf("%s: %w", f.path, err)
}

// located puts file and line of the key in front of an error about a key.
func (f *File) located(err error) error {
	var field *fieldError
	if !errors.As(err, &field) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return fmt.Errorf("%s:%d: %w", f.path, f.line(field.field), field)
}

// line returns the line of a key, or of the nearest one around it that is there.
func (f *File) line(field string) int {
	for field != "" {
		if p, err := yaml.PathString("$." + field); err == nil {
			if n, err := p.FilterFile(f.tree); err == nil && n != nil && n.GetToken() != nil {
				return n.GetToken().Position.Line
			}
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			break
		}
		field = field[:cut]
	}
	return 1
}

// configure turns the part of the file that is about the account into Config.
func (f *File) configure() error {
	d, c := &f.doc, &f.Config
	lags := DefaultLags()
	err := errors.Join(
		duration("latency", d.Latency, &c.Latency),
		duration("lags.register", d.Lags.Register, &lags.Register),
		duration("lags.deregister", d.Lags.Deregister, &lags.Deregister),
		duration("lags.describe", d.Lags.Describe, &lags.Describe),
	)
	if err != nil {
		return err
	}
	c.Region, c.Account, c.AnyInstance, c.AutoAttach, c.Lags = d.Region, d.Account, d.AnyInstance, d.AutoAttach, &lags
	c.Quotas = Quotas(d.Quotas)
	c.Unverified = Unverified(d.Unverified)
	if d.Throttling.Enabled {
		c.Throttling = limits.Default()
		c.Throttling.RejectedTakes, c.Throttling.Code = d.Throttling.RejectedTakes, d.Throttling.Code
		for _, b := range []struct {
			to   *limits.Bucket
			from *fileBucket
		}{{&c.Throttling.Register, d.Throttling.Register}, {&c.Throttling.Describe, d.Throttling.Describe}, {&c.Throttling.All, d.Throttling.All}} {
			if b.from != nil {
				*b.to = limits.Bucket(*b.from)
			}
		}
	}
	if d.Policy != "" {
		file := d.Policy
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(f.path), file)
		}
		if c.Policy, err = iam.Load(file); err != nil {
			return at("policy", err)
		}
	}
	f.Listen.API = d.Listen
	for i, inst := range d.Instances {
		if inst.IMDS != "" {
			if f.Listen.IMDS == nil {
				f.Listen.IMDS = map[string]string{}
			}
			f.Listen.IMDS[inst.ID] = inst.IMDS
		}
		if err := CheckInstanceID(inst.ID); err != nil {
			return at(fmt.Sprintf("instances[%d].id", i), err)
		}
		if inst.State != "" && !slices.Contains(instanceStates, inst.State) {
			return at(fmt.Sprintf("instances[%d].state", i), fmt.Errorf("%q: must be one of %v", inst.State, instanceStates))
		}
	}
	if len(d.Instances) > 0 {
		c.Instance = d.Instances[0].spec()
	}
	return nil
}

func duration(field, text string, to *time.Duration) error {
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return at(field, fmt.Errorf("%q: must be a duration like 1.5s or 300ms, not negative", text))
	}
	*to = d
	return nil
}

// Populate adds what the file describes to a Sim made of its Config.
func (f *File) Populate(s *Sim) error {
	if err := f.populate(s); err != nil {
		return f.located(err)
	}
	return nil
}

func (f *File) populate(s *Sim) error {
	for i, inst := range f.doc.Instances[min(1, len(f.doc.Instances)):] {
		if err := s.AddInstance(inst.spec()); err != nil {
			return at(fmt.Sprintf("instances[%d]", i+1), err)
		}
	}
	for i, g := range f.doc.Groups {
		if err := g.add(s); err != nil {
			return at(fmt.Sprintf("target_groups[%d]", i), err)
		}
	}
	for i, b := range f.doc.Balancers {
		spec, err := b.spec()
		if err == nil {
			_, err = s.AddLoadBalancer(spec)
		}
		if err != nil {
			return at(fmt.Sprintf("load_balancers[%d]", i), err)
		}
	}
	for i, g := range f.doc.Groups {
		for j, t := range g.Targets {
			if err := t.add(s, g); err != nil {
				return at(fmt.Sprintf("target_groups[%d].targets[%d]", i, j), err)
			}
		}
	}
	for path, value := range f.doc.Metadata {
		if err := s.SetMetadata("", path, value); err != nil {
			return at("metadata", err)
		}
	}
	return nil
}

func (g *fileGroup) add(s *Sim) error {
	spec := Group{
		Name: g.Name, Protocol: g.Protocol, Type: g.Type, VPC: g.VPC, IPAddressType: g.IPAddressType, Tags: g.Tags,
		Detached: true, // until a load balancer of the file uses it
		HealthCheck: HealthCheck{
			Protocol: g.HealthCheck.Protocol, Port: g.HealthCheck.Port, Path: g.HealthCheck.Path, Codes: g.HealthCheck.Codes,
			Healthy: g.HealthCheck.HealthyThreshold, Unhealthy: g.HealthCheck.UnhealthyThreshold,
		},
	}
	if g.Port != 0 {
		port, err := target.CheckPort(g.Port)
		if err != nil {
			return at("port", err)
		}
		spec.Port = port
	}
	err := errors.Join(
		duration("health_check.interval", g.HealthCheck.Interval, &spec.HealthCheck.Interval),
		duration("health_check.timeout", g.HealthCheck.Timeout, &spec.HealthCheck.Timeout),
		duration("deregistration_delay", g.DeregistrationDelay, &spec.DeregistrationDelay),
	)
	if err != nil {
		return err
	}
	if g.DeregistrationDelay != "" && spec.DeregistrationDelay == 0 {
		spec.DeregistrationDelay = -1 // none, where 0 is the default
	}
	_, err = s.AddGroup(spec)
	var apiErr *wire.Error
	if errors.As(err, &apiErr) && apiErr.Field != "" {
		return at(apiErr.Field, errors.New(apiErr.Message))
	}
	return err
}

func (t *fileTarget) add(s *Sim, g fileGroup) error {
	key := target.Target{ID: t.ID}
	if port := cmp.Or(t.Port, g.Port); port != 0 {
		checked, err := target.CheckPort(port)
		if err != nil {
			return at("port", err)
		}
		key.Port = checked
	}
	return s.Register(g.Name, key)
}

func (b *fileBalancer) spec() (LoadBalancer, error) {
	spec := LoadBalancer{Name: b.Name, Type: b.Type}
	if err := duration("idle_timeout", b.IdleTimeout, &spec.IdleTimeout); err != nil {
		return spec, err
	}
	for i, l := range b.Listeners {
		if l.Address == "" {
			return spec, at(fmt.Sprintf("listeners[%d].address", i), errors.New("missing: must be host:port"))
		}
		listener := Listener{Address: l.Address, Protocol: l.Protocol, Default: l.Default.action()}
		for _, r := range l.Rules {
			action := fileAction{r.Forward, r.Weighted, r.Fixed}
			listener.Rules = append(listener.Rules, Rule{
				Priority: r.Priority, Action: action.action(),
				Conditions: Conditions{PathPattern: r.PathPattern, HostHeader: r.HostHeader, Method: r.Method, Header: r.Header, SourceIP: r.SourceIP},
			})
		}
		spec.Listeners = append(spec.Listeners, listener)
	}
	return spec, nil
}

func (a *fileAction) action() Action {
	var out Action
	if a.Forward != "" {
		out = ForwardTo(a.Forward)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Weighted)) {
		out.Forward = append(out.Forward, Weighted{name, a.Weighted[name]})
	}
	if a.Fixed != nil {
		out.Fixed = &FixedResponse{a.Fixed.Status, a.Fixed.ContentType, a.Fixed.Body}
	}
	return out
}
