package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/pkg/config"
)

// unit reads a unit file: the values of each directive, in order.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			found[key] = append(found[key], strings.Fields(value)...)
		}
	}
	return found
}

// What each unit must say for boot, shutdown and restarts to come in the right order; systemd itself looks at the rest.
func TestUnits(t *testing.T) {
	for name, directives := range map[string]map[string]string{
		"berth.service": {
			"Type": "notify", "User": "berth", "SupplementaryGroups": "docker", "StateDirectory": "berth", "RuntimeDirectory": "berth",
			"Restart": "on-failure", "RestartSec": "10", "StartLimitIntervalSec": "0", "ExecStart": "/usr/bin/berth run",
			"ExecReload": "/usr/bin/berth reload", "WatchdogSec": "30", "SyslogLevel": "err",
		},
		"berth-boot.service":  {"Type": "oneshot", "User": "berth", "TimeoutStartSec": "15", "SyslogLevel": "err"},
		"berth-drain.service": {"Type": "oneshot", "User": "berth", "RemainAfterExit": "yes", "RefuseManualStop": "yes", "ExecStop": "/usr/bin/berth shutdown-drain", "SyslogLevel": "err"},
	} {
		u := unit(t, name)
		for key, want := range directives {
			if got := strings.Join(u[key], " "); got != want {
				t.Errorf("%s: %s=%s; want %s", name, key, got, want)
			}
		}
		// What a unit has to do hangs on the configuration, which systemd does not read: it is skipped for nothing.
		for key := range u {
			if strings.HasPrefix(key, "Condition") || strings.HasPrefix(key, "Assert") {
				t.Errorf("%s: %s=%s can skip it without a word", name, key, strings.Join(u[key], " "))
			}
		}
		// Nothing stronger than an order towards Docker: a Docker that somebody stopped stays stopped, and one that restarts
		// takes nothing with it.
		for _, strong := range []string{"Wants", "Requires", "Requisite", "BindsTo", "PartOf", "Upholds"} {
			if slices.Contains(u[strong], "docker.service") || slices.Contains(u[strong], "docker.socket") {
				t.Errorf("%s: %s=%v names Docker", name, strong, u[strong])
			}
		}
	}
	ordered := func(name, key string, units ...string) {
		t.Helper()
		for _, other := range units {
			if u := unit(t, name); !slices.Contains(u[key], other) {
				t.Errorf("%s: %s=%v lacks %s", name, key, u[key], other)
			}
		}
	}
	ordered("berth.service", "After", "docker.service", "network-online.target")
	ordered("berth-boot.service", "Before", "docker.service", "berth.service")
	// What is started after another is stopped before it.
	ordered("berth-drain.service", "After", "berth.service", "docker.service", "network-online.target")

	stop, err := time.ParseDuration(unit(t, "berth-drain.service")["TimeoutStopSec"][0] + "s")
	if err != nil {
		t.Fatal(err)
	}
	if drain := config.Default().Drain; stop <= drain.MaxWait || stop <= drain.ShutdownMaxWait {
		t.Errorf("berth-drain.service: TimeoutStopSec is %v; want more than drain.max_wait (%v) and drain.shutdown_max_wait (%v)", stop, drain.MaxWait, drain.ShutdownMaxWait)
	}
}

// systemd finds nothing to complain about, and berth.service exposed 1.5 at most.
func TestUnits_systemdAnalyze(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: scripts/need.sh systemd-analyze", err)
		}
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), "scripts/units.sh")
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("scripts/units.sh: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "Overall exposure level") {
		t.Errorf("scripts/units.sh said %q; want the exposure", out)
	}
	t.Logf("%s", out)
}
