package contract

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// berth is the program under test.
var berth string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of a test's time is the agent's waiting for looks at the load balancer: more than one a processor can run.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8")
	}
	os.Exit(run(m))
}

// run builds the program once, as packages have it: static, without a version.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "berth-contract-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "contract:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	berth = filepath.Join(dir, "berth")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", berth, "berth/cmd/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "contract: build berth: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
