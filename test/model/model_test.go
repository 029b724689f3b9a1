package model

import (
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestModel plays random lives. -rapid.checks says how many.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		actions, seed := drawActions(rt), rapid.Uint64().Draw(rt, "seed")
		var problems, log []string
		synctest.Test(t, func(*testing.T) { problems, log = play(actions, seed) })
		if len(problems) > 0 {
			rt.Fatalf("%s\nafter:\n%s", strings.Join(problems, "\n"), strings.Join(log, "\n"))
		}
	})
}
