package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/client"
	"berth/pkg/config"
	"berth/pkg/status"
)

// completeTime is how long a shell waits for names at most: whoever presses Tab does not want to.
const completeTime = 2 * time.Second

// completion completes from what the running agent knows. Without an agent there is nothing to offer, and no error: a
// completion has nobody to tell.
func completion(env *environment, names func(*status.V1) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		flags := agentFlags{}
		flags.config, _ = cmd.Flags().GetString("config")
		flags.socket, _ = cmd.Flags().GetString("control-socket")
		flags.statusListen, _ = cmd.Flags().GetString("status-listen")
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		api := flags.client(env.getenv)
		defer api.Close()
		s, err := api.Status(ctx, client.StatusQuery{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found := slices.DeleteFunc(names(&s), func(name string) bool {
			return !strings.HasPrefix(name, toComplete) || slices.Contains(args, name)
		})
		slices.Sort(found)
		return slices.Compact(found), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeContainers completes the names of containers that the agent knows.
func completeContainers(env *environment) cobra.CompletionFunc {
	return completion(env, func(s *status.V1) []string {
		var names []string
		for i := range s.Rows {
			if name := s.Rows[i].Run.Name; name != "" {
				names = append(names, name)
			}
		}
		return names
	})
}

// completeGroups completes the keys of target groups.
func completeGroups(env *environment) cobra.CompletionFunc {
	return completion(env, func(s *status.V1) []string {
		var keys []string
		for i := range s.Groups {
			keys = append(keys, s.Groups[i].Keys...)
		}
		return keys
	})
}

// dockerSocket is where the configuration says that the engine listens.
func (f *agentFlags) dockerSocket(getenv func(string) string) string {
	cfg, err := config.Load(config.Options{ConfigPath: f.config, Getenv: getenv})
	if err != nil {
		cfg = config.Default()
		if s := getenv("BERTH_DOCKER_SOCKET"); s != "" {
			cfg.Docker.Socket = s
		}
	}
	return cfg.Docker.Socket
}
