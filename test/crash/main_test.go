// Package crash kills the berth program at random instants while containers come and go on a real engine.
package crash

import (
	"testing"

	"berth/test/rig"
)

// lanes are rigs side by side on one engine.
const lanes = rig.Abreast

func TestMain(m *testing.M) { rig.Main(m) }
