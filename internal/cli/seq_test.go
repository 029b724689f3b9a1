package cli

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"berth/pkg/client"
	"berth/pkg/status"
	"berth/test/agenttest"
)

// Commands hold a Seq while the agent is restarted: the next agent has acted on what it stands for at once, not after as
// many publications as the one before.
func TestAgent_seqGoesOn(t *testing.T) {
	agenttest.Account(t, "web")
	dir := t.TempDir()
	api := client.New(filepath.Join(dir, "b.sock"), "")
	defer api.Close()
	agent := startRun(t, dir, nil)
	var last uint64
	for range 3 { // each is published
		drained, err := api.Drain(t.Context(), status.DrainRequestV1{Host: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.Undrain(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if drained.Seq <= last {
			t.Fatalf("drained at seq %d after %d; want more", drained.Seq, last)
		}
		last = drained.Seq
	}
	code, out, stderr := runCommand(t.Context(), map[string]string{"BERTH_CONTROL_SOCKET": filepath.Join(dir, "b.sock")}, "drain", "--all", "--json")
	var result struct{ Drains []drainResult }
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 || result.Drains[0].Seq <= last {
		t.Fatalf("drain --all: %d, %s, %s, %v; want a seq above %d", code, out, stderr, err, last)
	}
	agent.end(t)
	defer startRun(t, dir, nil).end(t)
	for {
		s, err := api.Status(t.Context(), client.StatusQuery{})
		if err == nil && s.Seq > 0 {
			if s.Seq < result.Drains[0].Seq || s.Seq >= 1<<53 {
				t.Errorf("the next agent begins with seq %d; want at least %d, that a JSON number can hold", s.Seq, result.Drains[0].Seq)
			}
			return
		}
		time.Sleep(10 * time.Millisecond) // it has not published yet
	}
}
