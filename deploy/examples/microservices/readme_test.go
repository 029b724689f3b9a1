// Package microservices_test runs the commands of the example's README.
package microservices_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// block is one fenced block of a README.
type block struct {
	info, text string
}

func blocksOf(t *testing.T, markdown string) []block {
	t.Helper()
	var out []block
	var current *block
	for line := range strings.Lines(markdown) {
		info, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && current == nil:
			current = &block{info: info}
		case fence:
			out = append(out, *current)
			current = nil
		case current != nil:
			current.text += line
		}
	}
	if current != nil {
		t.Fatal("a block of the README does not end")
	}
	return out
}

// freePorts finds ports for all of these, in the same order, so that the test is in nobody's way and what is sorted
// stays sorted.
func freePorts(t *testing.T, wanted ...int) map[string]string {
	t.Helper()
	var free []int
	for range wanted {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all are held until the last is found
		free = append(free, l.Addr().(*net.TCPAddr).Port)
	}
	slices.Sort(wanted)
	slices.Sort(free)
	out := map[string]string{}
	for i, port := range wanted {
		out[strconv.Itoa(port)] = strconv.Itoa(free[i])
	}
	return out
}

func need(t *testing.T, command string) bool {
	t.Helper()
	if _, err := exec.LookPath(command); err == nil {
		return true
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no %s command", command)
	}
	return false
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The commands of the README run as they stand, in one shell, and print what it says that they print. Only ports and
// the place of what they write are others.
func TestREADME(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and serves")
	}
	if !need(t, "curl") {
		t.Skip("no curl command")
	}
	withCLI := need(t, "aws")
	top, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "account.yaml")
	changes := []string{"deploy/examples/microservices/account.yaml", file, "bin/", dir + "/"}
	back := []string{}
	for port, free := range freePorts(t, 4566, 1338, 8080, 9000, 9001, 9002, 9003, 9004) {
		for _, before := range []string{":", "Port=", "port: "} {
			changes = append(changes, before+port, before+free)
		}
		back = append(back, free, port)
	}
	there, here := strings.NewReplacer(changes...), strings.NewReplacer(back...)
	if err := os.WriteFile(file, []byte(there.Replace(readFile(t, "account.yaml"))), 0o600); err != nil {
		t.Fatal(err)
	}

	const marker = "@@@ the next block"
	script := strings.Builder{}
	var want []string
	skipped := false
	for _, b := range blocksOf(t, readFile(t, "README.md")) {
		switch {
		case b.info == "sh" || b.info == "sh aws" && withCLI:
			skipped = false
			fmt.Fprintf(&script, "echo %q\n%s", marker, there.Replace(b.text))
			want = append(want, "")
		case b.info == "sh aws":
			skipped = true
		case b.info == "text" && !skipped:
			want[len(want)-1] = b.text
		case b.info != "text":
			t.Errorf("a block of kind %q is not run", b.info)
		}
	}

	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script.String())
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(5*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err = cmd.Wait()
	limit.Stop()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what a failed script left; most times nothing is there
	if err != nil {
		t.Fatalf("the README's commands: %v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	parts := strings.Split(here.Replace(stdout.String()), marker+"\n")[1:]
	if diff := cmp.Diff(want, parts); diff != "" {
		t.Errorf("what the README's commands print, block by block (-want +got):\n%s", diff)
	}
}
