package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"berth/pkg/target"
)

// noEnv is an empty environment.
func noEnv(string) string { return "" }

func env(pairs ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(k string) string { return m[k] }
}

// write makes files below a new directory and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const testARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web-prod/0123456789abcdef"

// An address may be off, wherever it is said, and both may.
func TestLoad_listenOff(t *testing.T) {
	dir := write(t, map[string]string{"berth.yaml": "listen: off\nstatus_listen: \"off\"\ntarget_groups: {web: {}}\n", "other.yaml": "target_groups: {web: {}}\n"})
	for name, o := range map[string]Options{
		"file": {ConfigPath: filepath.Join(dir, "berth.yaml"), Getenv: noEnv},
		"flag": {ConfigPath: filepath.Join(dir, "other.yaml"), Getenv: noEnv, Flags: map[string][]string{"listen": {"off"}, "status-listen": {"off"}}},
		"variable": {ConfigPath: filepath.Join(dir, "other.yaml"), Getenv: func(key string) string {
			return map[string]string{"BERTH_LISTEN": "off", "BERTH_STATUS_LISTEN": "off"}[key]
		}},
	} {
		cfg, err := Load(o)
		if err != nil || cfg.Listen != "" || cfg.StatusListen != "" {
			t.Errorf("%s: got %+v, %v; want no address", name, cfg, err)
			continue
		}
		if changes := Changes(Default(), cfg); len(changes) != 2 || changes[0].New != Off || changes[1].New != Off {
			t.Errorf("%s: changes %+v; want both to be off", name, changes)
		}
	}
}

func TestLoad_everyKey(t *testing.T) {
	dir := write(t, map[string]string{
		"berth.yaml": `# all of it
listen: 127.0.0.1:1
status_listen: "[::1]:2"
control_socket: /tmp/b.sock
state_dir: /tmp/state
instance_id: i-0123456789abcdef0
region: eu-central-1
docker: {socket: /tmp/docker.sock}
log:
  level: debug
  format: json
drain:
  max_wait: 90s
  shutdown_max_wait: 50s
  stop_survivor_after: 11m
  on_rebalance: true
lifecycle: {group: web-asg, terminate_hook: going, launch_hook: auto, heartbeat: 15s}
aws:
  peers: 500
  write_timeout: 2s
  read_timeout: 4s
target_groups:
  web:
    arn: ` + testARN + `
    containers:
      labels: {com.example.service: web, tier: "*"}
      image: "registry.example.com/web:*"
      name: web-*
    container_port: 8080/tcp
    register_when: healthy
    deregister_when_unhealthy: true
    stop_signals: [INT, sigquit, 37, RTMIN+3]
    ownership: instance
    labels: false
    required: true
`,
		"conf.d/20-dns.yaml": "target_groups:\n  dns:\n    name: dns-prod\n    container_port: 53/udp\n",
		"conf.d/10-api.yaml": "target_groups:\n\n  api:\n",
		"conf.d/.#x.yaml":    "nonsense: [",
		"conf.d/x.yaml~":     "nonsense: [",
	})
	main := filepath.Join(dir, "berth.yaml")
	got, err := Load(Options{ConfigPath: main, Getenv: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	api, dns := filepath.Join(dir, "conf.d/10-api.yaml"), filepath.Join(dir, "conf.d/20-dns.yaml")
	want := &Config{
		Groups: []Group{
			{Key: "api", Name: "api", RegisterWhen: WhenRunning, Ownership: OwnLedger, Labels: true, Source: api + ":3"},
			{Key: "dns", Name: "dns-prod", ContainerPort: target.PortProto{Port: 53, Protocol: target.UDP}, RegisterWhen: WhenRunning, Ownership: OwnLedger, Labels: true, Source: dns + ":2"},
			{
				Key: "web", ARN: testARN,
				Containers: &Containers{
					Labels: map[string]string{"com.example.service": "web", "tier": "*"},
					Image:  "registry.example.com/web:*", Name: "web-*",
				},
				ContainerPort: target.PortProto{Port: 8080, Protocol: target.TCP}, RegisterWhen: WhenHealthy,
				DeregisterWhenUnhealthy: true, StopSignals: target.Signals(0).With(2).With(3).With(37), Ownership: OwnInstance, Labels: false, Required: true, Source: main + ":23",
			},
		},
		Listen: "127.0.0.1:1", StatusListen: "[::1]:2", ControlSocket: "/tmp/b.sock", StateDir: "/tmp/state",
		InstanceID: "i-0123456789abcdef0", Region: "eu-central-1",
		Docker: Docker{Socket: "/tmp/docker.sock"}, Log: Log{Level: "debug", Format: "json"},
		Drain:     Drain{MaxWait: 90 * time.Second, ShutdownMaxWait: 50 * time.Second, StopSurvivorAfter: 11 * time.Minute, OnRebalance: true},
		Lifecycle: Lifecycle{Group: "web-asg", TerminateHook: "going", LaunchHook: Auto, Heartbeat: 15 * time.Second},
		AWS:       AWS{Peers: 500, WriteTimeout: 2 * time.Second, ReadTimeout: 4 * time.Second},
		Files:     []string{main, api, dns},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for key, want := range map[string]string{"log.level": main + ":10", "docker.socket": main + ":8", "drain.max_wait": main + ":13"} {
		if got := got.Origin(key); got != want {
			t.Errorf("Origin(%s) = %s; want %s", key, got, want)
		}
	}
	// Every setting above differs from its default: a key that were read into the wrong field would show.
	for _, c := range Changes(Default(), got) {
		if c.Old == c.New {
			t.Errorf("%s did not change", c.Key)
		}
	}
	if n := len(Changes(Default(), got)); n != len(settings) {
		t.Errorf("%d settings were changed; want all %d", n, len(settings))
	}
}

func TestLoad_precedence(t *testing.T) {
	dir := write(t, map[string]string{"berth.yaml": "log: {level: warn, format: json}\nstate_dir: /file\ntarget_groups: {web: {}}\n"})
	path := filepath.Join(dir, "berth.yaml")
	got, err := Load(Options{
		Flags: map[string][]string{"log-level": {"debug"}, "no-such-setting": {"x", "y"}},
		Getenv: env("BERTH_CONFIG", path, "BERTH_LOG_LEVEL", "error", "BERTH_LOG_FORMAT", "console", "BERTH_DRAIN_MAX_WAIT", "7s",
			"BERTH_AWS_PEERS", "9",
			"STATE_DIRECTORY", "/unit:/other", "RUNTIME_DIRECTORY", "/run/unit:/run/other"),
	})
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ value, origin string }
	gotRows := map[string]row{}
	for _, key := range []string{"log.level", "log.format", "state_dir", "control_socket", "drain.max_wait", "aws.peers", "listen"} {
		s, _ := findSetting(key)
		gotRows[key] = row{s.value(got).String(), got.Origin(key)}
	}
	want := map[string]row{
		"log.level":      {"debug", "--log-level"},
		"log.format":     {"console", "BERTH_LOG_FORMAT"},
		"state_dir":      {"/file", path + ":2"},
		"control_socket": {"/run/unit/berth.sock", "RUNTIME_DIRECTORY"},
		"drain.max_wait": {"7s", "BERTH_DRAIN_MAX_WAIT"},
		"aws.peers":      {"9", "BERTH_AWS_PEERS"},
		"listen":         {":9797", "default"},
	}
	if diff := cmp.Diff(want, gotRows, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got, err = Load(Options{ConfigPath: path, Flags: map[string][]string{"state-dir": {"/flag"}}, Getenv: env("STATE_DIRECTORY", "/unit")})
	if err != nil || got.StateDir != "/flag" {
		t.Errorf("state_dir %v, %v; want the flag's", got, err)
	}
}

// loadDefault is Load with the default file inside dir, as if it were /etc/berth.
func loadDefault(dir string, o Options) (*Config, error) {
	if o.Getenv == nil {
		o.Getenv = noEnv
	}
	path := filepath.Join(dir, "berth.yaml")
	var p problems
	return parse(o, path, readFiles(path, filepath.Join(dir, "conf.d"), false, &p), p)
}

func TestLoad_targetGroupFlag(t *testing.T) {
	gov := "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:targetgroup/api/0123456789abcdef"
	want := []Group{
		{Key: "api", ARN: gov, RegisterWhen: WhenRunning, Ownership: OwnLedger, Labels: true},
		{Key: "web-prod", Name: "web-prod", RegisterWhen: WhenRunning, Ownership: OwnLedger, Labels: true},
	}
	only := func(path, content string) string { return write(t, map[string]string{path: content}) }
	for name, tt := range map[string]struct {
		dir    string
		o      Options
		source string
	}{
		"flag without any file":             {t.TempDir(), Options{Flags: map[string][]string{"target-group": {"web-prod", gov}}}, "--target-group"},
		"variable without any file":         {t.TempDir(), Options{Getenv: env("BERTH_TARGET_GROUP", "web-prod, "+gov)}, "BERTH_TARGET_GROUP"},
		"flag before variable":              {t.TempDir(), Options{Flags: map[string][]string{"target-group": {gov, "web-prod"}}, Getenv: env("BERTH_TARGET_GROUP", "x")}, "--target-group"},
		"a file of comments says nothing":   {only("berth.yaml", "# as shipped\n#log:\n"), Options{Flags: map[string][]string{"target-group": {"web-prod", gov}}}, "--target-group"},
		"an empty file says nothing either": {only("conf.d/a.yaml", ""), Options{Flags: map[string][]string{"target-group": {"web-prod", gov}}}, "--target-group"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := loadDefault(tt.dir, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Groups, cmpopts.IgnoreFields(Group{}, "Source")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got.Groups[0].Source != tt.source {
				t.Errorf("source %s; want %s", got.Groups[0].Source, tt.source)
			}
		})
	}
}

func TestLoad_defaultFileMayMiss(t *testing.T) {
	dir := write(t, map[string]string{"conf.d/web.yaml": "target_groups: {web: {}}"})
	got, err := loadDefault(dir, Options{})
	if err != nil || len(got.Groups) != 1 {
		t.Fatalf("%v, %v; want the group of conf.d", got, err)
	}
	if g, ok := got.Group("web"); !ok || g.Name != "web" {
		t.Errorf("Group(web) = %v, %v", g, ok)
	}
	if _, ok := got.Group("api"); ok {
		t.Error("Group(api) was found")
	}
}

func TestLoad_files(t *testing.T) {
	big := strings.Repeat("# padding\n", maxFileBytes/10+1)
	dir := write(t, map[string]string{
		"dir.yaml/x": "", "big.yaml": big, "notdir": "", "ok.yaml": "target_groups: {web: {}}",
		"yml/berth.yaml": "target_groups: {web: {}}", "yml/conf.d/web.yml": "",
		"link/berth.yaml": "target_groups: {web: {}}",
	})
	if err := os.Mkdir(filepath.Join(dir, "link/conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link/conf.d/a.yaml")); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		o    Options
		want string
		is   error
	}{
		"named file missing": {Options{ConfigPath: dir + "/none.yaml"}, dir + "/none.yaml: cannot be read: no such file or directory", fs.ErrNotExist},
		"variable's file":    {Options{Getenv: env("BERTH_CONFIG", dir+"/none.yaml")}, dir + "/none.yaml: cannot be read: no such file or directory", fs.ErrNotExist},
		"directory":          {Options{ConfigPath: dir + "/dir.yaml"}, dir + "/dir.yaml: cannot be read: is a directory", nil},
		"too large":          {Options{ConfigPath: dir + "/big.yaml"}, dir + "/big.yaml: cannot be read: larger than 256 KiB", nil},
		"conf.d is no dir":   {Options{ConfigPath: dir + "/ok.yaml", ConfDir: dir + "/notdir"}, dir + "/notdir: cannot be read: not a directory", nil},
		"yml":                {Options{ConfigPath: dir + "/yml/berth.yaml"}, dir + "/yml/conf.d/web.yml: must be named *.yaml to be read; rename or remove it", nil},
		"dangling link":      {Options{ConfigPath: dir + "/link/berth.yaml"}, dir + "/link/conf.d/a.yaml: cannot be read: no such file or directory", fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.o.Getenv == nil {
				tt.o.Getenv = noEnv
			}
			_, err := Load(tt.o)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v; want %s", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
		})
	}
}
