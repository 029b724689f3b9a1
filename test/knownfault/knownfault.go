// Package knownfault marks tests of what should hold and does not hold yet. Such a test asserts the right behaviour, so it
// fails until its fault is mended, and is skipped until then. Whoever mends the fault removes the mark: `make known-faults`
// runs the marked tests all the same, and reports each that passes.
package knownfault

import (
	"os"
	"testing"
)

// Variable is the environment variable that has marked tests run: any value but the empty one does.
const Variable = "BERTH_KNOWN_FAULTS"

// Skip skips t unless Variable is set. It stands first in a top-level test. Both arguments are literals: fault is the
// fault's number ("3", "access-1") or, where it has none, its name ("refused-call"); wrong says what goes wrong today, as a
// clause without a full stop.
func Skip(t testing.TB, fault, wrong string) {
	t.Helper()
	if !Asked() {
		t.Skipf("known fault %s: %s", fault, wrong)
	}
}

// Asked reports whether marked tests run.
func Asked() bool { return os.Getenv(Variable) != "" }
