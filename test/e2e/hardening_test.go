package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// restriction is a directive of berth.service and what the kernel shows of it: a shell command of this host that
// succeeds if it is in force for the process $PID, ends with 77 if that cannot be seen here, and else fails. $INIT is the
// machine's systemd.
type restriction struct{ directive, check string }

// mounted succeeds if what the process sees at exactly this path is a mount whose line in mountinfo matches. Of several
// mounts on one another the last one counts.
func mounted(path, pattern string) string {
	return `awk '$5 == "` + path + `"' /proc/$PID/mountinfo | tail -n 1 | grep -Eq '` + pattern + `'`
}

const readOnly = `^([^ ]+ ){5}ro(,| )`

// other succeeds if the process has a namespace of its own.
func other(namespace string) string {
	return `mine=$(readlink /proc/$PID/ns/` + namespace + `) && test "$mine" != "$(readlink /proc/$INIT/ns/` + namespace + `)"`
}

// fewDevices compares the process's list of devices with that of the machine as a whole. With cgroups of version 2 it is
// a BPF program, of which nothing is to be seen.
const fewDevices = `dir() { sed -n 's/^[0-9]*:devices://p' /proc/$1/cgroup; }
test -n "$(dir $PID)" || exit 77
list=/sys/fs/cgroup/devices$(dir $PID)/devices.list
grep -q '1:3 rw' $list && ! grep -q '10:200' $list && ! grep -q '^a' $list`

var restrictions = []restriction{
	{"CapabilityBoundingSet=", `grep -q '^CapBnd:[[:space:]]*0*$' /proc/$PID/status`},
	{"NoNewPrivileges=", `grep -q '^NoNewPrivs:[[:space:]]*1' /proc/$PID/status`},
	{"ProtectSystem=strict", mounted("/", readOnly)},
	{"StateDirectory=, writable", mounted("/var/lib/berth", `^([^ ]+ ){5}rw`)},
	{"ProtectHome=", mounted("/root", `/inaccessible/`) + " && " + mounted("/home", `/inaccessible/`)},
	{"PrivateTmp=", mounted("/tmp", `/systemd-private-`)},
	{"PrivateDevices=", `ls /proc/$PID/root/dev/null >/dev/null && test ! -e /proc/$PID/root/dev/console && ` + mounted("/dev", readOnly)},
	{"PrivateMounts=", other("mnt")},
	{"ProtectHostname=", other("uts")},
	{"ProtectKernelTunables=", mounted("/proc/sys", readOnly) + " && " + mounted("/proc/kallsyms", `/inaccessible/`)},
	{"ProtectKernelModules=", `test -d /proc/$INIT/root/usr/lib/modules || exit 77; ` + mounted("/usr/lib/modules", `/inaccessible/`)},
	{"ProtectKernelLogs=", mounted("/proc/kmsg", `/inaccessible/`)},
	{"ProtectControlGroups=", mounted("/sys/fs/cgroup", readOnly)},
	{"ProtectProc=invisible", mounted("/proc", `hidepid=(invisible|2)`)},
	{"DevicePolicy=closed", fewDevices},
	{"SupplementaryGroups=docker", `grep '^Groups:' /proc/$PID/status | grep -qw "$(stat -c %g /proc/$INIT/root/run/docker.sock)"`},
	{"UMask=0077", `test "$(stat -c %a /proc/$PID/root/var/lib/berth/ledger.json)" = 600`},
	// Each adds filters of its own: SystemCallFilter=, SystemCallArchitectures=, LockPersonality=, MemoryDenyWriteExecute=,
	// RestrictAddressFamilies=, RestrictNamespaces=, RestrictRealtime=, RestrictSUIDSGID=, ProtectClock=, ProtectHostname=,
	// ProtectKernelLogs=, ProtectKernelModules=. A kernel before 5.9 does not say how many there are.
	{
		"SystemCallFilter= and eleven more that filter system calls",
		`grep -q '^Seccomp:[[:space:]]*2' /proc/$PID/status && { n=$(sed -n 's/^Seccomp_filters:[[:space:]]*//p' /proc/$PID/status); test "${n:-12}" -ge 12; }`,
	},
}

// hardening looks at which of the unit's restrictions are in force in the machine, which is a container with fewer
// rights than a host's systemd has. Those that are not must be in the list of docs/security.md.
func hardening(t *testing.T, w *world) {
	docs, err := os.ReadFile(filepath.Join(root(t), "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(docs), "<!-- not in a container -->")
	list, _, ok := strings.Cut(list, "<!-- end -->")
	if !ok {
		t.Fatal("docs/security.md has no list of what has no effect in a container")
	}
	pid := "" // as this host knows it
	for line := range strings.Lines(sh(t, nil, "docker", "top", w.ID, "-eo", "pid,comm")) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == "berth" {
			pid = f[0]
		}
	}
	if pid == "" {
		t.Fatal("berth does not run in the machine")
	}
	init := sh(t, nil, "docker", "inspect", "--format", "{{.State.Pid}}", w.ID)
	for _, r := range restrictions {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", r.check)
		cmd.Env = append(os.Environ(), "PID="+pid, "INIT="+init)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
			t.Logf("in force: %s", r.directive)
		case errors.As(err, &exit) && exit.ExitCode() == 77:
			t.Logf("cannot be seen here: %s", r.directive)
		case strings.Contains(list, "`"+strings.Fields(r.directive)[0]):
			t.Logf("NOT in force in this container: %s", r.directive)
		default:
			t.Errorf("not in force in the container: %s (%v %s); docs/security.md does not list it", r.directive, err, out)
		}
	}
}
