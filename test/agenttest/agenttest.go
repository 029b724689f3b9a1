// Package agenttest is what tests that run an agent in their own process begin with.
package agenttest

import (
	"os"
	"strings"
	"testing"

	"berth/internal/elbsim"
)

// Instance is the id of the host.
const Instance = "i-0123456789abcdef0"

// Account starts AWS on loopback and points this process at it.
func Account(t *testing.T, groups ...string) *elbsim.Sim {
	t.Helper()
	sim := elbsim.New(elbsim.Config{})
	for _, g := range groups {
		if _, err := sim.AddGroup(elbsim.Group{Name: g}); err != nil {
			t.Fatal(err)
		}
	}
	srv, err := elbsim.Start(sim, elbsim.Listen{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, e := range srv.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	return sim
}

// ShortDir is a directory for sockets, whose path may have 107 bytes at most.
func ShortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
