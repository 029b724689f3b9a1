package agent_test

import (
	"net"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"berth/test/agenttest"
)

// waitingAgent runs an agent that cannot get ready, and returns what /readyz says once it is what is wanted.
func waitingAgent(t *testing.T, dockerSocket, want string) string {
	t.Helper()
	dir := agenttest.ShortDir(t)
	read := agenttest.WriteConfig(t, dir, agenttest.YAML(dir, []string{"web"}, "docker: {socket: "+dockerSocket+"}\n"))
	a := agenttest.Start(t, agenttest.Options(t, read, nil))
	text := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		r := a.Readiness()
		if text = r.Text(); r.Ready {
			t.Fatalf("it is ready:\n%s", text)
		}
		if regexp.MustCompile(want).MatchString(text) {
			return text
		}
	}
	t.Fatalf("/readyz says:\n%s\nwant %s", text, want)
	return ""
}

// Before Docker has answered for the first time /readyz names the socket, and what to change.
func TestReadiness_dockerNeverReached(t *testing.T) {
	agenttest.Account(t, "web")
	dir := agenttest.ShortDir(t)
	none := filepath.Join(dir, "none.sock")
	waitingAgent(t, none, `\[wait\] docker: not reached yet: .*unix://`+none+`: there is no such socket \(install and start Docker`)

	left := filepath.Join(dir, "left.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	waitingAgent(t, left, `docker: not reached yet: .*`+left+`: the socket is there, but nobody listens \(start Docker`)
}

// A metadata service that does not answer is one short line: what failed, for how long, and what to change.
func TestReadiness_metadataSilent(t *testing.T) {
	agenttest.Account(t, "web")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+nobody)
	text := waitingAgent(t, filepath.Join(agenttest.ShortDir(t), "none.sock"), `identity: .*, for [1-9]\d*s `)
	want := regexp.MustCompile(`(?m)^\[wait\] identity: the instance metadata service does not answer: dial tcp ` + regexp.QuoteMeta(nobody) +
		`: connect: connection refused, for \d+s \(see that 169\.254\.169\.254 can be reached.*\)$`)
	if !want.MatchString(text) {
		t.Errorf("/readyz says:\n%s", text)
	}
}
