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
	t.Parallel() // with TestMutants
	lives, wrong := 0, false
	rapid.Check(t, func(rt *rapid.T) {
		actions, seed := drawActions(rt), rapid.Uint64().Draw(rt, "seed")
		var problems, log []string
		synctest.Test(t, func(*testing.T) { problems, log = play(actions, seed) })
		lives++
		if len(problems) > 0 {
			if !wrong { // what follows is rapid's, who looks for a shorter one; but no life is quite like another
				t.Logf("wrong in life %d: %s", lives, problems[0])
				wrong = true
			}
			rt.Fatalf("%s\nafter:\n%s", strings.Join(problems, "\n"), strings.Join(log, "\n"))
		}
	})
}
