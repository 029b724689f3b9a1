package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"berth/pkg/config"
	"berth/pkg/host"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/target"
	"berth/test/agenttest"
)

const checkedARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"

// describedGroup is Elastic Load Balancing with one target group: what it answers to each question. "error CODE" is an
// error.
type describedGroup struct {
	group, attributes, health string
	clock                     time.Duration // how far AWS's is ahead
}

// soundGroup is a target group that nothing is wrong with, described in the fields that the checks look at.
func soundGroup() map[string]string {
	return map[string]string{
		"TargetGroupArn": checkedARN, "TargetGroupName": "web", "TargetType": "instance", "Protocol": "HTTP", "Port": "80",
		"VpcId": "vpc-0a", "HealthCheckPort": "traffic-port", "HealthCheckProtocol": "HTTP",
		"LoadBalancerArns": "<member>arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/web/0a</member>",
	}
}

func describe1(change map[string]string) string {
	fields := soundGroup()
	for k, v := range change {
		fields[k] = v
	}
	var b strings.Builder
	b.WriteString("<TargetGroups><member>")
	for k, v := range fields {
		fmt.Fprintf(&b, "<%[1]s>%[2]s</%[1]s>", k, v)
	}
	b.WriteString("</member></TargetGroups>")
	return b.String()
}

func delayOf(seconds int) string {
	return fmt.Sprintf("<Attributes><member><Key>deregistration_delay.timeout_seconds</Key><Value>%d</Value></member></Attributes>", seconds)
}

func healthOf(instance string, port int, state, reason string) string {
	return fmt.Sprintf("<member><Target><Id>%s</Id><Port>%d</Port></Target><TargetHealth><State>%s</State><Reason>%s</Reason></TargetHealth></member>", instance, port, state, reason)
}

func (d *describedGroup) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action := r.FormValue("Action")
	answer := map[string]string{
		"DescribeTargetGroups": d.group, "DescribeTargetGroupAttributes": d.attributes,
		"DescribeTargetHealth": "<TargetHealthDescriptions>" + d.health + "</TargetHealthDescriptions>",
	}[action]
	if strings.HasPrefix(d.health, "error ") && action == "DescribeTargetHealth" {
		answer = d.health
	}
	w.Header().Set("Date", time.Now().Add(d.clock).UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "text/xml")
	if code, ok := strings.CutPrefix(answer, "error "); ok {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>no</Message></Error></ErrorResponse>", code)
		return
	}
	fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, answer)
}

// Each thing that can be wrong with a target group is said in one line, with what to do about it.
func TestCheck_group(t *testing.T) {
	for name, tt := range map[string]struct {
		group *describedGroup
		want  []string // lines, in order; "→" lines stand under the one they belong to
	}{
		"sound": {&describedGroup{describe1(nil), delayOf(60), "", 0}, []string{
			"[ok  ] clock: it agrees", "[ok  ] target_group web: type instance, protocol HTTP, in vpc-0a",
		}},
		"not there": {&describedGroup{"error TargetGroupNotFound", "", "", 0}, []string{
			"[fail] target_group web: DescribeTargetGroups: TargetGroupNotFound", "→ make the target group",
		}},
		"may not be looked at": {&describedGroup{"error AccessDenied", "", "", 0}, []string{
			"[fail] target_group web: DescribeTargetGroups: AccessDenied", "→ allow elasticloadbalancing:DescribeTargetGroups",
		}},
		"old credentials": {&describedGroup{"error ExpiredToken", "", "", 0}, []string{
			"[fail] target_group web: DescribeTargetGroups: ExpiredToken", "→ look at the credentials",
		}},
		"type": {&describedGroup{describe1(map[string]string{"TargetType": "lambda"}), "", "", 0}, []string{
			"[ok  ] clock", `[fail] target_group web: target type "lambda"`, "→ use a target group of type instance",
		}},
		"protocol": {&describedGroup{describe1(map[string]string{"Protocol": "GENEVE"}), "", "", 0}, []string{
			"[ok  ] clock", "[fail] target_group web: protocol GENEVE is not supported", "→ use a target group with protocol HTTP",
		}},
		"VPC": {&describedGroup{describe1(map[string]string{"VpcId": "vpc-0b"}), "", "", 0}, []string{
			"[ok  ] clock", "[fail] target_group web: it is in vpc-0b, this instance in vpc-0a", "→ use a target group in this instance's VPC",
		}},
		"no listener": {&describedGroup{describe1(map[string]string{"LoadBalancerArns": ""}), delayOf(60), "", 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[warn] target_group web: no load balancer uses it", "→ point a listener",
		}},
		"fixed port": {&describedGroup{describe1(map[string]string{"HealthCheckPort": "8081"}), delayOf(60), "", 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[fail] target_group web: its health check asks port 8081", "→ set the health check's port to traffic-port",
		}},
		"UDP over TCP": {&describedGroup{describe1(map[string]string{"Protocol": "UDP", "HealthCheckProtocol": "TCP"}), delayOf(60), "", 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[warn] target_group web: its UDP ports are checked over TCP", "→ use a TCP_UDP group",
		}},
		"long delay": {&describedGroup{describe1(nil), delayOf(300), "", 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[warn] target_group web: its deregistration delay (5m0s) is longer than drain.max_wait (2m0s)", "→ shorten the delay",
		}},
		"delay not to be seen": {&describedGroup{describe1(nil), "error AccessDenied", "", 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[skip] target_group web: DescribeTargetGroupAttributes: AccessDenied", "→ allow elasticloadbalancing:DescribeTargetGroupAttributes",
		}},
		"targets not to be seen": {&describedGroup{describe1(nil), delayOf(60), "error AccessDenied", 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[fail] target_group web: DescribeTargetHealth: AccessDenied", "→ allow elasticloadbalancing:DescribeTargetHealth",
		}},
		"autoscaling group": {&describedGroup{describe1(nil), delayOf(60), healthOf(testInstance, 80, "unhealthy", "Target.FailedHealthChecks"), 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[warn] target_group web: " + testInstance + ":80 is registered at the group's default port", "→ detach it",
		}},
		"another host's, and berth's own": {&describedGroup{
			describe1(map[string]string{"Port": "8080"}), delayOf(60),
			healthOf("i-0fedcba9876543210", 8080, "healthy", "") + healthOf(testInstance, 8080, "healthy", ""), 0,
		}, []string{
			"[ok  ] clock", "[ok  ] target_group web",
		}},
		"zone": {&describedGroup{describe1(nil), delayOf(60), healthOf(testInstance, 32768, "unused", "Target.NotInUse"), 0}, []string{
			"[ok  ] clock", "[ok  ] target_group web", "[warn] target_group web: the load balancer sends nothing to " + testInstance + ":32768", "→ enable availability zone eu-central-1a",
		}},
		"clock a little off": {&describedGroup{describe1(nil), delayOf(60), "", time.Minute}, []string{
			"[warn] clock: it is off by ", "→ start chronyd", "[ok  ] target_group web",
		}},
		"clock far off": {&describedGroup{describe1(nil), delayOf(60), "", -time.Hour}, []string{
			"[fail] clock: it is off by ", "→ AWS refuses signatures", "[ok  ] target_group web",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tt.group)
			defer srv.Close()
			cfg := config.Default()
			cfg.StateDir = stateWith(t, 8080)
			var out bytes.Buffer
			c := &checkCommand{env: &environment{stdout: &out, getenv: func(string) string { return "" }}}
			id := host.Identity{InstanceID: testInstance, Region: "eu-central-1", AvailabilityZone: "eu-central-1a", VPC: "vpc-0a", Verified: true}
			h := newCheckedHost(id, aws.Config{
				Region: "eu-central-1", BaseEndpoint: &srv.URL, Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
			}, cfg)
			c.group(t.Context(), h, config.Group{Key: "web", Name: "web"})
			lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got:\n%s\nwant %q", out.String(), tt.want)
			}
			for i, line := range lines {
				if !strings.HasPrefix(strings.TrimSpace(line), tt.want[i]) {
					t.Errorf("line %d: got %q; want %q", i+1, line, tt.want[i])
				}
			}
		})
	}
}

// stateWith is a state directory whose ledger has this host's target on a port of the checked group.
func stateWith(t *testing.T, port uint16) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	kept, err := ledger.Open(dir, "boot", ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kept.Claim(elb.Self{InstanceID: testInstance, Region: "eu-central-1"})
	entry := ledger.Entry{
		Facts: elb.Facts{ARN: checkedARN}, Target: target.Target{ID: testInstance, Port: port}, Phase: ledger.Registered,
	}
	if err := kept.Intend(t.Context(), []ledger.Entry{entry}); err != nil {
		t.Fatal(err)
	}
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What is on this host itself: Docker, the metadata service, the ledger, the units, the agent.
func TestCheck_host(t *testing.T) {
	dir := agenttest.ShortDir(t)
	systemctl := filepath.Join(dir, "systemctl")
	if err := os.WriteFile(systemctl, []byte("#!/bin/sh\ncase $2 in berth.service) echo enabled ;; berth-boot.service) echo disabled ;; esac\n"), 0o755); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	cfg := config.Default()
	cfg.StateDir, cfg.Docker.Socket = filepath.Join(dir, "none"), filepath.Join(dir, "none.sock")
	cfg.ControlSocket, cfg.StatusListen = filepath.Join(dir, "b.sock"), ""
	lines := func(look func(*checkCommand)) string {
		var out bytes.Buffer
		look(&checkCommand{env: &environment{stdout: &out, getenv: func(string) string { return "" }}})
		return out.String()
	}
	if got := lines(func(c *checkCommand) { c.docker(t.Context(), cfg) }); !strings.Contains(got, "[fail] docker: unix://"+cfg.Docker.Socket+": there is no such socket") || !strings.Contains(got, "→ install and start Docker") {
		t.Errorf("docker: %s", got)
	}
	if got := lines(func(c *checkCommand) { c.ledger(t.Context(), cfg) }); !strings.Contains(got, "[warn] ledger: ") || !strings.Contains(got, "→ berth.service makes it") {
		t.Errorf("no state directory: %s", got)
	}
	cfg.StateDir = stateWith(t, 1)
	if got := lines(func(c *checkCommand) { c.ledger(t.Context(), cfg) }); !strings.Contains(got, "[ok  ] ledger: 1 targets are on record") {
		t.Errorf("ledger: %s", got)
	}
	if err := os.WriteFile(filepath.Join(cfg.StateDir, "ledger.json"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lines(func(c *checkCommand) { c.ledger(t.Context(), cfg) }); !strings.Contains(got, "[fail] ledger: ") || !strings.Contains(got, "→ see docs/operations.md") {
		t.Errorf("a broken ledger: %s", got)
	}
	got := lines(func(c *checkCommand) { c.units(t.Context()) })
	for _, want := range []string{"[ok  ] berth.service: it is enabled", "[warn] berth-boot.service: it is disabled", "→ without it the targets of an earlier boot", "[warn] berth-drain.service: it is not installed"} {
		if !strings.Contains(got, want) {
			t.Errorf("units: %s\nwant %q", got, want)
		}
	}
	if got := lines(func(c *checkCommand) { c.agent(t.Context(), cfg) }); !strings.Contains(got, "[warn] agent: the berth agent does not answer") || !strings.Contains(got, "[skip] iam") {
		t.Errorf("agent: %s", got)
	}
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody.URL)
	if got := lines(func(c *checkCommand) { c.identity(t.Context(), cfg) }); !strings.Contains(got, "[fail] identity: the instance metadata service does not answer: dial tcp") || !strings.Contains(got, "→ see that 169.254.169.254 can be reached") {
		t.Errorf("identity: %s", got)
	}
}
