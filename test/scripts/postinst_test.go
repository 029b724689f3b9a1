package scripts

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPostinst runs the package's script as dpkg does, on a root of its own, with a systemctl that says what it is asked.
// A start or restart that fails fails no installation: dpkg would leave the package half-configured.
func TestPostinst(t *testing.T) {
	const configured = "target_groups:\n  web: {}\n"
	for name, c := range map[string]struct {
		args   string
		config string
		down   bool   // systemd does not run
		fails  string // what systemctl is asked that fails
		calls  string
		says   string
	}{
		"an upgrade restarts":              {"configure 1.0", configured, false, "", "daemon-reload, --quiet is-active berth.service, restart berth.service", ""},
		"an upgrade that does not start":   {"configure 1.0", configured, false, "restart berth.service", "daemon-reload, --quiet is-active berth.service, restart berth.service", "systemctl status berth; berth check"},
		"an upgrade of a stopped agent":    {"configure 1.0", configured, false, "--quiet is-active berth.service", "daemon-reload, --quiet is-active berth.service", ""},
		"an upgrade without systemd":       {"configure 1.0", configured, true, "", "", ""},
		"installed on a configured host":   {"configure", configured, false, "", "daemon-reload, --quiet enable berth.service, start berth.service", ""},
		"a first start that fails":         {"configure", configured, false, "start berth.service", "daemon-reload, --quiet enable berth.service, start berth.service", ""},
		"installed without configuration":  {"configure", "#target_groups:\n", false, "", "daemon-reload", "no target group is configured yet"},
		"an upgrade that dpkg has aborted": {"abort-upgrade 2.0", configured, false, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			script, err := os.ReadFile("../../deploy/deb/postinst.sh")
			if err != nil {
				t.Fatal(err)
			}
			put := func(path, content string) {
				t.Helper()
				path = filepath.Join(root, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755)); err != nil { //nolint:gosec // programs of this test
					t.Fatal(err)
				}
			}
			put("postinst", strings.NewReplacer("/etc/", root+"/etc/", "/run/", root+"/run/", "/var/", root+"/var/").Replace(string(script)))
			put("etc/berth/berth.yaml", c.config)
			if !c.down {
				put("run/systemd/system/any", "")
			}
			put("bin/systemd-sysusers", "#!/bin/sh\n")
			for _, program := range []string{"bin/systemctl", "bin/deb-systemd-invoke"} {
				put(program, "#!/bin/sh\necho \"$*\" >>\"$ROOT/calls\"\n[ \"$*\" != \"$FAILS\" ]\n")
			}
			cmd := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(root, "postinst")}, strings.Fields(c.args)...)...) //nolint:gosec // the package's own
			cmd.Env = []string{"PATH=" + filepath.Join(root, "bin") + ":/usr/bin:/bin", "ROOT=" + root, "FAILS=" + c.fails}
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Run(); err != nil {
				t.Errorf("postinst %s: %v\n%s", c.args, err, said.String())
			}
			if !strings.Contains(said.String(), c.says) || (c.says == "" && said.Len() > 0) {
				t.Errorf("it said %q; want %q", said.String(), c.says)
			}
			calls, err := os.ReadFile(filepath.Join(root, "calls"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.calls, strings.ReplaceAll(strings.TrimSpace(string(calls)), "\n", ", ")); diff != "" {
				t.Errorf("asked of systemd (-want +got):\n%s", diff)
			}
		})
	}
}
