package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/config"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
)

// Whose HEALTHCHECK fails after it has been registered stays registered over a restart of the agent, whatever its group
// has been called since, and by which of its keys the ledger knows it.
func TestAdmittedOf(t *testing.T) {
	const arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web-prod/0123456789abcdef"
	entry := func(id, key, boot string, phase ledger.Phase) ledger.Entry {
		return ledger.Entry{
			Group: elb.Group{Key: key}, Facts: elb.Facts{ARN: arn, Name: "web-prod"},
			Run: target.Run{ID: id}, Phase: phase, BootID: boot,
		}
	}
	got := admittedOf(
		[]ledger.Entry{
			entry("a", "web", "now", ledger.Registered),
			entry("b", "web", "now", ledger.Intended),
			entry("c", "web", "before", ledger.Registered),
		},
		[]config.Group{
			{Key: "by-arn", ARN: arn},
			{Key: "by-name", Name: "web-prod"},
			{Key: "web", Name: "made-anew"},
			{Key: "other", Name: "api-prod"},
			{Key: "other-arn", ARN: arn + "0", Name: "web-prod"},
		}, "now")
	a := []target.Run{{ID: "a"}}
	if diff := cmp.Diff(map[string][]target.Run{"by-arn": a, "by-name": a, "web": a}, got); diff != "" {
		t.Errorf("admitted (-want +got):\n%s", diff)
	}
}
