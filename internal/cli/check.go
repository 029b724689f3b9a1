package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"berth/pkg/client"
	"berth/pkg/config"
	"berth/pkg/discovery"
	"berth/pkg/discovery/docker"
	"berth/pkg/host"
	"berth/pkg/registrar"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
)

// checkTime bounds one thing that is looked at, so that one that hangs does not hide the others.
const checkTime = 8 * time.Second

// grade is how something stands.
type grade string

const (
	gradeOK   grade = "ok"
	gradeWarn grade = "warn" // it works, or may work, and somebody should know
	gradeFail grade = "fail" // something will not work until it is changed
	gradeSkip grade = "skip" // it could not be looked at, because of what failed before
)

// finding is one line of `berth check`.
type finding struct {
	Name   string `json:"name"`
	Grade  grade  `json:"grade"`
	Detail string `json:"detail"`
	Change string `json:"change,omitempty"`
}

// checkCommand is `berth check`.
type checkCommand struct {
	env     *environment
	offline bool
	asJSON  bool

	findings []finding
}

func newCheckCommand(env *environment) *cobra.Command {
	c := &checkCommand{env: env}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look whether everything is there that the agent needs",
		Long: `Looks at the configuration, Docker, the instance metadata service, credentials, each target group, the clock, the
ledger, the systemd units and the running agent, changes nothing, and says for each in one line how it stands and what
to do about it. With --offline it reads the configuration alone: for a build that has neither AWS nor Docker.

Exit codes: 0 nothing fails (there may be warnings); 1 something fails; 2 the configuration is wrong.`,
		Example: `  berth check
  berth check --offline --config ./berth.yaml`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return coded(c.run(cmd))
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().BoolVar(&c.offline, "offline", false, "read the configuration and nothing else")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON")
	return cmd
}

func (c *checkCommand) add(name string, g grade, detail, change string) {
	f := finding{Name: name, Grade: g, Detail: status.Plain(detail), Change: status.Plain(change)}
	c.findings = append(c.findings, f)
	if !c.asJSON {
		f.print(c.env.stdout, displayOf(c.env.stdout, c.env.getenv))
	}
}

// print writes one line, and the change under it.
func (f *finding) print(w io.Writer, show display) {
	state := map[grade]string{gradeOK: string(status.Healthy), gradeWarn: string(status.Initial), gradeFail: string(status.Refused), gradeSkip: string(status.Ignored)}
	t := &table{w: w, show: show}
	t.printf("[%s] ", t.paint(state[f.Grade], fmt.Sprintf("%-4s", f.Grade)))
	t.hanging(f.Name+": "+f.Detail, "       ")
	if f.Change != "" {
		t.printf("       ")
		t.hanging("→ "+f.Change, "         ")
	}
}

func (c *checkCommand) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	cfg, err := loadConfig(cmd.Flags(), c.env)
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			c.add("configuration", gradeFail, line, "")
		}
		return c.conclude(exitUsage)
	}
	c.add("configuration", gradeOK, fmt.Sprintf("%d target groups, from %s", len(cfg.Groups), sourcesOf(cfg)), "")
	if c.offline {
		return c.conclude(exitFailure)
	}
	for _, look := range []func(context.Context, *config.Config){c.docker, c.aws, c.ledger, c.systemd, c.agent} {
		if look(ctx, cfg); ctx.Err() != nil {
			return exit(exitFailure, errors.New("interrupted"))
		}
	}
	return c.conclude(exitFailure)
}

func sourcesOf(cfg *config.Config) string {
	if len(cfg.Files) == 0 {
		return "flags and variables"
	}
	return strings.Join(cfg.Files, ", ")
}

// conclude prints what is printed at the end, and returns the command's error: with this code where something fails.
func (c *checkCommand) conclude(code int) error {
	counts := map[grade]int{}
	for _, f := range c.findings {
		counts[f.Grade]++
	}
	if c.asJSON {
		enc := json.NewEncoder(c.env.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(struct {
			OK     bool      `json:"ok"`
			Checks []finding `json:"checks"`
		}{counts[gradeFail] == 0, c.findings}); err != nil {
			return fmt.Errorf("print the checks: %w", err)
		}
	} else {
		fmt.Fprintf(c.env.stdout, "%d ok, %d warnings, %d failures\n", counts[gradeOK], counts[gradeWarn], counts[gradeFail])
	}
	if counts[gradeFail] > 0 {
		return &exitError{code: code}
	}
	return nil
}

func (c *checkCommand) docker(ctx context.Context, cfg *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	engine, err := docker.New("unix://" + cfg.Docker.Socket)
	if err != nil {
		c.add("docker", gradeFail, err.Error(), "")
		return
	}
	defer engine.Close()
	info, err := engine.Ping(ctx)
	var explained *discovery.EngineError
	switch {
	case errors.As(err, &explained):
		c.add("docker", gradeFail, explained.Host+": "+explained.Why, explained.Change)
	case err != nil:
		c.add("docker", gradeFail, err.Error(), "see: systemctl status docker")
	default:
		c.add("docker", gradeOK, fmt.Sprintf("%s %s answers on %s (API %s)", info.Name, info.Version, cfg.Docker.Socket, info.APIVersion), "")
	}
}

// identity asks the metadata service who this host is.
func (c *checkCommand) identity(ctx context.Context, cfg *config.Config) (host.Identity, bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	metadata, err := host.MetadataConfig(ctx)
	if err != nil {
		c.add("identity", gradeFail, err.Error(), "correct the AWS configuration of the agent's user")
		return host.Identity{}, false
	}
	n := host.New(zap.NewNop(), host.Options{Override: host.Override{InstanceID: cfg.InstanceID, Region: cfg.Region}, AWS: metadata})
	id, err := n.Identity(ctx)
	if err != nil {
		detail, change := err.Error(), "set instance_id and region"
		if s, _ := n.Snapshot(); s.Waiting != "" {
			detail, change = s.Waiting, s.Change+"; where there is no such service, set instance_id and region"
		}
		c.add("identity", gradeFail, detail, change)
		return host.Identity{}, false
	}
	detail := id.InstanceID + " in " + id.Region
	if !id.Verified {
		c.add("identity", gradeWarn, detail+", as configured; the instance metadata service does not confirm it", "never set instance_id in a machine image")
		return id, true
	}
	c.add("identity", gradeOK, detail+", says the instance metadata service", "")
	return id, true
}

func (c *checkCommand) ledger(_ context.Context, cfg *config.Config) {
	ledger, err := ledger.Peek(cfg.StateDir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.add("ledger", gradeWarn, err.Error(), "run this as root, or as the agent's user")
	case err != nil:
		c.add("ledger", gradeFail, err.Error(), "see docs/operations.md: what to do when the ledger is lost")
	default:
		if _, err := os.Stat(cfg.StateDir); err != nil {
			c.add("ledger", gradeWarn, err.Error(), "berth.service makes it; without systemd: mkdir -p "+cfg.StateDir)
			return
		}
		c.add("ledger", gradeOK, fmt.Sprintf("%d targets are on record in %s", len(ledger.Entries()), cfg.StateDir), "")
	}
}

// units are those of the package, and what each is there for.
var units = []struct{ name, change string }{
	{"berth.service", "start the agent with the host: systemctl enable --now berth"},
	{"berth-boot.service", "without it the targets of an earlier boot stay until the agent is up, and Docker may give their ports to others: systemctl enable berth-boot"},
	{"berth-drain.service", "without it the host's targets are not taken out before it shuts down: systemctl enable berth-drain"},
}

func (c *checkCommand) systemd(ctx context.Context, _ *config.Config) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		c.add("systemd", gradeSkip, "this system does not run systemd", "")
		return
	}
	c.units(ctx)
}

// units looks at those of the package.
func (c *checkCommand) units(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	for _, u := range units {
		out, _ := exec.CommandContext(ctx, "systemctl", "is-enabled", u.name).Output() // anything but enabled is a failure to it
		state := strings.TrimSpace(string(out))
		switch state {
		case "enabled", "enabled-runtime", "static", "alias":
			c.add(u.name, gradeOK, "it is "+state, "")
		case "":
			c.add(u.name, gradeWarn, "it is not installed", u.change)
		default:
			c.add(u.name, gradeWarn, "it is "+state, u.change)
		}
	}
}

// agent says how the running agent does, in its own words.
func (c *checkCommand) agent(ctx context.Context, cfg *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	api := client.New(cfg.ControlSocket, cfg.StatusListen)
	defer api.Close()
	s, err := api.Status(ctx, client.StatusQuery{})
	if err != nil {
		c.add("agent", gradeWarn, err.Error(), "")
		c.add("iam", gradeSkip, "whether RegisterTargets and DeregisterTargets are allowed is known when the agent has called them", "")
		return
	}
	c.writes(&s)
	c.add("agent", gradeOK, "berth "+s.Agent.Version+": "+s.Summary(), "")
	untried := map[string]bool{} // a host of many groups takes a while at the start: that is no failure
	for i := range s.Groups {
		untried["target_group "+s.Groups[i].Label()] = s.Groups[i].Untried()
	}
	for _, check := range s.Readiness.Checks {
		if check.OK {
			continue
		}
		g := gradeWarn
		if check.Blocks && !untried[check.Name] {
			g = gradeFail
		}
		c.add("agent", g, check.Name+": "+check.Detail, check.Change)
	}
}

// writes says whether the agent's calls that change something are allowed: trying one here would change something.
func (c *checkCommand) writes(s *status.V1) {
	registered := 0
	for i := range s.Groups {
		if s.Groups[i].State == registrar.StateDenied {
			return // it is among what the agent says itself
		}
		registered += s.Groups[i].Counts.Registered
	}
	if registered == 0 {
		c.add("iam", gradeSkip, "whether RegisterTargets and DeregisterTargets are allowed is known when the agent has called them", "")
		return
	}
	c.add("iam", gradeOK, fmt.Sprintf("the agent's calls are allowed: %d targets are registered", registered), "")
}
