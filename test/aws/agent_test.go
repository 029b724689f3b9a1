package aws

import (
	"cmp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/elbsim"
	"berth/pkg/agent"
	"berth/pkg/config"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/registrar"
	"berth/test/agenttest"
	"berth/test/rig"
)

const region = "eu-central-1"

// host is one host in fake time: an engine, an account, and the agent's core between them.
type host struct {
	*testing.T
	engine *enginetest.Engine
	sim    *elbsim.Sim
	agent  *agent.Core
	logs   *observer.ObservedLogs
}

// inFakeTime runs f on a host whose configuration names these groups, all of which take labelled containers.
func inFakeTime(t *testing.T, account elbsim.Config, groups []config.Group, prepare func(*elbsim.Sim), f func(*host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		account.Instance.ID = rig.Instance
		account.Region = cmp.Or(account.Region, region)
		h := &host{T: t, engine: enginetest.New(), sim: elbsim.New(account)}
		prepare(h.sim)
		core, logs := observer.New(zap.InfoLevel)
		h.logs = logs
		o := agenttest.Disconnected(h.engine, h.sim, groups...)
		o.Log = zap.New(core)
		var stop func() error
		var err error
		if h.agent, stop, err = agenttest.RunCore(o); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := stop(); err != nil {
				t.Errorf("agent: %v", err)
			}
		}()
		f(h)
	})
}

// after lets fake time pass, and everything settle.
func (h *host) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// run starts a container that asks for these groups.
func (h *host) run(groups ...string) string {
	return h.engine.Run(enginetest.Spec{Name: "web", Ports: []string{"8080"}, Labels: map[string]string{rig.Label: strings.Join(groups, ",")}})
}

// group returns the state of the group that a key names.
func (h *host) group(key string) registrar.GroupStatus {
	h.Helper()
	s, _ := h.agent.Groups()
	for _, g := range s.Groups {
		for _, k := range g.Keys {
			if k == key {
				return g
			}
		}
	}
	h.Fatalf("no status of group %q in %+v", key, s)
	return registrar.GroupStatus{}
}

// said returns the errors of the log, each with what it says to change.
func (h *host) said() []string {
	var out []string
	for _, e := range h.logs.All() {
		if e.Level < zap.ErrorLevel {
			continue
		}
		fields := e.ContextMap()
		change, _ := fields["change"].(string)
		err, _ := fields["error"].(string)
		out = append(out, e.Message+": "+err+" ("+change+")")
	}
	return out
}
