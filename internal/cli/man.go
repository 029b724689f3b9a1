package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand returns `berth man`, by which the package's build writes its man pages.
func newManCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the man pages into a directory",
		Hidden: true, // it is the package's
		Long: `Writes a man page for every command into the directory, which is made if it is not there. They are dated with
SOURCE_DATE_EPOCH, or with the day on which the command was built: the same build gives the same pages.`,
		Args: needArgs("a directory", 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return exit(exitFailure, fmt.Errorf("write man pages: %w", err))
			}
			header := &doc.GenManHeader{Section: "8", Source: "berth " + env.build.Version, Manual: "Berth"}
			if at, err := time.Parse(time.RFC3339, env.build.Date); err == nil && env.getenv("SOURCE_DATE_EPOCH") == "" {
				header.Date = &at
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return exit(exitFailure, fmt.Errorf("write man pages: %w", err))
			}
			return nil
		},
	}
}
