package aws

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/test/rig"
)

const region = "eu-central-1"

// host is one host in fake time: an engine, an account, and the agent's two halves put together as cmd/agent does it.
type host struct {
	*testing.T
	engine *enginetest.Engine
	sim    *elbsim.Sim
	watch  *discovery.Watcher
	reg    *registrar.Registrar
	logs   *observer.ObservedLogs
}

// inFakeTime runs f on a host whose configuration names these groups, all of which take labelled containers.
func inFakeTime(t *testing.T, account elbsim.Config, groups []elb.Group, prepare func(*elbsim.Sim), f func(*host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		account.Instance.ID = rig.Instance
		account.Region = cmp.Or(account.Region, region)
		h := &host{T: t, engine: enginetest.New(), sim: elbsim.New(account)}
		prepare(h.sim)
		core, logs := observer.New(zap.InfoLevel)
		h.logs = logs
		api := elb.NewAPI(configOf(h.sim))
		h.reg = registrar.New(func(context.Context) (elb.API, elb.Self, error) {
			return api, elb.Self{InstanceID: rig.Instance, Region: h.sim.Region(), VPC: "vpc-0123456789abcdef0"}, nil
		}, ledger.NewMemory(), registrar.Options{BootID: "boot", Log: zap.New(core)})
		var rules []discovery.Rule
		for _, g := range groups {
			rules = append(rules, discovery.Rule{Group: g.Key})
		}
		publish := func(s *discovery.Snapshot) {
			h.reg.Apply(registrar.Desired{
				Seq: s.Seq, Generation: s.Generation, Groups: groups, Wants: s.Wants, Allotted: s.Allotted, Unknown: s.Unknown,
			})
		}
		var err error
		if h.watch, err = discovery.New(h.engine, noDrains{}, publish, discovery.Options{Rules: rules, BootID: "boot"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var parts sync.WaitGroup
		parts.Go(func() { _ = h.watch.Run(ctx) }) // ends with ctx alone
		parts.Go(func() { _ = h.reg.Run(ctx) })
		defer func() { cancel(); parts.Wait() }()
		f(h)
	})
}

// configOf is a configuration of the SDK that reaches a Sim without sockets.
func configOf(sim *elbsim.Sim) awssdk.Config {
	return awssdk.Config{
		Region: sim.Region(), HTTPClient: &http.Client{Transport: sim.TransportFor(rig.Instance)},
		Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", ""),
	}
}

// noDrains is a store of drains that keeps none.
type noDrains struct{}

func (noDrains) Load() ([]discovery.Drain, error) { return nil, nil }
func (noDrains) Save([]discovery.Drain) error     { return nil }

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
	s, _ := h.reg.Snapshot()
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
