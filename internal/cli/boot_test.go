package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/pkg/config"
	"berth/pkg/host"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// registeredBy fills a state directory and AWS with what another boot of some instance left.
func registeredBy(t *testing.T, dir string, sim *elbsim.Sim, instance, boot, group string, ports ...uint16) {
	t.Helper()
	for _, p := range ports {
		entered(t, dir, instance, boot, sim.GroupARN(group), p)
		if err := sim.Register(group, target.Target{ID: instance, Port: p}); err != nil {
			t.Fatal(err)
		}
	}
}

// entered fills the ledger of a state directory alone.
func entered(t *testing.T, dir, instance, boot, groupARN string, port uint16) {
	t.Helper()
	kept, err := ledger.Open(dir, boot, ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kept.Claim(elb.Self{InstanceID: instance})
	entry := ledger.Entry{
		Facts:  elb.Facts{ARN: groupARN, TargetType: "instance", Protocol: "HTTP"},
		Target: target.Target{ID: instance, Port: port}, Phase: ledger.Registered,
	}
	if err := errors.Join(kept.Intend(context.Background(), []ledger.Entry{entry}), kept.Close()); err != nil {
		t.Fatal(err)
	}
}

func berth(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), args, &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: os.Getenv})
	return code, out.String(), errs.String()
}

func TestBoot(t *testing.T) {
	const other = "i-0fedcba9876543210"
	cases := map[string]struct {
		instance, boot string
		left           int
		stdout         string
		silent         bool // asks AWS nothing
	}{
		"another boot's targets go":         {agenttest.Instance, "before", 0, "deregistered 2 targets", false},
		"this boot's stay":                  {agenttest.Instance, host.BootID(), 2, "nothing is registered from an earlier boot", true},
		"another instance's are none of us": {other, "before", 2, "deregistered 0 targets", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sim := agenttest.Account(t, "web")
			if err := sim.AddInstance(elbsim.Instance{ID: other}); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			registeredBy(t, dir, sim, c.instance, c.boot, "web", 32768, 32769)
			code, stdout, stderr := berth(t, "boot", "--target-group", "web", "--state-dir", dir)
			if code != 0 || !strings.Contains(stdout, c.stdout) {
				t.Errorf("berth boot = %d, %q, %s; want %q", code, stdout, stderr, c.stdout)
			}
			if got := len(sim.Registered("web")); got != c.left {
				t.Errorf("%d targets left; want %d", got, c.left)
			}
			want := []string{"DeregisterTargets"}
			if c.silent {
				want = nil
			}
			if diff := cmp.Diff(want, asked(sim)); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

// asked are the calls so far but those to the metadata service.
func asked(sim *elbsim.Sim) []string {
	var calls []string
	for _, call := range sim.Calls() {
		if call.Action != "IMDS" {
			calls = append(calls, call.Action)
		}
	}
	return calls
}

// outOfReach are ARNs of groups with which no call from this host can do anything.
var outOfReach = []string{"arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/far/0123456789abcdef", "no-arn"}

// TestBoot_outOfReach: a group of another region is left alone, by this as by the agent, and keeps no boot waiting for AWS.
func TestBoot_outOfReach(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, "before", "web", 32768)
	for _, groupARN := range outOfReach {
		entered(t, dir, agenttest.Instance, "before", groupARN, 32769)
	}
	for _, says := range []string{"deregistered 1 targets", "deregistered 0 targets"} {
		code, stdout, stderr := berth(t, "boot", "--target-group", "web", "--state-dir", dir)
		if code != 0 || !strings.Contains(stdout, says) {
			t.Errorf("berth boot = %d, %q, %s; want 0 and %q", code, stdout, stderr, says)
		}
		for _, groupARN := range outOfReach {
			if !strings.Contains(stderr, groupARN) {
				t.Errorf("berth boot said %s; want %s named as left alone", stderr, groupARN)
			}
		}
	}
	if diff := cmp.Diff([]string{"DeregisterTargets"}, asked(sim)); diff != "" {
		t.Errorf("calls of two boots (-want +got):\n%s", diff)
	}
	kept, err := ledger.Peek(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(ledger.Stale(kept.Entries(), "now")); n != len(outOfReach) {
		t.Errorf("the ledger has %d stale entries; want the %d that are left alone", n, len(outOfReach))
	}
}

// TestBoot_notKnown: what cannot be told to be of this boot is of an earlier one.
func TestBoot_notKnown(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, "", "web", 32768)
	cfg := config.Default()
	cfg.StateDir = dir
	var out, errs strings.Builder
	err := boot(t.Context(), cfg, &environment{stdout: &out, stderr: &errs, getenv: os.Getenv}, "")
	if err != nil || !strings.Contains(out.String(), "deregistered 1 targets") || !strings.Contains(errs.String(), "boot id") {
		t.Errorf("boot = %v, %q, %s; want the target removed, and why", err, out.String(), errs.String())
	}
	if got := sim.Registered("web"); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

func TestBoot_nothingThere(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true") // nobody is asked
	if code, stdout, stderr := berth(t, "boot", "--target-group", "web", "--state-dir", filepath.Join(t.TempDir(), "none")); code != 0 {
		t.Errorf("berth boot = %d, %q, %q; want 0 without a ledger", code, stdout, stderr)
	}
}

// TestBoot_unconfigured: the unit runs wherever it is enabled, also on a host that has no configuration yet. AWS and the
// metadata service answer, so that a question to either would be seen.
func TestBoot_unconfigured(t *testing.T) {
	sim := agenttest.Account(t, "web")
	nothing := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(nothing, []byte("# nothing yet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BERTH_STATE_DIR", filepath.Join(t.TempDir(), "none"))
	cases := map[string][]string{"a file that says nothing": {"boot", "--config", nothing}}
	if _, err := os.Stat(filepath.Dir(config.DefaultPath)); errors.Is(err, os.ErrNotExist) { // else it is this machine's own
		cases["no file"] = []string{"boot"}
	}
	for name, args := range cases {
		code, stdout, stderr := berth(t, args...)
		if code != 0 || stdout != "nothing is registered from an earlier boot\n" || strings.Contains(stderr, "wrong") || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%s: berth boot = %d, %q, %q; want 0, and nothing called wrong", name, code, stdout, stderr)
		}
	}
	if calls := sim.Calls(); len(calls) > 0 {
		t.Errorf("it asked %v", calls)
	}
}

// TestBoot_stateDirOfConfiguration: the ledger is where the configuration says, whatever the unit sets.
func TestBoot_stateDirOfConfiguration(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, "before", "web", 32768)
	file := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(file, []byte("state_dir: "+dir+"\ntarget_groups: {web: {}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STATE_DIRECTORY", t.TempDir()) // as the unit sets it
	if code, stdout, stderr := berth(t, "boot", "--config", file); code != 0 || len(sim.Registered("web")) != 0 {
		t.Errorf("berth boot = %d, %q, %q, and %v are left; want none", code, stdout, stderr, sim.Registered("web"))
	}
}

func TestBoot_agentRuns(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, "before", "web", 32768)
	held, err := ledger.Open(dir, "now", ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if code, _, stderr := berth(t, "boot", "--target-group", "web", "--state-dir", dir); code != exitLocked {
		t.Errorf("berth boot = %d, %q; want %d while an agent holds the directory", code, stderr, exitLocked)
	}
	if got := len(sim.Registered("web")); got != 1 {
		t.Errorf("%d targets left; want the agent's", got)
	}
}

// TestBoot_denied: what cannot be removed is said, and left to the agent.
func TestBoot_denied(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, "before", "web", 32768)
	if _, err := sim.AddFault(elbsim.Fault{Kind: elbsim.FaultError, Code: "AccessDenied", Action: "DeregisterTargets"}); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := berth(t, "boot", "--target-group", "web", "--state-dir", dir)
	if code != exitFailure || !strings.Contains(stderr, "AccessDenied") || !strings.Contains(stderr, "the agent removes what is left") {
		t.Errorf("berth boot = %d, %q; want a failure that says why", code, stderr)
	}
	kept, err := ledger.Peek(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(ledger.Stale(kept.Entries(), "now")); n != 1 {
		t.Errorf("the ledger has %d stale entries; want the one that is left", n)
	}
}

// TestBoot_wrongConfiguration: a typo that a reload refused days ago does not leave the targets of an earlier boot in.
func TestBoot_wrongConfiguration(t *testing.T) {
	sim := agenttest.Account(t, "web")
	dir := t.TempDir()
	registeredBy(t, dir, sim, agenttest.Instance, "before", "web", 32768)
	file := filepath.Join(dir, "berth.yaml")
	if err := os.WriteFile(file, []byte("target_group: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := berth(t, "boot", "--config", file, "--state-dir", dir)
	if code != exitUsage || !strings.Contains(stdout, "deregistered 1 targets") || !strings.Contains(stderr, "target_groups") {
		t.Errorf("berth boot = %d, %q, %q; want the target removed, and the typo named", code, stdout, stderr)
	}
	if got := sim.Registered("web"); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}
