package layout

// arrows lists every room and the rooms that its code may import. Every other import of a room by a room is refused.
var arrows = map[string][]string{
	"cmd/agent":  {"internal/cli"},
	"cmd/elbsim": {"internal/elbsim", "internal/elbsim/iam", "internal/elbsim/limits", "internal/elbsim/wire", "pkg/target"},

	"internal/cli": {
		"internal/logs", "internal/statedir",
		"pkg/agent", "pkg/client", "pkg/config", "pkg/discovery", "pkg/discovery/docker", "pkg/host",
		"pkg/registrar", "pkg/registrar/elb", "pkg/registrar/ledger", "pkg/status", "pkg/target",
	},
	"pkg/agent": {
		"internal/backoff", "internal/latest", "internal/logs", "internal/statedir",
		"pkg/config", "pkg/discovery", "pkg/discovery/docker", "pkg/host", "pkg/registrar", "pkg/registrar/elb",
		"pkg/registrar/ledger", "pkg/registrar/pacer", "pkg/server", "pkg/status", "pkg/target",
	},
	"pkg/client": {"pkg/status", "pkg/target"},
	"pkg/server": {
		"internal/backoff", "internal/latest", "internal/statedir",
		"pkg/discovery", "pkg/host", "pkg/registrar", "pkg/registrar/elb", "pkg/registrar/ledger", "pkg/status", "pkg/target",
	},
	"pkg/status": {
		"pkg/discovery", "pkg/host", "pkg/registrar", "pkg/registrar/elb", "pkg/registrar/ledger", "pkg/target",
	},
	"pkg/status/statustest": {
		"pkg/discovery", "pkg/host", "pkg/registrar", "pkg/registrar/elb", "pkg/registrar/ledger", "pkg/target",
	},

	"pkg/registrar": {
		"internal/backoff", "internal/latest", "internal/statedir",
		"pkg/registrar/elb", "pkg/registrar/ledger", "pkg/registrar/pacer", "pkg/target",
	},
	"pkg/registrar/elb":    {"pkg/target"},
	"pkg/registrar/ledger": {"internal/backoff", "internal/latest", "internal/statedir", "pkg/registrar/elb", "pkg/target"},
	"pkg/registrar/pacer":  {},

	"pkg/discovery":            {"internal/backoff", "internal/latest", "internal/statedir", "pkg/target"},
	"pkg/discovery/docker":     {"pkg/discovery", "pkg/target"},
	"pkg/discovery/enginetest": {"pkg/discovery", "pkg/target"},

	"pkg/config": {"pkg/target"},
	"pkg/host":   {"internal/backoff", "internal/latest", "internal/statedir"},
	"pkg/target": {},

	"internal/backoff":  {},
	"internal/latest":   {},
	"internal/logs":     {},
	"internal/statedir": {},

	"internal/elbsim":        {"internal/elbsim/iam", "internal/elbsim/limits", "internal/elbsim/wire", "pkg/target"},
	"internal/elbsim/iam":    {},
	"internal/elbsim/limits": {},
	"internal/elbsim/wire":   {},
}

// later lists the rooms that the rules name before they exist.
var later = []string{}

const (
	elbv2 = "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	moby  = "github.com/moby/moby/client"
	nat   = "github.com/docker/go-connections/nat"
)

// refusals lists what each rule is for, beyond the arrows: in file, the rule refuses to import pkg and gives the reason
// of its line that denies deny. Where deny is "", the list is strict and refuses pkg because it does not allow it.
var refusals = []struct{ rule, deny, file, pkg string }{
	{"cmd-agent", "", "cmd/agent/main.go", "github.com/spf13/cobra"},
	{"cmd-agent", "berth/", "cmd/agent/main.go", "berth/pkg/agent"},
	{"flags", "github.com/spf13/", "pkg/agent/x.go", "github.com/spf13/pflag"},
	{"flags", "github.com/spf13/", "internal/elbsim/x.go", "github.com/spf13/cobra"},

	{"agent", "berth/cmd", "pkg/agent/x.go", "berth/cmd/agent"},
	{"client", "", "pkg/client/x.go", "go.uber.org/zap"},
	{"client", "", "pkg/client/x.go", "golang.org/x/sys/unix"},
	{"status", "", "pkg/status/x.go", "go.uber.org/zap"},
	{"status", "", "pkg/status/x.go", "github.com/prometheus/client_golang/prometheus"},
	{"status", "io/fs", "pkg/status/x.go", "io/fs"},
	{"status", "net$", "pkg/status/x.go", "net"},
	{"status", "net/http", "pkg/status/x.go", "net/http"},
	{"status", "net/http", "pkg/status/x.go", "net/http/httputil"},
	{"status", "os", "pkg/status/x.go", "os"},
	{"status", "os", "pkg/status/x.go", "os/exec"},
	{"status", "syscall", "pkg/status/x.go", "syscall"},

	{"ledger", "github.com/aws/", "pkg/registrar/ledger/x.go", "github.com/aws/aws-sdk-go-v2/aws"},
	{"ledger", "github.com/aws/", "pkg/registrar/ledger/x.go", "github.com/aws/smithy-go"},
	{"pacer", "", "pkg/registrar/pacer/x.go", "go.uber.org/zap"},
	{"pacer", "", "pkg/registrar/pacer/x.go", "github.com/aws/smithy-go"},
	{"elbv2", elbv2, "cmd/agent/main.go", elbv2},
	{"elbv2", elbv2, "internal/cli/x.go", elbv2},
	{"elbv2", elbv2, "internal/elbsim/x.go", elbv2},
	{"elbv2", elbv2, "pkg/agent/x.go", elbv2 + "/types"},
	{"elbv2", elbv2, "pkg/host/x.go", elbv2},
	{"elbv2", elbv2, "pkg/registrar/x.go", elbv2},
	{"elbv2", elbv2, "pkg/registrar/pacer/x.go", elbv2},

	{"docker", "github.com/docker/", "deploy/examples/microservices/service/main.go", "github.com/docker/docker/client"},
	{"docker", "github.com/docker/", "internal/cli/x.go", "github.com/docker/docker/api/types/container"},
	{"docker", "github.com/docker/", "pkg/agent/x.go", "github.com/docker/docker/client"},
	{"docker", "github.com/docker/", "pkg/discovery/x.go", "github.com/docker/docker/client"},
	{"docker", "github.com/docker/", "pkg/discovery/x.go", nat},
	{"docker", "github.com/docker/", "pkg/discovery/enginetest/x.go", "github.com/docker/docker/client"},
	{"docker", "github.com/moby/", "pkg/discovery/x.go", moby},
	{"docker", "github.com/moby/", "pkg/server/x.go", moby},

	{"halves-docker", "github.com/aws/", "pkg/discovery/x_test.go", "github.com/aws/aws-sdk-go-v2/aws"},
	{"halves-docker", "github.com/aws/", "pkg/discovery/docker/x_test.go", "github.com/aws/smithy-go"},
	{"halves-docker", "github.com/aws/", "pkg/discovery/x.go", "github.com/aws/aws-sdk-go-v2/aws"},
	{"halves-docker", "berth/pkg/config", "pkg/discovery/x_test.go", "berth/pkg/config"},
	{"halves-docker", "berth/pkg/host", "pkg/discovery/x_test.go", "berth/pkg/host"},
	{"halves-docker", "berth/pkg/registrar", "pkg/discovery/x_test.go", "berth/pkg/registrar"},
	{"halves-docker", "berth/pkg/registrar", "pkg/discovery/enginetest/x_test.go", "berth/pkg/registrar/ledger"},
	{"halves-aws", "github.com/docker/", "pkg/registrar/x_test.go", "github.com/docker/docker/client"},
	{"halves-aws", "github.com/docker/", "pkg/registrar/elb/x.go", nat},
	{"halves-aws", "github.com/docker/", "pkg/host/x_test.go", "github.com/docker/docker/client"},
	{"halves-aws", "github.com/moby/", "pkg/registrar/x_test.go", moby},
	{"halves-aws", "github.com/moby/", "pkg/host/x.go", "github.com/moby/sys/signal"},
	{"halves-aws", "berth/pkg/config", "pkg/registrar/ledger/x_test.go", "berth/pkg/config"},
	{"halves-aws", "berth/pkg/config", "pkg/host/x_test.go", "berth/pkg/config"},
	{"halves-aws", "berth/pkg/discovery", "pkg/registrar/x_test.go", "berth/pkg/discovery"},
	{"halves-aws", "berth/pkg/discovery", "pkg/registrar/pacer/x_test.go", "berth/pkg/discovery/docker"},
	{"halves-aws", "berth/pkg/discovery", "pkg/host/x_test.go", "berth/pkg/discovery"},
	{"below", "berth/internal/cli", "pkg/discovery/docker/x_test.go", "berth/internal/cli"},
	{"below", "berth/pkg/agent", "pkg/registrar/x_test.go", "berth/pkg/agent"},
	{"below", "berth/pkg/client", "pkg/host/x_test.go", "berth/pkg/client"},
	{"below", "berth/pkg/server", "pkg/config/x_test.go", "berth/pkg/server"},
	{"below", "berth/pkg/status", "pkg/registrar/ledger/x_test.go", "berth/pkg/status"},
	{"below", "berth/pkg/status", "pkg/target/x_test.go", "berth/pkg/status"},

	{"config-text", "github.com/aws/", "pkg/config/x.go", "github.com/aws/aws-sdk-go-v2/aws/arn"},
	{"config-text", "github.com/aws/", "pkg/config/x_test.go", "github.com/aws/aws-sdk-go-v2/aws"},
	{"config-text", "github.com/docker/", "pkg/config/x_test.go", nat},
	{"config-text", "github.com/moby/", "pkg/config/x.go", "github.com/moby/sys/signal"},
	{"target", "", "pkg/target/x.go", "github.com/aws/aws-sdk-go-v2/aws"},
	{"small", "", "internal/backoff/x.go", "github.com/aws/aws-sdk-go-v2/aws"},
	{"small", "", "internal/latest/x.go", "github.com/prometheus/client_golang/prometheus"},
	{"small", "", "internal/logs/x.go", "github.com/aws/aws-sdk-go-v2/aws"},
	{"small", "", "internal/statedir/x.go", "github.com/docker/docker/client"},

	{"production", "berth/internal/elbsim", "cmd/agent/main.go", "berth/internal/elbsim"},
	{"production", "berth/internal/elbsim", "internal/cli/x.go", "berth/internal/elbsim"},
	{"production", "berth/internal/elbsim", "pkg/agent/x.go", "berth/internal/elbsim/wire"},
	{"production", "berth/pkg/discovery/enginetest", "pkg/agent/x.go", "berth/pkg/discovery/enginetest"},
	{"production", "berth/pkg/discovery/enginetest", "pkg/discovery/x.go", "berth/pkg/discovery/enginetest"},
	{"production", "berth/pkg/status/statustest", "pkg/status/x.go", "berth/pkg/status/statustest"},
	{"production", "berth/test", "internal/cli/x.go", "berth/test/harness"},
	{"production", "berth/test", "pkg/agent/x.go", "berth/test/harness"},
	{"production", "net/http/httptest", "pkg/client/x.go", "net/http/httptest"},
	{"production", "testing", "cmd/agent/main.go", "testing"},
	{"production", "testing", "internal/backoff/x.go", "testing"},
	{"production", "testing", "internal/cli/x.go", "testing"},
	{"production", "testing", "internal/latest/x.go", "testing/synctest"},
	{"production", "testing", "internal/logs/x.go", "testing"},
	{"production", "testing", "internal/statedir/x.go", "testing/fstest"},
	{"production", "testing", "pkg/discovery/enginetest/x.go", "testing"},
	{"production", "testing", "pkg/registrar/ledger/x.go", "testing"},

	{"elbsim", "berth/", "internal/elbsim/x.go", "berth/pkg/registrar"},
	{"elbsim", "berth/", "cmd/elbsim/x.go", "berth/pkg/registrar/elb"},

	{"standard", "math/rand$", "pkg/agent/x.go", "math/rand"},
	{"standard", "math/rand$", "test/harness/x.go", "math/rand"},
	{"standard", "io/ioutil", "internal/cli/x_test.go", "io/ioutil"},
	{"standard", "github.com/pkg/errors", "internal/elbsim/x.go", "github.com/pkg/errors"},
	{"standard", "gopkg.in/yaml", "test/harness/x_test.go", "gopkg.in/yaml.v3"},
}

// allowances lists what no rule refuses, beyond the arrows. Most of them are what a rule's exceptions are for.
var allowances = []struct{ file, pkg string }{
	{"cmd/agent/main.go", "os/signal"},
	{"cmd/agent/main_test.go", "github.com/rogpeppe/go-internal/testscript"},
	{"cmd/elbsim/x.go", "github.com/spf13/cobra"},
	{"cmd/elbsim/x_test.go", "berth/test/harness"},
	{"internal/cli/x.go", "github.com/aws/smithy-go"},
	{"internal/cli/x.go", "github.com/spf13/cobra"},
	{"internal/cli/x.go", "golang.org/x/term"},
	{"internal/cli/x_test.go", "berth/internal/elbsim"},
	{"pkg/agent/x.go", "github.com/coreos/go-systemd/v22/daemon"},
	{"pkg/agent/x.go", "github.com/oklog/run"},
	{"pkg/agent/x_test.go", "berth/pkg/client"},
	{"pkg/agent/x_test.go", "github.com/spf13/pflag"},
	{"pkg/client/x.go", "net/http"},
	{"pkg/client/x_test.go", "berth/pkg/server"},
	{"pkg/server/x.go", "github.com/prometheus/client_golang/prometheus/promhttp"},
	{"pkg/server/x_test.go", "berth/pkg/client"},
	{"pkg/status/x.go", "net/netip"},
	{"pkg/status/x.go", "slices"},
	{"pkg/status/x_test.go", "os"},

	{"pkg/registrar/x.go", "go.uber.org/zap"},
	{"pkg/registrar/x_test.go", "berth/internal/elbsim"},
	{"pkg/registrar/x_test.go", elbv2 + "/types"},
	{"pkg/registrar/elb/x.go", elbv2},
	{"pkg/registrar/elb/x_test.go", "berth/internal/elbsim"},
	{"pkg/registrar/ledger/x.go", "golang.org/x/sys/unix"},
	{"pkg/registrar/ledger/x_test.go", "berth/test/harness"},
	{"pkg/registrar/pacer/x.go", "math/rand/v2"},
	{"pkg/registrar/pacer/x_test.go", "pgregory.net/rapid"},
	{"test/fleet/x.go", elbv2},
	{"internal/elbsim/x_test.go", elbv2},

	{"pkg/discovery/x.go", "github.com/distribution/reference"},
	{"pkg/discovery/x.go", "github.com/moby/sys/signal"},
	{"pkg/discovery/x_test.go", "berth/pkg/discovery/enginetest"},
	{"pkg/discovery/x_test.go", "github.com/docker/docker/api/types/container"},
	{"pkg/discovery/docker/x.go", "github.com/docker/docker/client"},
	{"pkg/discovery/docker/x.go", moby},
	{"pkg/discovery/docker/x_test.go", "berth/test/harness"},
	{"pkg/discovery/enginetest/x.go", "maps"},
	{"pkg/discovery/enginetest/x_test.go", "berth/test/harness"},
	{"test/harness/x.go", "github.com/docker/docker/client"},

	{"pkg/config/x.go", "github.com/goccy/go-yaml"},
	{"pkg/config/x_test.go", "berth/test/harness"},
	{"pkg/host/x.go", "github.com/aws/aws-sdk-go-v2/service/autoscaling"},
	{"pkg/host/x_test.go", "berth/internal/elbsim"},
	{"pkg/target/x.go", "net/netip"},
	{"pkg/target/x_test.go", "github.com/google/go-cmp/cmp"},
	{"internal/backoff/x.go", "math/rand/v2"},
	{"internal/latest/x_test.go", "berth/test/harness"},
	{"internal/logs/x.go", "go.uber.org/zap/zapcore"},
	{"internal/logs/x.go", "golang.org/x/term"},
	{"internal/statedir/x.go", "github.com/google/renameio/v2"},
	{"internal/statedir/x.go", "golang.org/x/sys/unix"},

	{"internal/elbsim/x.go", "github.com/goccy/go-yaml"},
	{"internal/elbsim/x_test.go", "berth/test/harness"},
	{"internal/elbsim/wire/x.go", "encoding/xml"},
	{"internal/elbsim/wire/x_test.go", "berth/internal/elbsim"},
	{"test/rig/x.go", "berth/internal/cli"},
	{"test/demo/x.go", "github.com/spf13/pflag"},
}
