package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"berth/pkg/client"
)

func newReloadCommand(env *environment) *cobra.Command {
	var agent agentFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the agent read its configuration again",
		Long: `Has the running agent read its configuration again, and says what came of it. It takes all of it over or nothing: with
an error in it, without any target group, or with a change that needs a restart, the configuration before it stays in
force. A target group that is gone from it has its targets deregistered; one whose key alone changed gets no call.

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
	_, err = fmt.Fprintf(env.stdout, "configuration %d is in force: %s\n", v.Generation, strings.Join(v.Keys, ", "))
	return err
}
