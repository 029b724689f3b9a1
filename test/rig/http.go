package rig

import (
	"io"
	"net/http"
	"testing"

	"berth/test/harness"
)

// Get returns what the agent answers at a path of its --listen address ("/readyz").
func (a *Agent) Get(t testing.TB, path string) (status int, body string) {
	t.Helper()
	at := listening.FindStringSubmatch(a.Log())
	if at == nil {
		t.Fatal("berth's log does not say where it listens")
	}
	ctx, cancel := within(t, harness.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at[1]+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
