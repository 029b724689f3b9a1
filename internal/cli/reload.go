package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"berth/pkg/client"
	"berth/pkg/status"
)

func newReloadCommand(env *environment) *cobra.Command {
	var agent agentFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the agent read its configuration again",
		Long: `Has the running agent read its configuration again, and says what came of it. It takes all of it over or nothing: with
an error in it, without any target group, or with a change that needs a restart, the configuration before it stays in
force. A target group that is gone from it has its targets deregistered; one whose key alone changed gets no call. A key that
names another group keeps its targets in the one before until the other is found and has accepted them. Groups that are
emptied are named.

Exit codes: 0 it is in force; 2 it was refused, and why; 5 the agent does not answer.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return coded(reload(cmd.Context(), env, &agent, asJSON))
		},
	}
	agent.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func reload(ctx context.Context, env *environment, agent *agentFlags, asJSON bool) error {
	api := agent.client(env.getenv)
	defer api.Close()
	v, err := api.Reload(ctx)
	var refused *client.APIError
	if errors.As(err, &refused) && refused.Status == http.StatusUnprocessableEntity {
		return exit(exitUsage, fmt.Errorf("the configuration was refused, the one before it stays in force:\n%s", refused.Message))
	}
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(env.stdout).Encode(v)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration %d is in force: %s\n", v.Generation, strings.Join(v.Keys, ", "))
	for _, g := range v.Emptied {
		what := fmt.Sprintf("%d targets", g.Targets)
		if g.Targets == 1 {
			what = "1 target"
		}
		when := "leaves at once"
		if len(g.Until) > 0 {
			when = fmt.Sprintf("stays until the group that %s names now has accepted it", strings.Join(g.Until, ", "))
		}
		fmt.Fprintf(&b, "target group %s is not named any more: what this host has in it (%s) %s\n", status.Plain(cmp.Or(g.Name, g.ARN)), what, when)
	}
	_, err = io.WriteString(env.stdout, b.String())
	return err
}
