package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TargetGroupFlag and TargetGroupVariable name target groups where no file does; the flag may be repeated, the
// variable holds a list separated by commas.
const (
	TargetGroupFlag     = "target-group"
	TargetGroupVariable = "BERTH_TARGET_GROUP"
	configVariable      = "BERTH_CONFIG"
)

// Setting describes one scalar key, for flags, documentation and shell completion.
type Setting struct {
	Key     string // in the files: "log.level"
	Flag    string // without dashes: "log-level"; empty: it has none
	Env     string // "BERTH_LOG_LEVEL"
	Usage   string // one line
	Default string // as one would write it; empty: none
	Reload  bool   // a running agent takes a new value over
}

// Settings returns every scalar key, in the order of the documentation.
func Settings() []Setting {
	d := Default()
	out := make([]Setting, len(settings))
	for i, s := range settings {
		out[i] = Setting{Key: s.key, Flag: s.flag, Env: s.env(), Usage: s.usage, Default: s.value(d).String(), Reload: s.reload}
	}
	return out
}

// setting is one row of the table that drives files, variables, flags, reload and the documentation's tests.
type setting struct {
	key    string
	flag   string
	usage  string
	reload bool
	value  func(*Config) value
}

func (s setting) env() string {
	return "BERTH_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// value is a field of a Config seen as text. set returns the rule that was broken.
type value interface {
	set(text string) error
	String() string
	kinds() (allowed []kind, rule string) // what YAML may hold, and what to say otherwise
}

var settings = []setting{
	{"listen", "listen", "address of /metrics, /healthz and /readyz, or off", false, func(c *Config) value { return listen{&c.Listen} }},
	{"status_listen", "status-listen", "address of the status page and /v1/status, or off", false, func(c *Config) value { return listen{&c.StatusListen} }},
	{"control_socket", "control-socket", "path of the control socket", false, func(c *Config) value { return text{&c.ControlSocket, checkSocket} }},
	{"state_dir", "state-dir", "directory of the ledger and the drains", false, func(c *Config) value { return text{&c.StateDir, checkPath} }},
	{"instance_id", "instance-id", "this instance's id, where the metadata service cannot say it", false, func(c *Config) value { return text{&c.InstanceID, checkInstanceID} }},
	{"region", "region", "this instance's region, where the metadata service cannot say it", false, func(c *Config) value { return text{&c.Region, checkRegion} }},
	{"docker.socket", "docker-socket", "path of the Docker engine's socket", false, func(c *Config) value { return text{&c.Docker.Socket, checkSocket} }},
	{"log.level", "log-level", "debug, info, warn or error", true, func(c *Config) value { return text{&c.Log.Level, oneOf("debug", "info", "warn", "error")} }},
	{"log.format", "log-format", "json, console, or auto: console on a terminal", false, func(c *Config) value { return text{&c.Log.Format, oneOf("auto", "json", "console")} }},
	{"drain.max_wait", "", "longest wait of a drain for its targets to be gone", true, func(c *Config) value { return duration{&c.Drain.MaxWait, 0, 2 * time.Hour} }},
	{"drain.shutdown_max_wait", "", "the same while the host shuts down", true, func(c *Config) value { return duration{&c.Drain.ShutdownMaxWait, 0, 15 * time.Minute} }},
	{"drain.stop_survivor_after", "", "when a container that outlives its stop signal is served again", false, func(c *Config) value { return duration{&c.Drain.StopSurvivorAfter, 10 * time.Second, 24 * time.Hour} }},
	{"drain.on_rebalance", "", "drain the host when EC2 recommends to rebalance a spot instance", true, func(c *Config) value { return boolean{&c.Drain.OnRebalance} }},
	{"lifecycle.group", "", "name of the autoscaling group, or auto", false, func(c *Config) value { return text{&c.Lifecycle.Group, checkLifecycleName} }},
	{"lifecycle.terminate_hook", "", "lifecycle hook to complete when the host's targets are gone, or auto", false, func(c *Config) value { return text{&c.Lifecycle.TerminateHook, checkLifecycleName} }},
	{"lifecycle.launch_hook", "", "lifecycle hook to complete when the required groups have a healthy target, or auto", false, func(c *Config) value { return text{&c.Lifecycle.LaunchHook, checkLifecycleName} }},
	{"lifecycle.heartbeat", "", "how often the terminate hook is kept waiting", false, func(c *Config) value { return duration{&c.Lifecycle.Heartbeat, time.Second, time.Hour} }},
	{"aws.peers", "", "hosts that share the account's request limits; 0: learned", false, func(c *Config) value { return integer{&c.AWS.Peers, 0, 1_000_000} }},
	{"aws.write_timeout", "", "deadline of one registration or deregistration", false, func(c *Config) value { return duration{&c.AWS.WriteTimeout, 500 * time.Millisecond, 25 * time.Second} }},
	{"aws.read_timeout", "", "deadline of one description", false, func(c *Config) value { return duration{&c.AWS.ReadTimeout, 500 * time.Millisecond, time.Minute} }},
}

func findSetting(key string) (setting, bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}

type text struct {
	to    *string
	check func(string) error
}

func (v text) set(s string) error {
	if err := v.check(s); err != nil {
		return err
	}
	*v.to = s
	return nil
}
func (v text) String() string { return *v.to }
func (v text) kinds() ([]kind, string) {
	return []kind{kindString}, "must be a string (put it in quotes)"
}

// listen is an address to listen on, empty where the text is Off.
type listen struct{ to *string }

func (v listen) set(s string) error {
	if s == Off {
		*v.to = ""
		return nil
	}
	if err := checkListen(s); err != nil {
		return err
	}
	*v.to = s
	return nil
}
func (v listen) String() string { return cmp.Or(*v.to, Off) }
func (v listen) kinds() ([]kind, string) {
	return []kind{kindString}, "must be a string (put it in quotes)"
}

type boolean struct{ to *bool }

func (v boolean) set(s string) error {
	switch strings.ToLower(s) {
	case "true":
		*v.to = true
	case "false":
		*v.to = false
	default:
		return errors.New("must be true or false")
	}
	return nil
}
func (v boolean) String() string          { return strconv.FormatBool(*v.to) }
func (v boolean) kinds() ([]kind, string) { return []kind{kindBool}, "must be true or false" }

type integer struct {
	to       *int
	min, max int
}

func (v integer) rule() error {
	return fmt.Errorf("must be a whole number from %d to %d", v.min, v.max)
}

func (v integer) set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < v.min || n > v.max || strings.HasPrefix(s, "+") {
		return v.rule()
	}
	*v.to = n
	return nil
}
func (v integer) String() string          { return strconv.Itoa(*v.to) }
func (v integer) kinds() ([]kind, string) { return []kind{kindInteger}, v.rule().Error() }

type duration struct {
	to       *time.Duration
	min, max time.Duration
}

func (v duration) rule() error {
	return fmt.Errorf("must be a duration with its unit, like 90s or 2m, from %s to %s", short(v.min), short(v.max))
}

func (v duration) set(s string) error {
	d, err := time.ParseDuration(s)
	// A bare 0 is refused like every number without its unit.
	if err != nil || d < v.min || d > v.max || s == "0" || s[0] == '+' || s[0] == '-' {
		return v.rule()
	}
	*v.to = d
	return nil
}
func (v duration) String() string          { return short(*v.to) }
func (v duration) kinds() ([]kind, string) { return []kind{kindString}, v.rule().Error() }

// short writes 2m0s as 2m and 1h0m0s as 1h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(values, s) {
			return nil
		}
		last := len(values) - 1
		return fmt.Errorf("must be %s or %s", strings.Join(values[:last], ", "), values[last])
	}
}

// checkListen allows port 0, by which the system picks a free port.
func checkListen(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New(`must be host:port, like "127.0.0.1:9797", or ":9797" for every address, or off`)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
		return errors.New("must end in a port from 0 to 65535 (0: any free one)")
	}
	if host == "" || host == "localhost" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return errors.New("must be an IP address of this host (or none, for every address) and a port")
	}
	return nil
}

func checkPath(s string) error {
	if !filepath.IsAbs(s) || strings.ContainsRune(s, 0) {
		return errors.New("must be an absolute path")
	}
	return nil
}

// checkSocket knows that the kernel takes 107 bytes (sun_path less its NUL).
func checkSocket(s string) error {
	if strings.Contains(s, "://") {
		return errors.New("must be the absolute path of a unix socket, without a scheme; Docker over TCP is not supported")
	}
	if err := checkPath(s); err != nil {
		return errors.New("must be the absolute path of a unix socket")
	}
	if len(s) > 107 {
		return errors.New("must be at most 107 bytes long: the kernel takes no longer socket path")
	}
	return nil
}

var instanceIDPattern = regexp.MustCompile(`^i-([0-9a-f]{8}|[0-9a-f]{17})$`)

func checkInstanceID(s string) error {
	if !instanceIDPattern.MatchString(s) {
		return errors.New(`must be the id of an EC2 instance, like "i-0123456789abcdef0"`)
	}
	return nil
}

// checkLifecycleName takes what Auto Scaling takes for a group's or a hook's name, and "auto".
func checkLifecycleName(s string) error {
	if len(s) > 255 || s != strings.TrimSpace(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ':' }) {
		return errors.New("must be auto, or a name of at most 255 characters without colons")
	}
	return nil
}

func checkRegion(s string) error {
	if !regionPattern.MatchString(s) {
		return errors.New(regionRule)
	}
	return nil
}
