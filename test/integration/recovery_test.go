package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/elbsim"
	"berth/test/harness"
	"berth/test/rig"
)

// notReady waits until the agent answers and says that it waits for that.
func notReady(t *testing.T, agent *rig.Agent, what string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "an agent that waits for "+what, func() error {
		status, err := agent.TryStatus(t)
		if err != nil {
			return err
		}
		if status.Readiness.Ready {
			t.Fatalf("berth is ready without %s", what)
		}
		if waiting := status.Readiness.Waiting(); !strings.Contains(waiting, what) {
			return fmt.Errorf("it waits for: %s", waiting)
		}
		return nil
	})
}

// ready waits until the agent is ready.
func ready(t *testing.T, agent *rig.Agent) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "a ready agent", func() error {
		if status := agent.Status(t); !status.Readiness.Ready {
			return fmt.Errorf("it waits for: %s", status.Readiness.Waiting())
		}
		return nil
	})
}

// logged waits until the agent's log holds the text so many times, for it is read a little later than what it tells of is
// seen, and returns how many times it does.
func logged(t *testing.T, agent *rig.Agent, text string, least int) int {
	t.Helper()
	var n int
	harness.Eventually(t, harness.Patience, fmt.Sprintf("%q in the log", text), func() error {
		if n = strings.Count(agent.Log(), text); n < least {
			return fmt.Errorf("%d times; want %d at least:\n%s", n, least, agent.Log())
		}
		return nil
	})
	return n
}

func TestStart_metadataSilent(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]elbsim.Fault{
		"hangs":  {Kind: elbsim.FaultHang, Action: "IMDS"},
		"breaks": {Kind: elbsim.FaultReset, Action: "IMDS"},
		"fails":  {Kind: elbsim.FaultError, Action: "IMDS", Status: 503},
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{})
			id, err := r.Sim.AddFault(fault)
			if err != nil {
				t.Fatal(err)
			}
			c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
			agent := r.Start(t)
			notReady(t, agent, "identity")
			if !r.Sim.RemoveFault(id) {
				t.Fatal("the fault is gone")
			}
			r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
			ready(t, agent)
			if got := strings.Count(agent.Log(), "waiting for the instance metadata service"); got != 1 {
				t.Errorf("it is said %d times; want once:\n%s", got, agent.Log())
			}
		})
	}
}

// The instance gets its profile, and with it credentials, after the agent has started.
func TestStart_credentialsLater(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Env: []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}})
	profile := map[string]string{}
	for path, value := range r.Sim.Metadata("") {
		if strings.Contains(path, "/iam/") {
			profile[path] = value
		}
	}
	if len(profile) == 0 {
		t.Fatal("elbsim's instance has no profile to take away")
	}
	for path := range profile {
		if err := r.Sim.DeleteMetadata("", path); err != nil {
			t.Fatal(err)
		}
	}
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	agent := r.Start(t)
	notReady(t, agent, "credentials")
	for path, value := range profile {
		if err := r.Sim.SetMetadata("", path, value); err != nil {
			t.Fatal(err)
		}
	}
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
	ready(t, agent)
}

// A wrong configuration starts nothing: one line says what to change, and nobody is called.
func TestStart_badConfiguration(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	good := r.YAML(nil, "")
	for name, test := range map[string]struct {
		yaml string
		want []string // parts of the one line
	}{
		"unknown key":    {good + "colour: red\n", []string{"berth.yaml:3", "colour"}},
		"wrong type":     {good + "aws: {peers: many}\n", []string{"berth.yaml:3", "aws.peers", "many"}},
		"bad duration":   {good + "drain: {max_wait: soon}\n", []string{"berth.yaml:3", "drain.max_wait", "soon"}},
		"empty rule":     {"target_groups:\n  web:\n    containers: {}\n", []string{"berth.yaml:3", "containers"}},
		"other service":  {"target_groups:\n  web:\n    arn: arn:aws:s3:::bucket\n", []string{"berth.yaml:3", "arn:aws:s3:::bucket"}},
		"no groups":      {"target_groups: {}\n", []string{"berth.yaml", "target_groups"}},
		"nothing at all": {"", []string{"berth.yaml", "target_groups"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.Configure(t, test.yaml)
			agent := r.Start(t)
			if got := agent.Wait(); got != 2 {
				t.Errorf("exit code %d; want 2", got)
			}
			log := strings.TrimSpace(agent.Log())
			for _, want := range test.want {
				if !strings.Contains(log, want) {
					t.Errorf("it says %q; want it to name %s", log, want)
				}
			}
			if strings.Contains(log, "\n") {
				t.Errorf("it says more than one line:\n%s", log)
			}
		})
	}
	if counts := r.Sim.Counts(); len(counts) > 0 {
		t.Errorf("it called %+v; want nobody called", counts)
	}
	if entries, err := os.ReadDir(r.StateDir()); err != nil || len(entries) > 0 {
		t.Errorf("the state directory holds %v (%v); want nothing", entries, err)
	}
	if _, err := os.Stat(filepath.Clean(r.Socket())); err == nil {
		t.Error("there is a control socket")
	}
}

// A second agent on the host is refused, and says who holds the state.
func TestStart_secondAgent(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{})
	first := r.StartReady(t)
	second := r.Start(t)
	if got := second.Wait(); got != 3 {
		t.Errorf("exit code %d; want 3", got)
	}
	if log := second.Log(); !strings.Contains(log, fmt.Sprint(first.PID())) {
		t.Errorf("it says %q; want it to name process %d", log, first.PID())
	}
	c := r.Engine.Run(t, harness.Spec{Labels: r.In("web")})
	r.WaitHealthy(t, "web", rig.TargetsOf(t, c)...)
}
