package cli

import (
	"testing"
	"time"

	"github.com/spf13/cobra"

	"berth/pkg/status"
)

// TestLeaveFlags_latest: the flag decides, else the agent's configuration, of which a zero is a zero; the default is for an
// agent that does not say.
func TestLeaveFlags_latest(t *testing.T) {
	begun := time.Now()
	for name, c := range map[string]struct {
		args   []string
		agents string // what the agent says
		want   time.Duration
	}{
		"as configured":          {nil, "5m0s", 5 * time.Minute},
		"configured not to wait": {nil, "0s", 0},
		"an agent without it":    {nil, "", 2 * time.Minute},
		"an agent with nonsense": {nil, "soon", 2 * time.Minute},
		"the flag":               {[]string{"--max-wait", "7s"}, "5m0s", 7 * time.Second},
		"the flag's zero":        {[]string{"--max-wait", "0s"}, "5m0s", 0},
	} {
		var f leaveFlags
		cmd := &cobra.Command{}
		f.add(cmd)
		if err := cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		if got := f.latest(begun, status.DrainedV1{MaxWait: c.agents}).Sub(begun); got != c.want {
			t.Errorf("%s: it waits %s; want %s", name, got, c.want)
		}
	}
}
