// Package crash kills the berth program at random instants while containers come and go on a real engine.
package crash

import (
	"flag"
	"testing"

	"berth/test/rig"
)

// lanes are rigs side by side on one engine. They wait most of the time, so that there are more of them than processors.
const lanes = 6

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	rig.Main(m)
}
