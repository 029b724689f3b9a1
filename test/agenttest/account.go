package agenttest

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"berth/internal/elbsim"
	"berth/pkg/agent"
)

// Account starts AWS on loopback and points this process at it.
func Account(t *testing.T, groups ...string) *elbsim.Sim {
	t.Helper()
	sim := Sim(t, elbsim.Config{}, groups...)
	for _, e := range Serve(t, sim).Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	return sim
}

// Sim is an account with groups of ordinary settings.
func Sim(t testing.TB, c elbsim.Config, groups ...string) *elbsim.Sim {
	t.Helper()
	sim := elbsim.New(c)
	for _, g := range groups {
		if _, err := sim.AddGroup(elbsim.Group{Name: g}); err != nil {
			t.Fatal(err)
		}
	}
	return sim
}

// Serve serves an account on loopback until the test ends.
func Serve(t testing.TB, sim *elbsim.Sim) *elbsim.Server {
	t.Helper()
	srv, err := elbsim.Start(sim, elbsim.Listen{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("end elbsim: %v", err)
		}
	})
	return srv
}

// AWS is an account without sockets: its metadata service and its API are behind an http.RoundTripper. The environment of
// the process has no say.
func AWS(sim *elbsim.Sim) agent.AWS { return awsOf(sim, imds.ClientEnabled) }

func awsOf(sim *elbsim.Sim, metadata imds.ClientEnableState) agent.AWS {
	transport := sim.TransportFor(Instance)
	return agent.AWS{
		Metadata: func(context.Context) (aws.Config, error) {
			return aws.Config{ConfigSources: []any{awsconfig.EnvConfig{EC2IMDSClientEnableState: metadata}}}, nil
		},
		Transport: transport,
		Client: func(_ context.Context, region string) (aws.Config, error) {
			return aws.Config{
				Region: region, HTTPClient: &http.Client{Transport: transport},
				Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", ""),
			}, nil
		},
	}
}
