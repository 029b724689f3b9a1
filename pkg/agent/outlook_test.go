package agent_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/discovery"
	"berth/pkg/discovery/enginetest"
	"berth/test/agenttest"
)

// mute is a way to the metadata service that answers once it may.
type mute struct {
	answers chan struct{}
	to      http.RoundTripper
}

func (m mute) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-m.answers:
		return m.to.RoundTrip(r)
	default:
		return nil, errors.New("no answer")
	}
}

// Whatever changes what the service manager is told has a channel that says so: nobody looks without.
func TestAgent_outlook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := elbsim.New(elbsim.Config{})
		if _, err := sim.AddGroup(elbsim.Group{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		// Long enough for what is waited for to be seen.
		if _, err := sim.AddFault(elbsim.Fault{Kind: elbsim.FaultLatency, Delay: elbsim.Duration(time.Second)}); err != nil {
			t.Fatal(err)
		}
		engine, network := enginetest.New(), agenttest.NewNetwork()
		engine.Down()
		o := agenttest.Memory(engine, sim, agenttest.Group("web"))
		o.Listeners = network.Listen
		answers := make(chan struct{})
		o.AWS.Transport = mute{answers, o.AWS.Transport}
		a := agenttest.StartOn(t, network.Dial, o)

		// told waits until one of the channels has news and the line holds part.
		told := func(part string, of ...string) {
			t.Helper()
			for end := time.Now().Add(time.Minute); ; {
				_, line, _, news := a.Outlook()
				if strings.Contains(line, part) {
					return
				}
				heard := time.After(time.Until(end))
				select {
				case <-news[of[0]]:
				case <-news[of[len(of)-1]]:
				case <-heard:
					t.Fatalf("%v told of nothing, and the line is %q; want %q", of, line, part)
				}
			}
		}
		told("docker: not reached yet: ping docker", "stream")
		told("identity: the instance metadata service does not answer", "host")
		if _, _, counts, _ := a.Outlook(); !counts {
			t.Error("a line that says for how long is taken for one that does not change")
		}
		engine.Up()
		told("0 targets in 1 group, waiting for identity", "docker", "stream")
		close(answers)
		told("waiting for target_group web", "host", "aws")
		for end := time.Now().Add(time.Minute); !a.Readiness().Ready && time.Now().Before(end); time.Sleep(time.Second) {
		}
		if _, line, counts, _ := a.Outlook(); line != "0 targets in 1 group" || counts {
			t.Errorf("the line is %q, and counts: %v; want that all is well", line, counts)
		}
		_, _, _, news := a.Outlook()
		engine.Run(enginetest.Spec{Name: "web-1", Labels: map[string]string{discovery.TargetsLabel: "web"}, Ports: []string{"8080"}})
		for _, of := range []string{"docker", "aws"} {
			select {
			case <-news[of]:
			case <-time.After(time.Minute):
				t.Errorf("%s told of nothing when a container was registered", of)
			}
		}
	})
}
