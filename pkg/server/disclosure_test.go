package server

import (
	"strings"
	"testing"

	"berth/pkg/registrar"
	"berth/pkg/status/statustest"
	"berth/test/knownfault"
)

// denial is what AWS says of a call that a policy does not allow. It names account, role and session.
const denial = "RegisterTargets of arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123: AccessDenied: " +
	"User: arn:aws:sts::123456789012:assumed-role/prod-web/i-0123 is not authorized"

// denied publishes a host that may not register.
func (a *agent) denied() {
	a.well()
	g := statustest.Group()
	g.State, g.Err = registrar.StateDenied, denial
	g.Change = "allow elasticloadbalancing:RegisterTargets"
	a.reg.Set(statustest.Registrar(g))
}

// The ports say in Berth's own words what is wrong: the key, the operation, AWS's code, what to do. AWS's own text is for the
// log and the control socket.
func TestHandlers_readyzSaysNothingOfAWS(t *testing.T) {
	knownfault.Skip(t, "access-2", "/readyz shows account, role and ARN in what AWS said")
	var a agent
	a.denied()
	body := get(t, unserved(t, &a).MonitoringHandler(), "/readyz").Body.String()
	for _, secret := range []string{"prod-web", "123456789012", "arn:aws"} {
		if strings.Contains(body, secret) {
			t.Errorf("/readyz shows %s:\n%s", secret, body)
		}
	}
	for _, said := range []string{"web", "RegisterTargets", "AccessDenied", "allow elasticloadbalancing:RegisterTargets"} {
		if !strings.Contains(body, said) {
			t.Errorf("/readyz does not say %s:\n%s", said, body)
		}
	}
}

func TestHandlers_statusPortSaysNothingOfAWS(t *testing.T) {
	knownfault.Skip(t, "access-2", "the status port shows the role in what AWS said")
	var a agent
	a.denied()
	s := unserved(t, &a)
	for _, path := range []string{"/v1/status", "/"} {
		if body := get(t, s.StatusHandler(), path).Body.String(); strings.Contains(body, "prod-web") || !strings.Contains(body, "AccessDenied") {
			t.Errorf("%s shows the role, or not what AWS refused:\n%s", path, body)
		}
	}
	if body := get(t, s.controlHandler(), "/v1/status").Body.String(); !strings.Contains(body, "prod-web") {
		t.Errorf("the control socket does not show what AWS said:\n%s", body)
	}
}
