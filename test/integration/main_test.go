// Package integration shows the whole way on a real Docker engine: the berth program between Docker and the load
// balancers that elbsim plays.
package integration

import (
	"testing"

	"berth/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
