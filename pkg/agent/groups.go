package agent

// What one generation of the configuration means to discovery and to the registrar.

import (
	"cmp"

	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// settings is one generation of the configuration: what its groups are to discovery and to the registrar.
type settings struct {
	*config.Config
	generation uint64
	before     *settings // the one that it replaces: the watcher may still publish what that one wants
}

// of returns the settings of a generation, nil where that is long gone.
func (s *settings) of(generation uint64) *settings {
	if s.generation != generation && s.before != nil {
		s = s.before
	}
	if s.generation != generation {
		return nil
	}
	return s
}

// registrarGroups is the registrar's half of the configured groups.
func registrarGroups(cfg *config.Config) []elb.Group {
	out := make([]elb.Group, len(cfg.Groups))
	for i, g := range cfg.Groups {
		out[i] = elb.Group{Key: g.Key, Name: g.Name, ARN: g.ARN, Ownership: elb.Ownership(g.Ownership), Source: g.Source}
	}
	return out
}

// discoveryRules is discovery's half of the configured groups.
func discoveryRules(cfg *config.Config) []discovery.Rule {
	out := make([]discovery.Rule, len(cfg.Groups))
	for i, g := range cfg.Groups {
		out[i] = discovery.Rule{
			Group: g.Key, Name: cmp.Or(g.ARN, g.Name), Port: g.ContainerPort, Healthy: g.RegisterWhen == config.WhenHealthy,
			DeregisterUnhealthy: g.DeregisterWhenUnhealthy, StopSignals: g.StopSignals, NoLabels: !g.Labels,
		}
		if c := g.Containers; c != nil {
			out[i].Match = &discovery.Match{Labels: c.Labels, Image: c.Image, Name: c.Name}
		}
	}
	return out
}

// admittedOf returns which runs have been registered in this boot, by the keys of the configuration that mean their groups:
// the ledger's own key may have been renamed since, or be one of two. A boot that is not known counts as this one: the run
// itself says whether it is over.
func admittedOf(entries []ledger.Entry, groups []config.Group, bootID string) map[string][]target.Run {
	admitted := map[string][]target.Run{}
	for i := range entries {
		e := &entries[i]
		if e.BootID != bootID || e.Phase != ledger.Registered {
			continue
		}
		for _, g := range groups {
			if g.Key == e.Group.Key || g.ARN == e.Facts.ARN || g.ARN == "" && g.Name == e.Facts.Name {
				admitted[g.Key] = append(admitted[g.Key], e.Run)
			}
		}
	}
	return admitted
}
