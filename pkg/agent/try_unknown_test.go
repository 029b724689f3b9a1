package agent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"berth/internal/elbsim"
	"berth/pkg/agent"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/registrar"
	"berth/test/agenttest"
)

// What is planned while Docker has not answered for a container says nothing of that one: it is not complete.
func TestCore_Try_containerNotKnown(t *testing.T) {
	for name, tt := range map[string]struct {
		answers, patience time.Duration
		complete          bool
		pending           int
	}{
		"answers late": {20 * time.Second, time.Minute, true, 1},
		"does not":     {time.Hour, time.Minute, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := elbsim.New(elbsim.Config{})
				if _, err := sim.AddGroup(elbsim.Group{Name: "web"}); err != nil {
					t.Fatal(err)
				}
				engine := enginetest.New()
				id := engine.Run(enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
				time.AfterFunc(tt.answers, engine.HangInspect(id))
				o := agenttest.Disconnected(engine, sim, agenttest.Group("web"))
				o.DryRun, o.Log = true, zap.NewNop()
				core, err := agent.NewCore(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				err = core.Try(t.Context(), tt.patience, func(_ context.Context, s *registrar.Snapshot, complete bool) error {
					if complete != tt.complete || len(s.Groups) != 1 || len(s.Groups[0].Pending) != tt.pending {
						t.Errorf("complete: %v, groups %+v; want %v and %d to do", complete, s.Groups, tt.complete, tt.pending)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				time.Sleep(2 * time.Hour) // so that the container is let go
			})
		})
	}
}
