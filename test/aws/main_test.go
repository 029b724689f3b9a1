// Package aws shows how the agent does with AWS as it is: rights that are missing, groups that are wrong, calls that fail,
// are throttled or take effect late; in fake time where that is enough, else with the berth program on a real engine.
//
//	agent_test.go    the agent's core in fake time
//	iam_test.go      the shipped IAM policy: all of it is needed, and it is enough
//	idle_test.go     what a host where nothing happens costs
//	refused_test.go  what a person has to mend, and whether they are told
//	faults_test.go   one call in five fails, on a real engine
//	way_test.go      endpoints, proxies, certificates, the metadata service's addresses
package aws

import (
	"testing"

	"berth/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
