package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"berth/internal/elbsim"
)

func documentation(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/elbsim.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks are the fenced blocks of one kind.
func blocks(markdown, kind string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(markdown, -1) {
		out = append(out, m[1])
	}
	return out
}

// Every flag has its line, with its default where that says something.
func TestDocs_flags(t *testing.T) {
	text := documentation(t)
	command(&bytes.Buffer{}).Flags().VisitAll(func(f *pflag.Flag) {
		line := ""
		for l := range strings.Lines(text) {
			if strings.HasPrefix(l, "|") && strings.Contains(l, "`--"+f.Name+"`") {
				line = l
			}
		}
		if line == "" {
			t.Errorf("--%s: not in the table of flags", f.Name)
		}
		if strings.HasSuffix(f.DefValue, "s") && f.DefValue != "0s" && !strings.Contains(line, f.DefValue) {
			t.Errorf("--%s: default %s is not in %q", f.Name, f.DefValue, line)
		}
	})
}

// The file of the documentation has every key, and is a valid one.
func TestDocs_file(t *testing.T) {
	text := blocks(documentation(t), "yaml")[0]
	f, err := elbsim.ParseFile("docs/elbsim.md", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Populate(elbsim.New(f.Config)); err != nil {
		t.Error(err)
	}
	schema, err := os.ReadFile("../../internal/elbsim/fileschema.go")
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile("yaml:\"([a-z_]+)\"").FindAllStringSubmatch(string(schema), -1)
	if len(keys) < 40 {
		t.Fatalf("found %d keys in the schema", len(keys))
	}
	for _, m := range keys {
		if !regexp.MustCompile(`[ {\-]` + m[1] + `:`).MatchString(" " + strings.ReplaceAll(text, "\n", "\n ")) {
			t.Errorf("key %s is not in the documentation's file", m[1])
		}
	}
}

// The commands of the documentation run in the order in which they stand, against a program built of this tree; only
// the ports are others.
func TestDocs_commands(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and serves")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no curl command")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "elbsim"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	script := strings.Join(blocks(documentation(t), "sh"), "\n")
	for before, after := range map[string]string{
		"--listen 127.0.0.1:4566": "--listen 127.0.0.1:0", "--imds 127.0.0.1:1338": "--imds 127.0.0.1:0", "web=127.0.0.1:8080": "web=127.0.0.1:0",
		"pages=http://127.0.0.1:4566/": "pages=$AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2/",
	} {
		if !strings.Contains(script, before) {
			t.Errorf("%q is not in the documentation's commands", before)
		}
		script = strings.ReplaceAll(script, before, after)
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(2*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	limit.Stop()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what a failed script left; most times nothing is there
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"<RegisterTargetsResult>", "Elb.RegistrationInProgress", `"action": "RegisterTargets"`, `"latency": "50ms"`, `"id": "f-3"`, `"kind": "late"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the commands did not print %s:\n%s", want, out.String())
		}
	}
}
