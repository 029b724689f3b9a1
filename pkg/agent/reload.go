package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"berth/pkg/config"
	"berth/pkg/registrar"
)

// Reload reads the configuration again and makes it the present one, or changes nothing and says why. When it returns
// nil, discovery has published what the new configuration wants. Reloads come one at a time.
func (a *Core) Reload(ctx context.Context) error {
	_, err := a.reload(ctx)
	return err
}

// reload is Reload, and returns which groups are emptied by it.
func (a *Core) reload(ctx context.Context) ([]registrar.Emptied, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	seen, _ := a.registrar.Snapshot()
	before := registrarGroups(a.settings.Load().Config)
	err := a.takeSettings(ctx)
	if err != nil {
		a.reloadErr.Store(&err)
		a.log.Error("configuration refused, the old one stays", zap.Error(err))
		return nil, err
	}
	a.reloadErr.Store(nil)
	emptied := seen.Emptied(before, registrarGroups(a.settings.Load().Config))
	for _, g := range emptied {
		a.log.Warn("the new configuration empties a target group", zap.String("target_group", cmp.Or(g.Name, g.ARN)),
			zap.Int("targets", g.Targets), zap.Strings("until_accepted_for", g.Until))
	}
	a.log.Info("configuration reloaded", zap.Uint64("generation", a.settings.Load().generation), zap.Int("target_groups", len(a.settings.Load().Groups)))
	return emptied, nil
}

func (a *Core) takeSettings(ctx context.Context) error {
	if a.o.Read == nil {
		return errors.New("there is no configuration to read again")
	}
	cfg, err := a.o.Read()
	if err != nil {
		return err
	}
	old := a.settings.Load()
	if err := config.CheckReload(old.Config, cfg); err != nil {
		return err
	}
	if err := a.o.Level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return fmt.Errorf("log.level: %w", err)
	}
	last := *old
	last.before = nil
	next := &settings{Config: cfg, generation: old.generation + 1, before: &last}
	a.settings.Store(next)
	// Whoever asked may be gone by now; half a reload would be worse than one that nobody waits for.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := a.watcher.Reconfigure(ctx, next.generation, discoveryRules(cfg)); err != nil {
		return fmt.Errorf("hand the configuration to discovery: %w", err)
	}
	return nil
}
