package agent

import (
	"testing"
	"testing/synctest"

	"go.uber.org/zap"

	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/registrar/ledger"
	"berth/test/knownfault"
)

// Discovery does not take a new configuration in time. It is not in force then, however often that happens: what discovery
// publishes is of the old one, and is handed on.
func TestReload_discoveryDoesNotTakeIt(t *testing.T) {
	knownfault.Skip(t, "refused-reload", "a configuration that discovery does not take is half in force, and the next cuts discovery off")
	synctest.Test(t, func(t *testing.T) {
		read := func() *config.Config {
			cfg := config.Default()
			cfg.Groups = []config.Group{{Key: "web", Name: "web"}}
			return cfg
		}
		a, err := NewCore(t.Context(), Options{
			Config: read(), Read: func() (*config.Config, error) { return read(), nil }, Log: zap.NewNop(), Level: zap.NewAtomicLevel(),
			Engine: enginetest.New(), Ledger: ledger.NewMemory(),
		})
		if err != nil {
			t.Fatal(err)
		}
		w, err := discovery.New(enginetest.New(), nil, func(*discovery.Snapshot) {}, discovery.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a.watcher = w // its loop does not run
		for i := range 2 {
			if err := a.Reload(t.Context()); err == nil {
				t.Fatal("the configuration was taken")
			}
			if got := a.settings.Load().generation; got != 1 {
				t.Errorf("generation %d is in force after %d reloads that were refused; want 1", got, i+1)
			}
			if a.settings.Load().of(1) == nil {
				t.Errorf("what discovery wants is not handed on after %d reloads that were refused", i+1)
			}
		}
	})
}
