package server

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"berth/pkg/client"
	"berth/pkg/status"
	"berth/pkg/status/statustest"
)

func TestClient_Status(t *testing.T) {
	var a agent
	a.well()
	s := serving(t, &a, defaultLimits())
	tcp := s.Addr("--status-listen").String()
	for name, c := range map[string]*client.Client{
		"socket":            client.New(s.cfg.Socket, ""),
		"socket before TCP": client.New(s.cfg.Socket, "127.0.0.1:1"),
		"TCP alone":         client.New("", tcp),
	} {
		got, err := c.Status(t.Context(), client.StatusQuery{})
		c.Close()
		if err != nil || got.API != "v1" || len(got.Rows) != 1 || got.Rows[0].State != status.Healthy {
			t.Errorf("%s: got %+v, %v; want the status", name, got, err)
		}
	}
	c := client.New(filepath.Join(t.TempDir(), "no.sock"), tcp)
	defer c.Close()
	if _, err := c.Status(t.Context(), client.StatusQuery{}); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("no socket: got %v; want no agent, whoever answers on the port", err)
	}
}

func TestClient_Status_waits(t *testing.T) {
	var a agent
	a.well()
	s := serving(t, &a, defaultLimits())
	c := client.New(s.cfg.Socket, "")
	defer c.Close()
	first, err := c.Status(t.Context(), client.StatusQuery{})
	if err != nil {
		t.Fatal(err)
	}
	same, err := c.Status(t.Context(), client.StatusQuery{After: first.Revision, Timeout: time.Millisecond})
	if err != nil || same.Revision != first.Revision {
		t.Errorf("nothing changed: got revision %s, %v; want %s", same.Revision, err, first.Revision)
	}
	d := statustest.Discovery()
	d.Seq = 2
	go a.disc.Set(d)
	next, err := c.Status(t.Context(), client.StatusQuery{After: first.Revision})
	if err != nil || next.Seq != 2 {
		t.Errorf("after a change: got seq %d, %v; want 2", next.Seq, err)
	}
}
