package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mainFile = "/etc/berth/berth.yaml"

// fromText parses a main file that is not on disk.
func fromText(content string, o Options) (*Config, error) {
	if o.Getenv == nil {
		o.Getenv = noEnv
	}
	return parse(o, mainFile, []file{{mainFile, []byte(content)}}, nil)
}

// Every message, word for word. "@N: " stands for the file and line N.
func TestLoad_errors(t *testing.T) {
	const (
		g       = "target_groups: {web: {}}\n" // a file needs a group
		arnHead = "must be the ARN of a target group (arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID)"
		arnOnly = "must be the ARN of a target group: arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID"
		dur     = "must be a duration with its unit, like 90s or 2m, from "
	)
	group := func(line string) string { return "target_groups:\n  web:\n    " + line + "\n" }
	for name, tt := range map[string]struct{ yaml, want string }{
		// What a file is.
		"syntax":             {"log:\n\tlevel: x\n", "@2: not valid YAML: found character '\\t' that cannot start any token"},
		"syntax, colon":      {g + "listen: a: b\n", "@2: not valid YAML: mapping value is not allowed in this context"},
		"syntax, quote":      {g + "listen: 'x\n", "@2: not valid YAML: could not find end character of single-quoted text"},
		"not UTF-8":          {g + "listen: \xff\n", "@2: not valid YAML: not UTF-8"},
		"NUL":                {"\n\n\x00", "@3: not valid YAML: NUL byte"},
		"deep flow":          {"\n" + strings.Repeat("[", 200), "@2: not valid YAML: nested too deeply"},
		"deep block":         {"\n" + strings.Repeat("- ", 200), "@2: not valid YAML: nested too deeply"},
		"list":               {"- web\n", "@1: must be a mapping of keys, such as target_groups, not a list"},
		"word":               {"\nweb\n", "@2: \"web\": must be a mapping of keys, such as target_groups"},
		"second document":    {g + "---\nlisten: :1\n---\na: b\n", "@3: must be a single YAML document, without a second ---"},
		"directive":          {"%YAML 1.2\n---\n" + g, "@1: YAML directives are not supported"},
		"alias":              {g + "log: &l {level: info}\ndocker: *l\n", "@2: log: anchors and aliases are not supported (a value that begins with & or * needs quotes)\n@3: docker: anchors and aliases are not supported (a value that begins with & or * needs quotes)"},
		"glob without quote": {group("containers: {name: *-web}"), "@3: target_groups.web.containers.name: anchors and aliases are not supported (a value that begins with & or * needs quotes)"},
		"tag":                {g + "listen: !!str 5\n", "@2: listen: tags are not supported (a value that begins with ! needs quotes)"},
		"merge":              {g + "log:\n  <<: {level: info}\n", "@3: log.\"<<\": merge keys are not supported"},
		"complex key":        {g + "log:\n  ? level\n  : info\n", "@3: log: a key must be a plain string"},
		"no group":           {"log: {level: info}\n", "@1: target_groups: no target group in @ write \"target_groups: {NAME: {}}\", where NAME is a target group's name in AWS"},
		"empty":              {"", "@1: target_groups: no target group in @ write \"target_groups: {NAME: {}}\", where NAME is a target group's name in AWS"},
		"no group below":     {"target_groups:\n", "@1: target_groups: no target group in @ write \"target_groups: {NAME: {}}\", where NAME is a target group's name in AWS"},

		// Keys.
		"unknown":              {g + "nonsense: 1\n", "@2: nonsense: unknown key"},
		"misspelt":             {g + "lisen: :1\n", "@2: lisen: unknown key; did you mean listen?"},
		"hyphen":               {g + "state-dir: /x\n", "@2: state-dir: unknown key; did you mean state_dir?"},
		"misspelt section":     {g + "logs: {level: info}\n", "@2: logs: unknown key; did you mean log?"},
		"misspelt groups":      {"target_group: {web: {}}\n", "@1: target_group: unknown key; did you mean target_groups?"},
		"misspelt in section":  {g + "log:\n  leevl: info\n", "@3: log.leevl: unknown key; did you mean level?"},
		"in another section":   {g + "write_timeout: 3s\n", "@2: write_timeout: unknown key; did you mean aws.write_timeout?"},
		"dotted":               {g + "log.level: info\n", "@2: \"log.level\": unknown key; write log: and below it, indented, level:"},
		"a group's key on top": {"container_port: 80\n" + g, "@1: container_port: unknown key; it belongs to a target group: target_groups.KEY.container_port"},
		"in a group":           {group("container-port: 80"), "@3: target_groups.web.container-port: unknown key; did you mean container_port?"},
		"in a rule":            {group("containers: {lables: {a: b}}"), "@3: target_groups.web.containers.lables: unknown key; did you mean labels?"},
		"too odd for a guess":  {g + strings.Repeat("x", 100) + ": 1\n", "@2: " + strings.Repeat("x", 100) + ": unknown key"},
		"strange":              {g + "\"a b\\n\": 1\n", "@2: \"a b\\n\": unknown key"},
		"empty key":            {g + "\"\": 1\n", "@2: \"\": unknown key"},
		"duplicate":            {g + "log:\n  level: info\n  level: warn\n", "@4: log.level: duplicate key: it is already at @3"},
		"duplicate section":    {g + "log: {level: info}\nlog: {format: json}\n", "@3: log: duplicate key: it is already at @2"},
		"duplicate group":      {"target_groups:\n  web:\n  api:\n  web:\n", "@4: target_groups.web: duplicate key: it is already at @2"},
		"duplicate in a group": {"target_groups:\n  web:\n    name: a\n    name: b\n", "@4: target_groups.web.name: duplicate key: it is already at @3"},

		// Values.
		"no value":          {g + "listen:\n", "@2: listen: has no value: give it one, or remove the key"},
		"number for text":   {g + "instance_id: 17\n", "@2: instance_id: \"17\": must be a string (put it in quotes)"},
		"mapping for text":  {g + "listen: {port: 1}\n", "@2: listen: must be a string (put it in quotes), not a mapping"},
		"list for text":     {g + "listen: [\":1\"]\n", "@2: listen: must be a string (put it in quotes), not a list"},
		"text for section":  {g + "log: debug\n", "@2: log: \"debug\": must be a mapping"},
		"list for section":  {g + "log:\n- debug\n", "@2: log: must be a mapping, not a list"},
		"listen, no port":   {g + "listen: localhost\n", "@2: listen: \"localhost\": must be host:port, like \"127.0.0.1:9797\", or \":9797\" for every address, or off"},
		"listen, bad port":  {g + "listen: :70000\n", "@2: listen: \":70000\": must end in a port from 0 to 65535 (0: any free one)"},
		"listen, zero":      {g + "listen: :080\n", "@2: listen: \":080\": must end in a port from 0 to 65535 (0: any free one)"},
		"listen, name":      {g + "status_listen: example.com:80\n", "@2: status_listen: \"example.com:80\": must be an IP address of this host (or none, for every address) and a port"},
		"listen, same":      {g + "status_listen: :9797\n", "@2: status_listen: \":9797\": must differ from listen"},
		"relative":          {g + "state_dir: state\n", "@2: state_dir: \"state\": must be an absolute path"},
		"relative socket":   {g + "control_socket: b.sock\n", "@2: control_socket: \"b.sock\": must be the absolute path of a unix socket"},
		"scheme":            {g + "docker:\n  socket: tcp://127.0.0.1:2375\n", "@3: docker.socket: \"tcp://127.0.0.1:2375\": must be the absolute path of a unix socket, without a scheme; Docker over TCP is not supported"},
		"long socket":       {g + "control_socket: /" + strings.Repeat("x", 107) + "\n", "@2: control_socket: \"/" + strings.Repeat("x", 107) + "\": must be at most 107 bytes long: the kernel takes no longer socket path"},
		"same socket":       {g + "docker: {socket: /run/berth/berth.sock}\n", "@2: docker.socket: \"/run/berth/berth.sock\": must differ from control_socket"},
		"instance id":       {g + "instance_id: i-123\n", "@2: instance_id: \"i-123\": must be the id of an EC2 instance, like \"i-0123456789abcdef0\""},
		"region":            {g + "region: Frankfurt\n", "@2: region: \"Frankfurt\": must be the name of a region, like \"eu-central-1\""},
		"zone":              {g + "region: eu-central-1a\n", "@2: region: \"eu-central-1a\": must be the name of a region, like \"eu-central-1\""},
		"level":             {g + "log: {level: loud}\n", "@2: log.level: \"loud\": must be debug, info, warn or error"},
		"format":            {g + "log: {format: text}\n", "@2: log.format: \"text\": must be auto, json or console"},
		"duration, no unit": {g + "drain: {max_wait: 120}\n", "@2: drain.max_wait: \"120\": " + dur + "0s to 2h"},
		"duration, zero":    {g + "drain: {max_wait: \"0\"}\n", "@2: drain.max_wait: \"0\": " + dur + "0s to 2h"},
		"duration, sign":    {g + "drain: {max_wait: +5s}\n", "@2: drain.max_wait: \"+5s\": " + dur + "0s to 2h"},
		"duration, text":    {g + "drain: {max_wait: soon}\n", "@2: drain.max_wait: \"soon\": " + dur + "0s to 2h"},
		"duration, empty":   {g + "drain: {max_wait: \"\"}\n", "@2: drain.max_wait: \"\": " + dur + "0s to 2h"},
		"duration, long":    {g + "drain: {shutdown_max_wait: 16m}\n", "@2: drain.shutdown_max_wait: \"16m\": " + dur + "0s to 15m"},
		"duration, short":   {g + "drain: {stop_survivor_after: 5s}\n", "@2: drain.stop_survivor_after: \"5s\": " + dur + "10s to 24h"},
		"write timeout":     {g + "aws: {write_timeout: 30s}\n", "@2: aws.write_timeout: \"30s\": " + dur + "500ms to 25s"},
		"read timeout":      {g + "aws: {read_timeout: 1ms}\n", "@2: aws.read_timeout: \"1ms\": " + dur + "500ms to 1m"},
		"bool":              {group("labels: yes"), "@3: target_groups.web.labels: \"yes\": must be true or false"},
		"quoted bool":       {group("labels: \"true\""), "@3: target_groups.web.labels: \"true\": must be true or false"},
		"peers, negative":   {g + "aws: {peers: -1}\n", "@2: aws.peers: \"-1\": must be a whole number from 0 to 1000000"},
		"peers, fraction":   {g + "aws: {peers: 1.5}\n", "@2: aws.peers: \"1.5\": must be a whole number from 0 to 1000000"},
		"peers, sign":       {g + "aws: {peers: +5}\n", "@2: aws.peers: \"+5\": must be a whole number from 0 to 1000000"},
		"peers, hex":        {g + "aws: {peers: 0x10}\n", "@2: aws.peers: \"0x10\": must be a whole number from 0 to 1000000"},
		"peers, infinite":   {g + "aws: {peers: .inf}\n", "@2: aws.peers: \".inf\": must be a whole number from 0 to 1000000"},
		"peers, not a one":  {g + "aws: {peers: .nan}\n", "@2: aws.peers: \".nan\": must be a whole number from 0 to 1000000"},
		"value below":       {g + "log:\n  level:\n    loud\n", "@4: log.level: \"loud\": must be debug, info, warn or error"},
		"folded":            {g + "log:\n  level: >-\n    very\n    loud\n", "@3: log.level: \"very loud\": must be debug, info, warn or error"},
		"long value":        {g + "log: {level: " + strings.Repeat("é", 90) + "}\n", "@2: log.level: \"" + strings.Repeat("é", 80) + "\"...: must be debug, info, warn or error"},

		// Groups.
		"groups, list":       {"target_groups:\n- web\n", "@2: target_groups: must be a mapping of target groups by their keys, not a list"},
		"groups, text":       {"target_groups: web\n", "@1: target_groups: \"web\": must be a mapping of target groups by their keys"},
		"group, text":        {"target_groups:\n  web: web-prod\n", "@2: target_groups.web: \"web-prod\": must be a mapping"},
		"group's key":        {"target_groups:\n  \"a:b\": {name: a}\n", "@2: target_groups.\"a:b\": a target group's key must be 1 to 64 letters, digits, dots, hyphens and underscores, and begin with a letter or digit"},
		"group's key, long":  {"target_groups:\n  " + strings.Repeat("a", 65) + ": {name: a}\n", "@2: target_groups." + strings.Repeat("a", 65) + ": a target group's key must be 1 to 64 letters, digits, dots, hyphens and underscores, and begin with a letter or digit"},
		"key as name":        {"target_groups:\n  my_web: {}\n", "@2: target_groups.my_web: without name or arn the key is the group's name in AWS, and that must be 1 to 32 letters, digits and hyphens, with no hyphen at either end"},
		"name, long":         {group("name: " + strings.Repeat("a", 33)), "@3: target_groups.web.name: \"" + strings.Repeat("a", 33) + "\": must be 1 to 32 letters, digits and hyphens, with no hyphen at either end"},
		"name, hyphen":       {group("name: web-"), "@3: target_groups.web.name: \"web-\": must be 1 to 32 letters, digits and hyphens, with no hyphen at either end"},
		"name, empty":        {group(`name: ""`), "@3: target_groups.web.name: \"\": must be 1 to 32 letters, digits and hyphens, with no hyphen at either end"},
		"name, number":       {group("name: 17"), "@3: target_groups.web.name: \"17\": must be a string (put it in quotes)"},
		"name and arn":       {group("name: web\n    arn: " + testARN), "@4: target_groups.web.arn: give name or arn, not both: the ARN holds the name"},
		"arn, empty":         {group(`arn: ""`), "@3: target_groups.web.arn: \"\": " + arnOnly},
		"arn, text":          {group("arn: web"), "@3: target_groups.web.arn: \"web\": " + arnOnly},
		"arn, service":       {group("arn: arn:aws:ec2:eu-central-1:123456789012:instance/i-1"), "@3: target_groups.web.arn: \"arn:aws:ec2:eu-central-1:123456789012:instance/i-1\": " + arnHead + ", not of service \"ec2\""},
		"arn, balancer":      {group("arn: arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/x/0"), "@3: target_groups.web.arn: \"arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/x/0\": " + arnHead + ", not of a loadbalancer"},
		"arn, partition":     {group("arn: arn:gcp:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x/0"), "@3: target_groups.web.arn: \"arn:gcp:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x/0\": " + arnHead + ", not of partition \"gcp\""},
		"arn, region":        {group("arn: arn:aws:elasticloadbalancing::123456789012:targetgroup/x/0"), "@3: target_groups.web.arn: \"arn:aws:elasticloadbalancing::123456789012:targetgroup/x/0\": " + arnHead + ": \"\" is not the name of a region"},
		"arn, account":       {group("arn: arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/x/0"), "@3: target_groups.web.arn: \"arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/x/0\": " + arnHead + ": \"1\" is not an account of 12 digits"},
		"arn, name":          {group("arn: arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/-x/0"), "@3: target_groups.web.arn: \"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/-x/0\": " + arnHead + ": its name \"-x\" must be 1 to 32 letters, digits and hyphens, with no hyphen at either end"},
		"arn, id":            {group("arn: arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x/"), "@3: target_groups.web.arn: \"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x/\": " + arnHead + ": \"\" is not the hexadecimal id after the name"},
		"arn, no id":         {group("arn: arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x"), "@3: target_groups.web.arn: \"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x\": " + arnOnly},
		"hook, no group":     {"lifecycle: {launch_hook: up}\n" + group("arn: "+testARN), "@1: lifecycle.launch_hook: \"up\": needs at least one target group with required: true, to know when the host may come into service"},
		"hook, its name":     {"lifecycle: {terminate_hook: \"a:b\"}\n" + group("arn: "+testARN), "@1: lifecycle.terminate_hook: \"a:b\": must be auto, or a name of at most 255 characters without colons"},
		"arn, other region":  {"region: us-east-1\n" + group("arn: "+testARN), "@4: target_groups.web.arn: \"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web-prod/0123456789abcdef\": must be of region \"us-east-1\", which @1 sets"},
		"port, large":        {group("container_port: 80800"), "@3: target_groups.web.container_port: \"80800\": must be a port from 1 to 65535"},
		"port, zero":         {group("container_port: 0/tcp"), "@3: target_groups.web.container_port: \"0/tcp\": must be a port from 1 to 65535"},
		"port, name":         {group("container_port: http"), "@3: target_groups.web.container_port: \"http\": must be a port from 1 to 65535"},
		"port, empty":        {group(`container_port: ""`), "@3: target_groups.web.container_port: \"\": must be a port from 1 to 65535"},
		"port, protocol":     {group("container_port: 80/http"), "@3: target_groups.web.container_port: \"80/http\": must be a port with tcp or udp, like 8080/tcp"},
		"port, slash":        {group("container_port: 80/"), "@3: target_groups.web.container_port: \"80/\": must be a port with tcp or udp, like 8080/tcp"},
		"port, sctp":         {group("container_port: 80/sctp"), "@3: target_groups.web.container_port: \"80/sctp\": must be tcp or udp: load balancers have no sctp"},
		"port, list":         {group("container_port: [80]"), "@3: target_groups.web.container_port: must be a port with its protocol, like 8080/tcp, not a list"},
		"port, hex":          {group("container_port: 0x50"), "@3: target_groups.web.container_port: \"0x50\": must be a port from 1 to 65535"},
		"register_when":      {group("register_when: started"), "@3: target_groups.web.register_when: \"started\": must be running or healthy"},
		"ownership":          {group("ownership: all"), "@3: target_groups.web.ownership: \"all\": must be ledger or instance"},
		"unhealthy":          {group("deregister_when_unhealthy: 1"), "@3: target_groups.web.deregister_when_unhealthy: \"1\": must be true or false"},
		"signals, text":      {group("stop_signals: INT"), "@3: target_groups.web.stop_signals: \"INT\": must be a list of signals, like [INT, QUIT]"},
		"signals, mapping":   {group("stop_signals: {INT: QUIT}"), "@3: target_groups.web.stop_signals: must be a list of signals, like [INT, QUIT], not a mapping"},
		"signals, no value":  {group("stop_signals:"), "@3: target_groups.web.stop_signals: has no value: give it one, or remove the key"},
		"signals, unknown":   {group("stop_signals:\n    - INT\n    - STOPPED\n    - 65"), "@5: target_groups.web.stop_signals: \"STOPPED\": must be a signal, like INT, SIGQUIT, RTMIN+3 or 2\n@6: target_groups.web.stop_signals: \"65\": must be a signal, like INT, SIGQUIT, RTMIN+3 or 2"},
		"signals, nested":    {group("stop_signals: [[INT], null, true]"), "@3: target_groups.web.stop_signals: must be a signal, like INT, SIGQUIT, RTMIN+3 or 2, not a list\n@3: target_groups.web.stop_signals: has no value: give it one, or remove the key\n@3: target_groups.web.stop_signals: \"true\": must be a signal, like INT, SIGQUIT, RTMIN+3 or 2"},
		"signals, misspelt":  {group("stop_signal: [INT]"), "@3: target_groups.web.stop_signal: unknown key; did you mean stop_signals?"},
		"labels":             {group("labels: []"), "@3: target_groups.web.labels: must be true or false, not a list"},
		"nothing can match":  {group("labels: false"), "@3: target_groups.web.labels: \"false\": needs containers: without labels and without a rule nothing could ever be registered"},
		"empty rule":         {group("containers:"), "@3: target_groups.web.containers: must hold at least one of labels, image and name: an empty rule would match every container"},
		"empty rule, braces": {group("containers: {}"), "@3: target_groups.web.containers: must hold at least one of labels, image and name: an empty rule would match every container"},
		"rule, text":         {group("containers: web"), "@3: target_groups.web.containers: \"web\": must be a mapping with labels, image or name"},
		"rule, list":         {group("containers: [web]"), "@3: target_groups.web.containers: must be a mapping with labels, image or name, not a list"},
		"no labels":          {group("containers: {labels: {}}"), "@3: target_groups.web.containers.labels: must hold at least one label: an empty rule would match every container"},
		"labels, null":       {group("containers: {labels: , name: x}"), "@3: target_groups.web.containers.labels: must hold at least one label: an empty rule would match every container"},
		"labels, text":       {group("containers: {labels: a=b}"), "@3: target_groups.web.containers.labels: \"a=b\": must be a mapping of labels to patterns"},
		"labels, no name":    {group("containers: {labels: {\" \": b}}"), "@3: target_groups.web.containers.labels.\" \": a label's name must not be empty"},
		"labels, number":     {group("containers: {labels: {a.b: 1.10}}"), "@3: target_groups.web.containers.labels.\"a.b\": \"1.10\": must be a string (put it in quotes)"},
		"labels, bool":       {group("containers: {labels: {a: true}}"), "@3: target_groups.web.containers.labels.a: \"true\": must be a string (put it in quotes)"},
		"pattern, empty":     {group(`containers: {image: ""}`), "@3: target_groups.web.containers.image: \"\": must not be empty (\"*\" matches anything)"},
		"pattern, blank":     {group(`containers: {labels: {a: " "}}`), "@3: target_groups.web.containers.labels.a: \" \": must not be empty (\"*\" matches anything)"},
		"pattern, null":      {group(`containers: {name: }`), "@3: target_groups.web.containers.name: has no value: give it one, or remove the key"},
		"pattern, space":     {group(`containers: {name: "web-* "}`), "@3: target_groups.web.containers.name: \"web-* \": must not begin or end with a space or line break"},
		"pattern, lines":     {group(`containers: {name: "a\nb"}`), "@3: target_groups.web.containers.name: \"a\\nb\": must be one line without control characters"},
		"two owners": {
			"target_groups:\n  a: {name: web}\n  b:\n    name: web\n    ownership: instance\n",
			"@5: target_groups.b.ownership: \"instance\": must be ledger as for a at @2, which is the same target group",
		},
		"many": {
			"listen: x\ntarget_groups:\n  web:\n    container_port: 0\n    nme: x\nlog: {level: 1}\nfoo: bar\n",
			"@1: listen: \"x\": must be host:port, like \"127.0.0.1:9797\", or \":9797\" for every address, or off\n" +
				"@4: target_groups.web.container_port: \"0\": must be a port from 1 to 65535\n" +
				"@5: target_groups.web.nme: unknown key; did you mean name?\n" +
				"@6: log.level: \"1\": must be a string (put it in quotes)\n" +
				"@7: foo: unknown key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := fromText(tt.yaml, Options{})
			if err == nil {
				t.Fatalf("no error; %+v", c)
			}
			if diff := cmp.Diff(tt.want, strings.ReplaceAll(err.Error(), mainFile+":", "@")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLoad_flagErrors(t *testing.T) {
	const group = "target_groups: {web: {}}"
	flags := func(name string, values ...string) Options { return Options{Flags: map[string][]string{name: values}} }
	for name, tt := range map[string]struct {
		file string
		o    Options
		want string
	}{
		"flag":           {group, flags("log-level", "loud"), `--log-level: "loud": must be debug, info, warn or error`},
		"empty flag":     {group, flags("listen", ""), `--listen: "": must be host:port, like "127.0.0.1:9797", or ":9797" for every address, or off`},
		"flag twice":     {group, flags("log-level", "info", "warn"), `--log-level: must be given once`},
		"variable":       {group, Options{Getenv: env("BERTH_AWS_PEERS", "many")}, `BERTH_AWS_PEERS: "many": must be a whole number from 0 to 1000000`},
		"unit directory": {group, Options{Getenv: env("STATE_DIRECTORY", "x")}, `STATE_DIRECTORY: "x": must be an absolute path`},
		"same listen":    {group, flags("status-listen", ":9797"), `--status-listen: ":9797": must differ from listen`},
		"same sockets":   {group, Options{Getenv: env("BERTH_DOCKER_SOCKET", "/run/berth/berth.sock")}, `BERTH_DOCKER_SOCKET: "/run/berth/berth.sock": must differ from control_socket`},
		"group and file": {group, flags("target-group", "web"), `--target-group: cannot be used together with /etc/berth/berth.yaml: name the group there`},
		"variable's and": {group, Options{Getenv: env("BERTH_TARGET_GROUP", "web")}, `BERTH_TARGET_GROUP: cannot be used together with /etc/berth/berth.yaml: name the group there`},
		"settings alone": {"log: {level: info}", flags("target-group", "web"), `--target-group: cannot be used together with /etc/berth/berth.yaml: name the group there`},
		"group's name":   {"", flags("target-group", "my_web"), `--target-group: "my_web": must be a target group's name or ARN; a name must be 1 to 32 letters, digits and hyphens, with no hyphen at either end`},
		"group's ARN":    {"", flags("target-group", "arn:aws:s3:::bucket"), `--target-group: "arn:aws:s3:::bucket": must be the ARN of a target group (arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID), not of service "s3"`},
		"empty item":     {"", Options{Getenv: env("BERTH_TARGET_GROUP", "web,")}, `BERTH_TARGET_GROUP: "": must be a target group's name or ARN; a name must be 1 to 32 letters, digits and hyphens, with no hyphen at either end`},
		"group twice":    {"", flags("target-group", "web", "web"), `--target-group: "web": duplicate target group web`},
		"name and ARN":   {"", flags("target-group", "web-prod", testARN), `--target-group: "` + testARN + `": duplicate target group web-prod`},
		"ARN's region":   {"", Options{Flags: map[string][]string{"target-group": {testARN}, "region": {"us-east-1"}}}, `--target-group: "` + testARN + `": must be of region "us-east-1", which --region sets`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fromText(tt.file, tt.o)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLoad_errorsAcrossFiles(t *testing.T) {
	parseAll := func(files ...file) string {
		_, err := parse(Options{Getenv: noEnv}, mainFile, files, nil)
		if err == nil {
			return ""
		}
		return err.Error()
	}
	const dir = "/etc/berth/conf.d/"
	got := parseAll(
		file{mainFile, []byte("log: {level: info}\ntarget_groups:\n  web: {}\n")},
		file{dir + "a.yaml", []byte("target_groups:\n  api: {}\n  web: {name: other}\nnonsense: 1\n")},
		file{dir + "b.yaml", []byte("[")},
		file{dir + "c.yaml", []byte("log:\n  format: json\n  level: info\n")},
	)
	want := strings.Join([]string{
		dir + "a.yaml:3: target_groups.web: duplicate target group: it is already at " + mainFile + ":3",
		dir + "a.yaml:4: nonsense: unknown key",
		dir + "b.yaml:1: not valid YAML: sequence end token ']' not found",
		dir + "c.yaml:3: log.level: duplicate key: it is already at " + mainFile + ":1",
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got = parseAll(file{dir + "a.yaml", []byte("#")}, file{dir + "b.yaml", nil})
	want = dir + `a.yaml:1: target_groups: no target group in ` + dir + `a.yaml, ` + dir + `b.yaml: write "target_groups: {NAME: {}}", where NAME is a target group's name in AWS`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLoad_noGroups(t *testing.T) {
	_, err := loadDefault("/nonexistent", Options{})
	if want := `/nonexistent/berth.yaml: no such file: write "target_groups: {NAME: {}}", where NAME is a target group's name in AWS, or start with --target-group NAME`; err == nil || err.Error() != want {
		t.Errorf("error %v; want %s", err, want)
	}
	if !errors.Is(err, ErrNoGroups) {
		t.Error("is not ErrNoGroups")
	}
	if _, err := fromText("#", Options{}); !errors.Is(err, ErrNoGroups) {
		t.Errorf("%v is not ErrNoGroups", err)
	}
	// What the message says to write is right.
	if c, err := fromText("target_groups: {NAME: {}}", Options{}); err != nil || len(c.Groups) != 1 {
		t.Errorf("%v, %v", c, err)
	}
	// Another error is not taken for an order that nothing be registered.
	if _, err := fromText("target_groups: {web: {x: 1}}", Options{}); err == nil || errors.Is(err, ErrNoGroups) {
		t.Errorf("error %v", err)
	}
}

// Nothing of this is an error.
func TestLoad_accepts(t *testing.T) {
	for name, yaml := range map[string]string{
		"byte order mark":     "\ufefftarget_groups: {web: {}}",
		"CRLF":                "listen: :1\r\ntarget_groups:\r\n  web:\r\n    name: a\r\n",
		"document start, end": "---\ntarget_groups: {web: {}}\n...\n",
		"quoted keys":         "\"target_groups\":\n  'web': {\"name\": 'a'}\n",
		"numeric key":         "target_groups:\n  404: {}\n",
		"null sections":       "log:\ndrain:\naws:\ndocker:\ntarget_groups:\n  web:\n",
		"free ports":          "listen: :0\nstatus_listen: :0\ntarget_groups: {web: {}}",
		"localhost":           "listen: localhost:1\ntarget_groups: {web: {}}",
		"one group, two keys": "target_groups: {a: {name: web, ownership: instance}, b: {name: web, ownership: instance}}",
		"number as port":      "target_groups: {web: {container_port: 8080}}",
		"upper case":          "target_groups: {Web: {name: Web, container_port: 53/UDP}}",
		"literal":             "target_groups:\n  web:\n    name: |-\n      web\n",
		"same region":         "region: eu-central-1\ntarget_groups: {web: {arn: \"" + testARN + "\"}}",
		"True":                "target_groups: {web: {labels: True}}",
		"bounds":              "drain: {max_wait: 0s, stop_survivor_after: 24h}\naws: {write_timeout: 25s}\ntarget_groups: {web: {}}",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := fromText(yaml, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Groups) == 0 {
				t.Error("no group")
			}
		})
	}
}

// The parser recurses, and a Go stack that overflows cannot be caught: what reaches it is bounded.
func TestParseFile_deep(t *testing.T) {
	for _, s := range []string{"[", "{", "- ", "? ", "{a: ", "a: [", "!!x ", "&a ", "[{", "? - ", "- ? ", "!a", ": ", "-\t", "?\t", "*a ", "'' ", "a: |\n", "%\n", "---\n", "#\n", " ", "\t", "|", "a:\n", "\"\\"} {
		var p problems
		n := (16 << 10) / len(s) // some of these take time that grows with the square
		parseFile("x", []byte(strings.Repeat(s, n)), &p)
		for _, e := range p {
			if e.Line < 1 {
				t.Errorf("%q: no line: %v", s, e)
			}
		}
	}
}
