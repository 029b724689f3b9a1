package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckReload(t *testing.T) {
	old, err := fromText("target_groups: {web: {}}\nlog: {level: info}\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		yaml string
		o    Options
		want string
	}{
		"the same":    {yaml: "target_groups: {web: {}}\n"},
		"groups":      {yaml: "target_groups: {api: {name: api-prod, container_port: 80}, dns: {}}\n"},
		"what may":    {yaml: "target_groups: {web: {}}\nlog: {level: debug}\ndrain: {max_wait: 5s, shutdown_max_wait: 5s}\n"},
		"as it was":   {yaml: "target_groups: {web: {}}\nlisten: :9797\naws: {write_timeout: 3000ms}\n"},
		"one":         {yaml: "target_groups: {web: {}}\n\nlisten: :1\n", want: mainFile + `:3: listen: ":1": cannot change from ":9797" on reload: restart berth (targets stay)`},
		"by variable": {yaml: "target_groups: {web: {}}\n", o: Options{Getenv: env("BERTH_STATE_DIR", "/x")}, want: `BERTH_STATE_DIR: state_dir: "/x": cannot change from "/var/lib/berth" on reload: restart berth (targets stay)`},
		"all that may not": {
			yaml: `listen: :1
status_listen: :2
control_socket: /a
state_dir: /b
instance_id: i-0123456789abcdef0
region: eu-central-1
docker: {socket: /c}
log: {level: warn, format: json}
drain: {stop_survivor_after: 1h}
aws: {peers: 1, write_timeout: 1s, read_timeout: 1s}
target_groups: {web: {}}
`,
			want: mainFile + `:1: listen: ":1": cannot change from ":9797" on reload: restart berth (targets stay)
` + mainFile + `:2: status_listen: ":2": cannot change from "127.0.0.1:9798" on reload: restart berth (targets stay)
` + mainFile + `:3: control_socket: "/a": cannot change from "/run/berth/berth.sock" on reload: restart berth (targets stay)
` + mainFile + `:4: state_dir: "/b": cannot change from "/var/lib/berth" on reload: restart berth (targets stay)
` + mainFile + `:5: instance_id: "i-0123456789abcdef0": cannot change from "" on reload: restart berth (targets stay)
` + mainFile + `:6: region: "eu-central-1": cannot change from "" on reload: restart berth (targets stay)
` + mainFile + `:7: docker.socket: "/c": cannot change from "/var/run/docker.sock" on reload: restart berth (targets stay)
` + mainFile + `:8: log.format: "json": cannot change from "auto" on reload: restart berth (targets stay)
` + mainFile + `:9: drain.stop_survivor_after: "1h": cannot change from "10m" on reload: restart berth (targets stay)
` + mainFile + `:10: aws.peers: "1": cannot change from "0" on reload: restart berth (targets stay)
` + mainFile + `:10: aws.write_timeout: "1s": cannot change from "3s" on reload: restart berth (targets stay)
` + mainFile + `:10: aws.read_timeout: "1s": cannot change from "5s" on reload: restart berth (targets stay)`,
		},
		"back to the default": {yaml: "target_groups: {web: {}}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			updated, err := fromText(tt.yaml, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := CheckReload(old, updated); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestChanges(t *testing.T) {
	old, updated := Default(), Default()
	updated.Log.Level, updated.AWS.Peers = "debug", 7
	want := []Change{
		{Key: "log.level", Old: "info", New: "debug", Origin: "default", Reload: true},
		{Key: "aws.peers", Old: "0", New: "7", Origin: "default"},
	}
	if diff := cmp.Diff(want, Changes(old, updated)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A file that named groups and is empty by now fails the reload, whatever other files name; one of conf.d may be removed.
func TestCheckReload_emptied(t *testing.T) {
	const more = "/etc/berth/conf.d/x.yaml"
	read := func(files ...file) *Config {
		t.Helper()
		c, err := parse(Options{Getenv: noEnv}, mainFile, files, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	whole := file{mainFile, []byte("target_groups: {web: {}, api: {}}\n")}
	x := file{more, []byte("target_groups: {x: {}}\n")}
	old := read(whole, x)
	for name, tt := range map[string]struct {
		updated *Config
		want    string
	}{
		"the same":          {read(whole, x), ""},
		"conf.d removed":    {read(whole), ""},
		"conf.d emptied":    {read(whole, file{more, []byte("# nothing\n")}), more + ": is empty, and named x: write target_groups: {} to let go of them, or restart berth"},
		"emptied":           {read(file{mainFile, nil}, x), mainFile + ": is empty, and named api, web: write target_groups: {} to let go of them, or restart berth"},
		"gone":              {read(x), mainFile + ": is gone, and named api, web: restart berth to let go of them"},
		"without a group":   {read(file{mainFile, []byte("target_groups: {}\n")}, x), ""},
		"split into others": {read(file{more, []byte("target_groups: {x: {}, web: {}, api: {}}\n")}), ""},
		"in another file":   {read(file{mainFile, []byte("log: {level: debug}\n")}, file{more, []byte("target_groups: {x: {}, web: {}}\n")}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := CheckReload(old, tt.updated); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
		})
	}
	// What named no group may be empty.
	if err := CheckReload(read(file{mainFile, []byte("log: {level: info}\n")}, x), read(file{mainFile, nil}, x)); err != nil {
		t.Error(err)
	}
}
