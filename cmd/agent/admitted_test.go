package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/pkg/config"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

// Whose HEALTHCHECK fails after it has been registered stays registered over a restart of the agent, whatever its group
// has been called since, and by which of its keys the ledger knows it.
func TestAdmittedOf(t *testing.T) {
	const arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web-prod/0123456789abcdef"
	entry := func(id, key, boot string, phase registrar.Phase) registrar.Entry {
		return registrar.Entry{
			Group: registrar.Group{Key: key}, Facts: registrar.GroupFacts{ARN: arn, Name: "web-prod"},
			Run: target.Run{ID: id}, Phase: phase, BootID: boot,
		}
	}
	got := admittedOf(
		[]registrar.Entry{
			entry("a", "web", "now", registrar.Registered),
			entry("b", "web", "now", registrar.Intended),
			entry("c", "web", "before", registrar.Registered),
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
