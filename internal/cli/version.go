package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"berth/pkg/status"
)

// versionV1 is what `berth version --json` prints.
type versionV1 struct {
	status.Build
	Date     string `json:"date,omitempty"`
	Platform string `json:"platform"`
}

// info says what runs: what the linker was told, else what the toolchain wrote into the binary.
func (told Build) info() status.Build {
	b := status.Build{Version: told.Version, Revision: told.Revision, GoVersion: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = cmp.Or(b.Revision, s.Value[:min(12, len(s.Value))])
			}
		}
	}
	return b
}

func newVersionCommand(env *environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print what this is",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			v := versionV1{Build: env.build.info(), Date: env.build.Date, Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if asJSON {
				return coded(json.NewEncoder(env.stdout).Encode(v))
			}
			_, err := fmt.Fprintln(env.stdout, v.line())
			return coded(err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// line is the version for people: "berth 1.2.3 (revision 0123abc of 2026-11-22T10:00:00Z, go1.26.8, linux/amd64)".
func (v versionV1) line() string {
	from := ""
	if v.Revision != "" {
		from = "revision " + v.Revision
		if v.Date != "" {
			from += " of " + v.Date
		}
		from += ", "
	}
	return fmt.Sprintf("berth %s (%s%s, %s)", v.Version, from, v.GoVersion, v.Platform)
}
