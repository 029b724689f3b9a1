package agent_test

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"

	"berth/pkg/client"
)

// A configuration that is bad, or names no group, changes nothing, and log, status and metric say so until a good one
// comes.
func TestReload_refusedIsSaid(t *testing.T) {
	c := newControlled(t)
	file := c.Config.Files[0]
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ yaml, why string }{
		"bad":   {strings.Replace(string(good), "web: {}", "web: {nonsense: 1}", 1), "target_groups.web.nonsense: unknown key"},
		"empty": {"", "no target group"},
		"gone":  {"-", "cannot be read"},
	} {
		if tt.yaml == "-" {
			err = os.Remove(file)
		} else {
			err = os.WriteFile(file, []byte(tt.yaml), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		logged := c.Log.FilterMessage("configuration refused, the old one stays").Len()
		_, err := c.Client.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: got %v; want %q", name, err, tt.why)
		}
		if n := c.Log.FilterMessage("configuration refused, the old one stays").Len() - logged; n != 1 {
			t.Errorf("%s: logged %d times; want once", name, n)
		}
		c.saysOfReload(t, name, "0", true)
	}
	if n := c.Generation(); n != 1 {
		t.Errorf("generation %d; want 1", n)
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Client.Reload(t.Context()); err != nil || v.Generation != 2 {
		t.Errorf("a good one: %+v, %v", v, err)
	}
	c.saysOfReload(t, "good", "1", false)
	if c.Log.FilterMessage("configuration reloaded").FilterField(zap.Uint64("generation", 2)).Len() != 1 {
		t.Error("the log does not say that it was reloaded")
	}
}

// saysOfReload compares what metric and status say of the last reload.
func (c *controlled) saysOfReload(t *testing.T, name, metric string, warned bool) {
	t.Helper()
	gathered, err := c.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	for _, family := range gathered {
		if family.GetName() == "berth_config_last_reload_successful" {
			found = map[float64]string{0: "0", 1: "1"}[family.GetMetric()[0].GetGauge().GetValue()]
		}
	}
	if found != metric {
		t.Errorf("%s: the metric is %q; want %q", name, found, metric)
	}
	s, err := c.Client.Status(t.Context(), client.StatusQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Contains(s.Readiness.Text(), "[warn] configuration: the last reload was refused"); got != warned {
		t.Errorf("%s: the status warns: %v; want %v:\n%s", name, got, warned, s.Readiness.Text())
	}
	if !s.Readiness.Ready {
		t.Errorf("%s: it is not ready", name)
	}
}
