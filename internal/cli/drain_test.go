package cli

import (
	"testing"

	"berth/pkg/discovery"
	"berth/pkg/status"
)

// Whatever still drains is said with how it ends.
func TestStillDrained(t *testing.T) {
	for want, d := range map[string]status.DrainV1{
		"still drained under the name web-1: berth undrain web-1":                                    {Name: "web-1", Container: "c0ffee", Cause: discovery.CauseOperator, Hold: "keep"},
		"still drained: berth stop of ann holds it, and lets go when it ends":                        {Container: "c0ffee", Cause: discovery.CauseOperator, By: "ann", Reason: "berth stop", Hold: "connection"},
		"still drained: a command of somebody holds it, and lets go when it ends":                    {Cause: discovery.CauseOperator, Hold: "connection"},
		"still drained: it was told to stop, and is let in when it is started anew or outlives that": {Container: "c0ffee", Cause: discovery.CauseStopSignal, Hold: "run"},
		"still drained with the whole host (operator): berth undrain --all":                          {Cause: discovery.CauseOperator, Hold: "keep"},
		"still drained with the whole host (shutdown): berth undrain --all":                          {Cause: discovery.CauseShutdown, Hold: "keep"},
		"still drained: spot holds the host, and ends by itself":                                     {Cause: discovery.CauseSpot, Hold: "keep"},
	} {
		if got := stillDrained(&d); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}
