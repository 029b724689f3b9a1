package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/statedir"
	"berth/pkg/config"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
	"berth/pkg/target"
)

// ledgerV1 is one line of `berth ledger --json`.
type ledgerV1 struct {
	ARN       string        `json:"arn"`
	Name      string        `json:"name,omitempty"` // the group's, in AWS
	Target    target.Target `json:"target"`
	Container string        `json:"container,omitempty"`
	Phase     ledger.Phase  `json:"phase"`
	Boot      string        `json:"boot_id,omitempty"`
	Intended  time.Time     `json:"intended"`
}

func newLedgerCommand(env *environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Print what this host has registered, from its ledger on disk",
		Long: `Prints each target that this host has registered or may have, as the ledger on disk has it: without asking AWS or
Docker, and whether or not an agent runs. Targets that were deregistered are left out. Nothing is printed where nothing
is registered.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := stateDir(cmd.Flags(), env)
			kept, err := ledger.Peek(dir)
			if err != nil {
				return exit(exitFailure, statedir.Advise(dir, err))
			}
			lines := []ledgerV1{}
			for _, e := range kept.Entries() {
				if e.Phase == ledger.Removing {
					continue
				}
				lines = append(lines, ledgerV1{
					ARN: e.ARN(), Name: e.Facts.Name, Target: e.Target, Container: e.Run.Name, Phase: e.Phase, Boot: e.BootID, Intended: e.Intended,
				})
			}
			return exit(exitFailure, printLedger(env, lines, asJSON))
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// stateDir is where the agent's state is, also where the configuration is wrong or not there: what is registered does
// not depend on it.
func stateDir(flags *pflag.FlagSet, env *environment) string {
	cfg, err := loadConfig(flags, env)
	if err == nil {
		return cfg.StateDir
	}
	given, _ := flags.GetString("state-dir") // a flag that is not there is not given
	return cmp.Or(given, unconfiguredStateDir(env))
}

// unconfiguredStateDir is the state's directory as far as flags and files do not say otherwise.
func unconfiguredStateDir(env *environment) string {
	return cmp.Or(env.getenv("BERTH_STATE_DIR"), env.getenv("STATE_DIRECTORY"), config.Default().StateDir)
}

func printLedger(env *environment, lines []ledgerV1, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(env.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(lines)
	}
	table := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		fmt.Fprintf(table, "%s\t%s\t%s\n", l.Target, status.Plain(l.ARN), status.Plain(l.Container))
	}
	return table.Flush()
}
